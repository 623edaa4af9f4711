"""Tables of tracks by hand, from Python and from files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from drawn_results import FRAMES, draw, write_result

from panoptube.convert_result import convert_result
from panoptube.errors import UserError
from panoptube.forms.result import read_result
from panoptube.forms.tracks import TrackTables, track_tables

pandas = pytest.importorskip("pandas")

TRACKS = [
    ("result", 3, "car", 0, 2, 2, 0.75),
    ("result", 5, "person", 0, 1, 2, 0.5),
    ("result", 9, "car", 2, 2, 1, 0.125),
]
PER_FRAME = [
    ("result", 0, "000000", 0.0, 3, "car", 15, 0, 1, 8, 3, 0.5),
    ("result", 0, "000000", 0.0, 5, "person", 6, 4, 1, 2, 3, 0.75),
    ("result", 1, "000001", 0.5, 5, "person", 6, 4, 1, 2, 3, 0.25),
    ("result", 2, "000002", 1.0, 3, "car", 4, 0, 1, 2, 2, 1.0),
    ("result", 2, "000002", 1.0, 9, "car", 8, 2, 1, 6, 3, 0.125),
]


def tables(folder: Path, fps: float | None = 2) -> TrackTables:
    taxonomy, videos = read_result(folder)
    return track_tables(videos, taxonomy, fps, progress=False)


def rows(table) -> list[tuple]:
    return list(table.itertuples(index=False, name=None))


def test_tables_by_hand(tmp_path: Path) -> None:
    # Only a crowd has neither track nor stuff.
    found = tables(write_result(tmp_path / "result", [*FRAMES, draw("cccccccc " * 5)]))
    assert rows(found.tracks) == TRACKS
    assert rows(found.frames) == PER_FRAME
    assert list(found.frames.columns)[:6] == ["video", "frame", "name", "time", "id", "class"]
    assert rows(found.stuff)[0] == ("result", 0, "000000", 0.0, "road", 9, False)
    assert rows(found.stuff)[-1] == ("result", 3, "000003", 1.5, "car", 40, True)


def test_the_pngs_give_the_same_where_the_json_says_less(tmp_path: Path) -> None:
    folder = write_result(tmp_path / "result")
    expected = tables(folder)
    data = json.loads((folder / "panoptic.json").read_text())
    for annotation in data["annotations"]:
        for segment in annotation["segments_info"]:
            del segment["bbox"]
    (folder / "panoptic.json").write_text(json.dumps(data))
    for found, table in zip(tables(folder), expected):
        pandas.testing.assert_frame_equal(found, table)


def test_no_time_without_fps_and_no_score_without_scores(tmp_path: Path) -> None:
    found = tables(write_result(tmp_path / "result", [draw("AAr")]), fps=None)
    assert "time" not in [*found.frames.columns, *found.stuff.columns]
    assert math.isnan(found.tracks["score"][0])
    assert math.isnan(found.frames["score"][0])


def test_no_tracks_at_all(tmp_path: Path) -> None:
    found = tables(write_result(tmp_path / "result", [draw("rr")]))
    assert (len(found.tracks), len(found.frames), len(found.stuff)) == (0, 0, 1)
    assert list(found.tracks.columns) == [
        *("video", "id", "class", "first_frame", "last_frame", "length", "score")
    ]


def test_tracks_of_two_videos_and_of_two_classes_stay_apart(tmp_path: Path) -> None:
    both = draw("AAPP")
    both.instance[:] = 3
    write_result(tmp_path / "all/b", [both])
    write_result(tmp_path / "all/a", [draw("AArr")])
    found = tables(tmp_path / "all").tracks
    assert rows(found[["video", "id", "class"]]) == [("a", 3, "car"), ("b", 3, "car"), ("b", 3, "person")]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_files(tmp_path: Path, form: str) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    folder = write_result(tmp_path / "result")
    convert_result(folder, form, tmp_path / "out", fps=2, progress=False)
    read = pandas.read_csv if form == "csv" else pandas.read_parquet
    options = {"dtype": {"name": str}} if form == "csv" else {}
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        *(f"{name}.{form}" for name in ("stuff", "track_frames", "tracks"))
    ]
    assert rows(read(tmp_path / f"out/tracks.{form}")) == TRACKS
    assert rows(read(tmp_path / f"out/track_frames.{form}", **options)) == PER_FRAME


@pytest.mark.parametrize("fps", [0, -1, math.nan, math.inf])
def test_impossible_fps(tmp_path: Path, fps: float) -> None:
    with pytest.raises(UserError, match="frames per second above 0"):
        tables(write_result(tmp_path / "result"), fps)
