"""The team of specialists: what team.yml declares, who gets a message, and the agents that answer."""
