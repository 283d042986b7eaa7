"""An AI-agent service: chat over HTTP, history in PostgreSQL, sessions in Redis."""
