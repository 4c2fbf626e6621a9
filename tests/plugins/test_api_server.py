"""What the plugin costs the API server that loads it, asked of Airflow's own application in fresh processes."""

from pathlib import Path

from benchmarks.serving.api_server import PLUGINS, start_api_server

MOST_GROWTH_MIB = 50


def test_the_pages_cost_little_memory_and_nothing_heavy(tmp_path: Path) -> None:
    without = start_api_server(tmp_path, tmp_path / "none")
    plugged = start_api_server(tmp_path, PLUGINS)
    # Asked for by nobody in particular, which is enough to load all that pages need.
    assert plugged.page_status == 401
    assert plugged.heavy == []
    assert plugged.page_mib - without.page_mib <= MOST_GROWTH_MIB
    # The start alone loads hardly more than an address.
    assert plugged.start_mib - without.start_mib <= MOST_GROWTH_MIB / 5
