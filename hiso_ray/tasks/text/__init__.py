"""Turns benchmarks and a user's own data into prompts, answers, tokens and scores."""
