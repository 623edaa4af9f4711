"""Taxonomy and PanopticFrame: what they compute, and that each fault is named."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.errors import UserError
from panoptube.panoptic.frame import VOID, Category, PanopticFrame, Segment, Taxonomy

ROAD = Category("road", False, (1, 2, 3), 7)
SKY = Category("sky", False, (4, 5, 6), 23)
CAR = Category("car", True, (7, 8, 9), 26)
PERSON = Category("person", True, (10, 11, 12), 24)
FOUR = Taxonomy("four", (ROAD, SKY, CAR, PERSON))
LETTERS = {"r": 0, "s": 1, "c": 2, "p": 3, ".": VOID}


def frame(classes: list[str], ids: list[str], scores: dict[int, float] | None = None) -> PanopticFrame:
    semantic = np.array([[LETTERS[c] for c in line] for line in classes], np.uint8)
    instance = np.array([[int(c) for c in line] for line in ids], np.int32)
    return PanopticFrame(semantic, instance, scores or {})


def test_taxonomy_counts() -> None:
    assert (len(FOUR), FOUR.num_stuff, FOUR.num_things) == (4, 2, 2)
    assert FOUR.names == ("road", "sky", "car", "person")
    assert [FOUR.is_thing(label) for label in (-1, 0, 1, 2, 3, 4, VOID)] == [False] * 3 + [True] * 2 + [
        False
    ] * 2
    assert FOUR.index("car") == 2
    assert (CITYSCAPES.num_stuff, CITYSCAPES.num_things) == (11, 8)


def test_taxonomy_colors() -> None:
    colors = FOUR.colors
    assert (colors.shape, colors.dtype) == ((256, 3), np.uint8)
    assert colors[:4].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]]
    assert (colors[4:] == 0).all()


@pytest.mark.parametrize("taxonomy", [FOUR, CITYSCAPES])
def test_taxonomy_round_trip_through_json(taxonomy: Taxonomy) -> None:
    assert Taxonomy.from_dict(json.loads(json.dumps(taxonomy.to_dict()))) == taxonomy


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ((), "taxonomy 'bad' has 0 classes; 1 to 255 are possible"),
        (
            tuple(Category(str(i), False, (0, 0, 0), i) for i in range(256)),
            "taxonomy 'bad' has 256 classes; 1 to 255 are possible",
        ),
        ((ROAD, Category("road", False, (0, 0, 0), 1)), "has the name 'road' twice"),
        ((ROAD, Category("sky", False, (0, 0, 0), 7)), "has the id 7 twice"),
        ((ROAD, CAR, SKY), "has the thing 'car' before a stuff class"),
        ((Category("road", False, (0, 0, 256), 0),), r"colour \(0, 0, 256\) of 'road'"),
        ((Category("road", False, (0, -1, 0), 0),), r"colour \(0, -1, 0\) of 'road'"),
    ],
)
def test_taxonomy_faults(categories: tuple[Category, ...], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        Taxonomy("bad", categories)
    assert "\n" not in str(error.value)


def test_taxonomy_has_no_such_class() -> None:
    with pytest.raises(UserError, match="'four' has no class 'bus'; it has road, sky, car, person"):
        FOUR.index("bus")


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"categories": 3},
        {"categories": [{"id": 1, "name": "x", "isthing": 0}]},
        {"categories": [{"id": "one", "name": "x", "isthing": 0, "color": [0, 0, 0]}]},
        {"categories": [{"id": 1, "name": "x", "isthing": 0, "color": [0, 0]}]},
        {"categories": ["road"]},
    ],
)
def test_not_a_taxonomy(data: dict[str, Any]) -> None:
    with pytest.raises(
        UserError, match=r"not a taxonomy .*; each category needs id, name, isthing and color"
    ):
        Taxonomy.from_dict(data)


@pytest.mark.parametrize(
    ("semantic", "instance", "message"),
    [
        (
            np.zeros((2, 3), np.int64),
            np.zeros((2, 3), np.int32),
            r"semantic must be \(H, W\) uint8, got \(2, 3\) int64",
        ),
        (np.zeros(6, np.uint8), np.zeros((2, 3), np.int32), r"semantic must be \(H, W\) uint8, got \(6,\)"),
        (
            np.zeros((2, 3), np.uint8),
            np.zeros((2, 3), np.int64),
            r"instance must be \(H, W\) int32, got .* int64",
        ),
        (
            np.zeros((2, 3), np.uint8),
            np.zeros((3, 2), np.int32),
            r"semantic is \(2, 3\), instance is \(3, 2\)",
        ),
        (
            np.zeros((1, 2), np.uint8),
            np.array([[0, -4]], np.int32),
            "instance holds -4; track ids are 0 or more",
        ),
    ],
)
def test_frame_faults(semantic: Any, instance: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PanopticFrame(semantic, instance)


def test_check() -> None:
    frame(["rsc", "p.c"], ["001", "200"]).check(FOUR)
    with pytest.raises(ValueError, match=r"semantic holds class 3; 'three' has 0\.\.2 and 255"):
        frame(["rsc", "p.c"], ["001", "200"]).check(Taxonomy("three", (ROAD, SKY, CAR)))
    with pytest.raises(ValueError, match="track id 5 at row 1, column 2 lies on sky; only things have ids"):
        frame(["rsc", "p.s"], ["001", "205"]).check(FOUR)
    with pytest.raises(ValueError, match="track id 9 at row 0, column 1 lies on void"):
        frame(["r.c"], ["091"]).check(FOUR)


def test_segments() -> None:
    found = frame(
        ["rrcc..", "rcccpp", "rrc.pp"],
        ["002200", "012277", "001077"],
        {1: 0.5, 7: 0.25, 0: 0.9},
    ).segments()
    assert found == [
        Segment(0, 0, 5, (0, 0, 2, 3), None),
        Segment(2, 1, 2, (1, 1, 2, 2), 0.5),
        Segment(2, 2, 4, (2, 0, 2, 2), None),
        Segment(3, 7, 4, (4, 1, 2, 2), 0.25),
    ]


def test_segments_crowd_same_id_of_two_classes_and_large_ids() -> None:
    made = frame(["ccpp"], ["0111"])
    assert [(s.label, s.id, s.area) for s in made.segments()] == [(2, 0, 1), (2, 1, 1), (3, 1, 2)]
    largest = 2**31 - 1
    big = PanopticFrame(np.full((1, 1), 2, np.uint8), np.full((1, 1), largest, np.int32))
    assert big.segments()[0].id == largest


def test_segments_of_void_are_none() -> None:
    assert frame(["..", ".."], ["00", "00"]).segments() == []
    assert frame(["..", ".."], ["00", "00"]).size == (2, 2)


def test_tracks() -> None:
    assert frame(["rccc", "cccr"], ["0730", "7770"]).tracks() == [3, 7]
    assert frame(["rr"], ["00"]).tracks() == []
    empty = PanopticFrame(np.zeros((0, 3), np.uint8), np.zeros((0, 3), np.int32))
    assert empty.tracks() == []
