"""Search the catalog from a shell."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Annotated

import typer

from jobs.commands.options import give_examples
from jobs.commands.terminal import print_report, print_text, prints_json, show
from jobs.connections import Connections, connect
from jobs.database.images import find_first_image, find_image_object
from jobs.database.products import require_category, require_product
from jobs.database.search import ProductHit, search_by_product
from jobs.errors import ConfigurationError, PermanentError
from jobs.search.by_text import embed_text_query, find_products_by_text
from jobs.search.contact_sheet import SearchQuery, render_contact_sheet
from jobs.search.encoders import load_text_embedder
from jobs.settings import load_settings
from jobs.storage.locations import S3Uri

app = typer.Typer()

CategoryOption = Annotated[str | None, typer.Option(help="Only products of this category.")]
CountOption = Annotated[int, typer.Option("-k", min=1, help="Number of results.")]
SheetOption = Annotated[Path | None, typer.Option("--png", help="Write the results with their images to this file.")]


@app.command(epilog=give_examples('catalog embed-text "red dress"'))
def embed_text(query_text: Annotated[str, typer.Argument(help="Text to search for in SQL.")]) -> None:
    """Store the vector of a text, for catalog.search_products in SQL."""
    with connect(load_settings()) as connections:
        is_new = embed_text_query(connections.engine, partial(load_text_embedder, connections), query_text)
    print_report({"query_text": query_text, "is_new": is_new})


@app.command(
    epilog=give_examples(
        'catalog search "red dress"',
        'catalog search "red dress" -k 5 --category dress --png result.png',
        "catalog search",
    )
)
def search(
    query_text: Annotated[str | None, typer.Argument(help="Text to search for. Without it, a prompt opens.")] = None,
    k: CountOption = 10,
    category: CategoryOption = None,
    png: SheetOption = None,
) -> None:
    """Search products by text."""
    with connect(load_settings()) as connections:
        if query_text is None:
            prompt_for_searches(connections, k, category, partial(input, "" if prints_json() else "search> "))
        else:
            show_text_search(connections, query_text, k, category, png)


@app.command(epilog=give_examples("catalog similar sku1", "catalog similar sku1 -k 5 --png similar.png"))
def similar(
    product_id: Annotated[str, typer.Argument(help="Product to compare with.")],
    k: CountOption = 10,
    category: CategoryOption = None,
    png: SheetOption = None,
) -> None:
    """Find products that look like another product."""
    with connect(load_settings()) as connections:
        show_similar_products(connections, product_id, k, category, png)


def show_text_search(
    connections: Connections, query_text: str, k: int, category: str | None, sheet: Path | None
) -> None:
    """Print the results for one text."""
    load_encoder = partial(load_text_embedder, connections)
    hits = find_products_by_text(connections.engine, load_encoder, query_text, k, category)
    _show(connections, SearchQuery(query_text), hits, category, sheet)


def show_similar_products(
    connections: Connections, product_id: str, k: int, category: str | None, sheet: Path | None
) -> None:
    """Print the products that look like another one."""
    with connections.engine.connect() as connection:
        require_product(connection, product_id)
        hits = search_by_product(connection, product_id, k, category)
        image_id = find_first_image(connection, product_id)
    _show(connections, SearchQuery(f"like {product_id}", image_id), hits, category, sheet)


def prompt_for_searches(connections: Connections, k: int, category: str | None, ask: Callable[[], str]) -> None:
    """Search for one text after another until an empty line or the end of the input. A refused text is reported."""
    load_encoder = cache(partial(load_text_embedder, connections))
    while True:
        try:
            query_text = ask().strip()
        except EOFError:
            return
        if not query_text:
            return
        try:
            hits = find_products_by_text(connections.engine, load_encoder, query_text, k, category)
        except PermanentError as error:
            show(f"error: {error}", err=True)
        else:
            _print_hits(connections, hits, category)


def format_hits(hits: Sequence[ProductHit]) -> str:
    """Return one line for each hit: rank, similarity, product, category, name."""
    if not hits:
        return "nothing found"
    width = max(len(hit.product_id) for hit in hits)
    return "\n".join(_format_hit(rank, hit, width) for rank, hit in enumerate(hits, start=1))


def _format_hit(rank: int, hit: ProductHit, width: int) -> str:
    name = hit.display_name or ""
    return f"{rank:3d}. {hit.similarity:.3f}  {hit.product_id:<{width}}  {hit.category or '-':<12}  {name}".rstrip()


def _print_hits(connections: Connections, hits: Sequence[ProductHit], category: str | None) -> None:
    if category is not None and not hits:
        with connections.engine.connect() as connection:
            require_category(connection, category)
    print_text(hits, format_hits(hits))


def _show(
    connections: Connections,
    query: SearchQuery,
    hits: Sequence[ProductHit],
    category: str | None,
    sheet: Path | None,
) -> None:
    _print_hits(connections, hits, category)
    if sheet is None:
        return

    def read_image(image_id: int) -> bytes:
        # Results may come from several buckets, so read from the bucket of the image.
        with connections.engine.connect() as connection:
            image = find_image_object(connection, image_id)
        assert image is not None
        return connections.store.read(S3Uri(image.bucket, image.object_key))

    try:
        render_contact_sheet(query, hits, read_image).save(sheet, format="PNG")
    except OSError as error:
        raise ConfigurationError(f"cannot write {sheet}: {error.strerror}") from None
    if not prints_json():
        show(f"contact sheet: {sheet}")
