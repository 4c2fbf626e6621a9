"""What ``make bench`` and ``make quality`` run; the figures stand in docs/benchmarks.md."""

import sys

from fixtures.supervision import supervise

# So it is while `python -m benchmarks.NAME` looks for the module that it runs.
if sys.argv[:1] == ["-m"]:
    supervise()
