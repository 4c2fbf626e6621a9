"""How often the calibration gate refuses a candidate whose true calibration error is known.

    python -m benchmarks.training.calibration_gate

The measured error of few images is larger than the true one, since every bin is off by chance, and the more so the more
bins there are. Confidences are drawn from a beta distribution like those of the candidates of real photos, with a mean
of 0.86; a photo is right as often as its confidence says, less the true error.
"""

import argparse

import numpy as np

from jobs.retrain.evaluate.scores import bin_confidence, measure_calibration_error
from jobs.retrain.gates.gate_policy import load_gate_policy

TEST_IMAGES = (174, 333, 736)
TRUE_ERRORS = (0.0, 0.05, 0.10)
BINS = (10, 15)
CONFIDENCE = (4.0, 0.6)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    arguments = parser.parse_args()
    bound = load_gate_policy().max_calibration_error
    print(f"at most {bound} is allowed, {arguments.draws} test sets for each line")
    print("images  bins  true error  measured  refused")
    random = np.random.default_rng(0)
    for images in TEST_IMAGES:
        for bins in BINS:
            for true_error in TRUE_ERRORS:
                errors = np.array([_draw(random, images, bins, true_error) for _ in range(arguments.draws)])
                print(
                    f"{images:6d}  {bins:4d}  {true_error:10.2f}  {errors.mean():8.3f}  {np.mean(errors > bound):7.1%}"
                )


def _draw(random: np.random.Generator, images: int, bins: int, true_error: float) -> float:
    confidence = random.beta(*CONFIDENCE, images)
    is_right = random.random(images) < confidence - true_error
    error = measure_calibration_error(bin_confidence(confidence, is_right, bins))
    assert error is not None
    return error


if __name__ == "__main__":
    main()
