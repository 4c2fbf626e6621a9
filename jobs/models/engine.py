"""A folder becomes a model that answers, by the engine and in the precision that the folder names."""

from dataclasses import dataclass
from pathlib import Path

from jobs.database.model_versions import ModelKind
from jobs.models.image_model import ImageModel, read_build


@dataclass(frozen=True)
class EngineSettings:
    """The device of torch, and the precision of versions for which none was chosen; both may be ``auto``.

    ``device_index`` picks among several GPUs.
    A graph of OpenVINO takes ``pass_size`` photos at a time, never fewer; without it as many as suit large batches.
    """

    device: str
    precision: str
    device_index: int = 0
    pass_size: int | None = None


def load_image_model(folder: Path, kind: ModelKind, settings: EngineSettings) -> ImageModel:
    """Load a model as it is served; torch is imported only for models that it computes.

    Raises:
        PermanentError: the folder holds no model of this kind, or this machine cannot compute it.
    """
    build = read_build(folder)
    if build and build.engine == "openvino":
        from jobs.models.openvino_model import load_openvino_model

        return load_openvino_model(folder, build, settings.pass_size)
    from jobs.models.device import choose_device
    from jobs.models.torch_model import load_torch_model

    precision = build.precision if build else settings.precision
    device = choose_device(settings.device, precision, settings.device_index)
    return load_torch_model(folder, kind, device)
