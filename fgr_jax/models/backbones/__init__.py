"""Backbones: images `[B, H, W, 3]` to features `[B, h, w, D]`."""
