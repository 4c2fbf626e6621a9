"""Break each part of an installation, and read the line of its check."""

import json
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from subprocess import DEVNULL, Popen

import pytest
from sqlalchemy import make_url

from fixtures.command_line import run_job
from fixtures.job_processes import wait_until
from fixtures.postgres import create_database, execute
from fixtures.s3_server import S3Server
from fixtures.shop import Shop, change_settings
from jobs.connections import open_connections
from jobs.doctor.airflow_checks import (
    AIRFLOW_VARIABLES,
    AirflowExamination,
    AirflowLocation,
    AirflowState,
    find_airflow,
)
from jobs.doctor.checks import Check, CheckResult, Finding, run_checks
from jobs.doctor.doctor import NAMES
from jobs.doctor.machine_checks import check_clock, check_disk, check_query_service, compare_clocks
from jobs.doctor.model_checks import check_model
from jobs.doctor.storage_checks import check_artifacts, check_source
from jobs.errors import EXIT_PERMANENT, EXIT_RETRY, ConfigurationError, PermanentError, RetryableError
from jobs.local.ports import find_free_port, is_port_open
from jobs.local.s3_endpoint import make_s3_service
from jobs.local.stack_files import load_credentials
from jobs.settings import PROJECT_ROOT, make_settings
from jobs.storage.locations import S3Uri
from tests.serve.conftest import RunningService, run_service

TOKEN = "a token of the tests, not a secret".replace(" ", "-")


@pytest.fixture(scope="module")
def environment(live_shop: Shop, service: RunningService) -> dict[str, str]:
    """The environment of an installation in which everything works, except that it has no Airflow."""
    return {**live_shop.environment, "CATALOG_QUERY_SERVICE_URL": service.url}


@pytest.fixture(autouse=True)
def without_airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the Airflow that tests of the plugins configure for the whole session."""
    for name in AIRFLOW_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def examine(environment: Mapping[str, str]) -> tuple[int, dict[str, CheckResult]]:
    """Run the command; return its exit code and the result of each check."""
    finished = run_job("doctor", environment=environment)
    results = [CheckResult(**record) for record in json.loads(finished.output)]
    assert [result.name for result in results] == ["settings", *NAMES]
    return finished.exit_code, {result.name: result for result in results}


def test_a_working_installation_has_no_failure(environment: dict[str, str], live_shop: Shop) -> None:
    exit_code, results = examine(environment)
    assert exit_code == 0
    states = {name: result.state for name, result in results.items()}
    assert {name for name, state in states.items() if state == "skipped"} == {"airflow", "dags", "pool"}
    assert "set AIRFLOW_HOME" in results["airflow"].detail
    assert results["encoder"].detail == "encoder 2 loads as torch fp32 on cpu"
    assert results["query service"].detail.endswith("serves classifier 1 and encoder 2")
    assert "doctor/probe" not in live_shop.list_artifacts()


def test_everything_that_works_is_checked_without_a_database(environment: dict[str, str]) -> None:
    url = make_url(environment["CATALOG_DATABASE_URL"]).set(host="127.0.0.1", port=find_free_port())
    broken = environment | {"CATALOG_DATABASE_URL": url.render_as_string(hide_password=False)}
    exit_code, results = examine(broken)
    assert exit_code == EXIT_RETRY
    assert (results["database"].state, results["database"].exit_code) == ("failed", EXIT_RETRY)
    assert results["database"].detail.startswith("cannot reach the database at 127.0.0.1:")
    skipped = {name: result.detail for name, result in results.items() if result.state == "skipped"}
    assert skipped["schema"] == "needs pgvector"
    assert skipped["classifier"] == "needs schema"
    assert skipped["clock"] == "needs database"
    assert results["source"].state == results["artifacts"].state == "ok"


def test_invalid_settings_skip_everything_else(environment: dict[str, str]) -> None:
    exit_code, results = examine(environment | {"CATALOG_SOURCE_URI": "images"})
    assert exit_code == EXIT_PERMANENT
    assert results["settings"].detail.startswith("CATALOG_SOURCE_URI: must look like s3://bucket/prefix")
    assert {results[name].state for name in NAMES} == {"skipped"}


def test_the_schema_and_the_extension_are_checked(postgres_server: str, environment: dict[str, str]) -> None:
    with create_database(postgres_server, "template1") as url:
        empty = environment | {"CATALOG_DATABASE_URL": url}
        _, results = examine(empty)
        assert "not installed in this database: run `catalog migrate`" in results["pgvector"].detail
        execute(url, "CREATE EXTENSION vector")
        exit_code, results = examine(empty)
        assert exit_code == EXIT_PERMANENT
        assert results["schema"].detail == (
            "the catalog schema is missing or outdated (0001.catalog): run `catalog migrate`"
        )


def test_the_login_the_rights_and_the_views_are_checked(
    postgres_server: str, template_database: str, environment: dict[str, str]
) -> None:
    with create_database(postgres_server, template_database) as url:
        execute(
            url,
            "CREATE ROLE doctor_reader LOGIN PASSWORD 'right'",
            "GRANT USAGE ON SCHEMA catalog TO doctor_reader",
            "GRANT SELECT ON ALL TABLES IN SCHEMA catalog TO doctor_reader",
            "DROP FUNCTION catalog.similar_products",
        )
        try:
            reader = make_url(url).set(username="doctor_reader", password="right").render_as_string(hide_password=False)
            _, results = examine(environment | {"CATALOG_DATABASE_URL": reader})
            assert results["rights"].detail.startswith("role doctor_reader does not own catalog.")
            assert "(similar_products): run `catalog migrate`" in results["schema"].detail
            missing = make_url(url).set(username="nobody").render_as_string(hide_password=False)
            exit_code, results = examine(environment | {"CATALOG_DATABASE_URL": missing})
            assert exit_code == EXIT_PERMANENT
            assert "refuses the login" in results["database"].detail
        finally:
            execute(url, "DROP OWNED BY doctor_reader", "DROP ROLE doctor_reader")


@pytest.fixture
def read_only_endpoint(s3_server: S3Server) -> Iterator[str]:
    """Serve the same buckets with the same keys, but refuse writes."""
    port, folder = find_free_port(), s3_server.buckets.parent
    command = make_s3_service(folder, port, load_credentials(folder)).command
    with Popen(
        [*command.argv, "--read-only"], env=dict(command.environment), stdout=DEVNULL, stderr=DEVNULL
    ) as process:
        wait_until(lambda: is_port_open(port))
        yield f"http://127.0.0.1:{port}"
        process.kill()


def test_the_bucket_must_be_readable_and_the_artifacts_writable(live_shop: Shop, read_only_endpoint: str) -> None:
    settings = make_settings(live_shop.environment | {"CATALOG_S3_ENDPOINT_URL": read_only_endpoint})
    connections = open_connections(settings)
    assert check_source(connections).state == "ok"
    with pytest.raises(
        (ConfigurationError, RetryableError), match=f"{read_only_endpoint} returned .* for s3://.*probe"
    ):
        check_artifacts(connections)
    connections.engine.dispose()
    wrong = open_connections(make_settings(live_shop.environment | {"AWS_SECRET_ACCESS_KEY": "0" * 40}))
    with pytest.raises(ConfigurationError, match="SignatureDoesNotMatch"):
        check_source(wrong)
    missing = open_connections(make_settings(live_shop.environment | {"CATALOG_ARTIFACTS_URI": "s3://no-such-bucket/"}))
    with pytest.raises(ConfigurationError, match="NoSuchBucket"):
        check_artifacts(missing)


def test_models_without_files_or_builds_are_named(tagging_shop: Shop) -> None:
    connections, cache = tagging_shop.connections, tagging_shop.connections.settings.locations.model_cache
    url, buckets = str(connections.settings.locations.database_url), tagging_shop.bucket_folder.parent
    ((checkpoint_uri, build_uri),) = tagging_shop.query("""
        SELECT v.artifact_uri, b.artifact_uri
        FROM catalog.model_versions v JOIN catalog.model_builds b USING (model_version_id) WHERE kind = 'classifier'
    """)
    execute(url, "UPDATE catalog.model_builds SET device_class = 'cuda'")
    finding = check_model(connections, "classifier")
    assert (finding.state, "has no build for cpu yet" in finding.sentence) == ("warning", True)
    execute(url, "UPDATE catalog.model_builds SET device_class = 'cpu'")
    assert check_model(connections, "classifier").state == "ok"
    (weights,) = (buckets / build_uri.removeprefix("s3://")).glob("*.safetensors")
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    shutil.rmtree(cache)
    with pytest.raises(PermanentError, match="do not match the registered hash"):
        check_model(connections, "classifier")
    connections.store.delete(S3Uri.parse(checkpoint_uri) / "config.json")
    with pytest.raises(PermanentError, match=r"classifier 1 lacks config\.json in s3://"):
        check_model(connections, "classifier")


def test_an_installation_without_models_is_warned(shop: Shop) -> None:
    finding = check_model(shop.connections, "encoder")
    assert (finding.state, finding.sentence.startswith("no champion yet")) == ("warning", True)
    assert check_source(shop.connections).state == "warning"


def test_the_query_service_must_accept_the_token(live_shop: Shop) -> None:
    with run_service(live_shop.with_settings(query_token=TOKEN)) as service:
        service.wait_until_ready()
        right = change_settings(live_shop.connections.settings, query_service_url=service.url, query_token=TOKEN)
        assert check_query_service(right.serving).state == "ok"
        wrong = change_settings(right, query_token="another-token-of-the-tests")
        with pytest.raises(ConfigurationError, match="rejects the token"):
            check_query_service(wrong.serving)
    with pytest.raises(RetryableError, match="start it with `catalog serve`"):
        check_query_service(right.serving)


def test_the_disk_must_be_writable_and_have_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_disk(tmp_path / "new").state in ("ok", "warning")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="set CATALOG_MODEL_CACHE"):
        check_disk(tmp_path / "file" / "cache")
    monkeypatch.setattr("jobs.doctor.machine_checks.LOW_FREE_BYTES", 1e18)
    assert check_disk(tmp_path).state == "warning"
    monkeypatch.setattr("jobs.doctor.machine_checks.MIN_FREE_BYTES", int(1e18))
    with pytest.raises(PermanentError, match="free space on its disk"):
        check_disk(tmp_path)


def test_clocks_are_compared(live_shop: Shop) -> None:
    assert check_clock(live_shop.connections).state == "ok"
    late = compare_clocks({"the database": 0.1, "the bucket": -42.0})
    assert (late.state, late.sentence.startswith("the bucket is 42.0 s behind this machine")) == ("warning", True)
    with pytest.raises(ConfigurationError, match=r"the database is 301\.0 s ahead of this machine: set the clocks"):
        compare_clocks({"the database": 301.0, "the bucket": 0.0})


def test_a_check_that_hangs_or_crashes_does_not_stop_the_others() -> None:
    never = threading.Event()

    def hang() -> Finding:
        never.wait()
        return Finding("")

    def crash() -> Finding:
        raise KeyError("name")

    results = run_checks(
        [
            Check("slow", hang, deadline_seconds=0.05),
            Check("broken", crash),
            Check("after", lambda: Finding("fine"), ("broken", "slow")),
            Check("last", lambda: Finding("fine")),
        ]
    )
    never.set()
    assert [(one.state, one.exit_code) for one in results] == [
        ("failed", EXIT_RETRY),
        ("failed", EXIT_PERMANENT),
        ("skipped", 0),
        ("ok", 0),
    ]
    assert results[0].detail == "no result within 0.05 s: it hangs or is very slow"
    assert results[2].detail == "needs broken and slow"


def test_dags_and_pool_are_compared_with_the_project() -> None:
    names = sorted(path.stem for path in PROJECT_ROOT.glob("dags/*.py"))
    examination = AirflowExamination(AirflowLocation({}, 3), ("catalog_deliver",))
    healthy = AirflowState("3", "", {}, dict.fromkeys(names, False), {}, {"catalog_gpu": 3})

    def see(**changes: object) -> None:
        examination._state = AirflowState(**{**vars(healthy), **changes})

    see()
    assert (examination.check_dags().state, examination.check_pool().state) == ("ok", "ok")
    see(paused=dict.fromkeys(names, True), pools={"catalog_gpu": 1})
    assert examination.check_dags().sentence.startswith("paused: catalog_ingest, catalog_maintenance, ")
    assert examination.check_pool().sentence.endswith("run `airflow pools set catalog_gpu 3 tagging`")
    see(paused={}, import_errors={"model_retrain.py": "SyntaxError: no"}, pools={})
    with pytest.raises(ConfigurationError, match=r"model_retrain.py: SyntaxError: no; no DAG catalog_deliver"):
        examination.check_dags()
    with pytest.raises(ConfigurationError, match="there is no pool catalog_gpu"):
        examination.check_pool()


def test_airflow_is_found_by_its_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_airflow(2, tmp_path) is None
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://nobody@127.0.0.1:1/airflow")
    found = find_airflow(2, tmp_path)
    assert found is not None
    assert found.slots == 2
