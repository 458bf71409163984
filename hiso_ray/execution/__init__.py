"""Who computes: the round loop, and two executors that must agree bit for bit."""
