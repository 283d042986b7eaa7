"""What users say of answers, and what events and effects follow from."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    # One of each for an answer: whoever thinks again changes theirs.
    op.execute(
        """
        CREATE TABLE feedback (
            conversation_id text NOT NULL REFERENCES conversations ON DELETE CASCADE,
            position integer NOT NULL,
            given_by text NOT NULL,
            user_id text,
            agent text,
            model text,
            request_id text,
            scale text NOT NULL CHECK (scale IN ('thumbs', 'stars')),
            rating smallint NOT NULL CHECK (
                CASE scale WHEN 'thumbs' THEN rating IN (-1, 1) ELSE rating BETWEEN 1 AND 5 END
            ),
            comment text,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (conversation_id, position, given_by)
        )
        """
    )
    op.execute("CREATE INDEX feedback_updated_at ON feedback (updated_at)")
    # Of code that does not know it, null.
    op.execute("ALTER TABLE events ADD COLUMN origin jsonb")
    op.execute("ALTER TABLE outbox ADD COLUMN origin jsonb")


def downgrade() -> None:
    op.execute("ALTER TABLE outbox DROP COLUMN origin")
    op.execute("ALTER TABLE events DROP COLUMN origin")
    op.execute("DROP TABLE feedback")
