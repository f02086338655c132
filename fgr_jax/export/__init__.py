"""Writes the trained network of a run for use in other programs."""
