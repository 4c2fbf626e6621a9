import os
from pathlib import Path
from unittest.mock import patch

import pytest

from jobs.settings import PROJECT_ROOT


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[tag\n", "Expected"),
        ("[tagging]\n", "tagging: Extra inputs"),
        ("[tag]\nque = 'gpu'\n", "tag.que: Extra inputs"),
        ("[tag]\nqueue = ''\n", "tag.queue: String should have at least 1 character"),
        ("[tag.pod.resources]\nlimits = { cpu = 'two' }\n", "tag.pod.resources.limits.cpu: String should match"),
        # Without quotes, TOML reads the name of the resource as two tables.
        ("[tag.pod.resources.limits]\nnvidia.com/gpu = 1\n", "Expected"),
        ("[tag.pod]\ntolerations = [{ effect = 'Never' }]\n", "tag.pod.tolerations.0.effect: Input should be"),
        ("[plan.pod]\nnode_selector = {}\n[tag]\nque = 'gpu'\n", "plan.pod.node_selector: .*; tag.que: "),
    ],
)
def test_an_invalid_file_is_one_line_that_names_every_problem(tmp_path: Path, text: str, problem: str) -> None:
    from catalog_airflow.placement import place

    path = tmp_path / "placement.toml"
    path.write_text(text)
    with (
        patch.dict(os.environ, {"CATALOG_PLACEMENT": str(path)}),
        pytest.raises(ValueError, match=f"^CATALOG_PLACEMENT={path}: {problem}") as error,
    ):
        place("tag")
    assert "\n" not in str(error.value)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    from catalog_airflow.placement import place

    with (
        patch.dict(os.environ, {"CATALOG_PLACEMENT": str(tmp_path / "absent.toml")}),
        pytest.raises(ValueError, match=r"CATALOG_PLACEMENT=/.*absent.toml: .*No such file"),
    ):
        place("tag")


def test_the_files_that_we_show_are_valid(tmp_path: Path) -> None:
    from catalog_airflow.placement import read_placements

    guide = (PROJECT_ROOT / "docs" / "kubernetes.md").read_text()
    example = tmp_path / "example.toml"
    example.write_text(guide.split("```toml\n")[1].split("```")[0])
    with patch.dict(os.environ, {"CATALOG_PLACEMENT": str(example)}):
        pod = read_placements().train.pod
    assert pod is not None
    assert pod.resources is not None
    assert pod.resources.limits["nvidia.com/gpu"] == "1"
    with patch.dict(os.environ, {"CATALOG_PLACEMENT": "deploy/placement.toml"}):
        assert read_placements().tag.queue == "gpu"
