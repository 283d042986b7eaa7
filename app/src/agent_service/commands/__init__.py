"""The subcommands of agentctl, a module each: arguments() declares its options, run() does it."""
