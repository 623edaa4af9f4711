"""Files of datasets: pictures, label maps, lists and JSON, read with every fault named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from pydantic import TypeAdapter, ValidationError

from panoptube.data.clip import Image
from panoptube.errors import UserError
from panoptube.panoptic.id_png import BROKEN, read_id_png
from panoptube.panoptic.segment_ids import IdMap

T = TypeVar("T")

PICTURES = (".jpg", ".jpeg", ".png")


class MissingData(UserError):
    """A part of a dataset isn't there: says in one line which, and from which page it comes."""


def list_files(folder: Path, suffixes: tuple[str, ...] = PICTURES) -> list[Path]:
    """The files of a folder with one of these endings, by name; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith("."))


def list_folders(folder: Path) -> list[Path]:
    """The folders in a folder, by name; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels; only the head of the file is read.

    Raises:
        UserError: it is missing or no picture.
    """
    try:
        with Pillow.open(path) as picture:
            return picture.height, picture.width
    except FileNotFoundError as error:
        raise UserError(f"can't read {path}: {error.strerror}; unpack it again") from error
    except BROKEN as error:
        raise UserError(f"{path} is not a readable picture; unpack it again") from error


def read_image(path: Path, size: tuple[int, int]) -> Image:
    """(H, W, 3) uint8 RGB.

    Raises:
        UserError: the file is missing, no picture, or of another size than `size`.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    if image is None:
        what = "is not a readable picture" if path.is_file() else "is missing"
        raise UserError(f"{path} {what}; unpack it again")
    _check_size(path, image.shape, size)
    rgb: Image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb


def read_frame(paths: Sequence[Path], size: tuple[int, int], t: int) -> Image:
    """Picture number `t` of a clip, as `read_image`."""
    return read_image(paths[t], size)


def read_gray(path: Path, size: tuple[int, int]) -> NDArray[np.integer[Any]]:
    """(H, W) integers of a PNG with one channel of 8 or 16 bits, or of indexed colours.

    Raises:
        UserError: the file is missing, broken, of another kind or another size.
    """
    picture = _open(path)
    if picture.mode not in ("L", "P", "I") and not picture.mode.startswith("I;16"):
        raise UserError(f"{path} is a {picture.mode} picture; it should have one channel of whole numbers")
    values: NDArray[np.integer[Any]] = np.asarray(picture)
    _check_size(path, values.shape, size)
    return values


def read_colors(path: Path, size: tuple[int, int]) -> IdMap:
    """(H, W) uint32 colours of a PNG, R + 256 G + 65536 B; an alpha channel is left out.

    Raises:
        UserError: the file is missing, broken, of another kind or another size.
    """
    try:
        # Far faster than Pillow, but for plain RGB alone; Pillow reads the others, or names the fault.
        plain = read_id_png(path)
    except UserError:
        pass
    else:
        _check_size(path, plain.shape, size)
        return plain
    picture = _open(path)
    if picture.mode not in ("RGB", "RGBA", "P"):
        raise UserError(f"{path} is a {picture.mode} picture; it should be a coloured one")
    rgba = np.ascontiguousarray(np.asarray(picture.convert("RGBA")))
    _check_size(path, rgba.shape, size)
    colors: IdMap = rgba.view("<u4")[..., 0] & np.uint32(0xFFFFFF)
    return colors


def read_json(path: Path, form: TypeAdapter[T]) -> T:
    """A JSON file of a known form.

    Raises:
        UserError: it is missing, not JSON, or not of the form.
    """
    try:
        return form.validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path} is not of the form it should have: {place + ': ' if place else ''}{first['msg']}; "
            "unpack or write it again"
        ) from error


def read_list(path: Path) -> list[str]:
    """The lines of a text file, without empty ones and those that start with #.

    Raises:
        UserError: it is missing, not text, or has no lines.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file; write one name a line") from error
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise UserError(f"{path} names nothing; write one name a line")
    return lines


def inside(folder: Path, name: str, source: Path) -> Path:
    """`folder / name`, where a file may name only what lies in the folder.

    Args:
        folder: of the dataset.
        name: a relative path, as `source` has it.
        source: the file that names it, for the message.

    Raises:
        UserError: the path is absolute, or leaves the folder.
    """
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or "\\" in name or "\0" in name:
        raise UserError(f"{source} names the file {name!r}, which is not in {folder}; correct the name")
    return folder / name


def link_or_copy(source: Path, target: Path) -> None:
    """Gives a file a second name, or a copy where the disk has no links; one of the same size there stays.

    Raises:
        OSError: `source` can't be read, or `target` can't be written.
    """
    if target.is_file() and target.stat().st_size == source.stat().st_size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
    except OSError:
        shutil.copyfile(source, part)
    os.replace(part, target)


def raise_for(
    wrong: NDArray[np.bool_], values: NDArray[np.integer[Any]], path: Path, what: str, unit: str = "value"
) -> None:
    """Names the first pixel that is wrong, if one is.

    Args:
        wrong, values: (H, W).
        path: the file.
        what: what is wrong, and the remedy.
        unit: what the values are; "colour" prints them as R, G, B.

    Raises:
        UserError: there is one.
    """
    if wrong.any():
        y, x = map(int, np.argwhere(wrong)[0])
        value = int(values[y, x])
        shown = f"{value & 255}, {value >> 8 & 255}, {value >> 16}" if unit == "colour" else str(value)
        raise UserError(f"{path} has the {unit} {shown} at row {y}, column {x}: {what}")


def _open(path: Path) -> Pillow.Image:
    try:
        picture = Pillow.open(path)
        with picture:
            picture.load()
        return picture
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; unpack it again") from error
    except BROKEN as error:
        raise UserError(f"{path} is not a readable picture; unpack it again") from error


def _check_size(path: Path, shape: tuple[int, ...], size: tuple[int, int]) -> None:
    if shape[:2] != size:
        raise UserError(
            f"{path} is {shape[1]}x{shape[0]}, but its clip is {size[1]}x{size[0]}; unpack it again"
        )
