"""Work in the background: the queue, its keys, the outbox, events, analyses and messages that came in."""

from alembic import op

from agent_service.work.schema import install_queue

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    install_queue(op.get_bind())
    op.execute(
        """
        CREATE TABLE job_releases (
            release text PRIMARY KEY,
            tasks text[] NOT NULL DEFAULT '{}',
            seen_at timestamptz,
            handed_to text,
            handed_at timestamptz
        )
        """
    )
    # What was queued once is never queued again, and what is done is never done again.
    op.execute(
        """
        CREATE TABLE job_keys (
            key text PRIMARY KEY,
            task text NOT NULL,
            queued_at timestamptz NOT NULL DEFAULT now(),
            done_at timestamptz
        )
        """
    )
    op.execute(
        """
        CREATE FUNCTION enqueue_job_v1(_key text, _release text, _task text, _arguments jsonb, _lock text)
        RETURNS bigint LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO job_keys (key, task) VALUES (_key, _task) ON CONFLICT DO NOTHING;
            IF NOT FOUND THEN
                RETURN NULL;
            END IF;
            RETURN (procrastinate_defer_jobs_v1(ARRAY[
                ROW(_release, _task, 0, _lock, _key, _arguments || jsonb_build_object('key', _key), NULL)
                    ::procrastinate_job_to_defer_v1
            ]))[1];
        END
        $$
        """
    )
    op.execute(
        """
        CREATE TABLE outbox (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            key text NOT NULL UNIQUE,
            kind text NOT NULL,
            lane text,
            payload jsonb NOT NULL,
            state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'dead')),
            attempts integer NOT NULL DEFAULT 0,
            error text,
            next_at timestamptz NOT NULL DEFAULT now(),
            created_at timestamptz NOT NULL DEFAULT now(),
            sent_at timestamptz
        )
        """
    )
    op.execute("CREATE INDEX outbox_waiting ON outbox (next_at) WHERE state = 'waiting'")
    op.execute("CREATE INDEX outbox_lane ON outbox (lane, id) WHERE state = 'waiting'")
    op.execute(
        """
        CREATE TABLE events (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            type text NOT NULL,
            release text NOT NULL,
            user_id text,
            subject text NOT NULL,
            payload jsonb NOT NULL DEFAULT '{}',
            at timestamptz NOT NULL DEFAULT now(),
            dispatched_at timestamptz
        )
        """
    )
    op.execute("CREATE INDEX events_at ON events (at)")
    op.execute("CREATE INDEX events_waiting ON events (release, id) WHERE dispatched_at IS NULL")
    op.execute(
        """
        CREATE TABLE analyses (
            id uuid PRIMARY KEY,
            user_id text,
            session_id text,
            question text,
            request_id text,
            state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'done', 'failed')),
            progress real NOT NULL DEFAULT 0,
            result jsonb,
            problem jsonb,
            created_at timestamptz NOT NULL DEFAULT now(),
            finished_at timestamptz
        )
        """
    )
    op.execute(
        """
        CREATE TABLE analysis_documents (
            analysis_id uuid NOT NULL REFERENCES analyses ON DELETE CASCADE,
            position integer NOT NULL,
            name text NOT NULL,
            media_type text NOT NULL,
            url text,
            content bytea,
            PRIMARY KEY (analysis_id, position)
        )
        """
    )
    # Documents are compressed already or of no use compressed; this saves the time of trying.
    op.execute("ALTER TABLE analysis_documents ALTER content SET STORAGE EXTERNAL")
    op.execute(
        """
        CREATE TABLE inbound_messages (
            id text PRIMARY KEY,
            chat text NOT NULL,
            sender text NOT NULL,
            text text NOT NULL,
            request_id text,
            state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'answered', 'failed')),
            received_at timestamptz NOT NULL DEFAULT now(),
            answered_at timestamptz
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION enqueue_job_v1")
    op.execute("DROP TABLE inbound_messages, analysis_documents, analyses, events, outbox, job_keys, job_releases")
