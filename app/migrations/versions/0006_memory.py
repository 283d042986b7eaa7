"""Summaries of conversations, and what is remembered of users."""

from alembic import op

from agent_service.memory.vectors import INSTALL

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE conversation_summaries (
            conversation_id text PRIMARY KEY REFERENCES conversations ON DELETE CASCADE,
            position integer NOT NULL,
            content text NOT NULL,
            model text NOT NULL,
            updated_at timestamptz NOT NULL DEFAULT now()
        )
        """
    )
    op.execute(
        """
        CREATE TABLE memories (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            user_id text NOT NULL,
            content text NOT NULL,
            words tsvector NOT NULL,
            session_id text,
            created_at timestamptz NOT NULL DEFAULT now()
        )
        """
    )
    # A user has hundreds: theirs are found by this, and compared one by one, which is exact.
    op.execute("CREATE UNIQUE INDEX memories_user ON memories (user_id, md5(content))")
    op.execute(INSTALL)


def downgrade() -> None:
    # The extension may serve others by now.
    op.execute("DROP TABLE memories, conversation_summaries")
