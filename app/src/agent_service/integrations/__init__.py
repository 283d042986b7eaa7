"""Other systems that the service writes to: each a client, a check and a kind of effect in the outbox."""
