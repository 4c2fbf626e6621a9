"""Decode, resize and hash photos."""
