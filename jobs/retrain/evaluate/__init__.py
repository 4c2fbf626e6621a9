"""Evaluate candidates and champions on the same frozen test photos."""
