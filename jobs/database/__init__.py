"""Every query of the catalog."""
