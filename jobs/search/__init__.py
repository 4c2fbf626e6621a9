"""Search the catalog from Python: by text, by product or by image."""

from jobs.database.search import ProductHit
from jobs.search.by_image import similar_products, similar_products_by_image
from jobs.search.by_text import search_products

__all__ = ["ProductHit", "search_products", "similar_products", "similar_products_by_image"]
