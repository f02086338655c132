"""The outputs of a network's frozen part, computed once, kept in files, and trained on from there."""
