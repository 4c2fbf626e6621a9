"""Build the fastest version of a trained checkpoint whose predictions match the checkpoint's."""

import os
import sys

# OpenVINO's converter and NNCF send telemetry, unless the module is missing or they run in a test.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
os.environ["NNCF_CI"] = "1"
