"""Run all queries on the catalog."""
