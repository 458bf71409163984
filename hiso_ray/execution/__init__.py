"""The round loop, and two executors whose results must agree bit for bit."""
