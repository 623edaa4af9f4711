"""FlowNet2 against stored results of the published code; `check_parity.py` prints the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from panoptube.flow.correlation import correlation
from panoptube.flow.flownet2 import Candidate, FlowNet2, FlowNet2Stages, channel_norm, flow_quarter, resample
from parity import Arrays, Row, compare, numpy, rule_weight

FULL_TOLERANCE, QUARTER_TOLERANCE = 1e-3, 1e-4
"""Pixels: two sound ways to compute the cascade differ by up to a fifth of that."""
PIXEL_TOLERANCES = {
    "flow": FULL_TOLERANCE,
    "crop_flow": FULL_TOLERANCE,
    "flow_quarter": QUARTER_TOLERANCE,
    "crop_flow_quarter": QUARTER_TOLERANCE,
}
CROP = (200, 400)
INPUTS = {"img_bgr", "ref_bgr", "op_corr_a", "op_corr_b", "op_resample_img", "op_resample_flow"}


def flownet2_from_rule(rule: dict[str, Any]) -> FlowNet2:
    """FlowNet2 with the rule's weights, in evaluation mode."""
    with torch.device("meta"):
        network = FlowNet2()
    state = {
        name: rule_weight(f"flownet2.{name}", tuple(value.shape), rule)
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(state, assign=True)
    return network.eval()


@torch.no_grad()
def check_flownet2(rule: dict[str, Any], stored: Arrays) -> tuple[list[Row], set[str]]:
    """Every array of the FlowNet2 file."""
    network = flownet2_from_rule(rule)
    image, reference = flow_input(stored["img_bgr"]), flow_input(stored["ref_bgr"])
    stages = network.stages(image, reference)
    height, width = CROP
    crop = network(image[:, :, :height, :width], reference[:, :, :height, :width])
    out = operator_arrays(stored) | stage_arrays(stages)
    out["flow"] = numpy(stages.flow[0])
    out["flow_quarter"] = numpy(flow_quarter(stages.flow)[0])
    out["crop_flow"] = numpy(crop[0])[:, ::4, ::4]
    out["crop_flow_quarter"] = numpy(flow_quarter(crop)[0])
    rows = [_row(name, value, stored[name]) for name, value in out.items() if name in stored]
    return rows, INPUTS | set(out)


def flow_input(bgr: NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) BGR -> (1, 3, H, W) float32 RGB 0..255."""
    return torch.from_numpy(bgr[..., ::-1].copy()).permute(2, 0, 1)[None].float()


def stage_arrays(stages: FlowNet2Stages) -> Arrays:
    """What lies between images and flow under the names of the file."""
    correlated = stages.correlated
    out = {
        "x1": numpy(stages.image[0])[:, 1::6, 2::6],
        "netC_conv3_1st": numpy(correlated.features[0])[::8, ::2, ::2],
        "netC_conv3_2nd": numpy(correlated.reference_features[0])[::8, ::2, ::2],
        "netC_corr": numpy(correlated.correlation[0])[:, ::4, ::4],
        "fusion_flow2": numpy(stages.fusion[2][0]),
        "fusion_flow1": numpy(stages.fusion[1][0])[:, ::2, ::2],
    }
    candidates: dict[str, Candidate] = {"C": stages.c, "1": stages.s1, "2": stages.s2, "D": stages.sd}
    for which, candidate in candidates.items():
        for level, flow in candidate.predictions.items():
            out[f"net{which}_flow{level}"] = numpy(flow[0])
        out[f"F_{which}"] = numpy(candidate.flow[0])[:, 1::3, 2::3]
        out[f"warp_{which}"] = numpy(candidate.warped[0])[:, 1::6, 2::6]
    return out


def operator_arrays(stored: Arrays) -> Arrays:
    """Correlation, warping and channel norm alone, on the file's own small inputs."""
    a, b, image, flow = (
        torch.from_numpy(stored[f"op_{name}"])[None]
        for name in ("corr_a", "corr_b", "resample_img", "resample_flow")
    )
    return {
        "op_corr_out": numpy(correlation(a, b, 20, 2)[0]),
        "op_resample_out": numpy(resample(image, flow)[0]),
        "op_norm_out": numpy(channel_norm(image)[0]),
    }


def _row(name: str, ours: NDArray[Any], stored: NDArray[Any]) -> Row:
    row = compare(name, ours, stored, "float")
    if name in PIXEL_TOLERANCES and np.isfinite(row.difference):
        return Row(name, row.difference, PIXEL_TOLERANCES[name], "pixels")
    return row
