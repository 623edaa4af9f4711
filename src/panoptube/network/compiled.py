"""torch.compile for the backbone and pyramid, where most of the time goes, and whether it pays."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from panoptube.errors import UserError
from panoptube.network.vpsnet import VPSNet

TRIES = 9


@dataclass(frozen=True)
class Gain:
    """What compiling has cost and brought.

    Attributes:
        compiling: seconds that it took.
        plain, compiled: seconds for the backbone of one frame, medians.
    """

    compiling: float
    plain: float
    compiled: float

    @property
    def frames(self) -> float:
        """How many frames make up for compiling; infinite if it gains nothing."""
        saved = self.plain - self.compiled
        return self.compiling / saved if saved > 0 else math.inf

    def __str__(self) -> str:
        times = f"{1000 * self.plain:.1f} ms to {1000 * self.compiled:.1f} ms for the backbone of a frame"
        if math.isinf(self.frames):
            return f"compiling took {self.compiling:.0f} s and gains nothing here ({times}): it isn't used"
        return (
            f"compiling took {self.compiling:.0f} s and brings {times}: it pays off from "
            f"{math.ceil(self.frames)} frames on"
        )


@torch.inference_mode()
def compile_backbone(network: VPSNet, images: Tensor) -> Gain:
    """Lets the network use a compiled backbone, if that is faster, for images of the size of these.

    It is compiled for PyTorch's present number of threads; another one would compile again.

    Args:
        network: of `for_inference`.
        images: (B, 3, H, W) float32, as the network will get them.

    Raises:
        UserError: it can't be compiled here, for lack of a C++ compiler, say.
    """
    plain = network.backbone.forward
    compiled = torch.compile(plain, dynamic=False)
    arguments: list[Tensor] = []
    hook = network.backbone.register_forward_pre_hook(lambda _, given: arguments.extend(given))
    network.backbone(images)
    hook.remove()
    (given,) = arguments  # as the network's own hooks have made them
    begin = time.perf_counter()
    try:
        compiled(given)
    except Exception as error:  # torch.compile has no common class for what it raises
        said = " ".join(str(error).split())[:160]
        raise UserError(f"torch.compile doesn't work here ({said}); leave out --compile") from error
    compiling = time.perf_counter() - begin
    times: dict[Callable[..., Any], list[float]] = {plain: [], compiled: []}
    for _ in range(TRIES):
        for function, taken in times.items():
            begin = time.perf_counter()
            function(given)
            if given.is_cuda:
                torch.cuda.synchronize(given.device)
            taken.append(time.perf_counter() - begin)
    gain = Gain(compiling, median(times[plain]), median(times[compiled]))
    if gain.compiled < gain.plain:

        def forward(x: Tensor) -> list[Tensor]:
            return compiled(x) if x.shape == given.shape else plain(x)  # type: ignore[no-any-return]

        network.backbone.forward = forward  # type: ignore[assignment, method-assign]
    return gain
