"""Comparing two runs, and repeating a run, bit by bit."""
