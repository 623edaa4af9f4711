"""Whether SiamTrack's terms act: what each of them asks for, on pairs of frames that nobody trained on.

    python benchmarks/temporal_terms.py --base BASE.safetensors ... --other OTHER.safetensors ...
        [--seeds 2000 2020] [--gap 10] [--pairs 3] [--device cuda] [--json FILE]

BASE are weights of SiamTrack-Base, OTHER those of a row with a term, from the same start and of the same
seeds, in the same order. All see the same pairs of synthetic streets, whole frames. Of each pair:

* retrieval: the pyramid levels, joined as for the projection head, are averaged over each true segment; for a
  segment of the target frame that the reference shows, too, is it the most similar (cosine) of all the
  reference's segments? Once for things among all things, once for classes among all classes.
* tube dice: 1 - L_tube of the panoptic probabilities with true boxes.
* warp error: L_warp of the logits, with exact flow; and of the probabilities, which smaller logits alone
  don't lower.

The interval (95 %, Student's t) is over runs if there are several, else over streets.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from panoptube.ablation_report import Interval, interval
from panoptube.config import DataConfig, LossConfig, RunConfig, SiameseConfig
from panoptube.data.pairs import FIRST_TRAINING_SEED, FramePair, FrameTargets, draw_pair
from panoptube.data.streets import street_clip
from panoptube.metrics.quality import number
from panoptube.network.projection import gather_levels, mask_pool
from panoptube.network.vpsnet import VPSNet
from panoptube.network.weights import load_weights
from panoptube.panoptic.frame import VOID
from panoptube.training_step import TrainingStep

FRAMES = 30
QUANTITIES = {
    "retrieval of things, %": "more",
    "retrieval of classes, %": "more",
    "tube dice, %": "more",
    "warp error of logits": "less",
    "warp error of probabilities": "less",
}
"""What is measured, and which way is better."""

Found = dict[str, float]
"""A mean by quantity; a quantity that a street doesn't have is left out."""


def street_pairs(seed: int, size: tuple[int, int], gap: int, count: int) -> list[FramePair]:
    """Pairs of one street, spread over it, whole frames, with exact flow."""
    clip = street_clip(seed, FRAMES, size)
    config = DataConfig(size=size, scale=(1.0, 1.0))
    rng = np.random.default_rng(seed)
    targets = np.linspace(0, FRAMES - 1 - gap, count).astype(int).tolist()
    return [draw_pair(clip, t, gap, rng, config, flow_directions=1) for t in targets]


@torch.no_grad()
def measure(network: VPSNet, pair: FramePair) -> Found:
    """All quantities of one pair."""
    found: Found = {}
    joined = gather_levels(network.pair_pyramid(pair.images, None), "nearest", "sum")
    for name, segments in (("things", thing_segments), ("classes", class_segments)):
        target, reference = (segments(truth) for truth in pair.targets[0])
        hits = retrieved(joined, target, reference)
        if hits:
            found[f"retrieval of {name}, %"] = 100 * statistics.mean(hits)
    terms = compared(network, pair, "logits")
    found["tube dice, %"] = 100 * (1 - terms["tube"])
    found["warp error of logits"] = terms["warp"]
    found["warp error of probabilities"] = compared(network, pair, "probabilities")["warp"]
    return found


def compared(network: VPSNet, pair: FramePair, channels: str) -> dict[str, float]:
    """The terms of the pair as in training, of weight 1."""
    run = RunConfig(
        name="terms",
        network=network.config,
        loss=LossConfig(warp=1.0, tube=1.0),
        siamese=SiameseConfig.model_validate({"both_frames": True, "warp_channels": channels}),
    )
    step = TrainingStep(network, run).eval()
    return {name: float(term) for name, term in step(pair, seed=0).items()}


Segments = tuple[list[tuple[int, int]], Tensor]
"""What each segment is, and its mask: (N, h, w) bool at a quarter of the size, none empty."""


def thing_segments(truth: FrameTargets) -> Segments:
    """Things by class and track id."""
    masks = truth.masks[:, ::4, ::4].bool()
    kept = masks.flatten(1).any(1)
    keys = list(zip(truth.labels[kept].tolist(), truth.track_ids[kept].tolist()))
    return keys, masks[kept]


def class_segments(truth: FrameTargets) -> Segments:
    """Classes, the things of a class together."""
    semantic = truth.semantic[::4, ::4]
    classes = torch.nonzero(torch.bincount(semantic[semantic != VOID]))[:, 0]
    return [(label, 0) for label in classes.tolist()], semantic == classes[:, None, None]


def retrieved(joined: Tensor, target: Segments, reference: Segments) -> list[bool]:
    """For each segment of the target that the reference has: is the most similar one of the reference it?

    Args:
        joined: (2, C, h, w) features of target and reference.
        target, reference: segments; nothing is asked where the reference has fewer than two.
    """
    (keys, masks), (others, other_masks) = target, reference
    if len(others) < 2 or not keys:
        return []
    a, b = mask_pool(joined[0], masks), mask_pool(joined[1], other_masks)
    nearest = (F.normalize(a, dim=1) @ F.normalize(b, dim=1).T).argmax(1).tolist()
    return [others[best] == key for key, best in zip(keys, nearest) if key in others]


def per_street(networks: Sequence[VPSNet], options: argparse.Namespace) -> list[list[Found]]:
    """By network, by street: the mean of its pairs."""
    first, end = options.seeds
    found: list[list[Found]] = [[] for _ in networks]
    for seed in track(range(first, end), "streets", console=Console(stderr=True)):
        pairs = street_pairs(seed, tuple(options.size), options.gap, options.pairs)
        for network, streets in zip(networks, found):
            device = next(network.parameters()).device
            each = [measure(network, pair.to(device)) for pair in pairs]
            streets.append(
                {
                    name: statistics.mean(one[name] for one in each if name in one)
                    for name in QUANTITIES
                    if any(name in one for one in each)
                }
            )
    return found


def differences(base: list[list[Found]], other: list[list[Found]], name: str) -> Interval:
    """Other less base: over runs, whose streets are averaged; of a single run over its streets."""
    paired = [
        [b[name] - a[name] for a, b in zip(*run) if name in a and name in b] for run in zip(base, other)
    ]
    return interval(paired[0] if len(paired) == 1 else [statistics.mean(run) for run in paired])


def mean_of(found: list[list[Found]], name: str) -> float:
    """Over streets and runs."""
    return statistics.mean(street[name] for run in found for street in run if name in street)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, nargs="+", required=True)
    parser.add_argument("--other", type=Path, nargs="+", required=True)
    parser.add_argument("--seeds", type=int, nargs=2, default=(2000, 2020), metavar=("FIRST", "END"))
    parser.add_argument("--size", type=int, nargs=2, default=(256, 512), metavar=("H", "W"))
    parser.add_argument("--gap", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=3, help="of each street")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if len(options.base) != len(options.other):
        parser.error(f"{len(options.base)} base and {len(options.other)} other files; give pairs of runs")
    if not 0 <= options.seeds[0] < options.seeds[1] <= FIRST_TRAINING_SEED:
        parser.error(f"streets must have seeds from 0 to {FIRST_TRAINING_SEED}, where training begins")
    if not 0 < options.gap < FRAMES:
        parser.error(f"streets have {FRAMES} frames; give a gap from 1 to {FRAMES - 1}")
    networks = [load_weights(path)[0].to(options.device) for path in [*options.base, *options.other]]
    found = per_street(networks, options)
    base, other = found[: len(options.base)], found[len(options.base) :]
    over = "runs" if len(base) > 1 else "streets"
    table = Table(title=f"Pairs {options.gap} frames apart; interval over {over}")
    for heading in ("", "better", "base", "other", "difference", "95 % interval"):
        table.add_column(heading, justify="left" if heading in ("", "better") else "right")
    rows: dict[str, dict[str, float | None]] = {}
    for name, better in QUANTITIES.items():
        a, b, difference = mean_of(base, name), mean_of(other, name), differences(base, other, name)
        rows[name] = {"base": a, "other": b, "difference": difference.mean, over: difference.count}
        rows[name] |= {"low": number(difference.low), "high": number(difference.high)}
        numbers = f"{difference.mean:+.3f}", f"{difference.low:+.3f} to {difference.high:+.3f}"
        table.add_row(name, better, f"{a:.3f}", f"{b:.3f}", *numbers)
    Console().print(table)
    if options.json:
        files = {"base": [str(p) for p in options.base], "other": [str(p) for p in options.other]}
        settings = {"seeds": list(options.seeds), "gap": options.gap, "pairs": options.pairs}
        options.json.write_text(json.dumps({**files, **settings, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
