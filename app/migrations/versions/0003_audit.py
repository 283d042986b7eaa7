"""The audit log, which only grows."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE audit (
            happened_at timestamptz NOT NULL,
            kind text NOT NULL CHECK (kind IN ('access', 'data', 'change')),
            actor text,
            tier text,
            user_id text,
            action text NOT NULL,
            status integer,
            conversation_id text,
            owner_id text,
            address text,
            request_id text,
            reason text
        )
        """
    )
    # Rows come in the order of their time: an index of a few pages finds a day, and costs an insert nothing.
    op.execute("CREATE INDEX audit_happened_at ON audit USING brin (happened_at) WITH (pages_per_range = 32)")
    op.execute(
        """
        CREATE FUNCTION audit_only_grows() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'the audit log only grows: % is refused', TG_OP USING ERRCODE = 'insufficient_privilege';
        END
        $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER audit_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
        FOR EACH STATEMENT EXECUTE FUNCTION audit_only_grows()
        """
    )
    # Also where triggers are switched off for a session, as replication does.
    op.execute("ALTER TABLE audit ENABLE ALWAYS TRIGGER audit_only_grows")


def downgrade() -> None:
    op.execute("DROP TABLE audit")
    op.execute("DROP FUNCTION audit_only_grows")
