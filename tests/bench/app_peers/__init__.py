"""What the agent service is measured beside, each run by uvicorn in an environment of its own."""
