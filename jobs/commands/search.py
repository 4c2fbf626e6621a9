"""Commands that ask the catalog."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from jobs.commands.reports import print_report
from jobs.commands.terminal import show

app = typer.Typer()

CategoryOption = Annotated[str | None, typer.Option(help="Only products of this category.")]
CountOption = Annotated[int, typer.Option("-k", min=1, help="How many answers.")]
SheetOption = Annotated[Path | None, typer.Option("--png", help="Draw the answers with their photos into this file.")]


@app.command()
def embed_text(query_text: Annotated[str, typer.Argument(help="The text that SQL will ask for.")]) -> None:
    """Embed a text, so that catalog.search_products can be asked for it in SQL."""
    from jobs.connections import connect
    from jobs.search.by_text import embed_text_query
    from jobs.search.encoders import load_text_embedder
    from jobs.settings import load_settings

    with connect(load_settings()) as connections:
        is_new = embed_text_query(connections.engine, partial(load_text_embedder, connections), query_text)
    print_report({"query_text": query_text, "is_new": is_new})


@app.command()
def search(
    query_text: Annotated[str | None, typer.Argument(help="What to look for; without it, a prompt.")] = None,
    k: CountOption = 10,
    category: CategoryOption = None,
    png: SheetOption = None,
) -> None:
    """Find the products that fit a text best."""
    from jobs.commands.search_session import prompt_for_searches, show_text_search
    from jobs.connections import connect
    from jobs.settings import load_settings

    with connect(load_settings()) as connections:
        if query_text is None:
            prompt_for_searches(connections, k, category, partial(input, "search> "), show)
        else:
            show_text_search(connections, query_text, k, category, png, show)


@app.command()
def similar(
    product_id: Annotated[str, typer.Argument(help="The product to compare with.")],
    k: CountOption = 10,
    category: CategoryOption = None,
    png: SheetOption = None,
) -> None:
    """Find the products that look most like one."""
    from jobs.commands.search_session import show_similar_products
    from jobs.connections import connect
    from jobs.settings import load_settings

    with connect(load_settings()) as connections:
        show_similar_products(connections, product_id, k, category, png, show)
