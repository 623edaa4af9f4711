"""Scenes are drawn as text, one character per pixel; windows of several frames are lists of such lines."""

import json
import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scenes import FOUR, PIXELS, frame

from panoptube.errors import UserError
from panoptube.evaluate import evaluate
from panoptube.metrics.protocol import CITYSCAPES_VPS, PROTOCOLS, VIPER, protocol_of
from panoptube.metrics.vpq import VPQ, VPQResult
from panoptube.panoptic.frame import PanopticFrame, Taxonomy

DATA = Path(__file__).parents[1] / "data" / "metrics"
SHARED = Path(__file__).parents[2].parent / "shared" / "fixtures" / "metrics"


def score(truth: list[str], prediction: list[str], windows: tuple[int, ...] = (1,)) -> VPQResult:
    metric = VPQ(FOUR, CITYSCAPES_VPS.with_windows(windows))
    for t, p in zip(truth, prediction):
        metric.update(frame(p), frame(t))
    metric.end_clip()
    return metric.compute()


def counts(result: VPQResult, name: str, window: int = 0) -> tuple[int, int, int]:
    found = next(c for c in result.windows[window].classes if c.name == name)
    return found.tp, found.fp, found.fn


def pq(result: VPQResult, name: str, window: int = 0) -> float:
    return next(c for c in result.windows[window].classes if c.name == name).pq


@pytest.mark.parametrize(
    ("truth", "prediction", "expected", "iou"),
    [
        pytest.param("aaaabbrr", "aaaabbrr", (2, 0, 0), 2.0, id="best"),
        pytest.param("aaaarrrr", "bbbbrrrr", (1, 0, 0), 1.0, id="ids need not be equal"),
        pytest.param("aaaarrrr", "pppprrrr", (0, 0, 1), 0.0, id="another class"),
        pytest.param("aaaarrrr", "rrrraaaa", (0, 1, 1), 0.0, id="worst"),
        pytest.param("aaaarrrr", "aarrrrrr", (0, 1, 1), 0.0, id="IoU 1/2 is no match"),
        pytest.param("aaaarrrr", "aaarrrrr", (1, 0, 0), 3 / 4, id="IoU above 1/2"),
        pytest.param("aaaa..rr", "aaaaaarr", (1, 0, 0), 1.0, id="void in the truth leaves the union"),
        pytest.param(
            "aaaarrrr", "aaa.....", (1, 0, 0), 3 / 4, id="void in the prediction stays in the union"
        ),
        pytest.param("....rrrr", "aaa.rrrr", (0, 0, 0), 0.0, id="FP on void is forgiven"),
        pytest.param("..rrrrrr", "aaaarrrr", (0, 1, 0), 0.0, id="half on void is not enough"),
        pytest.param("...rrrrr", "aaaaarrr", (0, 0, 0), 0.0, id="more than half on void"),
        pytest.param("CCCCrrrr", "abbbrrrr", (0, 0, 0), 0.0, id="crowd excuses its own class"),
        pytest.param("CCCCrrrr", "rrrrrrrr", (0, 0, 0), 0.0, id="crowd is never missed"),
        pytest.param("PPPPrrrr", "aaaarrrr", (0, 1, 0), 0.0, id="crowd of another class excuses nothing"),
        pytest.param(".CCrrrrr", "aaaaarrr", (0, 0, 0), 0.0, id="void and crowd add up"),
        pytest.param("aaaaCCrr", "aaaaaarr", (1, 0, 0), 4 / 6, id="crowd stays in the union"),
        pytest.param("aaaarrrr", "CCCCrrrr", (1, 0, 0), 1.0, id="predicted crowd is a segment"),
        pytest.param("aaaaaarr", "aaaabbrr", (1, 1, 0), 4 / 6, id="split"),
        pytest.param("aaaabbrr", "aaaaaarr", (1, 0, 1), 4 / 6, id="merged"),
    ],
)
def test_cars_of_one_frame(truth, prediction, expected, iou):
    result = score([truth], [prediction])
    assert counts(result, "car") == expected
    car = result.windows[0].classes[2]
    assert car.iou == pytest.approx(iou, abs=1e-15)
    tp, fp, fn = expected
    if any(expected):
        assert car.pq == pytest.approx(iou / (tp + fp / 2 + fn / 2), abs=1e-15)
        assert car.pq == pytest.approx(car.sq * car.rq, abs=1e-15)
    else:
        assert math.isnan(car.pq)


def test_an_id_switch_costs_only_in_longer_windows():
    truth = ["aaaarrrr", "raaaarrr", "rraaaarr"]
    switched = ["aaaarrrr", "rbbbbrrr", "rrbbbbrr"]
    result = score(truth, switched, (1, 2, 3))
    assert counts(result, "car", 0) == (3, 0, 0)
    # Windows 0-1 and 1-2: in the first both halves have IoU 4/8, no match; the second is perfect.
    assert counts(result, "car", 1) == (1, 2, 1)
    assert pq(result, "car", 1) == pytest.approx(1 / (1 + 2 / 2 + 1 / 2))
    # The whole clip: b covers 8 of 12 pixels, a is left over.
    assert counts(result, "car", 2) == (1, 1, 0)
    assert pq(result, "car", 2) == pytest.approx((8 / 12) / 1.5)
    assert pq(result, "road", 1) == pq(result, "road", 2) == 1.0
    assert result.things.pq == pytest.approx((1 + 1 / 2.5 + (8 / 12) / 1.5) / 3)
    assert result.all.pq == pytest.approx((1 + (1 + 1 / 2.5) / 2 + (1 + (8 / 12) / 1.5) / 2) / 3)


def test_an_id_that_changes_class_is_two_tubes():
    result = score(["aaaa", "aaaa", "aaaa"], ["aaaa", "aaaa", "pppp"], (3,))
    assert counts(result, "car") == (1, 0, 0)
    assert result.windows[0].classes[2].iou == 8 / 12
    assert counts(result, "person") == (0, 1, 0)


def test_means_leave_out_classes_that_never_occur():
    result = score(["aaaarrrr"], ["aaaappqr"])
    (window,) = result.windows
    # car 1; person only predicted, so 0; road 1 pixel of 4, so 0; sky never.
    assert (window.all.classes, window.things.classes, window.stuff.classes) == (3, 2, 1)
    assert (window.all.pq, window.things.pq, window.stuff.pq) == (pytest.approx(1 / 3), 0.5, 0.0)
    assert window.stuff.sq == 0.0
    assert counts(result, "person") == (0, 2, 0)
    assert counts(result, "road") == (0, 1, 1)


def test_number_of_windows():
    metric = VPQ(FOUR, CITYSCAPES_VPS.with_windows((1, 2, 4)))
    for length in (5, 3):
        for _ in range(length):
            metric.update(frame("ar"), frame("ar"))
        metric.end_clip()
    result = metric.compute()
    assert [w.windows for w in result.windows] == [5 + 3, 4 + 2, 2]
    assert [w.k for w in result.windows] == [0, 5, 15]
    assert (result.frames, result.clips) == (8, 2)
    assert result.all.pq == 1.0


def test_windows_never_span_clips():
    metric = VPQ(FOUR, CITYSCAPES_VPS.with_windows((2,)))
    for line in ("aaaarrrr", "bbbbrrrr"):
        metric.update(frame(line), frame(line.replace("b", "a")))
        metric.end_clip()
    assert metric.compute().windows[0].windows == 0


def test_clips_that_are_too_short_have_no_value_and_it_says_so():
    result = score(["ar", "ar"], ["ar", "ar"], (1, 2, 3))
    assert result.windows[1].all.pq == 1.0
    assert result.windows[2].windows == 0
    assert math.isnan(result.windows[2].all.pq)
    assert math.isnan(result.all.pq)
    assert result.all.classes == 2
    assert "no clip has 3 frames with truth" in str(result)
    as_json = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert as_json["vpq"] is None
    assert as_json["windows"][1]["all"]["pq"] == 1.0


def test_nothing_at_all():
    for result in (VPQ(FOUR).compute(), score(["...."], ["...."]), score(["...."], ["aabb"])):
        assert math.isnan(result.all.pq)
        assert all(c.tp + c.fp + c.fn == 0 for w in result.windows for c in w.classes)


def test_costs_add_up_to_what_is_lacking():
    metric = VPQ(FOUR, CITYSCAPES_VPS.with_windows((1, 2)))
    scenes = {
        "good": ["aaaarrrr", "aaaarrrr"],
        "bad": ["aarrrrrr", "bbbbssss"],
        "fair": ["aaaarrrs", "aaaarrrr"],
    }
    for name, lines in scenes.items():
        for line in lines:
            metric.update(frame(line), frame("aaaarrrr"))
        metric.end_clip(name)
    result = metric.compute()
    costs = {c.name: c.lost for c in result.per_clip}
    assert costs["good"] == 0 < costs["fair"] < costs["bad"]
    assert sum(costs.values()) == pytest.approx(1 - result.all.pq, abs=1e-15)
    assert [c.frames for c in result.per_clip] == [2, 2, 2]
    # A clip by itself: car 1 and road 7/8 in the window of two; sky is only predicted.
    fair = result.per_clip[2]
    assert fair.things.pq == 1
    assert fair.stuff.pq == pytest.approx(((7 / 8) / 2 + (7 / 8) / 2) / 2)


def test_viper_ignores_small_tubes_but_not_their_hits():
    def wide(line: str, first: int) -> PanopticFrame:
        """The first character `first` times, the others 2000 times."""
        small = frame(line)
        lengths = [first] + [2000] * (len(line) - 1)
        return PanopticFrame(small.semantic.repeat(lengths, 1), small.instance.repeat(lengths, 1))

    barrier = Taxonomy(
        "v", (*FOUR.categories[:1], replace(FOUR.categories[1], name="mobilebarrier"), *FOUR.categories[2:])
    )
    for pixels, car in ((1023, (0, 1, 0)), (1024, (1, 0, 0))):
        metric = VPQ(barrier, replace(VIPER, windows=(1,)))
        metric.update(wide("ars", pixels), wide("ars", pixels))
        (window,) = metric.compute().windows
        found = next(c for c in window.classes if c.name == "car")
        assert (found.tp, found.fp, found.fn) == car
        # Missed altogether: forgiven, if small.
        metric.reset()
        metric.update(wide(".rs", pixels), wide("ars", pixels))
        (window,) = metric.compute().windows
        found = next(c for c in window.classes if c.name == "car")
        assert (found.tp, found.fp, found.fn) == (0, 0, int(pixels >= 1024))
    assert [c.name for c in window.classes] == ["road", "car", "person"]
    # Two frames of 512 pixels are a tube of 1024.
    metric = VPQ(FOUR, replace(VIPER, windows=(2,)))
    for _ in range(2):
        metric.update(wide("ar", 512), wide("ar", 512))
    assert metric.compute().things.pq == 1.0


def test_merging_equals_counting_in_one():
    rng = np.random.default_rng(0)

    def line() -> str:
        return "".join(rng.choice(list(PIXELS), 60))

    clips = [[(line(), line()) for _ in range(5)] for _ in range(4)]
    # Half of the pixels right, so that there are matches.
    clips = [[(t, t[:45] + p[45:]) for t, p in clip] for clip in clips]
    whole, first, second = VPQ(FOUR), VPQ(FOUR), VPQ(FOUR)
    for i, clip in enumerate(clips):
        for t, p in clip:
            for metric in (whole, first if i < 2 else second):
                metric.update(frame(p), frame(t))
        whole.end_clip()
        (first if i < 2 else second).end_clip()
    first.merge(second)
    merged, expected = first.compute(), whole.compute()
    assert merged.all.pq == pytest.approx(expected.all.pq, abs=1e-15)
    assert 0 < expected.things.pq < 1
    for a, b in zip(merged.windows, expected.windows):
        assert [(c.tp, c.fp, c.fn) for c in a.classes] == [(c.tp, c.fp, c.fn) for c in b.classes]
        assert a.windows == b.windows
    assert (merged.frames, merged.clips) == (20, 4)
    first.reset()
    assert first.compute().frames == 0
    with pytest.raises(ValueError, match="same taxonomy and windows"):
        first.merge(VPQ(FOUR, CITYSCAPES_VPS.with_windows((1, 2))))


def test_faults():
    for windows in ((), (0, 1), (2, 1), (1, 1)):
        with pytest.raises(UserError, match="must ascend"):
            CITYSCAPES_VPS.with_windows(windows)
    with pytest.raises(ValueError, match="must agree"):
        VPQ(FOUR).update(frame("aa"), frame("aaa"))


def test_names_of_windows():
    names = {name: [p.k(n) for n in p.windows] for name, p in PROTOCOLS.items()}
    assert names == {
        "cityscapes-vps": [0, 5, 10, 15],
        "viper": [0, 5, 10, 15],
        "vipseg": [1, 2, 4, 6],
        "vipseg-8": [1, 2, 4, 6, 8],
    }
    with pytest.raises(UserError, match="no protocol 'coco'; choose one of cityscapes-vps, viper"):
        protocol_of("coco")


def test_prints_the_papers_row():
    text = str(score(["aaaarrrr", "aaaarrrr"], ["aaaarrrr", "aaaasrrr"], (1, 2)))
    # Window 1: car 1; road 1 and 3/4; sky only predicted. Window 2: road 7/8; sky again.
    row = next(line for line in text.splitlines() if " / " in line and "VPQ" not in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["62.5 / 100.0 / 43.8", "62.5 / 100.0 / 43.8", "62.5 / 100.0 / 43.8"]
    assert "1 clip, 2 frames with truth" in text
    assert "person" not in text


# Against a slow version that works pixel by pixel from the files, and against the published script's numbers.


def slow_counts(case: Path, window: int, only_last_crowd: bool) -> dict[int, list[float]]:
    """category id -> [IoU sum, TP, FP, FN]; with `only_last_crowd` one crowd id of a class excuses."""
    truth = json.loads((case / "gt/panoptic_gt.json").read_text())["annotations"]
    pred = json.loads((case / "pred/pred.json").read_text())["annotations"]

    def ids(path: Path) -> np.ndarray:
        return cv2.imread(str(path)).astype(np.int64) @ np.array([65536, 256, 1])

    total: dict[int, list[float]] = defaultdict(lambda: [0.0, 0, 0, 0])
    for clip in range(0, len(truth), 6):
        for start in range(clip, clip + 7 - window):
            frames = range(start, start + window)
            t_map = np.stack([ids(case / "gt/panoptic_video" / truth[i]["file_name"]) for i in frames])
            p_map = np.stack([ids(case / "pred/pan_pred" / pred[i]["file_name"]) for i in frames])
            t_info, p_info = (
                {s["id"]: s for i in frames for s in reversed(a[i]["segments_info"])} for a in (truth, pred)
            )
            crowds: dict[int, list[int]] = defaultdict(list)
            for i in frames:
                for s in truth[i]["segments_info"]:
                    if s["iscrowd"] and s["id"] not in crowds[s["category_id"]]:
                        crowds[s["category_id"]].append(s["id"])
            void = t_map == 0
            matched: set[int] = set()
            for t_id, t in sorted(t_info.items()):
                hit = False
                for p_id, p in sorted(p_info.items()):
                    if t["iscrowd"] or t["category_id"] != p["category_id"]:
                        continue
                    both = int(((t_map == t_id) & (p_map == p_id)).sum())
                    iou = both / int(((t_map == t_id) | ((p_map == p_id) & ~void)).sum())
                    if iou > 0.5:
                        hit = True
                        matched.add(p_id)
                        total[t["category_id"]][0] += iou
                        total[t["category_id"]][1] += 1
                if not hit and not t["iscrowd"]:
                    total[t["category_id"]][3] += 1
            for p_id, p in p_info.items():
                chosen = crowds[p["category_id"]][-1:] if only_last_crowd else crowds[p["category_id"]]
                here = p_map == p_id
                if p_id not in matched and 2 * (here & (void | np.isin(t_map, chosen))).sum() <= here.sum():
                    total[p["category_id"]][2] += 1
    return total


def assert_published(case: Path, expected: dict) -> None:
    """Everything: counts exactly, sums and means to 1e-12."""
    result = evaluate(case / "gt", case / "pred", progress=False).vpq
    for group, name in (("all", "vpq_all"), ("things", "vpq_thing"), ("stuff", "vpq_stuff")):
        assert 100 * getattr(result, group).pq == pytest.approx(expected["final"][name], abs=1e-10)
    for w in result.windows:
        theirs = expected["k"][str(w.k)]
        for group in ("all", "things", "stuff"):
            mine = getattr(w, group)
            assert mine.classes == theirs[group]["n"]
            for score_name in ("pq", "sq", "rq"):
                assert getattr(mine, score_name) == pytest.approx(theirs[group][score_name], abs=1e-12)
        for i, c in enumerate(w.classes):
            per_class = theirs["per_class"][str(i)]
            assert (c.tp, c.fp, c.fn) == (per_class["tp"], per_class["fp"], per_class["fn"])
            assert c.iou == pytest.approx(per_class["iou"], abs=1e-12)


@pytest.mark.parametrize("name", ["city_basic", "city_empty", "edge_half"])
def test_agrees_with_the_published_script(name):
    expected = json.loads((DATA / name / "expected.json").read_text())
    assert_published(DATA / name, expected["vpq_cityscapes"])


def test_slow_version_agrees_on_files():
    result = evaluate(DATA / "city_empty/gt", DATA / "city_empty/pred", progress=False).vpq
    for w in result.windows[1:3]:
        slow = slow_counts(DATA / "city_empty", w.window, only_last_crowd=False)
        for i, c in enumerate(w.classes):
            assert [c.iou, c.tp, c.fp, c.fn] == pytest.approx(slow[i], abs=1e-12)


def test_all_crowd_of_a_class_excuses():
    # One frame, two crowd areas of cars with a car predicted on each; the published script excuses only one.
    result = score(["CCCrrCCC"], ["aaarrbbb"])
    assert counts(result, "car") == (0, 0, 0)


@pytest.mark.skipif(not SHARED.exists(), reason="the full set of reference cases is not beside the checkout")
@pytest.mark.parametrize("name", ["city_basic", "city_empty", "city_hard", "city_perfect", "edge_half"])
def test_full_reference_cases(name):
    case = SHARED / name
    expected = json.loads((case / "expected.json").read_text())["vpq_cityscapes"]
    if name != "city_hard":
        assert_published(case, expected)
        return
    # Here clips have several crowd segments of a class, of which the script excuses one: all else must agree,
    # and the slow version must give both sets of numbers.
    result = evaluate(case / "gt", case / "pred", progress=False).vpq
    for w in result.windows[:2]:
        ours = slow_counts(case, w.window, only_last_crowd=False)
        theirs = slow_counts(case, w.window, only_last_crowd=True)
        for i, c in enumerate(w.classes):
            per_class = expected["k"][str(w.k)]["per_class"][str(i)]
            assert [c.iou, c.tp, c.fp, c.fn] == pytest.approx(ours[i], abs=1e-12)
            assert [per_class[n] for n in ("iou", "tp", "fp", "fn")] == pytest.approx(theirs[i], abs=1e-12)
