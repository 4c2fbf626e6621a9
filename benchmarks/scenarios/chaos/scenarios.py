"""What is killed: flows of jobs, and how to tell that nothing was lost or done twice."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text

from benchmarks.scenarios.chaos.jobs import JobRunner
from benchmarks.scenarios.chaos.ledger import Harm
from fixtures.candidates import make_coloured_photo
from fixtures.catalog_rows import register_model
from fixtures.champions import make_champion
from fixtures.gate_results import store_gate_results
from fixtures.shop import CATEGORIES, Shop, TinyModels, promote_tiny_models
from jobs.database.promotions import ChampionDecision, insert_decision
from jobs.settings import PROJECT_ROOT

SQL = PROJECT_ROOT / "sql"
PHOTOS = 40
LABELLED = 12
"""Photos of each category."""
RUN = ("--run", "night")
LIVE_CHAMPIONS = "SELECT count(*) FROM catalog.live_models JOIN catalog.champion_models USING (model_version_id)"
GATES = {
    "CATALOG_TEST_SHARE": "0.3",
    "CATALOG_GATE_POLICY": str(Path(__file__).with_name("any_classifier.toml")),
    "CATALOG_PRECISION": "fp32",
}
"""What any classifier passes: here they decide again and again, and not well."""


@dataclass(frozen=True)
class World:
    """A shop of its own, the models that it may get, and a folder for files.

    ``postgres_folder`` is that of its Postgres, unless it shares one.
    """

    shop: Shop
    models: TinyModels
    folder: Path
    postgres_folder: Path | None = None

    @property
    def jobs(self) -> JobRunner:
        """Runs jobs on this shop."""
        own = {"CATALOG_CLASSIFIER_BASE": str(self.models.classifier), "CATALOG_ENCODER_BASE": str(self.models.encoder)}
        return JobRunner(self.shop.environment | GATES | own, self.folder)

    def count(self, statement: str) -> int:
        """The one number that a statement gives."""
        ((number,),) = self.shop.query(statement)
        return int(number)

    def compare(self, statement: str, expected: int) -> Harm:
        """Harm, if a number is not what it should be."""
        number = self.count(statement)
        return Harm(lost=max(expected - number, 0), duplicated=max(number - expected, 0))


Words = tuple[str, ...]


@dataclass(frozen=True)
class Scenario:
    """Jobs that follow each other, ``kills`` of them killed in a whole run of the benchmark, some in each world."""

    name: str
    kills: int
    kills_of_a_world: int
    prepare: Callable[[World], None]
    list_jobs: Callable[[World], Iterator[Words]]
    """Each job is asked for when the one before has ended well."""
    judge: Callable[[World], Harm]


def open_shop(world: World) -> None:
    """Photos that nobody has tagged."""
    promote_tiny_models(world.shop, world.models)
    world.shop.put_photos(PHOTOS)


def judge_codes(world: World) -> Harm:
    """Searches in large categories know every vector by its categories of now."""
    try:
        world.shop.assert_codes_are_current()
    except AssertionError:
        return Harm(lost=1)
    return Harm()


def judge_tags(world: World) -> Harm:
    """Each photo has one tag and one vector, and was computed once."""
    return (
        judge_codes(world)
        + world.compare("SELECT count(*) FROM catalog.current_image_tags", PHOTOS)
        + world.compare("SELECT count(*) FROM catalog.image_embeddings WHERE space_id = catalog.live_space()", PHOTOS)
        + world.compare("SELECT coalesce(sum(tagged), 0) FROM catalog.run_chunks", PHOTOS)
        + world.compare("SELECT count(*) FROM catalog.item_failures", 0)
        + world.compare("SELECT count(*) FROM catalog.embedding_spaces", 1)
    )


def list_ingest(_: World) -> Iterator[Words]:
    """The night in one command."""
    yield ("ingest",)


def list_night(world: World) -> Iterator[Words]:
    """The night as Airflow runs it."""
    yield ("discover", *RUN)
    for shard in range(world.count("SELECT count(*) FROM catalog.run_shards WHERE run_id = 'night'")):
        yield ("tag-shard", str(shard), *RUN)
    yield ("publish", *RUN)
    yield ("report", *RUN)


def promote_others(world: World) -> None:
    """A tagged catalog, and new champions of both kinds that have answered nothing."""
    open_shop(world)
    assert world.jobs.run("ingest").exit_code == 0
    make_champion(world.shop.connections, world.models.other_classifier, "classifier")
    make_champion(world.shop.connections, world.models.other_encoder, "encoder")


def list_retag(_: World) -> Iterator[Words]:
    """The retag in one command."""
    yield ("retag",)


def list_retag_steps(world: World) -> Iterator[Words]:
    """The retag as Airflow runs it."""
    run = ("--run", "retag")
    yield ("plan-retag", *run)
    for shard in range(world.count("SELECT count(*) FROM catalog.run_shards WHERE run_id = 'retag'")):
        yield ("tag-shard", str(shard), *run)
    yield ("complete-retag", *run)


def judge_retag(world: World) -> Harm:
    """The champions answer, each photo once, and were switched to once."""
    return (
        judge_codes(world)
        + world.compare("SELECT count(*) FROM catalog.current_image_tags", PHOTOS)
        + world.compare("SELECT count(*) FROM catalog.image_embeddings WHERE space_id = catalog.live_space()", PHOTOS)
        + world.compare("SELECT coalesce(sum(tagged), 0) FROM catalog.run_chunks", 2 * PHOTOS)
        + world.compare(LIVE_CHAMPIONS, 2)
        + world.compare("SELECT count(*) FROM catalog.switches WHERE replaced_version_id IS NOT NULL", 2)
    )


def retag_new_champions(world: World) -> None:
    """Both new champions are live."""
    promote_others(world)
    assert world.jobs.run("retag").exit_code == 0


def list_rollbacks(_: World) -> Iterator[Words]:
    """Both kinds go back."""
    yield ("rollback", "classifier")
    yield ("rollback", "encoder")


def judge_rollback(world: World) -> Harm:
    """The first versions are champions again and live, by one promotion each."""
    return (
        world.compare("SELECT count(*) FROM catalog.promotions", 6)
        + world.compare(LIVE_CHAMPIONS, 2)
        + world.compare("SELECT count(*) FROM catalog.current_image_tags", PHOTOS)
        + world.compare(
            "SELECT count(*) FROM catalog.live_models WHERE model_version_id IN "
            "(SELECT min(model_version_id) FROM catalog.model_versions GROUP BY kind)",
            2,
        )
    )


def write_label_set(world: World) -> None:
    """A set of labelled photos, as folders."""
    for category in CATEGORIES:
        folder = world.folder / "labelled" / category
        folder.mkdir(parents=True)
        for number in range(LABELLED):
            (folder / f"{number}.jpg").write_bytes(make_coloured_photo(category, number))


def list_import(world: World) -> Iterator[Words]:
    """The import alone."""
    yield ("import-labels", "folders", str(world.folder / "labelled"))


def judge_import(world: World) -> Harm:
    """Each label is there once, and its bytes are in the artifacts."""
    stored = [key for key in world.shop.list_artifacts() if "/examples/" in f"/{key}"]
    wanted = LABELLED * len(CATEGORIES)
    return world.compare("SELECT count(*) FROM catalog.examples", wanted) + Harm(lost=max(wanted - len(stored), 0))


def list_retraining(world: World) -> Iterator[Words]:
    """From labels to the first champion, as Airflow runs it."""
    yield from list_import(world)
    yield ("snapshot",)
    ((snapshot,),) = world.shop.query("SELECT snapshot_id FROM catalog.dataset_snapshots")
    yield ("train", "classifier", *RUN, "--snapshot", snapshot, "--epochs", "3", "--from-scratch")
    yield ("optimize", "classifier", *RUN)
    yield ("evaluate", "classifier", *RUN)
    yield ("gate", "classifier", *RUN)
    yield ("promote", "classifier", *RUN)


def judge_retraining(world: World) -> Harm:
    """One snapshot, one training, one champion."""
    return (
        judge_import(world)
        + world.compare("SELECT count(*) FROM catalog.dataset_snapshots", 1)
        + world.compare("SELECT count(*) FROM catalog.trainings", 1)
        + world.compare("SELECT count(*) FROM catalog.promotions", 1)
        + world.compare("SELECT count(*) FROM catalog.live_models", 1)
    )


def do_nothing(_: World) -> None:
    """An empty catalog."""


def list_adoption(_: World) -> Iterator[Words]:
    """The first encoder, and a text that it embeds once photos are there."""
    yield ("adopt", "encoder")


def judge_adoption(world: World) -> Harm:
    """One version, promoted once."""
    return world.compare("SELECT count(*) FROM catalog.model_versions", 1) + world.compare(
        "SELECT count(*) FROM catalog.promotions", 1
    )


def tag_shop(world: World) -> None:
    """A tagged catalog."""
    open_shop(world)
    assert world.jobs.run("ingest").exit_code == 0


def list_texts(_: World) -> Iterator[Words]:
    """A text for SQL."""
    yield ("embed-text", "a red hat")


def judge_texts(world: World) -> Harm:
    """The text is there once."""
    return world.compare("SELECT count(*) FROM catalog.text_queries", 1)


def decide_promotion(world: World) -> None:
    """A candidate that passed its gates, and somebody who wants it."""
    tag_shop(world)
    with world.shop.connections.engine.begin() as connection:
        candidate = register_model(connection, "classifier")
        store_gate_results(connection, "night", "classifier", candidate)
        insert_decision(connection, ChampionDecision("classifier", "night", None, "because", "anna"))


def decide_rollback(world: World) -> None:
    """Both new champions are live, and somebody wants the first encoder back."""
    retag_new_champions(world)
    assert world.jobs.run("embed-text", "a red hat").exit_code == 0
    with world.shop.connections.engine.begin() as connection:
        first = world.count("SELECT min(model_version_id) FROM catalog.model_versions WHERE kind = 'encoder'")
        insert_decision(connection, ChampionDecision("encoder", None, first, "because", "anna"))


def judge_decided_rollback(world: World) -> Harm:
    """It was carried out once, with the texts that had been embedded before."""
    live = "SELECT encoder_version_id FROM catalog.embedding_spaces WHERE state = 'live'"
    return (
        judge_decision(world)
        + judge_codes(world)
        + world.compare(f"SELECT count(*) FROM catalog.text_queries WHERE encoder_version_id = ({live})", 1)
    )


def list_decision(_: World) -> Iterator[Words]:
    """What the page starts."""
    yield ("decide", "1")


def judge_decision(world: World) -> Harm:
    """It was carried out once."""
    return world.compare("SELECT count(*) FROM catalog.promotions WHERE promoted_by = 'anna'", 1)


def drop_schema(world: World) -> None:
    """A database as it was before the first `migrate`."""
    with world.shop.connections.engine.begin() as connection:
        connection.execute(text("DROP SCHEMA catalog CASCADE"))
        for table in ("_yoyo_log", "_yoyo_migration", "_yoyo_version", "yoyo_lock"):
            connection.execute(text(f"DROP TABLE public.{table}"))


def list_migration(_: World) -> Iterator[Words]:
    """The upgrade, and the buckets, which are there already."""
    yield ("migrate",)
    yield ("create-buckets",)


def judge_migration(world: World) -> Harm:
    """Every migration is booked once, and every view and function is there."""
    migrations = len(list(SQL.glob("migrations/*.sql")))
    return (
        world.compare("SELECT count(*) FROM public._yoyo_migration", migrations)
        + world.compare(
            "SELECT count(*) FROM pg_views WHERE schemaname = 'catalog'", len(list(SQL.glob("views/*.sql")))
        )
        + world.compare("SELECT count(*) FROM catalog.images", 0)
    )


def import_label_set(world: World) -> None:
    """Labels to retrain from."""
    write_label_set(world)
    assert world.jobs.run(*next(list_import(world))).exit_code == 0


def list_whole_retraining(_: World) -> Iterator[Words]:
    """From labels to the first champion in one command."""
    yield ("retrain", "--kinds", "classifier", *RUN, "--classifier-freeze", "backbone")


def list_drop(_: World) -> Iterator[Words]:
    """The space that was live before."""
    yield ("spaces", "drop", "1")


def judge_drop(world: World) -> Harm:
    """Its vectors are gone, the others are there."""
    return world.compare("SELECT count(*) FROM catalog.image_embeddings", PHOTOS) + judge_retag(world)


SCENARIOS = (
    Scenario("kill ingest", 40, 5, open_shop, list_ingest, judge_tags),
    Scenario("kill discover, tag-shard, publish, report", 24, 6, open_shop, list_night, judge_tags),
    Scenario("kill retag", 15, 3, promote_others, list_retag, judge_retag),
    Scenario("kill plan-retag, tag-shard, complete-retag", 15, 5, promote_others, list_retag_steps, judge_retag),
    Scenario("kill rollback", 12, 4, retag_new_champions, list_rollbacks, judge_rollback),
    Scenario("kill import-labels", 10, 4, write_label_set, list_import, judge_import),
    Scenario(
        "kill snapshot, train, optimize, evaluate, gate, promote",
        30,
        10,
        write_label_set,
        list_retraining,
        judge_retraining,
    ),
    Scenario("kill retrain", 10, 5, import_label_set, list_whole_retraining, judge_retraining),
    Scenario("kill adopt", 8, 2, do_nothing, list_adoption, judge_adoption),
    Scenario("kill embed-text", 6, 3, tag_shop, list_texts, judge_texts),
    Scenario("kill decide (promotion)", 4, 2, decide_promotion, list_decision, judge_decision),
    Scenario("kill decide (rollback)", 4, 2, decide_rollback, list_decision, judge_decided_rollback),
    Scenario("kill spaces drop", 4, 2, retag_new_champions, list_drop, judge_drop),
    Scenario("kill migrate, create-buckets", 12, 4, drop_schema, list_migration, judge_migration),
)
