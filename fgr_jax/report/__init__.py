"""A one-page report on what a run has learned."""
