"""What the server does with answers: attacks, aggregation, privacy, weights."""
