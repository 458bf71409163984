"""The server: aggregation, privacy, weights, and the simulated attacks on it."""
