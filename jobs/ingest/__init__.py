"""The ingest flow: discover, plan, then for each shard read, decode, predict and write, then publish and report."""
