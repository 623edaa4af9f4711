"""panoptube: video panoptic segmentation. Every pixel labelled, every segment followed.

The names below are imported when first used, so that only what needs PyTorch loads it. The commands are
functions in modules of their names: `from panoptube.predict import predict`; so are `train` and `evaluate`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from panoptube.config import RunConfig as RunConfig
    from panoptube.data.cityscapes_vps import CITYSCAPES as CITYSCAPES
    from panoptube.data.clip import Clip as Clip
    from panoptube.errors import UserError as UserError
    from panoptube.metrics.vpq import VPQ as VPQ
    from panoptube.network.weights import load_weights as load_weights
    from panoptube.panoptic.frame import VOID as VOID
    from panoptube.panoptic.frame import PanopticFrame as PanopticFrame
    from panoptube.panoptic.frame import Taxonomy as Taxonomy
    from panoptube.predictor import VideoPredictor as VideoPredictor
    from panoptube.video import open_video as open_video
    from panoptube.video import write_video as write_video
    from panoptube.view.overlay import overlay as overlay

_MODULES = {
    "CITYSCAPES": "data.cityscapes_vps",
    "VOID": "panoptic.frame",
    "VPQ": "metrics.vpq",
    "Clip": "data.clip",
    "PanopticFrame": "panoptic.frame",
    "RunConfig": "config",
    "Taxonomy": "panoptic.frame",
    "UserError": "errors",
    "VideoPredictor": "predictor",
    "load_weights": "network.weights",
    "open_video": "video",
    "overlay": "view.overlay",
    "write_video": "video",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'panoptube' has no attribute {name!r}")
    return getattr(import_module(f"panoptube.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]
