import json
import math

import pytest
from scenes import FOUR, frame

from panoptube.metrics.pq import PQ
from panoptube.metrics.protocol import CITYSCAPES_VPS
from panoptube.metrics.vpq import VPQ

LINES = [("aaaarrrr", "aaarrrrr"), ("aabbrrss", "aarrrrss"), ("pp..rrrr", "ppaarrrr")]


def test_by_hand_and_as_vpq_of_single_frames():
    metric, vpq = PQ(FOUR), VPQ(FOUR, CITYSCAPES_VPS.with_windows((1,)))
    for i, (truth, prediction) in enumerate(LINES):
        metric.update(frame(prediction), frame(truth), name=f"f{i}")
        vpq.update(frame(prediction), frame(truth))
    found = metric.compute()
    car = found.quality.classes[2]
    # 3/4 and 1 found, b missed; the car on void is forgiven.
    assert (car.tp, car.fp, car.fn, car.iou) == (2, 0, 1, 1.75)
    assert car.pq == pytest.approx(1.75 / 2.5) == pytest.approx(car.sq * car.rq)
    assert found.quality == vpq.compute().windows[0]
    assert [(f.name, f.tp, f.fp, f.fn) for f in found.frames] == [
        ("f0", 2, 0, 0),
        ("f1", 2, 1, 2),
        ("f2", 2, 0, 0),
    ]
    assert sum(f.lost for f in found.frames) == pytest.approx(1 - found.quality.all.pq, abs=1e-15)
    assert found.to_dict()["per_frame"]["f1"]["fn"] == 2
    assert any("sky" in str(cell) for cell in found.tables()[0].columns[0].cells)


def test_merging_reset_and_nothing():
    first, second, whole = PQ(FOUR), PQ(FOUR), PQ(FOUR)
    for i, (truth, prediction) in enumerate(LINES):
        for metric in (whole, second if i else first):
            metric.update(frame(prediction), frame(truth), name=str(i))
    first.merge(second)
    assert first.compute() == whole.compute()
    first.reset()
    empty = first.compute()
    assert math.isnan(empty.quality.all.pq)
    assert json.dumps(empty.to_dict(), allow_nan=False)
    other = PQ(type(FOUR)("other", FOUR.categories))
    with pytest.raises(ValueError, match="same taxonomy"):
        first.merge(other)
