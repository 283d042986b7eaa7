"""The models, the agents that use them, and the turn that joins both to memory."""
