"""Predicts the classes of image files."""
