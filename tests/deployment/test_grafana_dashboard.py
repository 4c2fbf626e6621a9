"""Compare the dashboard for Grafana with the metrics that Airflow and the query service export, and run its SQL."""

import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import Connection, text

from jobs.serve.metrics import ServiceMetrics
from jobs.settings import PROJECT_ROOT

DASHBOARD: dict[str, Any] = json.loads((PROJECT_ROOT / "deploy" / "grafana-dashboard.json").read_text(encoding="utf-8"))
TARGETS = [target for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
QUERIES = [target["expr"] for target in TARGETS if "expr" in target]
STATEMENTS = [target["rawSql"] for target in TARGETS if "rawSql" in target]


def find_names(query: str) -> set[str]:
    """Return the metrics of a query in PromQL: its names, except functions, labels and durations."""
    without_labels = re.sub(r"offset \w+|\{[^}]*\}|\[[^\]]*\]|\b(?:by|without|on) *\([^)]*\)", " ", query)
    return set(re.findall(r"\b[a-zA-Z_:]\w*\b(?! *\()", without_labels)) - {"sum", "max", "or", "offset"}


def list_airflow_metrics() -> Iterator[str]:
    """Return Airflow's metrics as the exporter for StatsD names them: timers become summaries."""
    # Importing Airflow would configure the logging of the tests.
    package = find_spec("airflow")
    assert package
    assert package.origin
    registry = Path(package.origin).with_name("_shared") / "observability" / "metrics" / "metrics_template.yaml"
    for metric in yaml.safe_load(registry.read_text(encoding="utf-8"))["metrics"]:
        name = f"airflow_{re.sub(r'[.-]', '_', metric['name'])}"
        yield from (f"{name}_sum", f"{name}_count") if metric["type"] == "timer" else (name,)


def list_service_metrics() -> set[str]:
    """Return the names that the query service exports, once each metric has a value."""
    metrics = ServiceMetrics()
    metrics.requests.labels("/classify", "200").inc()
    metrics.seconds.labels("/classify").observe(0.1)
    metrics.batch_sizes.labels("classify").observe(1)
    metrics.follow_queue("/classify", lambda: 0.0)
    metrics.follow_version("classifier", lambda: 1.0)
    lines = metrics.render().decode().splitlines()
    return {re.split(r"[{ ]", line)[0] for line in lines if not line.startswith("#")}


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ('sum by (kind) (increase(a_total{state="b", c="d"}[1d]))', {"a_total"}),
        ("histogram_quantile(0.95, sum by (le) (rate(a_bucket[5m]))) / max(b)", {"a_bucket", "b"}),
    ],
)
def test_names_are_found_in_promql(query: str, names: set[str]) -> None:
    assert find_names(query) == names


def test_every_metric_is_exported() -> None:
    exported = {*list_airflow_metrics(), *list_service_metrics()}
    used = {name for query in QUERIES for name in find_names(query)}
    assert len(used) > 10
    assert used <= exported


@pytest.mark.parametrize("statement", STATEMENTS)
def test_every_statement_runs(statement: str, connection: Connection) -> None:
    connection.execute(text(re.sub(r"\$__timeFilter\((\w+)\)", r"\1 > now() - interval '7 days'", statement)))


def test_every_panel_has_its_own_place_and_source() -> None:
    places: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        x, y, width, height = (panel["gridPos"][name] for name in "xywh")
        cells = set(product(range(x, x + width), range(y, y + height)))
        assert not cells & places, panel["title"]
        places |= cells
    sources = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = {target["datasource"]["uid"] for target in TARGETS}
    assert used == {f"${{{name}}}" for name in sources}
