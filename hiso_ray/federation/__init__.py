"""Who holds what, who takes part, and what travels."""
