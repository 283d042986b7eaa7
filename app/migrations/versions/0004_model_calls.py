"""The calls of models, with what they cost."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    # No reference to conversations: what was paid for outlives what was said.
    op.execute(
        """
        CREATE TABLE model_calls (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            called_at timestamptz NOT NULL,
            request_id text,
            session_id text,
            user_id text,
            agent text NOT NULL,
            model text NOT NULL,
            outcome text NOT NULL,
            milliseconds integer NOT NULL,
            input_tokens integer,
            output_tokens integer,
            cached_tokens integer,
            cost_usd numeric
        )
        """
    )
    op.execute("CREATE INDEX model_calls_called_at ON model_calls (called_at)")


def downgrade() -> None:
    op.execute("DROP TABLE model_calls")
