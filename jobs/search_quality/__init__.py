"""Keep searches right and fast: measure their recall, and care for their indexes and tables."""
