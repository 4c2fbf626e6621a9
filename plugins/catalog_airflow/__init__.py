"""What the catalog's DAGs share."""
