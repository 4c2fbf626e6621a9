from jobs.retrain.evaluate.evaluation_files import Flip
from jobs.retrain.gates.gate import write_approval_text
from jobs.retrain.gates.gate_policy import load_gate_policy
from jobs.retrain.gates.gates import decide_all
from tests.retrain.gates.hand_made_evaluations import make_evaluation

PAGE = "s3://artifacts/page.html"


def write(flips: list[Flip], has_champion: bool = True) -> list[str]:
    evaluation = make_evaluation("classifier", has_champion=has_champion)
    decisions = decide_all(evaluation, has_tagged_catalog=True, policy=load_gate_policy())
    return write_approval_text(evaluation, decisions, flips, PAGE).splitlines()


def test_it_names_who_would_be_replaced() -> None:
    assert write([])[0].startswith("**Classifier 2** would replace **classifier 1**.")
    assert write([], has_champion=False)[0].startswith("**Classifier 2** would be the first classifier.")


def test_it_holds_every_gate() -> None:
    lines = [line for line in write([]) if line.startswith("| ")]
    assert lines[0] == "| gate | verdict | why |"
    assert len(lines) == 1 + 18
    assert sum("| **passed** |" in line for line in lines) == 18


def test_it_holds_the_first_flips_only() -> None:
    flips = [Flip(number, f"p{number}.jpg", "p", "dress", 0.5, "hat", 0.9, None) for number in range(500)]
    lines = write(flips)
    assert "The first 20 of 500 images of the sample that would change:" in lines
    assert sum(".jpg" in line for line in lines) == 20
    assert "| p | p0.jpg | dress 0.50 | **hat** 0.90 |" in lines


def test_names_of_the_shop_are_no_markdown() -> None:
    key = "a|b\n| x | **passed** |\n<img src=x> [click](https://elsewhere.test) `code`.jpg"
    lines = write([Flip(1, key, "p_1", "dress", 0.5, "hat", 0.9, None)])
    row = lines[-1]
    assert row.startswith(r"| p\_1 | a\|b \| x \| \*\*passed\*\* \| \<img src=x\> \[click\]\(")
    assert row.endswith(r"\`code\`.jpg | dress 0.50 | **hat** 0.90 |")
