"""Evaluates a trained network on a test split."""
