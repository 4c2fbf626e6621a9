"""Graphs of OpenVINO, asked from several threads."""

import subprocess
import sys

import pytest

from jobs.settings import PROJECT_ROOT

FIRST_PASSES = """
import sys, threading
import numpy as np, openvino as ov
from openvino import opset13 as ops
from jobs.models.openvino_model import BATCH_SIZE, compile_graph

pixels = ops.parameter([BATCH_SIZE, 2, 2, 3], ov.Type.u8)
sums = ops.reduce_sum(ops.convert(pixels, "f32"), ops.constant(np.array([1, 2, 3])))
graph = compile_graph(ov.Core(), ov.Model([sums], [pixels], "sums"), "fp32")
start, wrong = threading.Barrier(8), []

def ask(number):
    start.wait()
    photos = np.full((3 + number, 2, 2, 3), number, dtype=np.uint8)
    answers = graph.infer(photos)[0]
    if answers.tolist() != [12.0 * number] * len(photos):
        wrong.append(number)

threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
sys.exit(f"wrong: {wrong}" if wrong else 0)
"""


@pytest.mark.parametrize("attempt", range(3))
def test_the_first_passes_of_a_process_may_come_from_many_threads(attempt: int) -> None:
    """Without a pass before them they stand still for ever, now and then."""
    finished = subprocess.run(
        [sys.executable, "-c", FIRST_PASSES], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 0, finished.stderr
