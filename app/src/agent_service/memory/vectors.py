"""The columns for vector search: made where the database has pgvector, and text search serves where it has not."""

# A block of its own, so that a role that may not make the extension does not undo the migration around it.
# Vectors of any length: models differ, and only those of one model are ever compared.
INSTALL = """
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector') THEN
        CREATE EXTENSION IF NOT EXISTS vector;
        ALTER TABLE memories
            ADD COLUMN IF NOT EXISTS embedding vector, ADD COLUMN IF NOT EXISTS embedding_model text;
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'pgvector is there, and may be made by an administrator only: CREATE EXTENSION vector';
END
$$
"""
# Whether they are there.
THERE = """
SELECT EXISTS (
    SELECT FROM pg_attribute
    WHERE attrelid = to_regclass('memories') AND attname = 'embedding_model' AND NOT attisdropped
)
"""
