"""Serves a trained network on this machine: a page for a browser, and an interface of JSON."""
