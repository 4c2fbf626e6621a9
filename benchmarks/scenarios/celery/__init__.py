"""Tag a catalog with real Celery workers on separate machines: `python -m benchmarks.scenarios.celery`."""
