"""Define sequences of jobs to kill, and check that nothing was lost or duplicated."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text

from benchmarks.scenarios.chaos.jobs import JobRunner
from benchmarks.scenarios.chaos.tally import Violations
from fixtures.candidates import make_colored_image
from fixtures.catalog_rows import register_model
from fixtures.champions import make_champion
from fixtures.gate_results import store_gate_results
from fixtures.shop import CATEGORIES, Shop, TinyModels, promote_tiny_models
from jobs.database.promotions import ChampionDecision, insert_decision
from jobs.settings import PROJECT_ROOT

SQL = PROJECT_ROOT / "sql"
IMAGES = 40
LABELED = 12
"""Images per category."""
RUN = ("--run", "night")
LIVE_CHAMPIONS = "SELECT count(*) FROM catalog.live_models JOIN catalog.champion_models USING (model_version_id)"
GATES = {
    "CATALOG_TEST_SHARE": "0.3",
    "CATALOG_GATE_POLICY": str(Path(__file__).with_name("any_classifier.toml")),
    "CATALOG_PRECISION": "fp32",
}
"""Gates that any classifier passes. These scenarios only check that a repeated decision is the same."""


@dataclass(frozen=True)
class Sandbox:
    """A shop, models for it, and a folder for files.

    ``postgres_folder`` is the data folder of its own Postgres, or None if the server is shared.
    """

    shop: Shop
    models: TinyModels
    folder: Path
    postgres_folder: Path | None = None

    @property
    def jobs(self) -> JobRunner:
        """Return a runner for jobs on this shop."""
        own = {"CATALOG_CLASSIFIER_BASE": str(self.models.classifier), "CATALOG_ENCODER_BASE": str(self.models.encoder)}
        return JobRunner(self.shop.environment | GATES | own, self.folder)

    def count(self, statement: str) -> int:
        """Return the single number that a statement returns."""
        ((number,),) = self.shop.query(statement)
        return int(number)

    def compare(self, statement: str, expected: int) -> Violations:
        """Return the violations if a statement returns another number than expected."""
        number = self.count(statement)
        return Violations(lost=max(expected - number, 0), duplicated=max(number - expected, 0))


Words = tuple[str, ...]


@dataclass(frozen=True)
class Scenario:
    """Consecutive jobs, and the number of kills: in a complete run of the benchmark, and per sandbox."""

    name: str
    kills: int
    kills_per_sandbox: int
    prepare: Callable[[Sandbox], None]
    list_jobs: Callable[[Sandbox], Iterator[Words]]
    """Yields each job after the previous one has succeeded, so that arguments can depend on its results."""
    check: Callable[[Sandbox], Violations]


def open_shop(sandbox: Sandbox) -> None:
    """Open a shop with images to tag."""
    promote_tiny_models(sandbox.shop, sandbox.models)
    sandbox.shop.put_images(IMAGES)


def check_codes(sandbox: Sandbox) -> Violations:
    """Check that the vector codes contain the current categories."""
    try:
        sandbox.shop.assert_codes_are_current()
    except AssertionError:
        return Violations(lost=1)
    return Violations()


def check_tags(sandbox: Sandbox) -> Violations:
    """Check that each image has one tag and one vector, and was processed once."""
    return (
        check_codes(sandbox)
        + sandbox.compare("SELECT count(*) FROM catalog.current_image_tags", IMAGES)
        + sandbox.compare("SELECT count(*) FROM catalog.image_embeddings WHERE space_id = catalog.live_space()", IMAGES)
        + sandbox.compare("SELECT coalesce(sum(tagged), 0) FROM catalog.run_chunks", IMAGES)
        + sandbox.compare("SELECT count(*) FROM catalog.item_failures", 0)
        + sandbox.compare("SELECT count(*) FROM catalog.embedding_spaces", 1)
    )


def list_ingest(_: Sandbox) -> Iterator[Words]:
    """Ingest in one command."""
    yield ("ingest",)


def list_night(sandbox: Sandbox) -> Iterator[Words]:
    """Ingest as Airflow runs it."""
    yield ("discover", *RUN)
    for shard in range(sandbox.count("SELECT count(*) FROM catalog.run_shards WHERE run_id = 'night'")):
        yield ("tag-shard", str(shard), *RUN)
    yield ("publish", *RUN)
    yield ("report", *RUN)


def promote_others(sandbox: Sandbox) -> None:
    """Tag a catalog, then promote a new champion of each kind without making it live."""
    open_shop(sandbox)
    assert sandbox.jobs.run("ingest").exit_code == 0
    make_champion(sandbox.shop.connections, sandbox.models.other_classifier, "classifier")
    make_champion(sandbox.shop.connections, sandbox.models.other_encoder, "encoder")


def list_retag(_: Sandbox) -> Iterator[Words]:
    """Retag in one command."""
    yield ("retag",)


def list_retag_steps(sandbox: Sandbox) -> Iterator[Words]:
    """Retag as Airflow runs it."""
    run = ("--run", "retag")
    yield ("plan-retag", *run)
    for shard in range(sandbox.count("SELECT count(*) FROM catalog.run_shards WHERE run_id = 'retag'")):
        yield ("tag-shard", str(shard), *run)
    yield ("complete-retag", *run)


def check_retag(sandbox: Sandbox) -> Violations:
    """Check that the champions are live, went live once, and tagged each image once."""
    return (
        check_codes(sandbox)
        + sandbox.compare("SELECT count(*) FROM catalog.current_image_tags", IMAGES)
        + sandbox.compare("SELECT count(*) FROM catalog.image_embeddings WHERE space_id = catalog.live_space()", IMAGES)
        + sandbox.compare("SELECT coalesce(sum(tagged), 0) FROM catalog.run_chunks", 2 * IMAGES)
        + sandbox.compare(LIVE_CHAMPIONS, 2)
        + sandbox.compare("SELECT count(*) FROM catalog.switches WHERE replaced_version_id IS NOT NULL", 2)
    )


def retag_new_champions(sandbox: Sandbox) -> None:
    """Promote a new champion of each kind, and retag the catalog to make them live."""
    promote_others(sandbox)
    assert sandbox.jobs.run("retag").exit_code == 0


def list_rollbacks(_: Sandbox) -> Iterator[Words]:
    """Roll back both kinds."""
    yield ("rollback", "classifier")
    yield ("rollback", "encoder")


def check_rollback(sandbox: Sandbox) -> Violations:
    """Check that the first versions are champions and live again, with one promotion each."""
    return (
        sandbox.compare("SELECT count(*) FROM catalog.promotions", 6)
        + sandbox.compare(LIVE_CHAMPIONS, 2)
        + sandbox.compare("SELECT count(*) FROM catalog.current_image_tags", IMAGES)
        + sandbox.compare(
            "SELECT count(*) FROM catalog.live_models WHERE model_version_id IN "
            "(SELECT min(model_version_id) FROM catalog.model_versions GROUP BY kind)",
            2,
        )
    )


def write_label_set(sandbox: Sandbox) -> None:
    """Write labeled images into one folder per category."""
    for category in CATEGORIES:
        folder = sandbox.folder / "labeled" / category
        folder.mkdir(parents=True)
        for number in range(LABELED):
            (folder / f"{number}.jpg").write_bytes(make_colored_image(category, number))


def list_import(sandbox: Sandbox) -> Iterator[Words]:
    """Import the labels."""
    yield ("import-labels", "folders", str(sandbox.folder / "labeled"))


def check_import(sandbox: Sandbox) -> Violations:
    """Check that each label exists once, with its bytes in the artifacts."""
    stored = [key for key in sandbox.shop.list_artifacts() if "/examples/" in f"/{key}"]
    wanted = LABELED * len(CATEGORIES)
    return sandbox.compare("SELECT count(*) FROM catalog.examples", wanted) + Violations(
        lost=max(wanted - len(stored), 0)
    )


def list_retraining(sandbox: Sandbox) -> Iterator[Words]:
    """Retrain from labels to the first champion, as Airflow runs it."""
    yield from list_import(sandbox)
    yield ("snapshot",)
    ((snapshot,),) = sandbox.shop.query("SELECT snapshot_id FROM catalog.dataset_snapshots")
    yield ("train", "classifier", *RUN, "--snapshot", snapshot, "--epochs", "3", "--from-scratch")
    yield ("optimize", "classifier", *RUN)
    yield ("evaluate", "classifier", *RUN)
    yield ("gate", "classifier", *RUN)
    yield ("promote", "classifier", *RUN)


def check_retraining(sandbox: Sandbox) -> Violations:
    """Check that there is one snapshot, one training and one champion."""
    return (
        check_import(sandbox)
        + sandbox.compare("SELECT count(*) FROM catalog.dataset_snapshots", 1)
        + sandbox.compare("SELECT count(*) FROM catalog.trainings", 1)
        + sandbox.compare("SELECT count(*) FROM catalog.promotions", 1)
        + sandbox.compare("SELECT count(*) FROM catalog.live_models", 1)
    )


def do_nothing(_: Sandbox) -> None:
    """Leave the catalog empty."""


def list_adoption(_: Sandbox) -> Iterator[Words]:
    """Adopt the first encoder."""
    yield ("adopt", "encoder")


def check_adoption(sandbox: Sandbox) -> Violations:
    """Check that there is one version, which was promoted once."""
    return sandbox.compare("SELECT count(*) FROM catalog.model_versions", 1) + sandbox.compare(
        "SELECT count(*) FROM catalog.promotions", 1
    )


def tag_shop(sandbox: Sandbox) -> None:
    """Tag a catalog."""
    open_shop(sandbox)
    assert sandbox.jobs.run("ingest").exit_code == 0


def list_texts(_: Sandbox) -> Iterator[Words]:
    """Embed a text."""
    yield ("embed-text", "a red hat")


def check_texts(sandbox: Sandbox) -> Violations:
    """Check that the text is stored once."""
    return sandbox.compare("SELECT count(*) FROM catalog.text_queries", 1)


def decide_promotion(sandbox: Sandbox) -> None:
    """Store a candidate that passed its gates, and a decision to promote it."""
    tag_shop(sandbox)
    with sandbox.shop.connections.engine.begin() as connection:
        candidate = register_model(connection, "classifier")
        store_gate_results(connection, "night", "classifier", candidate)
        insert_decision(connection, ChampionDecision("classifier", "night", None, "because", "anna"))


def decide_rollback(sandbox: Sandbox) -> None:
    """Make both new champions live, and store a decision to roll the encoder back."""
    retag_new_champions(sandbox)
    assert sandbox.jobs.run("embed-text", "a red hat").exit_code == 0
    with sandbox.shop.connections.engine.begin() as connection:
        first = sandbox.count("SELECT min(model_version_id) FROM catalog.model_versions WHERE kind = 'encoder'")
        insert_decision(connection, ChampionDecision("encoder", None, first, "because", "anna"))


def check_decided_rollback(sandbox: Sandbox) -> Violations:
    """Check that the rollback was carried out once, and that the texts are embedded."""
    live = "SELECT encoder_version_id FROM catalog.embedding_spaces WHERE state = 'live'"
    return (
        check_decision(sandbox)
        + check_codes(sandbox)
        + sandbox.compare(f"SELECT count(*) FROM catalog.text_queries WHERE encoder_version_id = ({live})", 1)
    )


def list_decision(_: Sandbox) -> Iterator[Words]:
    """Carry out the decision, as the page does."""
    yield ("decide", "1")


def check_decision(sandbox: Sandbox) -> Violations:
    """Check that the decision was carried out once."""
    return sandbox.compare("SELECT count(*) FROM catalog.promotions WHERE promoted_by = 'anna'", 1)


def drop_schema(sandbox: Sandbox) -> None:
    """Drop the schema, as before the first `migrate`."""
    with sandbox.shop.connections.engine.begin() as connection:
        connection.execute(text("DROP SCHEMA catalog CASCADE"))


def list_migration(_: Sandbox) -> Iterator[Words]:
    """Migrate, and create the buckets, although they exist."""
    yield ("migrate",)
    yield ("create-buckets",)


def check_migration(sandbox: Sandbox) -> Violations:
    """Check that every migration is recorded once, and that every view exists."""
    migrations = len(list(SQL.glob("migrations/*.sql")))
    return (
        sandbox.compare("SELECT count(*) FROM catalog.migrations", migrations)
        + sandbox.compare(
            "SELECT count(*) FROM pg_views WHERE schemaname = 'catalog'", len(list(SQL.glob("views/*.sql")))
        )
        + sandbox.compare("SELECT count(*) FROM catalog.images", 0)
    )


def import_label_set(sandbox: Sandbox) -> None:
    """Import labels to retrain with."""
    write_label_set(sandbox)
    assert sandbox.jobs.run(*next(list_import(sandbox))).exit_code == 0


def list_whole_retraining(_: Sandbox) -> Iterator[Words]:
    """Retrain from labels to the first champion in one command."""
    yield ("retrain", "--kinds", "classifier", *RUN, "--classifier-freeze", "backbone")


def list_drop(_: Sandbox) -> Iterator[Words]:
    """Drop the previous live space."""
    yield ("spaces", "drop", "1")


def check_drop(sandbox: Sandbox) -> Violations:
    """Check that only the vectors of the dropped space are gone."""
    return sandbox.compare("SELECT count(*) FROM catalog.image_embeddings", IMAGES) + check_retag(sandbox)


SCENARIOS = (
    Scenario("kill ingest", 40, 5, open_shop, list_ingest, check_tags),
    Scenario("kill discover, tag-shard, publish, report", 24, 6, open_shop, list_night, check_tags),
    Scenario("kill retag", 15, 3, promote_others, list_retag, check_retag),
    Scenario("kill plan-retag, tag-shard, complete-retag", 15, 5, promote_others, list_retag_steps, check_retag),
    Scenario("kill rollback", 12, 4, retag_new_champions, list_rollbacks, check_rollback),
    Scenario("kill import-labels", 10, 4, write_label_set, list_import, check_import),
    Scenario(
        "kill snapshot, train, optimize, evaluate, gate, promote",
        30,
        10,
        write_label_set,
        list_retraining,
        check_retraining,
    ),
    Scenario("kill retrain", 10, 5, import_label_set, list_whole_retraining, check_retraining),
    Scenario("kill adopt", 8, 2, do_nothing, list_adoption, check_adoption),
    Scenario("kill embed-text", 6, 3, tag_shop, list_texts, check_texts),
    Scenario("kill decide (promotion)", 4, 2, decide_promotion, list_decision, check_decision),
    Scenario("kill decide (rollback)", 4, 2, decide_rollback, list_decision, check_decided_rollback),
    Scenario("kill spaces drop", 4, 2, retag_new_champions, list_drop, check_drop),
    Scenario("kill migrate, create-buckets", 12, 4, drop_schema, list_migration, check_migration),
)
