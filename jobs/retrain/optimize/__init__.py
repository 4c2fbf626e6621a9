"""From a trained checkpoint to what serves it: the fastest engine and precision that answer as the checkpoint does."""

import os
import sys

# OpenVINO's converter and NNCF would report what they do to their makers; without the module, or told that they run
# in a test, they do without.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
os.environ["NNCF_CI"] = "1"
