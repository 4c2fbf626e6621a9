"""Commands that search the catalog."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from jobs.commands.reports import print_report
from jobs.commands.search_session import prompt_for_searches, show_similar_products, show_text_search
from jobs.commands.terminal import show
from jobs.connections import connect
from jobs.search.by_text import embed_text_query
from jobs.search.encoders import load_text_embedder
from jobs.settings import load_settings

app = typer.Typer()

CategoryOption = Annotated[str | None, typer.Option(help="Only products of this category.")]
CountOption = Annotated[int, typer.Option("-k", min=1, help="Number of results.")]
SheetOption = Annotated[Path | None, typer.Option("--png", help="Write the results with their images to this file.")]


@app.command()
def embed_text(query_text: Annotated[str, typer.Argument(help="Text to search for in SQL.")]) -> None:
    """Store the vector of a text, for catalog.search_products in SQL."""
    with connect(load_settings()) as connections:
        is_new = embed_text_query(connections.engine, partial(load_text_embedder, connections), query_text)
    print_report({"query_text": query_text, "is_new": is_new})


@app.command()
def search(
    query_text: Annotated[str | None, typer.Argument(help="Text to search for. Without it, a prompt opens.")] = None,
    k: CountOption = 10,
    category: CategoryOption = None,
    png: SheetOption = None,
) -> None:
    """Search products by text."""
    with connect(load_settings()) as connections:
        if query_text is None:
            prompt_for_searches(connections, k, category, partial(input, "search> "), show)
        else:
            show_text_search(connections, query_text, k, category, png, show)


@app.command()
def similar(
    product_id: Annotated[str, typer.Argument(help="Product to compare with.")],
    k: CountOption = 10,
    category: CategoryOption = None,
    png: SheetOption = None,
) -> None:
    """Find products that look like another product."""
    with connect(load_settings()) as connections:
        show_similar_products(connections, product_id, k, category, png, show)
