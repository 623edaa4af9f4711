import json
import math

import numpy as np
import pytest

from panoptube.metrics.tc import TC

NAMES = ("road", "sky", "car")
STILL = np.zeros((1, 4, 2), np.float32)


def labels(text: str) -> np.ndarray:
    return np.array([[{"r": 0, "s": 1, "c": 2, "x": 3, ".": 255}[t] for t in text]], np.uint8)


def tc(before: str, after: str, official: bool = False, flow: np.ndarray = STILL):
    metric = TC(NAMES, "given", official)
    metric.update(labels(before), labels(after), flow)
    return metric.compute()


def test_best_worst_and_by_hand():
    assert tc("rrcc", "rrcc").tc == 1
    assert tc("rrcc", "ccrr").tc == 0
    # road 2/3, car 1/2: sky never.
    assert tc("rrrc", "rrcc").tc == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert tc("rrrc", "rrcc", official=True).tc == pytest.approx((2 / 3 + 1 / 2) / 3)


def test_flow_is_followed():
    moved = np.full((1, 4, 2), (1, 0), np.float32)
    assert tc("rcss", "rrcs", flow=moved).tc == 1
    assert tc("rcss", "rrcs").tc < 1


def test_void_of_the_warped_map_is_left_out_and_other_void_is_not():
    assert tc("rrcc", "rr.c").tc == 1
    # car 1/2.
    assert tc("rr.c", "rrcc").tc == pytest.approx((1 + 1 / 2) / 2)
    unknown = STILL.copy()
    unknown[0, 2] = np.nan
    assert tc("rrsc", "rrcc", flow=unknown).tc == 1


def test_the_number_after_the_last_class_counts_as_the_last_class():
    assert tc("rrxx", "rrcc", official=True).classes[2][1] == 0
    assert tc("rrxx", "rrxx", official=True).classes[2] == ("car", 1.0)
    assert math.isnan(tc("rrxx", "rrxx").classes[2][1])


def test_merging_names_and_faults():
    whole, first, second = (TC(NAMES, "mine") for _ in range(3))
    for i, (a, b) in enumerate([("rrcc", "rrrc"), ("sscc", "ssss")]):
        for metric in (whole, second if i else first):
            metric.update(labels(a), labels(b), STILL)
    first.merge(second)
    assert first.compute() == whole.compute()
    assert first.compute().pairs == 2
    assert first.compute().to_dict()["flow"] == "mine"
    assert "flow: mine" in str(first.compute().tables()[0].title)
    with pytest.raises(ValueError, match="same classes, flow and mode"):
        first.merge(TC(NAMES, "yours"))
    with pytest.raises(ValueError, match="must agree"):
        first.update(labels("rr"), labels("rrr"), STILL)
    with pytest.raises(ValueError, match="must agree"):
        first.update(labels("rr"), labels("rr"), STILL)
    first.reset()
    assert math.isnan(first.compute().tc)
    assert json.dumps(first.compute().to_dict(), allow_nan=False)
