"""Erase images: everything that the catalog, the artifacts and the caches hold of them."""
