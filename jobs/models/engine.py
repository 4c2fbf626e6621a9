"""Load a model with the engine that serves it. Import torch, and Transformers, only for models that need them."""

from dataclasses import dataclass
from pathlib import Path

from jobs.database.model_versions import ModelKind
from jobs.models.image_model import PROGRAM_FILE, ImageModel, read_build


@dataclass(frozen=True)
class EngineSettings:
    """Device and precision for torch. Both may be ``auto``, and a build record overrides the precision.

    ``device_index`` selects one of several GPUs. ``pass_size`` is the fixed number of images in a pass of an OpenVINO
    graph. None selects a size that suits large batches. ``batch_size`` is the number of images in a batch on a GPU; a
    short probe selects it if it is None.
    """

    device: str
    precision: str
    device_index: int = 0
    pass_size: int | None = None
    batch_size: int | None = None


def load_image_model(folder: Path, kind: ModelKind, settings: EngineSettings) -> ImageModel:
    """Load a model as it is served.

    Raises:
        ConfigurationError: the folder holds no model of this kind, or this machine cannot run it.
    """
    build = read_build(folder)
    if build and build.engine == "openvino":
        from jobs.models.openvino_model import load_openvino_model

        return load_openvino_model(folder, build, settings.pass_size)
    from jobs.models.device import choose_device

    if build and (folder / PROGRAM_FILE).is_file():
        from jobs.models.exported_model import load_exported_model

        # The precision is part of the program.
        device = choose_device(settings.device, "fp32", settings.device_index)
        return load_exported_model(folder, build, device, settings.batch_size)
    precision = build.precision if build else settings.precision
    device = choose_device(settings.device, precision, settings.device_index)
    from jobs.models.torch_model import load_torch_model

    return load_torch_model(folder, kind, device)
