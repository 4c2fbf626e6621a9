"""Benchmarks. Each is a program that writes its figures to benchmarks/results; docs/benchmarks.md shows them."""

import sys

from fixtures.supervision import supervise

# True while `python -m benchmarks.NAME` is still looking for the module to run.
if sys.argv[:1] == ["-m"]:
    supervise()
