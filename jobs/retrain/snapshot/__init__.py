"""Build snapshots of the examples: immutable labelled data sets, split without leaks."""
