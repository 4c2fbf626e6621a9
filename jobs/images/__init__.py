"""Decode, resize and hash images."""
