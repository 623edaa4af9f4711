"""Labelled videos in plain folders, pictures and 16-bit label images: the way to train on one's own footage.

    root/
      index.json                 optional: {"clips": [{"clip": "drive_a", "fps": 25, "split": "train"}, ...]}
      drive_a/img/000000.jpg     frames, .jpg or .png, in the order of their names
      drive_a/label/000000.png   uint16, size of the frame: class id * 1000 + track id; 65535 = void

Track id 0 is stuff, or crowd on a thing class; others are unique in the clip. A frame without a label image
has no truth. A clip that index.json doesn't list has 25 frames per second and is of the split "train".
"""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.clip import Clip, Image
from panoptube.errors import UserError
from panoptube.panoptic.frame import VOID, PanopticFrame, Taxonomy

VOID_VALUE = 65535
"""Void in a label image."""
TRACKS = 1000
"""Track ids are below this; a label is class id * TRACKS + track id."""


def read_labelled_videos(
    root: Path | str, split: str | None = None, taxonomy: Taxonomy = CITYSCAPES
) -> list[Clip]:
    """The clips under `root`, by name; frames and labels are read when asked for.

    Args:
        root: a folder as described at the top of this file.
        split: "train", "val", or None for all clips.
        taxonomy: whose category ids the labels hold.

    Returns:
        Clips that can be pickled. Reading a frame or its truth raises UserError, naming the file, where it is
        damaged, has another size or type than it should, or holds a class that the taxonomy lacks.

    Raises:
        UserError: no such folder, no clips in it or in the split, a clip without frames or labels, a label
            without a frame, or an index.json that names a missing clip or isn't of the form above.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"no folder {root}; it should hold <clip>/img/*.jpg and <clip>/label/*.png")
    folders = sorted(p for p in root.iterdir() if (p / "img").is_dir())
    if not folders:
        raise UserError(f"no clips in {root}; each is a folder with img/*.jpg and label/*.png")
    index = _read_index(root / "index.json")
    missing = sorted(set(index) - {p.name for p in folders})
    if missing:
        raise UserError(
            f"{root / 'index.json'} lists the clip {missing[0]!r}, but there is no "
            f"{root / missing[0] / 'img'}; add it, or take it off the list"
        )
    wanted = [p for p in folders if split is None or index.get(p.name, {}).get("split", "train") == split]
    if not wanted:
        raise UserError(f"no clip in {root} has the split {split!r}; set it in {root / 'index.json'}")
    return [
        _open_clip(folder, float(index.get(folder.name, {}).get("fps", 25)), taxonomy) for folder in wanted
    ]


def write_labelled_video(clip: Clip, root: Path | str) -> Path:
    """Writes a clip in the layout above, as lossless PNG, and returns its folder; index.json is left alone.

    Raises:
        UserError: the folder is there already, or a class or track id doesn't fit into 16 bits.
    """
    folder = Path(root) / clip.name
    if folder.exists():
        raise UserError(f"{folder} exists; remove it or choose another folder")
    partial_folder = folder.with_name(f".{clip.name}.partial")
    shutil.rmtree(partial_folder, ignore_errors=True)
    for name in ("img", "label"):
        (partial_folder / name).mkdir(parents=True)
    for t in range(len(clip)):
        cv2.imwrite(str(partial_folder / "img" / f"{t:06d}.png"), clip.image(t)[:, :, ::-1])
        truth = clip.truth(t)
        if truth is not None:
            label = encode_label(truth, clip.taxonomy)
            cv2.imwrite(str(partial_folder / "label" / f"{t:06d}.png"), label)
    os.replace(partial_folder, folder)
    return folder


def encode_label(frame: PanopticFrame, taxonomy: Taxonomy) -> NDArray[np.uint16]:
    """(H, W) uint16: category id * 1000 + track id, 65535 for void.

    Raises:
        UserError: a category id or track id is too large.
    """
    ids = np.zeros(256, np.int64)
    ids[: len(taxonomy)] = [c.id for c in taxonomy.categories]
    if ids.max() * TRACKS + TRACKS > VOID_VALUE:
        raise UserError(
            f"category ids of {taxonomy.name!r} go up to {ids.max()}; 16-bit labels hold ids up to 64"
        )
    if frame.instance.size and int(frame.instance.max()) >= TRACKS:
        raise UserError(
            f"track id {int(frame.instance.max())} is too large; 16-bit labels hold ids up to {TRACKS - 1}"
        )
    label = ids[frame.semantic] * TRACKS + frame.instance
    return np.where(frame.semantic == VOID, VOID_VALUE, label).astype(np.uint16)


def _read_index(path: Path) -> dict[str, dict[str, Any]]:
    """index.json's entries by clip; empty if there is no such file."""
    if not path.exists():
        return {}
    try:
        entries = json.loads(path.read_text())["clips"]
        index = {str(entry["clip"]): dict(entry) for entry in entries}
        for entry in index.values():
            float(entry.get("fps", 25))
    except (ValueError, KeyError, TypeError) as error:
        wanted = '{"clips": [{"clip": name, "fps": 25, "split": "train"}, ...]}'
        raise UserError(f"{path} is not of the form {wanted}: {error!r}") from error
    for name, entry in index.items():
        if entry.get("split", "train") not in ("train", "val"):
            raise UserError(
                f"{path}: clip {name!r} has the split {entry['split']!r}; it must be train or val"
            )
    return index


def _open_clip(folder: Path, fps: float, taxonomy: Taxonomy) -> Clip:
    images = sorted(p for p in (folder / "img").iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not images:
        raise UserError(f"no .jpg or .png in {folder / 'img'}; put the frames of the clip there")
    frames = {path.stem: t for t, path in enumerate(images)}
    if len(frames) < len(images):
        raise UserError(f"{folder / 'img'} holds two pictures of one name; keep one of .jpg and .png")
    labels = {path.stem: path for path in (folder / "label").glob("*.png")}
    if not labels:
        raise UserError(f"no labels in {folder / 'label'}; each is a 16-bit PNG named like its frame")
    stray = sorted(set(labels) - set(frames))
    if stray:
        raise UserError(
            f"{labels[stray[0]]} has no frame of that name in {folder / 'img'}; add it or remove the label"
        )
    size = _read_image(images, None, 0).shape[:2]
    by_frame = {frames[stem]: path for stem, path in labels.items()}
    return Clip(
        name=folder.name,
        taxonomy=taxonomy,
        size=size,
        fps=fps,
        length=len(images),
        labelled=tuple(sorted(by_frame)),
        read_image=partial(_read_image, images, size),
        read_truth=partial(_read_truth, by_frame, size, taxonomy),
    )


def _read_image(paths: list[Path], size: tuple[int, int] | None, t: int) -> Image:
    image = cv2.imread(str(paths[t]), cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(f"{paths[t]} is not a readable picture; replace it")
    if size is not None and image.shape[:2] != size:
        raise UserError(
            f"{paths[t]} is {_wxh(image.shape)}, the clip's first frame {_wxh(size)}; a clip has one size"
        )
    rgb: Image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb


def _read_truth(paths: dict[int, Path], size: tuple[int, int], taxonomy: Taxonomy, t: int) -> PanopticFrame:
    path = paths[t]
    label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if label is None:
        raise UserError(f"{path} is not a readable picture; replace it")
    if label.ndim != 2 or label.dtype != np.uint16:
        raise UserError(
            f"{path} is {label.dtype} with shape {label.shape}; labels are 16-bit PNGs with one channel"
        )
    if label.shape != size:
        raise UserError(f"{path} is {_wxh(label.shape)}, its frame {_wxh(size)}; they must agree")
    table = np.full(VOID_VALUE // TRACKS + 1, VOID, np.uint8)
    for position, category in enumerate(taxonomy.categories):
        if category.id < len(table) - 1:
            table[category.id] = position
    semantic = table[label // TRACKS]
    instance = (label % TRACKS).astype(np.int32)
    instance[semantic == VOID] = 0
    _raise_for(
        (semantic == VOID) & (label != VOID_VALUE), label, path, f"a class id that {taxonomy.name!r} lacks"
    )
    _raise_for(
        (instance > 0) & (semantic < taxonomy.num_stuff),
        label,
        path,
        "a track id on a stuff class; only things have them",
    )
    return PanopticFrame(semantic, instance)


def _raise_for(wrong: NDArray[np.bool_], label: NDArray[np.uint16], path: Path, what: str) -> None:
    if wrong.any():
        y, x = map(int, np.argwhere(wrong)[0])
        raise UserError(f"{path} has the value {label[y, x]} at row {y}, column {x}: {what}")


def _wxh(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
