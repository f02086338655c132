"""Trains many runs and collects them in a table and a figure."""
