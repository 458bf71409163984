"""The simulated federation: partition, cohorts, devices and traffic."""
