"""Candidates for fewer rounds, in plain torch on top of the product's own federation: its
partition, cohorts, minibatches, directions, losses and scores. ``fewer_rounds`` runs them."""
