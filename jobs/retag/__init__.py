"""Apply new champions to the whole catalog, then switch to them. Roll back to earlier champions."""
