"""Run jobs with unwritable folders, full disks and damaged files."""

from pathlib import Path

import psutil
import pytest

from fixtures.command_line import run_job
from fixtures.job_processes import start_job
from fixtures.shop import Shop
from jobs.database.tagging_runs import read_run
from jobs.errors import PermanentError
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions, plan_run
from jobs.storage.locations import manifest_location, shard_location


def test_a_file_in_place_of_the_cache_gives_one_line(tagging_shop: Shop, tmp_path: Path) -> None:
    tagging_shop.put_images(2)
    (tmp_path / "cache").write_text("")
    answer = run_job("ingest", environment=tagging_shop.environment | {"CATALOG_MODEL_CACHE": str(tmp_path / "cache")})
    assert answer.exit_code == 78
    assert str(tmp_path / "cache") in answer.error
    assert "CATALOG_MODEL_CACHE" in answer.error


def test_a_full_disk_gives_one_line(tagging_shop: Shop, tmp_path: Path) -> None:
    tagging_shop.put_images(2)
    messages = tmp_path / "messages"
    empty_cache = {"CATALOG_MODEL_CACHE": str(tmp_path / "cache")}
    job = start_job("ingest", environment=tagging_shop.environment | empty_cache, messages=messages)
    # Limit the file size to less than a checkpoint. Filling a real disk would require mounting one.
    psutil.Process(job.pid).rlimit(psutil.RLIMIT_FSIZE, (20_000, 20_000))
    job.join(60)
    assert job.exitcode == 78, messages.read_text()
    last = messages.read_text().splitlines()[-1]
    assert last.startswith("error: ")
    assert "cannot be written" in last
    assert "Traceback" not in messages.read_text()


@pytest.mark.parametrize("content", [b"", b"no parquet", b"PAR1" + bytes(20) + b"PAR1"])
def test_a_damaged_shard_is_reported(content: bytes, tagging_shop: Shop) -> None:
    connections = tagging_shop.connections
    tagging_shop.put_images(2)
    plan_run(connections, "night", IngestOptions())
    connections.store.write(shard_location(manifest_location(connections.artifacts, "night"), 0), content)
    with pytest.raises(PermanentError, match="a shard of the manifest is damaged"):
        ingest(connections, IngestOptions(run_id="night"))


def test_a_missing_shard_and_an_unknown_run_are_reported(tagging_shop: Shop) -> None:
    connections = tagging_shop.connections
    tagging_shop.put_images(2)
    plan_run(connections, "night", IngestOptions())
    location = shard_location(manifest_location(connections.artifacts, "night"), 0)
    connections.store._client.delete_object(Bucket=location.bucket, Key=location.key)
    with pytest.raises(PermanentError, match="NoSuchKey"):
        ingest(connections, IngestOptions(run_id="night"))
    for command in (["publish"], ["report"], ["tag-shard", "0"], ["complete-retag"], ["ingest"]):
        answer = run_job(*command, "--run", "never", environment=tagging_shop.environment)
        assert answer.exit_code == 78, command
        assert "never" in answer.error
    with connections.engine.connect() as connection:
        assert read_run(connection, "never", "ingest") is None
