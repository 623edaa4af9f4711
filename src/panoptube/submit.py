"""Makes the file that a benchmark's server takes of predictions.

Cityscapes-VPS (dossier 11.3; "submission.zip" in the README of github.com/mcahny/vps):

    submission.zip
      pred.json       {"annotations": [{"segments_info": [{"id", "category_id", "iscrowd", "area", "bbox"}]}]}
      pan_pred.zip    VVVV_FFFF_city_SSSSSS_NNNNNN.png, R + 256 G + 65536 B, 0 = void

The JSON doesn't name its frames: they are those of the PNGs in the order of names, six of each clip.

KITTI-STEP:

    submission.zip
      0000/000000.png    of all frames; R = class, 255 = void, 256 G + B = object, 0 = none

That is the form of its ground truth (g3doc/setup/kitti_step.md in github.com/google-research/deeplab2), in
which DeepLab2 writes predictions, too, a folder for each sequence: raw_panoptic_format "three_channel_png" in
its trainer/vis.py. Its "two_channel_png" holds 255 objects and isn't for KITTI-STEP. Whether the server
(cvlibs.net/datasets/kitti/eval_step.php) wants another folder around these couldn't be read anywhere; KITTI's
tracking benchmark takes results in the root of the archive (docs/KITTI-format.txt in
github.com/JonathonLuiten/TrackEval).
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np

from panoptube.data.cityscapes_vps import CITYSCAPES, find_clips
from panoptube.data.kitti_step import KITTI_STEP, find_sequences
from panoptube.data.write_layouts import KittiStepLabels, encode_picture
from panoptube.errors import UserError
from panoptube.panoptic.formats import StoredFrame, read_panoptic_video
from panoptube.panoptic.frame import PanopticFrame, Taxonomy
from panoptube.panoptic.layouts import Source, find_sources
from panoptube.panoptic.segment_ids import IdMap, SegmentInfo
from panoptube.progress import progress_bar

Frames = Sequence[tuple[str, StoredFrame, tuple[int, int]]]
"""Name, prediction and (height, width) of each frame, in the order of names."""


def submit(
    name: str,
    pred: Path | str,
    root: Path | str,
    out: Path | str,
    split: str = "test",
    overwrite: bool = False,
    progress: bool = True,
) -> int:
    """Check predictions and pack them for the server of a benchmark; returns the number of frames.

    All frames that the split lists with labels must be there, of a split without labels all its images;
    others are left out. In a folder of all frames of one clip they may be called by their number, from 000000
    on, as `panoptube predict` does; else by their name in the dataset, in Cityscapes-VPS or in Cityscapes.

    Args:
        name: "cityscapes-vps" or "kitti-step".
        pred: folder with panoptic.json and panoptic/, or with a folder of that form for each clip, called by
            its number: 0010, 0020, ...; of Cityscapes-VPS also with pred.json and pan_pred/.
        root: folder of the dataset: of Cityscapes-VPS with panoptic_im_SPLIT_city_vps.json, of KITTI-STEP
            with the split's images.
        out: the file to make.
        split: of the dataset.
        overwrite: replace a file that is there.
        progress: show a bar with the time left.

    Raises:
        MissingData: the dataset isn't there.
        UserError: no such benchmark; a clip or a frame is missing, has another size or a class that
            the dataset lacks, or its PNG and the JSON don't agree; `out` is there or can't be written.
    """
    if name not in BENCHMARKS:
        raise UserError(f"no submission is known for {name!r}; there are {', '.join(BENCHMARKS)}")
    find, pack = BENCHMARKS[name]
    pred, out = Path(pred), Path(out)
    if out.is_dir():
        raise UserError(f"{out} is a folder; name a file, such as {out / 'submission.zip'}")
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists; name another file, or overwrite it (--overwrite)")
    frames = find(pred, Path(root), split)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as part:
            os.replace(pack(frames, Path(part), progress), out)
    except OSError as error:
        raise UserError(f"can't write {out}: {error.strerror}; make room or name another file") from error
    return len(frames)


def _pack_cityscapes_vps(frames: Frames, folder: Path, progress: bool) -> Path:
    """Checks and packs the frames; returns the file, which lies in `folder`."""
    annotations: list[dict[str, Any]] = []
    pngs, packed = folder / "pan_pred.zip", folder / "submission.zip"
    with ZipFile(pngs, "w", ZIP_STORED) as file, progress_bar(progress, "frames") as bar:
        for frame_name, stored, size in bar.track(frames, description="submit"):
            ids, _ = _read_frame(stored, size)
            file.writestr(ZipInfo(f"{frame_name}.png"), stored.path.read_bytes())
            annotations.append({"segments_info": [_describe(ids, s) for s in stored.segments]})
    with ZipFile(packed, "w", ZIP_STORED) as file:
        file.writestr(ZipInfo("pred.json"), json.dumps({"annotations": annotations}), ZIP_DEFLATED)
        inner = ZipInfo(pngs.name)  # without the time, so that equal results are equal files
        inner.file_size = pngs.stat().st_size  # tells whether it needs the form for more than 2 GB
        with pngs.open("rb") as source, file.open(inner, "w") as target:
            shutil.copyfileobj(source, target)
    return packed


def _pack_kitti_step(frames: Frames, folder: Path, progress: bool) -> Path:
    """Checks and packs the frames; returns the file, which lies in `folder`."""
    packed = folder / "submission.zip"
    labels: dict[str, KittiStepLabels] = {}
    with ZipFile(packed, "w", ZIP_STORED) as file, progress_bar(progress, "frames") as bar:
        for frame_name, stored, size in bar.track(frames, description="submit"):
            _, frame = _read_frame(stored, size)
            sequence = frame_name.partition("/")[0]
            label = labels.setdefault(sequence, KittiStepLabels(sequence))(frame)
            file.writestr(ZipInfo(f"{frame_name}.png"), encode_picture(".png", label))
    return packed


def _read_frame(stored: StoredFrame, size: tuple[int, int]) -> tuple[IdMap, PanopticFrame]:
    """The frame, checked: PNG and JSON agree, and it has the size that the dataset says."""
    ids = stored.ids()
    frame = stored.frame(ids)
    if ids.shape != size:
        wanted = f"{size[1]} x {size[0]}"
        raise UserError(
            f"{stored.path} is {ids.shape[1]} x {ids.shape[0]} pixels, the dataset says {wanted}; "
            "predict at the size of the images"
        )
    return ids, frame


def _describe(ids: IdMap, segment: SegmentInfo) -> dict[str, Any]:
    """A segment as pred.json has it: width and height of the box are the last pixel minus the first."""
    mask = ids == segment.id
    x, y = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return {
        "id": segment.id,
        "category_id": segment.category_id,
        "iscrowd": int(segment.iscrowd),
        "area": int(mask.sum()),
        "bbox": [int(x[0]), int(y[0]), int(x[-1] - x[0]), int(y[-1] - y[0])],
    }


def _find_cityscapes_vps(pred: Path, root: Path, split: str) -> Frames:
    clips = find_clips(root, split)
    sources = find_sources(pred)
    whole = sources.get("")
    if whole is not None and whole.kind not in ("one", "cityscapes"):
        raise UserError(f"{whole.json} isn't of Cityscapes-VPS; name a folder with its predictions")
    shared = _read(whole, CITYSCAPES) if whole is not None else {}
    found: list[tuple[str, StoredFrame, tuple[int, int]]] = []
    for clip in clips:
        if whole is None and clip.name not in sources:
            raise UserError(f"{pred} has no folder {clip.name}; predict that clip, too")
        source = whole or sources[clip.name]
        frames = shared or _read(source, CITYSCAPES)
        numbered = len(frames) == len(clip.sources) and (whole is None or len(clips) == 1)
        for t, name in clip.frames.items():
            city = clip.sources[t]
            names = [name, Path(clip.file_names[t]).stem, city, f"{city}_leftImg8bit"]
            names += [f"{t:06d}"] if numbered else []
            stored = next((frames[n] for n in names if n in frames), None)
            if stored is None:
                raise UserError(f"{source.json} has no frame {name} of clip {clip.name}; predict it, too")
            found.append((name, stored, clip.size))
    return sorted(found, key=lambda frame: frame[0])


def _find_kitti_step(pred: Path, root: Path, split: str) -> Frames:
    sequences = find_sequences(root, split)
    sources = find_sources(pred)
    whole = sources.get("")
    if whole is not None and (whole.kind != "one" or len(sequences) > 1):
        raise UserError(f"{pred} is one result; name a folder with one for each sequence, such as 0000")
    found: list[tuple[str, StoredFrame, tuple[int, int]]] = []
    for sequence in sequences:
        source = whole or sources.get(sequence.name)
        if source is None:
            raise UserError(f"{pred} has no folder {sequence.name}; predict that sequence, too")
        frames = _read(source, KITTI_STEP)
        # Numbers of images may be skipped, `panoptube predict` counts.
        numbers = [f"{t:06d}" for t in range(len(sequence.images))]
        numbered = set(frames) == set(numbers)
        for t in sorted(sequence.labels) or range(len(sequence.images)):
            name = sequence.images[t].stem
            stored = frames.get(numbers[t] if numbered else name)
            if stored is None:
                raise UserError(f"{source.json} has no frame {name} of {sequence.name}; predict it, too")
            found.append((f"{sequence.name}/{name}", stored, sequence.size))
    return found


BENCHMARKS: dict[str, tuple[Callable[[Path, Path, str], Frames], Callable[[Frames, Path, bool], Path]]] = {
    "cityscapes-vps": (_find_cityscapes_vps, _pack_cityscapes_vps),
    "kitti-step": (_find_kitti_step, _pack_kitti_step),
}
"""By name: (pred, root, split) -> frames, and (frames, folder, progress) -> the file."""


def _read(source: Source, taxonomy: Taxonomy) -> dict[str, StoredFrame]:
    """The frames of a result by name."""
    _, frames = read_panoptic_video(source.json, source.pngs, taxonomy)
    by_name = {frame.name: frame for frame in frames}
    if len(by_name) < len(frames):
        raise UserError(f"{source.json} lists a frame twice; write the result again")
    return by_name
