"""The image tasks."""
