"""Decide whether a candidate may be promoted, and render the page that shows why."""
