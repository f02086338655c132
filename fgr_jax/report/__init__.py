"""Reports what a run has learned on one page."""
