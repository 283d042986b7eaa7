"""The subcommands of agentctl; each loads what it needs when it runs."""
