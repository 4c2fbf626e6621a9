"""Run the ingest flow: discover, plan, for each shard read, decode, predict and write, then publish and report."""
