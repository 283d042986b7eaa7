"""What outlives a request: history in PostgreSQL, sessions in Redis."""
