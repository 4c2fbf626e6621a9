"""Train candidates on a snapshot."""
