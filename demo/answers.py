"""What the demo shows at the end: questions with their answers, and what to try next."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jobs.commands.search_session import show_similar_products, show_text_search
from jobs.connections import Connections
from jobs.database.products import choose_example_product
from jobs.local.stack import StackStatus

Write = Callable[[str], None]

COUNT_CATEGORIES = "SELECT category, count(*) FROM catalog.current_image_tags GROUP BY category ORDER BY 2 DESC"


@dataclass(frozen=True)
class DemoQuestions:
    """The questions of a demo; sheets are pictures of the answers.

    ``text`` is None if the encoder cannot read, ``product_id`` if no photo has a vector.
    """

    text: str | None
    product_id: str | None
    text_sheet: Path
    product_sheet: Path


def show_answers(connections: Connections, questions: DemoQuestions, write: Write) -> None:
    """Answer a text, a product and a count, each with its SQL."""
    if questions.text is not None:
        write(f"\nSELECT * FROM catalog.search_products('{questions.text}', k => 5);")
        show_text_search(connections, questions.text, 5, None, questions.text_sheet, write)
    if questions.product_id is not None:
        write(f"\nSELECT * FROM catalog.similar_products('{questions.product_id}', k => 5);")
        show_similar_products(connections, questions.product_id, 5, None, questions.product_sheet, write)
    with connections.engine.connect() as connection:
        rows = connection.exec_driver_sql(COUNT_CATEGORIES).all()
    if rows:
        write(f"\n{COUNT_CATEGORIES};")
        write("\n".join(f"  {category:<10} {count:5d}" for category, count in rows))


def show_next_steps(questions: DemoQuestions, status: StackStatus, write: Write) -> None:
    """Name three commands, the page with the search, and the login."""
    search = f'search "{questions.text}" -k 10 --png .local/answer.png' if questions.text else "spaces list"
    similar = f"similar {questions.product_id} --png .local/answer.png" if questions.product_id else "ingest --plan"
    write("\nTry next:")
    for command in (search, similar, "models list"):
        write(f"  .venv/bin/python -m jobs {command}")
    write(f"Search page: {status.airflow_url}/catalog/search   user: {status.username}   password: {status.password}")
    write("Stop it all with `make down`.")


def choose_product(connections: Connections) -> str | None:
    """Return the first product with more than one photo, or else the first one; None where no photo has a vector."""
    with connections.engine.connect() as connection:
        return choose_example_product(connection)
