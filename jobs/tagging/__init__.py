"""The ingest flow: discover -> manifest -> shards -> [read -> decode -> predict -> write] -> publish -> report."""
