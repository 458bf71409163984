"""Reads run folders; draws and tabulates. pandas and matplotlib, never torch."""
