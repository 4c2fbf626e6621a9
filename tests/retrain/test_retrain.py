"""Run the whole flow with one command."""

from pathlib import Path

from fixtures.command_line import run_job, run_process
from fixtures.shop import CATEGORIES, Shop, TinyModels, make_image
from jobs.errors import EXIT_PERMANENT


def test_all_processes_train_the_candidate(shop: Shop, tiny_models: TinyModels, tmp_path: Path) -> None:
    """Two processes train together, as on a machine with two GPUs, with the options of the command."""
    rows = [f"{number}.jpg,{CATEGORIES[number % 4]},{number}" for number in range(60)]
    (tmp_path / "labels.csv").write_text("\n".join(["image,label,group", *rows]))
    for number in range(60):
        (tmp_path / f"{number}.jpg").write_bytes(make_image(number))
    imported = run_job("import-labels", "csv", str(tmp_path / "labels.csv"), environment=shop.environment)
    assert imported.exit_code == 0, imported.messages
    # Without test images, the flow ends after the training.
    environment = shop.environment | {"CATALOG_TEST_SHARE": "0.001"}
    options = ("--kinds=classifier", f"--classifier-base={tiny_models.classifier}", "--classifier-epochs=1", "--seed=3")
    finished = run_process("retrain", *options, "--processes=2", environment=environment)
    assert finished.exit_code == EXIT_PERMANENT
    assert "test images" in finished.error
    assert sum("training on" in line for line in finished.messages) == 2, finished.messages
    ((hyperparameters,),) = shop.query("SELECT settings->'hyperparameters' FROM catalog.trainings")
    assert (hyperparameters["epochs"], hyperparameters["seed"]) == (1, 3)
