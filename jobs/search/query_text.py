"""Which texts may be asked for."""

MAX_QUERY_BYTES = 2000
"""More than any encoder reads; ``catalog.text_queries`` takes no more."""


def find_text_fault(query_text: str) -> str | None:
    """Why a text cannot be asked for, in words for whoever asked; None if it can."""
    if not query_text.strip():
        return "the query is empty: say what to look for"
    if "\0" in query_text or any("\ud800" <= character <= "\udfff" for character in query_text):
        return "the query holds characters that are in no text: NUL, or half of a surrogate pair"
    size_bytes = len(query_text.encode())
    if size_bytes > MAX_QUERY_BYTES:
        return f"the query has {size_bytes} bytes, at most {MAX_QUERY_BYTES} are read"
    return None
