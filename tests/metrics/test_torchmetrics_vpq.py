import numpy as np
import pytest
import torch
from scenes import FOUR, feed, frame

from panoptube.metrics.protocol import CITYSCAPES_VPS
from panoptube.metrics.vpq import VPQ
from panoptube.torchmetrics_vpq import VideoPanopticQuality

CLIPS = {
    "0": [("aaaarrrr", "aaarrrrr"), ("aabbrrss", "aarrrrss")],
    "1": [("pp..rrrr", "ppaarrrr"), ("ppsssrrr", "qqsssrrr")],
}
PROTOCOL = CITYSCAPES_VPS.with_windows((1, 2))


def maps(lines: list[str]) -> torch.Tensor:
    """(T, 1, W, 2)."""
    frames = [frame(line) for line in lines]
    return torch.from_numpy(np.stack([np.stack([f.semantic, f.instance], -1) for f in frames]))


def test_is_vpq_of_the_same_clips_and_adds_up_between_processes():
    expected = feed(VPQ(FOUR, PROTOCOL), CLIPS)
    whole, first, second = (VideoPanopticQuality(FOUR, PROTOCOL) for _ in range(3))
    for name, lines in CLIPS.items():
        truth, prediction = (maps([pair[i] for pair in lines]) for i in (0, 1))
        for metric in (whole, first if name == "0" else second):
            metric.update(prediction, truth)
    found = whole.compute()
    assert {n: v.item() for n, v in found.items()} == pytest.approx(
        {"vpq": expected.all.pq, "vpq_things": expected.things.pq, "vpq_stuff": expected.stuff.pq}, abs=1e-15
    )
    # What torchmetrics does between processes: states are summed.
    first.iou += second.iou
    first.events += second.events
    first._computed = None
    assert first.compute()["vpq"].item() == pytest.approx(expected.all.pq, abs=1e-15)
    whole.reset()
    assert whole.events.sum() == 0


def test_faults():
    metric = VideoPanopticQuality(FOUR)
    with pytest.raises(ValueError, match="must be"):
        metric.update(maps(["aa"]), maps(["aaa"]))
    with pytest.raises(ValueError, match=r"in 0\.\.255"):
        metric.update(maps(["aa"]) - 5, maps(["aa"]))
