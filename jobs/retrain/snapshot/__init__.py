"""Build snapshots: immutable labeled data sets, split without leaks."""
