"""Take screenshots of every page of the running local stack, in a light and a dark theme, wide and narrow.

python -m tests.end_to_end.take_screenshots FOLDER
"""

import sys
from pathlib import Path

from sqlalchemy import create_engine, text

from jobs.database.engine import driver_url
from jobs.local.stack import read_status
from jobs.settings import LOCAL_STACK_FOLDER, load_settings
from tests.end_to_end.pages_browser import open_browser

WIDTHS = (1280, 390)


def list_pages() -> dict[str, str]:
    """Return the path of each page, with ids from the current catalog."""
    with create_engine(driver_url(load_settings().locations.database_url)).connect() as connection:
        product = connection.execute(
            text(
                "SELECT product_id FROM catalog.products WHERE display_name ILIKE '%striped dress%' ORDER BY 1 LIMIT 1"
            )
        ).scalar_one()
        run = connection.execute(
            text("SELECT run_id FROM catalog.tagging_runs ORDER BY entries DESC, started_at DESC LIMIT 1")
        ).scalar_one()
        classifier, trained_by = connection.execute(
            text("""
                SELECT c.model_version_id, e.run_id FROM catalog.champion_models c
                LEFT JOIN catalog.evaluations e ON e.candidate_version_id = c.model_version_id
                WHERE c.kind = 'classifier' ORDER BY e.evaluation_id LIMIT 1
            """)
        ).one()
    return {
        "overview": "overview",
        "run": f"run?run={run.replace('+', '%2B')}",
        "images": "images?category=dress&min_confidence=40&max_confidence=95&sort=least_confident",
        "product": f"product?id={product}",
        "search": "search?q=red+striped+dress",
        "map": "map",
        "review": "review",
        "models": "models",
        "model": f"models/{classifier}",
        "evaluation": f"evaluations/classifier?run={str(trained_by).replace('+', '%2B')}",
        "failures": "failures",
        "error": "product?id=no+such",
    }


def main(folder: Path) -> None:
    """Write one PNG for each page, theme and width."""
    folder.mkdir(parents=True, exist_ok=True)
    status = read_status(LOCAL_STACK_FOLDER)
    assert status.airflow_url is not None
    assert status.password is not None
    with open_browser(status.airflow_url, status.username, status.password) as browser:
        for theme in ("light", "dark"):
            browser.choose_theme(theme)
            for width in WIDTHS:
                browser.resize(width)
                for name, path in list_pages().items():
                    browser.open(path)
                    browser.page.wait_for_load_state("networkidle")
                    browser.page.screenshot(path=folder / f"{name}-{theme}-{width}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
