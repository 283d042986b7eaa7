"""What the team's tools keep: cash entries and leads, each of one user."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE cash_entries (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            user_id text NOT NULL,
            direction text NOT NULL CHECK (direction IN ('in', 'out')),
            amount numeric(18, 2) NOT NULL CHECK (amount > 0),
            currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
            due_on date NOT NULL,
            description text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now()
        )
        """
    )
    op.execute("CREATE INDEX cash_entries_user_id ON cash_entries (user_id, currency, due_on)")
    op.execute(
        """
        CREATE TABLE leads (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            user_id text NOT NULL,
            name text NOT NULL,
            company text NOT NULL,
            score integer NOT NULL CHECK (score BETWEEN 0 AND 100),
            grade text NOT NULL,
            reasons text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            UNIQUE (user_id, name, company)
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE leads, cash_entries")
