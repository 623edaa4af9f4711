"""A result in a form that other tools read; `forms/` has a file for each."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from panoptube.data.new_file import writing
from panoptube.data.new_folder import new_folder
from panoptube.errors import UserError
from panoptube.forms.coco_instances import write_coco_instances
from panoptube.forms.coco_panoptic import write_coco_panoptic
from panoptube.forms.cvat import LABELS, write_cvat
from panoptube.forms.result import Videos, read_result
from panoptube.forms.tracks import track_tables, write_tables
from panoptube.forms.two_channel import CATEGORIES, FOLDER, write_two_channel
from panoptube.panoptic.formats import JSON_NAME, PNG_FOLDER
from panoptube.panoptic.frame import Taxonomy

Form = Literal["coco-panoptic", "coco-instances", "two-channel", "csv", "parquet", "cvat"]


def convert_result(
    result: Path | str,
    to: Form,
    out: Path | str,
    fps: float | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> str:
    """Writes a result in another form. `out` appears once it is complete; the result stays as it is.

    Args:
        result: what `panoptube predict` wrote, or a folder of such folders, one for each video.
        to: "coco-panoptic": panoptic.json and panoptic/ (`forms/coco_panoptic.py`). "coco-instances": one
            JSON in the form of YouTube-VIS (`forms/coco_instances.py`). "two-channel": PNGs of class and
            object (`forms/two_channel.py`). "csv", "parquet": three tables
            (`forms/tracks.py`). "cvat": annotations.xml in a folder for each video (`forms/cvat.py`).
        out: file for "coco-instances", folder for the others.
        fps: frames per second, for the column `time` of tables; None leaves it out.
        overwrite: replace an earlier conversion in `out`, and nothing else.
        progress: show a bar with the time left.

    Returns:
        A line that says what was written.

    Raises:
        UserError: no such form; the result is broken; `out` holds something else or may not be replaced; a
            library is missing, or the disk is full.
    """
    if to not in get_args(Form):
        raise UserError(f"there is no form {to!r}; there are {', '.join(get_args(Form))}")
    if fps is not None and to not in ("csv", "parquet"):
        raise UserError(f"{to} has no place for frames per second; leave out fps (--fps)")
    result, out = Path(result), Path(out)
    if out.resolve() in (result.resolve(), *result.resolve().parents):
        raise UserError(f"{out} is where the result is; name another place")
    taxonomy, videos = read_result(result)
    if to == "coco-instances":
        _check_file(out, overwrite)
        with writing(out):
            out.parent.mkdir(parents=True, exist_ok=True)
        write_coco_instances(videos, taxonomy, out, progress)
    else:
        _check_folder(out, overwrite, _names(to, videos))
        with new_folder(out, overwrite) as folder:
            _write_folder(to, videos, taxonomy, folder, fps, progress)
    frames = sum(map(len, videos.values()))
    return f"{out}: {to} of {len(videos)} video{'s' * (len(videos) > 1)}, {frames} frames"


def _write_folder(
    to: Form, videos: Videos, taxonomy: Taxonomy, folder: Path, fps: float | None, progress: bool
) -> None:
    if to == "coco-panoptic":
        write_coco_panoptic(videos, taxonomy, folder, progress)
    elif to == "two-channel":
        write_two_channel(videos, taxonomy, folder, progress)
    elif to == "cvat":
        write_cvat(videos, taxonomy, folder, progress)
    elif to == "csv" or to == "parquet":
        write_tables(track_tables(videos, taxonomy, fps, progress), folder, to)


def _names(to: Form, videos: Videos) -> set[str]:
    """What a folder of this form holds."""
    if to == "coco-panoptic":
        return {JSON_NAME, PNG_FOLDER}
    if to == "two-channel":
        return {CATEGORIES, FOLDER}
    if to == "cvat":
        return {LABELS, *videos}
    return {f"{name}.{to}" for name in ("tracks", "track_frames", "stuff")}


def _check_file(out: Path, overwrite: bool) -> None:
    if out.is_dir():
        raise UserError(f"{out} is a folder; name a file, such as {out / 'instances.json'}")
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists; name another file, or overwrite it (--overwrite)")


def _check_folder(out: Path, overwrite: bool, names: set[str]) -> None:
    """A folder may be replaced if it holds nothing but what will be written."""
    if not out.is_dir():
        return  # `new_folder` says the rest
    others = sorted({p.name for p in out.iterdir()} - names)
    if others:
        raise UserError(f"{out} holds other files ({others[0]}); name a new folder")
    if any(out.iterdir()) and not overwrite:
        raise UserError(f"{out} is not empty; name another folder, or overwrite it (--overwrite)")
