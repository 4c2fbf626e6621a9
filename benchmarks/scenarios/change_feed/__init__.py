"""Kill the writers and the reader of the change feed, and compare a replica with its source."""
