"""The environment that keeps a newer x86-64 processor to AVX2, and a look at what every library then computes in.

    python -m benchmarks.avx2            # as the processor is
    python -m benchmarks.avx2 --restrict # as it would be with AVX2 alone
    python -m benchmarks.avx2 --print    # the variables, for `env $(python -m benchmarks.avx2 --print) COMMAND`

A process reads them when it starts. Each library has its own: no single variable reaches all.
"""

import argparse
import os
import subprocess
import sys

AVX2 = {
    # The kernels of both copies of oneDNN, that in torch and that in OpenVINO.
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    # OpenVINO's own kernels, and what it says that the processor has.
    "OV_CPU_MAX_ISA": "AVX2",
    # Torch's own kernels, and what it compiles.
    "ATEN_CPU_CAPABILITY": "avx2",
    # The matrix products of torch in float32.
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    # NumPy's own loops, and its matrix products and those of SciPy.
    "NPY_DISABLE_CPU_FEATURES": "X86_V4,AVX512_ICL,AVX512_SPR",
    "OPENBLAS_CORETYPE": "Haswell",
}


def describe_machine() -> dict[str, str]:
    """What each library says that it computes in, and the kernels that it takes for a convolution."""
    import numpy as np
    import openvino as ov
    import torch
    from openvino import opset13 as opset

    photos = opset.parameter([1, 64, 16, 16], ov.Type.f32)
    weights = opset.constant(np.ones((64, 64, 3, 3), dtype=np.float32))
    convolution = opset.convolution(photos, weights, [1, 1], [1, 1], [1, 1], [1, 1])
    core = ov.Core()
    graph = ov.Model([convolution], [photos], "probe")
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
    """Print the variables, or what the libraries compute in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--restrict", action="store_true", help="look in a process that is kept to AVX2")
    choice.add_argument("--print", action="store_true", help="print the variables")
    options = parser.parse_args()
    if options.print:
        print(" ".join(f"{name}={value}" for name, value in AVX2.items()))
    elif options.restrict:
        subprocess.run([sys.executable, "-m", "benchmarks.avx2"], env=os.environ | AVX2, check=True)
    else:
        for name, value in describe_machine().items():
            print(f"{name}: {value}")


if __name__ == "__main__":
    main()
