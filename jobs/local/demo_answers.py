"""What the demo shows at the end: questions with their answers, and what to try next."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text

from jobs.connections import Connections
from jobs.local.stack import StackStatus
from jobs.search.console import show_similar_products, show_text_search

Write = Callable[[str], None]

COUNT_CATEGORIES = "SELECT category, count(*) FROM catalog.current_image_tags GROUP BY category ORDER BY 2 DESC"


@dataclass(frozen=True)
class DemoQuestions:
    """The questions of a demo; ``text`` is None where the encoder cannot read. Sheets are pictures of the answers."""

    text: str | None
    text_sheet: Path
    product_sheet: Path


def show_answers(connections: Connections, questions: DemoQuestions, write: Write) -> None:
    """Answer a text, a product and a count, each with its SQL."""
    if questions.text is not None:
        write(f"\nSELECT * FROM catalog.search_products('{questions.text}', k => 5);")
        show_text_search(connections, questions.text, 5, None, questions.text_sheet, write)
    product_id = _choose_product(connections)
    if product_id is not None:
        write(f"\nSELECT * FROM catalog.similar_products('{product_id}', k => 5);")
        show_similar_products(connections, product_id, 5, None, questions.product_sheet, write)
    with connections.engine.connect() as connection:
        rows = connection.execute(text(COUNT_CATEGORIES)).all()
    if rows:
        write(f"\n{COUNT_CATEGORIES};")
        write("\n".join(f"  {category:<10} {count:5d}" for category, count in rows))


def show_next_steps(connections: Connections, questions: DemoQuestions, status: StackStatus, write: Write) -> None:
    """Name three commands, the page with the search, and the login."""
    jobs, product_id = ".venv/bin/python -m jobs", _choose_product(connections)
    first = f'search "{questions.text}" -k 10 --png .local/answer.png' if questions.text else "spaces"
    write("\nTry next:")
    write(f"  {jobs} {first}")
    write(f"  {jobs} similar {product_id} --png .local/answer.png")
    write(f"  {jobs} models list")
    write(f"Search page: {status.airflow_url}/catalog/search   user: {status.username}   password: {status.password}")
    write("Stop it all with `make down`.")


def _choose_product(connections: Connections) -> str | None:
    """The first product with more than one photo, or else the first one."""
    statement = text("""
        SELECT product_id FROM catalog.images i
        WHERE deleted_at IS NULL AND EXISTS (SELECT FROM catalog.image_embeddings e WHERE e.image_id = i.image_id)
        GROUP BY product_id ORDER BY count(*) > 1 DESC, product_id LIMIT 1
    """)
    with connections.engine.connect() as connection:
        product_id: str | None = connection.scalar(statement)
    return product_id
