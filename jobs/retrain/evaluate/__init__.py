"""Evaluate a candidate and the champion on the same test images."""
