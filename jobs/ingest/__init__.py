"""Run the ingest flow: discover, plan, then read, decode, predict and write each shard, then publish and report."""
