"""From examples to snapshots: immutable labelled data sets, split without leaks."""
