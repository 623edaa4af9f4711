"""Tables of tracks, as pandas DataFrames: one row for each track, for each track and frame, for each area.

Only the JSON of a result is read where it has areas and boxes, as that of `panoptube predict` has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

from panoptube.data.new_file import writing
from panoptube.errors import UserError
from panoptube.forms.extra import load
from panoptube.forms.result import Videos, frame_segments
from panoptube.panoptic.frame import Taxonomy
from panoptube.progress import progress_bar


class TrackTables(NamedTuple):
    """DataFrames, ordered by video, then frame or track. `frame` counts from 0; `name` is the PNG's name.

    tracks: video, id, class, first_frame, last_frame (int), length (frames in which it is seen), score (mean
        of those that it has, or NaN).
    frames: video, frame, name, [time,] id, class, area, x, y, width, height (pixels), score (or NaN).
    stuff: video, frame, name, [time,] class, area, crowd (bool: a thing class without tracks).
    `time` is in seconds, from 0 on, where frames per second are known.
    """

    tracks: Any
    frames: Any
    stuff: Any


def track_tables(
    videos: Videos, taxonomy: Taxonomy, fps: float | None = None, progress: bool = True
) -> TrackTables:
    """The tables of a result. Memory grows with the number of rows.

    Args:
        videos, taxonomy: as `read_result` gives them.
        fps: frames per second; None leaves out `time`.
        progress: show a bar with the time left.

    Raises:
        UserError: pandas isn't installed, or the result is broken.
    """
    pandas = load("pandas", "a table of tracks")
    if fps is not None and not 0 < fps < 1e6:
        raise UserError(f"fps is {fps}; give frames per second above 0")
    rows: list[tuple[Any, ...]] = []
    areas: list[tuple[Any, ...]] = []
    with progress_bar(progress, "frames") as bar:
        task = bar.add_task("tables", total=sum(map(len, videos.values())))
        for video, frames in videos.items():
            for t, stored in enumerate(frames):
                place = (video, t, stored.name, None if fps is None else t / fps)
                for label, track, area, box, score in frame_segments(stored):
                    name = taxonomy.names[label]
                    if track:
                        rows.append((*place, track, name, area, *box, score))
                    else:
                        areas.append((*place, name, area, taxonomy.is_thing(label)))
                bar.advance(task)
    place_columns = ["video", "frame", "name", "time"]
    columns = [*place_columns, "id", "class", "area", "x", "y", "width", "height", "score"]
    per_frame = pandas.DataFrame(rows, columns=columns).astype(
        dict.fromkeys(("frame", "id", "area", "x", "y", "width", "height"), "int64") | {"score": "float64"}
    )
    stuff = pandas.DataFrame(areas, columns=[*place_columns, "class", "area", "crowd"]).astype(
        {"frame": "int64", "area": "int64", "crowd": "bool"}
    )
    # A track's key is (class, id).
    tracks = per_frame.groupby(["video", "id", "class"], sort=False, as_index=False).agg(
        first_frame=("frame", "min"),
        last_frame=("frame", "max"),
        length=("frame", "size"),
        score=("score", "mean"),
    )
    order = {video: i for i, video in enumerate(videos)}
    places = tracks["video"].map(order)
    tracks = tracks.assign(place=places).sort_values(["place", "id", "class"]).drop(columns="place")
    if fps is None:
        per_frame, stuff = per_frame.drop(columns="time"), stuff.drop(columns="time")
    return TrackTables(tracks.reset_index(drop=True), per_frame, stuff)


def write_tables(tables: TrackTables, folder: Path, form: Literal["csv", "parquet"]) -> None:
    """Writes tracks, track_frames and stuff, .csv or .parquet, into a folder.

    Raises:
        UserError: they can't be written, or pyarrow isn't installed, which Parquet needs.
    """
    if form == "parquet":
        load("pyarrow", "Parquet")
    for name, table in zip(("tracks", "track_frames", "stuff"), tables):
        path = folder / f"{name}.{form}"
        with writing(path):
            if form == "csv":
                table.to_csv(path, index=False)
            else:
                table.to_parquet(path, engine="pyarrow", index=False)
