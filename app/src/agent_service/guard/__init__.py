"""Who may call, how much of it, and what is kept about it."""
