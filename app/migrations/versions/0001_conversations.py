"""Conversations and their messages."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE conversations (
            id text PRIMARY KEY,
            user_id text,
            message_count integer NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now()
        )
        """
    )
    op.execute(
        """
        CREATE TABLE messages (
            conversation_id text NOT NULL REFERENCES conversations ON DELETE CASCADE,
            position integer NOT NULL,
            role text NOT NULL CHECK (role IN ('user', 'assistant')),
            content text NOT NULL,
            request_id text,
            agent text,
            model text,
            input_tokens integer,
            output_tokens integer,
            created_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (conversation_id, position)
        )
        """
    )
    op.execute("CREATE INDEX conversations_user_id ON conversations (user_id, updated_at)")


def downgrade() -> None:
    op.execute("DROP TABLE messages, conversations")
