"""VPSNet-FuseTrack against stored results of the published code, on the stored flow instead of FlowNet2's."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panoptube.network.fuse import DISPLACEMENT, FuseNeck
from parity import Arrays, Row, network_from_rule, network_input, numpy
from parity_track import (
    ON_STORED,
    TRAINING_INPUTS,
    Noise,
    Stage,
    compared,
    first_stage,
    pyramid_arrays,
    second_stage_rows,
    training_rows,
)

NOISE = Noise({"extra_neck.liteflownet.": (1.4e-2, 3e-2)}, largest=3e-2)
"""By so much the published code in float64 differs from itself in float32 (1.34e-2 where it was measured, and
the same here): the warp's gradient jumps wherever a sampled place passes from one pixel to the next."""


@torch.no_grad()
def check_inference(rule: dict[str, Any], stored: Arrays) -> tuple[list[Row], set[str]]:
    """Every array of the inference file; `stored` has the frames of the Track file besides."""
    network = network_from_rule(rule, fuse=True).eval()
    assert network.fuse is not None
    out = Arrays()
    plain = [network.backbone(network_input(frame)[None]) for frame in stored["frames"]]
    stages: list[Stage] = []
    for t, (pyramid, flow) in enumerate(zip(plain, torch.from_numpy(stored["flow"]))):
        reference = plain[max(t - 1, 0)]
        pyramid_arrays(f"f{t}_P", reference, out)
        fused, between = traced(network.fuse, pyramid, reference, flow[None])
        out |= {f"f{t}_{name}": value for name, value in between.items()}
        pyramid_arrays(f"f{t}_X", fused, out)
        stages.append(first_stage(network, fused, t, out))
    rows = compared(out, stored) + second_stage_rows(network, stages, stored)
    return rows, {row.name.removesuffix(ON_STORED) for row in rows} | {"frames", "flow"}


def traced(
    neck: FuseNeck, pyramid: list[Tensor], reference: list[Tensor], flow: Tensor
) -> tuple[list[Tensor], Arrays]:
    """The fused pyramid, and what lies between under the names of the file."""
    seen: dict[str, tuple[tuple[Tensor, ...], Tensor]] = {}

    def keep(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen[name] = inputs, output

    parts = {
        "residual": neck.residual,
        "first": neck.residual.convs[0],
        "attention": neck.attention,
        "refine": neck.refine,
    }
    hooks = [part.register_forward_hook(partial(keep, name)) for name, part in parts.items()]
    fused = neck(pyramid, reference, flow)
    for hook in hooks:
        hook.remove()
    target, warped, _ = seen["residual"][0]
    correlated = seen["first"][0][0][:, target.shape[1] :][:, : (2 * DISPLACEMENT + 1) ** 2]
    return fused, {
        "gather_cur": numpy(target[0])[::16, ::8, ::8],
        "warp_init": numpy(warped[0])[::16, ::4, ::4],
        "corr": numpy(correlated[0])[:, ::8, ::8],
        "flow_fine": numpy(seen["residual"][1][0]),
        "warp_fine": numpy(seen["attention"][0][1][0])[::16, ::4, ::4],
        "tcea_out": numpy(seen["attention"][1][0])[::16, ::4, ::4],
        "refine_out": numpy(F.relu(seen["refine"][1])[0])[::16, ::4, ::4],
    }


def check_training(rule: dict[str, Any], stored: Arrays) -> tuple[list[Row], set[str]]:
    """Every array of the training file; `stored` has images and truth of the Track file besides."""
    # In float32 gradients carry up to 2e-3 of rounding, which depends on the number of threads (see NOISE).
    network = network_from_rule(rule, fuse=True).double()
    rows = training_rows(network, stored, torch.from_numpy(stored["flow"])[None], NOISE)
    return rows, {row.name for row in rows} | TRAINING_INPUTS | {"grad_l2", "grad_first8", "flow"}
