import builtins
import json
import math

import pytest
from scenes import FOUR, feed, frame

from panoptube.errors import UserError
from panoptube.metrics.tracking import Tracking


def car(lines: list[tuple[str, str]]):
    found = feed(Tracking(FOUR), {"clip": lines})
    return next(c for c in found.classes if c.name == "car")


def test_best_and_worst():
    best = car([("aaaarr", "bbbbrr"), ("aaaarr", "bbbbrr")])
    assert (best.hota, best.idf1, best.motsa, best.smotsa, best.id_switches) == (1, 1, 1, 1, 0)
    worst = car([("aaaarrrr", "rrrraaaa")])
    # One missed and one invented for one true mask.
    assert (worst.hota, worst.idf1, worst.motsa) == (0, 0, -1)


def test_an_id_switch():
    found = car([("aaaarr", "aaaarr"), ("aaaarr", "bbbbrr")])
    assert found.id_switches == 1
    assert found.motsa == pytest.approx(1 - 1 / 2)
    # One of two frames under the best single id: IDTP 1, IDFP 1, IDFN 1.
    assert found.idf1 == pytest.approx(1 / 2)
    # DetA 1; each hit is associated with one of the two frames of its tracks.
    assert (found.deta, found.assa) == (pytest.approx(1), pytest.approx(1 / 2))
    assert found.hota == pytest.approx(math.sqrt(1 / 2))


def test_iou_one_half_is_a_match_and_hota_counts_thresholds():
    found = car([("aaaarr", "aarrrr")])
    assert found.motsa == 1
    # Ten of the nineteen thresholds 0.05, 0.1, ..., 0.95 are 0.5 or less.
    assert found.hota == pytest.approx(10 / 19)


@pytest.mark.parametrize(
    ("truth", "prediction", "false_positives"),
    [
        pytest.param("aarrrr", "aarbbb", 1, id="on stuff"),
        pytest.param("aar...", "aarbbb", 0, id="on void"),
        pytest.param("aarCCC", "aarbbb", 0, id="on crowd"),
        pytest.param("aarPPP", "aarbbb", 0, id="on crowd of another class"),
        pytest.param("aarr..", "aabbbb", 1, id="half on void is not enough"),
        pytest.param("aa....", "aaa...", 0, id="a match may touch void"),
    ],
)
def test_ignore_region(truth, prediction, false_positives):
    found = car([(truth, prediction)])
    assert found.fields["CLEAR"]["CLR_FP"] == false_positives
    assert found.fields["CLEAR"]["CLR_TP"] == 1


def test_ids_of_another_clip_are_other_objects_and_merging():
    clips = {"0": [("aarr", "aarr")], "1": [("aarr", "bbrr"), ("arrr", "rrrr")], "2": [("pprr", "pprr")]}
    whole = feed(Tracking(FOUR), clips)
    assert whole.classes[0].id_switches == 0
    assert [c.name for c in whole.classes] == ["car", "person"]
    assert whole.hota == pytest.approx((whole.classes[0].hota + whole.classes[1].hota) / 2)
    first, second = Tracking(FOUR), Tracking(FOUR)
    feed(first, {"0": clips["0"]})
    feed(second, {n: clips[n] for n in ("1", "2")})
    first.merge(second)
    assert first.compute().to_dict() == whole.to_dict()
    first.reset()
    first.update(frame("rrrr"), frame("rrrr"))
    nothing = first.compute()
    assert math.isnan(nothing.hota)
    assert json.dumps(nothing.to_dict(), allow_nan=False)
    assert "HOTA" in str(whole.tables()[0].columns[1].header)


def test_without_trackeval_it_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **more):
        if name.startswith("trackeval"):
            raise ImportError("No module named 'trackeval'")
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UserError, match=r"install panoptube\[tracking\]"):
        Tracking(FOUR)
