"""Restrict libraries to AVX2 with environment variables on x86-64, and show which instructions they then use.

    python -m benchmarks.avx2             show what the libraries use on this processor
    python -m benchmarks.avx2 --restrict  show what they use with AVX2 only
    python -m benchmarks.avx2 --print     print the variables, for `env $(python -m benchmarks.avx2 --print) COMMAND`

Libraries read these variables when they are loaded. No single variable applies to all of them.
"""

import argparse
import os
import subprocess
import sys

AVX2 = {
    # The kernels of oneDNN, in torch and in OpenVINO.
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    # OpenVINO's own kernels and the capabilities it reports.
    "OV_CPU_MAX_ISA": "AVX2",
    # Torch's own and compiled kernels.
    "ATEN_CPU_CAPABILITY": "avx2",
    # Torch's matrix products in float32.
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    # NumPy's own loops, and the matrix products of NumPy and SciPy.
    "NPY_DISABLE_CPU_FEATURES": "X86_V4,AVX512_ICL,AVX512_SPR",
    "OPENBLAS_CORETYPE": "Haswell",
}


def describe_libraries() -> dict[str, str]:
    """Return the instruction set that each library reports, and the kernels that OpenVINO uses for a convolution."""
    import numpy as np
    import openvino as ov
    import torch
    from openvino import opset13 as opset

    images = opset.parameter([1, 64, 16, 16], ov.Type.f32)
    weights = opset.constant(np.ones((64, 64, 3, 3), dtype=np.float32))
    convolution = opset.convolution(images, weights, [1, 1], [1, 1], [1, 1], [1, 1])
    core = ov.Core()
    graph = ov.Model([convolution], [images], "probe")
    compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    kernels = {node.get_rt_info()["primitiveType"].astype(str) for node in compiled.get_runtime_model().get_ops()}
    return {
        "torch, own kernels": torch.backends.cpu.get_cpu_capability(),
        "torch, oneDNN has bf16": str(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
        "OpenVINO, capabilities": " ".join(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
        "OpenVINO, convolution": " ".join(sorted(name for name in kernels if "conv" in name or "avx" in name)),
        "NumPy": " ".join(np.show_config(mode="dicts")["SIMD Extensions"]["found"]),
    }


def main() -> None:
    """Print the variables, or the instructions that the libraries use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--restrict", action="store_true", help="show it for a process restricted to AVX2")
    choice.add_argument("--print", action="store_true", help="print the variables")
    options = parser.parse_args()
    if options.print:
        print(" ".join(f"{name}={value}" for name, value in AVX2.items()))
    elif options.restrict:
        subprocess.run([sys.executable, "-m", "benchmarks.avx2"], env=os.environ | AVX2, check=True)
    else:
        for name, value in describe_libraries().items():
            print(f"{name}: {value}")


if __name__ == "__main__":
    main()
