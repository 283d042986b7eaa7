"""Access to models: providers and tiers, failures, prices, the budget and the response cache."""
