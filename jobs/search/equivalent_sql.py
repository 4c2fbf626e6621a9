"""A search as the SQL that answers it, for people to copy."""


def write_text_search(query_text: str, k: int, category: str | None) -> str:
    """The text must have been embedded, which every search for it does."""
    return _write_call("search_products", _quote(query_text), str(k), category)


def write_similar_search(product_id: str, k: int, category: str | None) -> str:
    """More like a product."""
    return _write_call("similar_products", _quote(product_id), str(k), category)


def write_photo_search(vector: str, space_id: int, k: int, category: str | None) -> str:
    """A vector as pgvector writes it, of a space that is live."""
    return _write_call("nearest_products", f"{_quote(vector)}, {space_id}", str(k), category)


def _write_call(function: str, question: str, k: str, category: str | None) -> str:
    arguments = ", ".join((question, k, *([_quote(category)] if category is not None else [])))
    return f"SELECT * FROM catalog.{function}({arguments});"


def _quote(value: str) -> str:
    # Backslashes are themselves in a text of standard SQL.
    return "'" + value.replace("'", "''") + "'"
