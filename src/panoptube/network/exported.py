"""A file that `panoptube export` wrote, as the network of a `VideoPredictor`."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from panoptube.config import NetworkConfig, RunConfig
from panoptube.errors import UserError
from panoptube.network.inference import Precision
from panoptube.network.vpsnet import Detections
from panoptube.panoptic.frame import Taxonomy

INPUTS = ("image", "size")
OUTPUTS = ("boxes", "labels", "scores", "masks", "embeddings", "semantic")
"""Names in the file; the outputs are fields of `Detections`."""

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}
"""How files of a format are named."""

Run = Callable[[NDArray[np.float32], NDArray[np.int64]], list[NDArray[Any]]]


class ExportedNetwork:
    """What `VideoPredictor` needs of a `VPSNet`, computed by ONNX Runtime or OpenVINO on the CPU.

    Attributes:
        config: with `test_size` at the file's size, if that is fixed.
        taxonomy: of the classes.
        device: where results are.
    """

    device = torch.device("cpu")

    def __init__(
        self, run: Run, config: NetworkConfig, taxonomy: Taxonomy, size: tuple[int, int] | None
    ) -> None:
        self._run, self._size, self.taxonomy = run, size, taxonomy
        self.config = config if size is None else config.model_copy(update={"test_size": size})

    def __call__(self, images: Tensor, size: tuple[int, int] | None = None) -> list[Detections]:
        """(B, 3, H, W) float32 normalised RGB -> what is seen in each frame, as `VPSNet.forward`."""
        height, width = images.shape[2:]
        known = np.array(size or (height, width), np.int64)
        if self._size is not None:
            images = F.pad(images, (0, self._size[1] - width, 0, self._size[0] - height))
        found = []
        for image in images:
            values = dict(zip(OUTPUTS, map(torch.from_numpy, self._run(image[None].numpy(), known))))
            values["semantic"] = values["semantic"][:, : height // 4, : width // 4]
            found.append(Detections(**values))
        return found


def is_exported(path: Path) -> bool:
    """Whether the file is, by its name, one that `load_exported` reads."""
    return path.suffix in SUFFIXES.values()


def load_exported(path: Path, precision: Precision = "auto") -> ExportedNetwork:
    """The network in a file that `panoptube export` wrote.

    Args:
        path: .onnx, run by ONNX Runtime, or .xml, run by OpenVINO.
        precision: float32, which auto is, or with OpenVINO also bf16, which it takes for a hint: a processor
            without AVX-512 computes in float32. Coordinates are in bfloat16 then, too, and results differ
            more than those of panoptube's own bf16.

    Raises:
        UserError: no such file, it is damaged or not panoptube's, a package is missing, or the runtime
            doesn't have the precision.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}; name one that panoptube export wrote")
    run, about = _onnx(path, precision) if path.suffix == ".onnx" else _openvino(path, precision)
    if not {"run", "taxonomy"} <= about.keys():
        raise UserError(f"{path} holds no panoptube run; give a file that panoptube export wrote")
    config = RunConfig.from_yaml(about["run"], source=f"{path}, its run configuration").network
    try:
        taxonomy = Taxonomy.from_dict(json.loads(about["taxonomy"]))
        size = tuple(map(int, about["size"].split())) if "size" in about else None
        if size is not None and (len(size) != 2 or any(n < 32 or n % 32 for n in size)):
            raise ValueError(f"its size is {about['size']}")
    except (ValueError, UserError) as error:
        raise UserError(f"{path} is damaged ({error}); export it again") from error
    return ExportedNetwork(run, config, taxonomy, size)  # type: ignore[arg-type]


def _needed(package: str, extra: str, path: Path) -> None:
    if importlib.util.find_spec(package) is None:
        raise UserError(f'{path} needs {package}; pip install "panoptube[{extra}]"')


def _damaged(path: Path, error: Exception) -> UserError:
    said = " ".join(str(error).split())[:200]
    return UserError(f"can't read {path}: {said}; export it again")


def _onnx(path: Path, precision: Precision) -> tuple[Run, dict[str, str]]:
    _needed("onnxruntime", "onnx", path)
    import onnxruntime

    if precision not in ("auto", "float32"):
        raise UserError(f"{path} is computed in float32; leave out the precision, or export for openvino")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # warnings are about the graph's building, not for a user
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no common class for what it raises
        raise _damaged(path, error) from error

    def run(image: NDArray[np.float32], size: NDArray[np.int64]) -> list[NDArray[Any]]:
        return session.run(list(OUTPUTS), {"image": image, "size": size})  # type: ignore[no-any-return]

    return run, dict(session.get_modelmeta().custom_metadata_map)


def _openvino(path: Path, precision: Precision) -> tuple[Run, dict[str, str]]:
    _needed("openvino", "openvino", path)
    import openvino
    from openvino import properties

    core = openvino.Core()
    types = {"auto": openvino.Type.f32, "float32": openvino.Type.f32, "bf16": openvino.Type.bf16}
    if precision not in types:
        raise UserError(f"{path} can't be computed in {precision}; choose float32 or bf16")
    settings = {
        properties.hint.inference_precision: types[precision],
        properties.inference_num_threads: torch.get_num_threads(),
    }
    try:
        model = core.read_model(str(path))
        compiled = core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise _damaged(path, error) from error
    about = {}
    for name in ("run", "taxonomy", "size"):
        if model.has_rt_info(["panoptube", name]):
            about[name] = str(model.get_rt_info(["panoptube", name]).astype(str))
    request = compiled.create_infer_request()

    def run(image: NDArray[np.float32], size: NDArray[np.int64]) -> list[NDArray[Any]]:
        found = request.infer({"image": image, "size": size})
        return [np.array(found[name]) for name in OUTPUTS]

    return run, about
