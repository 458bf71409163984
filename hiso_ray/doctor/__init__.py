"""Whether a cluster is fit for a run: what each node says of itself, and what follows."""
