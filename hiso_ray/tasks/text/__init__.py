"""Benchmarks and a user's own data as prompts, answers, tokens and scores."""
