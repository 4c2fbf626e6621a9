"""Run OpenVINO graphs from several threads."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13

from jobs.models.openvino_model import compile_graphs
from jobs.retrain.optimize.convert import save_graph
from jobs.settings import PROJECT_ROOT

FIRST_PASSES = """
import sys, threading
import numpy as np, openvino as ov
from openvino import opset13 as ops
from jobs.models.openvino_model import PASS_SIZE, compile_graph

pixels = ops.parameter([PASS_SIZE, 2, 2, 3], ov.Type.u8)
sums = ops.reduce_sum(ops.convert(pixels, "f32"), ops.constant(np.array([1, 2, 3])))
graph = compile_graph(ov.Core(), ov.Model([sums], [pixels], "sums"), "fp32")
start, wrong = threading.Barrier(8), []

def ask(number):
    start.wait()
    images = np.full((3 + number, 2, 2, 3), number, dtype=np.uint8)
    answers = graph.infer(images)[0]
    if answers.tolist() != [12.0 * number] * len(images):
        wrong.append(number)

threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
sys.exit(f"wrong: {wrong}" if wrong else 0)
"""


@pytest.mark.parametrize("attempt", range(3))
def test_first_passes_from_many_threads_do_not_deadlock(attempt: int) -> None:
    """Start several threads at once. Without a lock around the first pass, they sometimes deadlock."""
    finished = subprocess.run(
        [sys.executable, "-c", FIRST_PASSES], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("pass_size", [1, 3, 8])
def test_outputs_do_not_depend_on_the_other_images_of_a_pass(tmp_path: Path, pass_size: int) -> None:
    pixels = opset13.parameter([-1, 2, 2, 3], ov.Type.u8)
    sums = opset13.reduce_sum(opset13.convert(pixels, "f32"), opset13.constant(np.array([1, 2, 3])))
    save_graph(ov.Model([sums], [pixels], "sums"), tmp_path)
    graph = compile_graphs([tmp_path], "fp32", pass_size)
    images = np.random.default_rng(0).integers(0, 256, (11, 2, 2, 3), dtype=np.uint8)
    for count in (1, 2, 11):
        assert graph.infer(images[:count])[0].tolist() == images[:count].sum((1, 2, 3)).tolist()
