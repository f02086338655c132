"""Measures speed and cost, or predicts them for machines that are not at hand."""
