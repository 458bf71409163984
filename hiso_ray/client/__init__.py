"""The client: its replica of the model, its turns, and diagnostics."""
