"""Check rules about source files that neither ruff nor import-linter can express.

These are: which modules are light to import, who may unpickle or write to the environment, and the names and lengths
of files.
"""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from jobs.cli import COMMANDS
from jobs.settings import PROJECT_ROOT

PARTS = ("jobs", "dags", "plugins", "demo", "benchmarks", "fixtures", "tests")
HEAVY = {"torch", "torchvision", "transformers", "timm", "jobs"}
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers"}
PICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNPICKLER = "jobs/models/unpickle.py"
CLASSES_WITHOUT_WEIGHTS = {"AutoConfig", "AutoTokenizer", "AutoImageProcessor"}
MAX_FILE_LINES = 400
ENVIRONMENT_WRITERS = {
    "jobs/cli.py": "Transformers and the hub's client read variables on import, also in child processes",
    "jobs/retrain/optimize/__init__.py": "NNCF reads variables on import",
    "jobs/retrain/train/launch.py": "torchrun's agent passes its environment to the processes that it starts",
}
"""Files that may write to the environment, and why."""


def find_files(*parts: str) -> list[Path]:
    return [path for part in parts for path in sorted((PROJECT_ROOT / part).rglob("*.py"))]


@cache
def parse_files(*parts: str) -> dict[str, ast.Module]:
    """Return the syntax tree of every file by its path in the project."""
    return {
        path.relative_to(PROJECT_ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in find_files(*parts)
    }


def find_imports(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the top-level packages that the nodes import."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


def walk_module_level(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes that are executed when the module is imported."""
    for child in ast.iter_child_nodes(node):
        is_for_types = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if not is_for_types and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from walk_module_level(child)


def loads_only_weights(node: ast.AST) -> bool:
    """Tell whether a node is a call of ``torch.load`` that reads tensors from a pickle and runs none of its code."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr="load"), keywords=keywords):
            return any(
                keyword.arg == "weights_only"
                and isinstance(keyword.value, ast.Constant)
                and keyword.value.value is True
                for keyword in keywords
            )
    return False


def may_run_foreign_code(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(value=ast.Name(id="torch"), attr="load"):
            return True
        case ast.keyword(arg="trust_remote_code" | "allow_pickle", value=value):
            return not (isinstance(value, ast.Constant) and value.value is False)
    return False


def may_load_more_than_safetensors(node: ast.AST) -> bool:
    """Tell whether a call of ``from_pretrained`` may use the network, unpickle weights, or run code of the model."""
    match node:
        case ast.Call(func=ast.Attribute(value=owner, attr="from_pretrained"), keywords=keywords):
            options = {keyword.arg for keyword in keywords}
            has_weights = not (isinstance(owner, ast.Name) and owner.id in CLASSES_WITHOUT_WEIGHTS)
            wanted = {"local_files_only", "trust_remote_code"} | ({"use_safetensors"} if has_weights else set())
            return not wanted <= options
    return False


def writes_to_the_environment(node: ast.AST) -> bool:
    """Tell whether a node changes ``os.environ`` or creates an alias of it."""
    match node:
        case (
            ast.Subscript(value=ast.Attribute(attr="environ"), ctx=ast.Store() | ast.Del())
            | ast.AugAssign(target=ast.Attribute(attr="environ"))
            | ast.Assign(value=ast.Attribute(attr="environ"))
            | ast.Attribute(value=ast.Name(id="os"), attr="putenv" | "unsetenv" | "environb")
            | ast.Attribute(attr="load_dotenv")
            | ast.alias(name="load_dotenv")
        ):
            return True
        case ast.Attribute(value=ast.Attribute(attr="environ"), attr=used):
            return used in {"update", "setdefault", "pop", "popitem", "clear", "__setitem__", "__ior__"}
        case ast.ImportFrom(module="os", names=names):
            return any(name.name in {"environ", "environb", "putenv", "unsetenv"} for name in names)
    return False


def import_elsewhere(module: str, paths: Iterable[str] = ()) -> set[str]:
    """Return the top-level packages that importing a module loads in a new process, with ``paths`` on its path."""
    code = f"import json, sys; import {module}; print(json.dumps(sorted({{n.partition('.')[0] for n in sys.modules}})))"
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT_ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (PROJECT_ROOT, *map(PROJECT_ROOT.joinpath, paths))))},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return set(json.loads(process.stdout.splitlines()[-1]))


def test_every_part_has_files() -> None:
    assert all(find_files(part) for part in PARTS)


def test_dags_and_plugins_are_light_to_import() -> None:
    files = parse_files("dags", "plugins").items()
    heavy = [name for name, module in files if find_imports(walk_module_level(module)) & HEAVY]
    # The pages are imported on the first request: see the next test.
    assert [name for name in heavy if not name.startswith("plugins/catalog_airflow/pages/")] == []


def test_airflow_loads_the_plugin_without_its_pages() -> None:
    loaded = import_elsewhere("catalog_airflow.plugin", paths=("plugins",))
    assert "catalog_airflow" in loaded
    assert not loaded & {*HEAVY, "PIL", "boto3"}


def test_pages_do_not_import_torch() -> None:
    loaded = import_elsewhere("catalog_airflow.pages.app", paths=("plugins",))
    assert "jobs" in loaded
    assert not loaded & {"torch", "torchvision", "transformers", "openvino", "scipy", "pandas", "pyarrow"}


def test_no_file_has_a_vague_name() -> None:
    paths = [path.relative_to(PROJECT_ROOT).with_suffix("") for path in find_files(*PARTS)]
    assert [path for path in paths if VAGUE_NAMES & set(path.parts)] == []


def test_no_file_is_too_long() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in find_files(*PARTS)}
    assert {path: length for path, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_nothing_that_may_run_foreign_code_is_loaded() -> None:
    files = parse_files(*PARTS).items()
    assert [name for name, module in files if any(map(may_run_foreign_code, ast.walk(module)))] == [UNPICKLER]


def test_no_file_imports_a_pickling_module() -> None:
    """Ruff also rejects these imports, but a noqa comment would hide one from it."""
    files = parse_files(*PARTS).items()
    assert [name for name, module in files if find_imports(ast.walk(module)) & PICKLING] == []


def test_the_unpickler_loads_only_weights() -> None:
    nodes = list(ast.walk(parse_files("jobs")[UNPICKLER]))
    loading = [node for node in nodes if may_run_foreign_code(node)]
    assert len(loading) == len([node for node in nodes if loads_only_weights(node)]) > 0


def test_models_are_loaded_from_disk_and_safetensors() -> None:
    files = parse_files("jobs").items()
    assert [name for name, module in files if any(map(may_load_more_than_safetensors, ast.walk(module)))] == []


def test_the_environment_is_not_written() -> None:
    files = parse_files("jobs", "plugins", "dags").items()
    writers = {name for name, module in files if any(map(writes_to_the_environment, ast.walk(module)))}
    assert writers == ENVIRONMENT_WRITERS.keys()


@pytest.mark.parametrize(
    ("code", "is_written"),
    [
        ("os.environ['A'] = '1'", True),
        ("del os.environ['A']", True),
        ("os.environ |= values", True),
        ("os.environ.update(values)", True),
        ("os.environ.pop('A', None)", True),
        ("variables = os.environ", True),
        ("from os import environ", True),
        ("os.putenv('A', '1')", True),
        ("dotenv.load_dotenv()", True),
        ("from dotenv import load_dotenv", True),
        ("a = os.environ['A'] + os.environ.get('B', '')", False),
        ("b = dict(os.environ) | values", False),
    ],
)
def test_writes_to_the_environment_are_recognized(code: str, is_written: bool) -> None:
    assert any(map(writes_to_the_environment, ast.walk(ast.parse(code)))) is is_written


@pytest.mark.parametrize("code", ["torch.load(path)", "load(folder, trust_remote_code=True)"])
def test_code_that_may_run_foreign_code_is_recognized(code: str) -> None:
    assert any(map(may_run_foreign_code, ast.walk(ast.parse(code))))


@pytest.mark.parametrize(
    ("code", "rule"),
    [("import pickle", "TID251"), ("from pickle import loads", "TID251"), ("from . import settings", "TID252")],
)
def test_ruff_rejects_pickling_and_relative_imports(code: str, rule: str) -> None:
    ruff = [sys.executable, "-m", "ruff", "check", "--output-format=concise", "--stdin-filename=jobs/some_file.py", "-"]
    found = subprocess.run(ruff, input=code, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert f" {rule} " in found.stdout


@pytest.mark.parametrize("options", ["", "weights_only=False", "weights_only=chosen", "map_location='cpu'"])
def test_loading_more_than_weights_is_recognized(options: str) -> None:
    assert not any(map(loads_only_weights, ast.walk(ast.parse(f"torch.load(path, {options})"))))


@pytest.mark.parametrize("module", ["jobs.images.decode", "jobs.images.decode_pool"])
def test_decoding_processes_start_without_heavy_modules(module: str) -> None:
    assert not import_elsewhere(module) & {"torch", "transformers", "boto3", "botocore", "sqlalchemy", "pydantic"}


def test_help_imports_no_heavy_module() -> None:
    heavy = {"torch", "transformers", "boto3", "sqlalchemy", "pandas", "pyarrow", "PIL"}
    assert not import_elsewhere("jobs.cli") & heavy


@pytest.mark.parametrize("module", sorted({module for module, _ in COMMANDS.values()}))
def test_commands_start_without_torch(module: str) -> None:
    assert not import_elsewhere(f"jobs.commands.{module}") & {"torch", "transformers", "openvino", "scipy"}


@pytest.mark.parametrize(
    "module",
    [
        "jobs.connections",
        "jobs.ingest.ingest",
        "jobs.ingest.publish",
        "jobs.ingest.report",
    ],
)
def test_jobs_without_models_do_not_import_torch(module: str) -> None:
    assert not import_elsewhere(module) & {"torch", "transformers"}


def test_packages_of_the_plugins_have_specific_names() -> None:
    """The plugins folder is on the path of every task, so a generic name could hide another package."""
    packages = {path.name for path in (PROJECT_ROOT / "plugins").iterdir() if path.is_dir()} - {"__pycache__"}
    assert packages
    assert all(name.startswith("catalog_") for name in packages)
