"""Heads: features `[B, h, w, D]` to `Outputs`."""
