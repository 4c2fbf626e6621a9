"""The command line as a scheduler and a person meet it: exit codes, one line for each fault, JSON on request."""

import json
import shlex
import socket
from collections.abc import Iterator
from contextvars import copy_context
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import pytest
from PIL import Image
from typer.core import TyperCommand
from typer.main import get_command, get_group

from fixtures.command_line import run_job, run_process
from fixtures.shop import CATEGORIES, Shop, TinyModels, make_image
from jobs.cli import COMMANDS, GROUPS, PROGRAM, app, list_commands, load_command
from jobs.errors import EXIT_PERMANENT, EXIT_RETRY

WRONG_USAGE = 2


def make_environment(**changes: str) -> dict[str, str]:
    """Settings of a shop that nobody keeps: a test changes what it asks about."""
    return {
        "CATALOG_DATABASE_URL": "postgresql://shop:hush@127.0.0.1:1/catalog",
        "CATALOG_SOURCE_URI": "s3://images/",
        "CATALOG_ARTIFACTS_URI": "s3://artifacts/",
        "CATALOG_S3_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "A" * 20,
        "AWS_SECRET_ACCESS_KEY": "b" * 40,
        "AWS_DEFAULT_REGION": "us-east-1",
        **changes,
    }


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody answers."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield unused.getsockname()[1]


def test_no_run_reads_a_bucket_that_the_settings_do_not_name(tagging_shop: Shop) -> None:
    for command in (["ingest"], ["discover", "--run", "night"]):
        answer = run_job(*command, "--source", "s3://elsewhere/", environment=tagging_shop.environment)
        assert answer.exit_code == 78
        assert "CATALOG_OTHER_SOURCES" in answer.error
    assert tagging_shop.query("SELECT * FROM catalog.tagging_runs") == []


def test_a_process_gives_the_exit_code_and_streams_of_its_command(closed_port: int) -> None:
    down = make_environment(CATALOG_DATABASE_URL=f"postgresql://shop:hush@127.0.0.1:{closed_port}/catalog")
    endings = {}
    for words, environment in ((("--help",), {}), (("report",), {}), (("migrate",), {}), (("migrate",), down)):
        answer = run_process(*words, environment=environment)
        assert answer == run_job(*words, environment=environment)
        endings[answer.exit_code] = (bool(answer.output), bool(answer.messages))
    on_output, on_errors = (True, False), (False, True)
    assert endings == {0: on_output, WRONG_USAGE: on_errors, EXIT_PERMANENT: on_errors, EXIT_RETRY: on_errors}


def test_help_lists_every_command_in_its_group() -> None:
    answer = run_job("--help", environment={})
    assert answer.exit_code == 0
    lines = [line.strip("│╭╰─╮╯ ") for line in answer.output.splitlines()]
    wanted = [word for group, commands in GROUPS.items() for word in (group, *commands)]
    assert [word for line in lines for word in wanted if line == word or line.startswith(f"{word}  ")] == wanted


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_is_the_listed_one(command: str) -> None:
    module, text = COMMANDS[command]
    assert load_command(command).help == text
    listed = {name for name, (other, _) in COMMANDS.items() if other == module}
    assert get_group(import_module(f"jobs.commands.{module}").app).commands.keys() == listed


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    answer = run_job(command, "--help", environment={})
    assert answer.exit_code == 0
    assert "Usage: python -m jobs" in answer.output


LEAVES = [leaf for command in COMMANDS for leaf in list_commands(load_command(command))]
EXAMPLES = [(leaf.name, example) for leaf in LEAVES for example in str(leaf.epilog).splitlines()[1:]]


def test_every_command_has_an_example() -> None:
    assert {name for name, _ in EXAMPLES} == {leaf.name for leaf in LEAVES}


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_an_example_is_a_correct_command_line(
    name: str, example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.csv").touch()
    (tmp_path / "images").mkdir()
    prompt, program, *words = shlex.split(example)
    assert (prompt, program) == ("$", PROGRAM)
    parsed = []
    with patch.object(TyperCommand, "invoke", lambda command, _: parsed.append(command.name)):
        copy_context().run(get_command(app).main, words, prog_name=program, standalone_mode=False)
    assert parsed == [name]


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("report",),
        ("report", "--nonsense"),
        ("tag-shard", "--run", "1", "-1"),
        ("ingest", "--limit", "0"),
        ("train", "dresses", "--run", "1", "--snapshot", "1"),
        ("rollback",),
        ("spaces", "drop", "first"),
    ],
    ids=" ".join,
)
def test_wrong_usage_has_a_code_of_its_own(words: tuple[str, ...]) -> None:
    answer = run_job(*words, environment=make_environment())
    assert (answer.exit_code, answer.output) == (WRONG_USAGE, "")


@pytest.mark.parametrize(
    "words", [("migrate",), ("ingest",), ("publish", "--run", "1"), ("search",), ("snapshot",)], ids=" ".join
)
def test_missing_settings_are_all_named(words: tuple[str, ...]) -> None:
    answer = run_job(*words, environment={"CATALOG_S3_ENDPOINT_URL": "http://127.0.0.1:1"})
    assert (answer.exit_code, answer.output, len(answer.messages)) == (EXIT_PERMANENT, "", 1)
    for name in ("CATALOG_DATABASE_URL", "CATALOG_SOURCE_URI", "CATALOG_ARTIFACTS_URI"):
        assert f"{name} is not set" in answer.error


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CATALOG_DATABASE_URL", "mysql://shop:hush@127.0.0.1/catalog"),
        ("CATALOG_DATABASE_URL", "postgresql://shop:hush@127.0.0.1:port/catalog"),
        ("CATALOG_SOURCE_URI", "images"),
        ("CATALOG_ARTIFACTS_URI", "https://artifacts/"),
        ("CATALOG_S3_ENDPOINT_URL", "nonsense"),
        ("CATALOG_EXCLUDE_PATTERNS", ".jpg"),
        ("CATALOG_PRODUCT_ID_PATTERN", "("),
        ("CATALOG_BATCH_SIZE", "many"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    answer = run_job("report", "--run", "1", environment=make_environment(**{name: value}))
    assert (answer.exit_code, answer.output, len(answer.messages)) == (EXIT_PERMANENT, "", 1)
    assert name in answer.error
    assert "hush" not in answer.error
    assert "Value error" not in answer.error


@pytest.mark.parametrize("words", [("gate", "classifier", "--run", "1"), ("retrain",)], ids=" ".join)
def test_a_wrong_gate_policy_is_named_before_anything_is_done(words: tuple[str, ...], tmp_path: Path) -> None:
    policy = tmp_path / "gates.toml"
    policy.write_text("min_accuracy = 2\n")
    answer = run_job(*words, environment=make_environment(CATALOG_GATE_POLICY=str(policy)))
    assert (answer.exit_code, answer.output, len(answer.messages)) == (EXIT_PERMANENT, "", 1)
    assert answer.error.startswith(f"error: CATALOG_GATE_POLICY={policy}: min_accuracy: ")


@pytest.mark.parametrize(
    "words",
    [("migrate",), ("ingest",), ("discover", "--run", "1"), ("publish", "--run", "1"), ("similar", "sku1")],
    ids=" ".join,
)
def test_a_database_that_is_down_is_worth_a_retry(words: tuple[str, ...], closed_port: int) -> None:
    url = f"postgresql://shop:hush@127.0.0.1:{closed_port}/catalog"
    answer = run_job(*words, environment=make_environment(CATALOG_DATABASE_URL=url))
    assert (answer.exit_code, answer.output, len(answer.messages)) == (EXIT_RETRY, "", 1)
    assert answer.error.startswith(f"error: cannot reach the database at 127.0.0.1:{closed_port}/catalog: ")
    assert "hush" not in answer.error


@pytest.mark.parametrize(
    "words", [("report", "--run", "1"), ("search", "hat"), ("similar", "sku1"), ("ingest", "--plan")], ids=" ".join
)
def test_a_database_without_our_schema_says_which_command_makes_it(
    words: tuple[str, ...], empty_database_url: str, shop: Shop
) -> None:
    answer = run_job(*words, environment=shop.environment | {"CATALOG_DATABASE_URL": empty_database_url})
    assert (answer.exit_code, answer.output) == (EXIT_PERMANENT, "")
    assert "catalog migrate" in answer.error


def test_a_bucket_that_is_down_is_worth_a_retry(shop: Shop, closed_port: int) -> None:
    away = {"CATALOG_S3_ENDPOINT_URL": f"http://127.0.0.1:{closed_port}"}
    answer = run_job("ingest", environment=shop.environment | away)
    assert (answer.exit_code, answer.output, len(answer.messages)) == (EXIT_RETRY, "", 1)
    assert f"cannot reach the bucket at http://127.0.0.1:{closed_port}" in answer.error


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"AWS_ACCESS_KEY_ID": "X" * 20}, "credentials"),
        ({"AWS_SECRET_ACCESS_KEY": "x" * 40}, "credentials"),
        ({"CATALOG_SOURCE_URI": "s3://no-such-bucket/"}, "s3://no-such-bucket/"),
        ({"CATALOG_SOURCE_URI": "s3://No Bucket/"}, "No Bucket"),
    ],
    ids=repr,
)
def test_a_bucket_that_does_not_open_needs_somebody_to_act(shop: Shop, changes: dict[str, str], words: str) -> None:
    answer = run_job("ingest", environment=shop.environment | changes)
    assert (answer.exit_code, answer.output, len(answer.messages)) == (EXIT_PERMANENT, "", 1)
    assert words in answer.error


def test_a_shop_without_models_says_which_command_makes_them(shop: Shop) -> None:
    answer = run_job("ingest", environment=shop.environment)
    assert (answer.exit_code, answer.output) == (EXIT_PERMANENT, "")
    assert "catalog retrain" in answer.error


def test_a_starting_point_that_is_not_there_is_named_with_its_setting(shop: Shop, tmp_path: Path) -> None:
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    words = ("train", "classifier", "--run", "1", "--snapshot", "0" * 64)
    # The hub's client reads these variables once, on import.
    answer = run_process(*words, environment=shop.environment | offline)
    assert (answer.exit_code, answer.output) == (EXIT_PERMANENT, "")
    assert "CATALOG_CLASSIFIER_BASE=microsoft/resnet-18" in answer.error
    assert "hf download microsoft/resnet-18" in answer.error


def test_a_wrong_base_is_refused_before_anything_is_trained(
    tagging_shop: Shop, tiny_models: TinyModels, tmp_path: Path
) -> None:
    rows = [f"{number}.jpg,{CATEGORIES[number % 4]},some text,{number}" for number in range(60)]
    (tmp_path / "labels.csv").write_text("\n".join(["image,label,text,group", *rows]))
    for number in range(60):
        (tmp_path / f"{number}.jpg").write_bytes(make_image(number))
    imported = run_job("import-labels", "csv", str(tmp_path / "labels.csv"), environment=tagging_shop.environment)
    assert imported.exit_code == 0, imported.messages
    bases = (f"--classifier-base={tiny_models.classifier}", f"--encoder-base={tmp_path / 'nowhere'}")
    answer = run_job("retrain", *bases, environment=tagging_shop.environment)
    assert answer.exit_code == EXIT_PERMANENT
    assert str(tmp_path / "nowhere") in answer.error
    assert tagging_shop.query("SELECT * FROM catalog.trainings") == []
    assert tagging_shop.query("SELECT * FROM catalog.tagging_runs") == []


def test_a_run_that_was_never_planned_is_named(shop: Shop) -> None:
    answer = run_job("report", "--run", "nope", environment=shop.environment)
    assert (answer.exit_code, answer.output) == (EXIT_PERMANENT, "")
    assert answer.error == "error: run 'nope' was never planned. There is no ingest run yet"


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("models", "show", "77"), "there is no model version 77. The existing ones are 2 (encoder), 1 (classifier)"),
        (("build", "77"), "there is no model version 77. The existing ones are 2 (encoder), 1 (classifier)"),
        (("rollback", "classifier", "--to", "77"), "choose a version that was live. The only one is 1"),
        (("spaces", "drop", "9"), "there is no embedding space 9. There are none yet"),
        (("tag-shard", "0", "--run", "x"), "run 'x' was never planned. There is no planned run yet"),
        (("retag", "--run", "x"), "run 'x' was never planned. There is no retag run yet"),
        (("evaluate", "encoder", "--run", "x"), "run 'x' has no trained encoder: "),
        (("gate", "encoder", "--run", "x"), "No run has an evaluated encoder yet"),
        (("promote", "encoder", "--run", "x"), "No run has an evaluated encoder yet"),
    ],
    ids=lambda part: part if isinstance(part, str) else " ".join(part),
)
def test_what_does_not_exist_is_answered_with_what_does(
    words: tuple[str, ...], answer: str, tagging_shop: Shop
) -> None:
    refused = run_job(*words, environment=tagging_shop.environment)
    assert (refused.exit_code, refused.output) == (EXIT_PERMANENT, "")
    assert answer in refused.error


def test_a_training_without_its_snapshot_or_base_names_the_existing_ones(
    tagging_shop: Shop, tiny_models: TinyModels, tmp_path: Path
) -> None:
    (tmp_path / "classifier").mkdir()
    words = ("train", "classifier", "--run", "week", "--snapshot", "3f9a", "--base")
    wrong_base = run_job(*words, str(tmp_path / "clasifier"), environment=tagging_shop.environment)
    assert wrong_base.error == (f"error: --base={tmp_path / 'clasifier'}: no such directory. Did you mean classifier?")
    wrong_snapshot = run_job(*words, str(tiny_models.classifier), environment=tagging_shop.environment)
    assert wrong_snapshot.error == "error: there is no snapshot '3f9a'. Take one with `catalog snapshot`"


def test_migrating_again_changes_nothing_and_says_so(database_url: str) -> None:
    answer = run_job("migrate", environment=make_environment(CATALOG_DATABASE_URL=database_url))
    assert answer.exit_code == 0
    assert json.loads(answer.output)["applied"] == []


def test_the_plan_of_an_empty_bucket_is_json(tagging_shop: Shop) -> None:
    answer = run_job("ingest", "--plan", environment=tagging_shop.environment)
    assert answer.exit_code == 0, answer.messages
    plan = json.loads(answer.output)
    assert (plan["entries"], plan["shards"], plan["source_uri"]) == (
        0,
        [],
        tagging_shop.environment["CATALOG_SOURCE_URI"],
    )


def test_the_whole_flow_from_a_shell(tagging_shop: Shop, tmp_path: Path) -> None:
    keys = tagging_shop.put_images(6)
    environment = tagging_shop.environment
    planned = run_job("ingest", "--plan", environment=environment)
    assert json.loads(planned.output)["entries_by_reason"] == {"new": 6}

    ingested = run_process("ingest", environment=environment)
    assert ingested.exit_code == 0, ingested.messages
    report = json.loads(ingested.output.splitlines()[-1])
    assert (report["entries"], report["tagged"], report["state"]) == (6, 6, "succeeded")

    prompted = run_job("search", "-k", "2", environment=environment, typed="a red dress\nhat\n\nnever asked\n")
    assert prompted.exit_code == 0, prompted.messages
    assert [len(json.loads(line)) for line in prompted.output.splitlines()] == [2, 2]
    assert run_job("search", environment=environment, typed="").exit_code == 0
    embedded = run_job("embed-text", "a red dress", environment=environment)
    assert json.loads(embedded.output) == {"query_text": "a red dress", "is_new": False}

    product, sheet = keys[0].partition("_")[0], tmp_path / "answers.png"
    similar = run_job("similar", product, "-k", "1", "--png", str(sheet), environment=environment)
    assert similar.exit_code == 0, similar.messages
    assert len(json.loads(similar.output)) == 1
    with Image.open(sheet) as picture:
        assert picture.format == "PNG"

    unknown = run_job("similar", "no such product", environment=environment)
    assert (unknown.exit_code, unknown.output) == (EXIT_PERMANENT, "")
    assert "no such product" in unknown.error
    unwritable = run_job("similar", product, "--png", str(tmp_path), environment=environment)
    assert unwritable.exit_code == EXIT_PERMANENT
    assert f"cannot write {tmp_path}" in unwritable.error
