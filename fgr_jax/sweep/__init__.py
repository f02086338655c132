"""Tables and figures of many runs."""
