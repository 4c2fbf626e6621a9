"""Deliver what the catalog says about products to other systems: the change feed, webhooks, exports."""
