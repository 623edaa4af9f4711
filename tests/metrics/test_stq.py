import json
import math
from collections import Counter

import numpy as np
import pytest
from scenes import FOUR, PIXELS, feed, frame

from panoptube.metrics.stq import STQ


def stq(lines: list[tuple[str, str]]):
    return feed(STQ(FOUR), {"clip": lines})


def test_best_and_worst():
    best = stq([("aaarrs", "bbbrrs"), ("arrrrs", "brrrrs")])
    assert (best.stq, best.aq, best.sq, best.tubes) == (1, 1, 1, 1)
    worst = stq([("aaarrr", "rrraaa")])
    assert (worst.stq, worst.aq, worst.sq) == (0, 0, 0)


def test_by_hand():
    # Two frames of 4 pixels of car a: b finds 3 of them, then switches to a for 4.
    found = stq([("aaaarr", "bbbrrr"), ("aaaarr", "aaaarr")])
    # 1/8 (3 x 3/(8 + 3 - 3) + 4 x 4/(8 + 4 - 4))
    assert found.aq == pytest.approx((9 / 8 + 16 / 8) / 8)
    # car 7/8, road 4/5; sky and person never.
    assert found.sq == pytest.approx((7 / 8 + 4 / 5) / 2)
    assert found.stq == pytest.approx(math.sqrt(found.aq * found.sq))
    assert [c.iou for c in found.classes][2] == 7 / 8
    assert math.isnan(found.classes[1].iou)


def test_aq_doesnt_ask_for_the_class():
    found = stq([("aaaarr", "pppprr")])
    assert found.aq == 1
    # car and person 0, road 1.
    assert found.sq == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("truth", "prediction", "aq", "tubes"),
    [
        pytest.param("aaaaCCrr", "aaaaaarr", 1.0, 1, id="crowd doesn't count for the size"),
        pytest.param("aaaa..rr", "aaaaaarr", 4 / 6, 1, id="void does"),
        pytest.param("aaaarrrr", "aaaaaarr", 4 / 6, 1, id="stuff does"),
        pytest.param("CCCCrrrr", "aaaarrrr", 0.0, 0, id="no tube at all"),
        pytest.param("aaaarrrr", "CCCCrrrr", 1.0, 1, id="predicted crowd is a tube"),
    ],
)
def test_what_counts_for_a_tube(truth, prediction, aq, tubes):
    found = stq([(truth, prediction)])
    assert (found.aq, found.tubes) == (pytest.approx(aq), tubes)


def test_predicted_void_is_missed_and_no_class():
    # car 2/4, road 4/4: deeplab2 would take the mean with a third class of 0.
    assert stq([("aaaarrrr", "aa..rrrr")]).sq == pytest.approx((1 / 2 + 1) / 2)


def test_nothing_at_all():
    for found in (STQ(FOUR).compute(), stq([("....", "aabb")])):
        assert math.isnan(found.stq)
        assert found.tubes == 0
    assert json.dumps(found.to_dict(), allow_nan=False)


def slow(clips: list[list[tuple[str, str]]]) -> tuple[float, float]:
    """AQ and SQ with dictionaries of pixels."""
    total, tubes = 0.0, 0
    pairs: Counter[tuple[int, int]] = Counter()
    for clip in clips:
        pixels = [(PIXELS[t], PIXELS[p]) for truth, pred in clip for t, p in zip(truth, pred)]
        true = Counter(t for t, _ in pixels if t[0] in (2, 3) and t[1])
        predicted = Counter(p for t, p in pixels if p[0] in (2, 3) and not (t[0] in (2, 3) and not t[1]))
        both = Counter((t, p) for t, p in pixels if t in true and p[0] in (2, 3))
        for t, size in true.items():
            tubes += 1
            total += sum(n * n / (size + predicted[p] - n) for (u, p), n in both.items() if u == t) / size
        pairs.update((t[0], p[0]) for t, p in pixels if t[0] != 255)
    ious = []
    for c in range(4):
        hits = pairs[c, c]
        union = sum(n for (t, p), n in pairs.items() if c in (t, p))
        if union:
            ious.append(hits / union)
    return total / tubes, sum(ious) / len(ious)


def test_against_a_slow_version_and_merging():
    rng = np.random.default_rng(0)
    clips = []
    for _ in range(3):
        truth = ["".join(rng.choice(list(PIXELS), 40)) for _ in range(4)]
        clips.append([(t, t[:25] + "".join(rng.choice(list(PIXELS), 15))) for t in truth])
    found = feed(STQ(FOUR), {str(i): clip for i, clip in enumerate(clips)})
    aq, sq = slow(clips)
    assert (found.aq, found.sq) == (pytest.approx(aq, abs=1e-14), pytest.approx(sq, abs=1e-14))
    for i, clip in enumerate(found.clips):
        assert (clip.aq, clip.sq) == pytest.approx(slow(clips[i : i + 1]), abs=1e-14)
        assert (clip.name, clip.frames) == (str(i), 4)
    first, second = STQ(FOUR), STQ(FOUR)
    feed(first, {"0": clips[0]})
    feed(second, {"1": clips[1], "2": clips[2]})
    first.merge(second)
    assert first.compute() == found
    first.reset()
    assert first.compute().tubes == 0


def test_open_clips_count_and_faults():
    metric = STQ(FOUR)
    metric.update(frame("aarr"), frame("aarr"))
    assert metric.compute().stq == 1
    with pytest.raises(ValueError, match="must agree"):
        metric.update(frame("aa"), frame("aaa"))
    assert "STQ" in metric.compute().tables()[0].columns[0].header
