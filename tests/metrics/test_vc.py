import json
import math

import numpy as np
import pytest

from panoptube.metrics.vc import VC

VOID = 255


def clip(text: str) -> np.ndarray:
    """(T, 1, W): frames are separated by spaces."""
    table = {"r": 0, "c": 2, ".": VOID}
    return np.array([[[table[t] for t in line]] for line in text.split()], np.uint8)


def vc(lengths: tuple[int, ...], *clips: tuple[str, str], official: bool = False) -> VC:
    metric = VC(lengths, official)
    for prediction, truth in clips:
        for p, t in zip(clip(prediction), clip(truth)):
            metric.update(p, t)
        metric.end_clip()
    return metric


def scores(*args, **more) -> list[float]:
    return [score for _, score, _ in vc(*args, **more).compute().scores]


def slow(predictions: np.ndarray, truths: np.ndarray, length: int) -> list[float]:
    found = []
    for i in range(len(truths) - length + 1):
        constant = (truths[i : i + length] == truths[i]).all(0) & (truths[i] != VOID)
        stays = (predictions[i : i + length] == predictions[i]).all(0)
        if constant.any():
            found.append((constant & stays).sum() / constant.sum())
    return found


def test_by_hand():
    truth = "rrcc rrcc rccc"
    assert scores((2,), (truth, truth)) == [1]
    # First window 3 of 4 pixels stay, second 2 of the 3 whose class stays.
    assert scores((2,), ("rrcc rrcr rrcc", truth)) == [pytest.approx((3 / 4 + 2 / 3) / 2)]
    assert scores((2,), ("rrrr cccc rrrr", truth)) == [0]


def test_void_of_the_truth_is_left_out():
    assert scores((2,), ("rr cr", ".r .r")) == [1]
    assert scores((2,), ("rr cr cc", ".r .r .r"), official=True) == [1 / 2]


def test_windows_and_what_the_script_does_with_them():
    truth = "r r r r"
    steady, jumpy = ("r r r r", truth), ("r r r c", truth)
    assert [w for *_, w in vc((2, 4), jumpy).compute().scores] == [3, 1]
    assert scores((2, 3), jumpy) == [2 / 3, 1 / 2]
    # Without each clip's last window, and with the windows of 2 in the mean of 3.
    assert scores((2, 3), jumpy, steady, official=True) == [1, 1]
    late = ("r c c c", truth)
    assert scores((2, 3), late, official=True) == [1 / 2, pytest.approx((0 + 1 + 0) / 3)]
    assert math.isnan(scores((5,), steady)[0])


def test_against_a_slow_version_and_merging():
    rng = np.random.default_rng(0)
    clips = []
    for frames in (9, 12, 3):
        truth = rng.choice([0, 1, VOID], (1, 6, 7), p=[0.5, 0.4, 0.1]).repeat(frames, 0).astype(np.uint8)
        truth[rng.random(truth.shape) < 0.05] = 3
        prediction = truth.copy()
        prediction[rng.random(truth.shape) < 0.05] = 4
        clips.append((prediction, truth))
    whole, first, second = VC((2, 5)), VC((2, 5)), VC((2, 5))
    for i, (predictions, truths) in enumerate(clips):
        for metric in (whole, second if i else first):
            for p, t in zip(predictions, truths):
                metric.update(p, t)
            metric.end_clip()
    for length, score, windows in whole.compute().scores:
        expected = [s for p, t in clips for s in slow(p, t, length)]
        assert (score, windows) == (pytest.approx(np.mean(expected), abs=1e-15), len(expected))
    first.merge(second)
    assert first.compute() == whole.compute()
    with pytest.raises(ValueError, match="same lengths and mode"):
        first.merge(VC((2, 6)))
    first.reset()
    assert json.dumps(first.compute().to_dict(), allow_nan=False)


def test_faults():
    metric = VC()
    metric.update(np.zeros((2, 3), np.uint8), np.zeros((2, 3), np.uint8))
    with pytest.raises(ValueError, match="must agree"):
        metric.update(np.zeros((2, 4), np.uint8), np.zeros((2, 4), np.uint8))
    metric.end_clip()
    metric.update(np.zeros((2, 4), np.uint8), np.zeros((2, 4), np.uint8))
