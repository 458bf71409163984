"""What a client does: its replica of the model, its turns, and what it can measure."""
