"""Settings, logs, metrics and the service manager: what every other part rests on."""
