"""A page that shows what a run has learned."""
