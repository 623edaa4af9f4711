"""Makes what the datasets' own tools would have made of a download: truth to evaluate against, label maps and
instances to train on.

A clip is the unit of work. What belongs into the JSON files is kept in ROOT/.prepare/ until all clips are
done, a file for each, written after the clip's PNGs: a run that was stopped leaves out those that have one.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from panoptube.data import viper
from panoptube.data.datasets import find_dataset
from panoptube.data.files import link_or_copy
from panoptube.data.new_file import new_file
from panoptube.data.preparation import MADE, ClipPlan, SplitPlan, make_plans
from panoptube.errors import UserError
from panoptube.panoptic.frame import Taxonomy
from panoptube.panoptic.id_png import write_id_png
from panoptube.panoptic.segment_ids import IdMap, SegmentIds, SegmentInfo, frame_to_ids
from panoptube.progress import progress_bar

PARTS = ".prepare"


def prepare(
    name: str,
    root: Path | str,
    splits: Sequence[str] = (),
    sequences: Path | None = None,
    frames: int | None = viper.FRAMES,
    void_unknown: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> list[str]:
    """Make the files that the dataset's own tools make; docs/datasets.md lists them.

    Files that are there are made anew, byte for byte the same as long as the labels are; each is written
    beside its place, then renamed. A run that was stopped goes on where it was.

    Args:
        name: cityscapes-vps, viper or vipseg.
        root: the folder of the dataset; the files are written into it.
        splits: some of train, val, test; none for train and val, as far as they are there; of VIPSeg, val.
        sequences, frames: of VIPER, as in `read_viper`.
        void_unknown: of Cityscapes-VPS, as in `read_cityscapes_vps`.
        workers: processes; None for one per core. With more than one, a script that calls this needs
            `if __name__ == "__main__":`.
        progress: show a bar with the time left.

    Returns:
        For each split a line that says what was made.

    Raises:
        MissingData: something must be downloaded first.
        UserError: the dataset needs no preparation, an option isn't for it, a file is wrong, or the disk is
            full.
    """
    root = Path(root)
    find_dataset(name)
    if workers is not None and workers < 1:
        raise UserError(f"{workers} workers asked for; ask for 1 or more")
    plans = make_plans(name, root, splits, sequences, frames, void_unknown)
    stamp = f"{name} {void_unknown}"
    try:
        return [_prepare_split(root, plan, stamp, workers or os.cpu_count() or 1, progress) for plan in plans]
    except OSError as error:
        place = error.filename or root
        raise UserError(f"can't write {place}: {error.strerror}; make room and run it again") from error


def _prepare_split(root: Path, plan: SplitPlan, stamp: str, workers: int, progress: bool) -> str:
    parts = root / PARTS / plan.name
    parts.mkdir(parents=True, exist_ok=True)
    stamp += " with instances" if plan.instance_json is not None else ""
    todo = [clip for clip in plan.clips if not _is_made(clip, _part(parts, clip), stamp)]
    frames = sum(len(clip.frames) for clip in plan.clips)
    make = partial(_make_clip, plan.taxonomy, plan.name, plan.instance_json is not None, parts, stamp)
    with progress_bar(progress, "frames") as bar:
        task = bar.add_task(f"prepare {plan.name}", total=frames)
        bar.advance(task, frames - sum(len(clip.frames) for clip in todo))
        for count in _each(make, todo, workers):
            bar.advance(task, count)
    written: list[str] = []
    if plan.panoptic_json is not None:
        _write(plan.panoptic_json, _panoptic_text(plan, parts))
        written.append(plan.panoptic_json.name)
    if plan.instance_json is not None:
        _write(plan.instance_json, _instance_text(plan, parts))
        written.append(plan.instance_json.name)
    shutil.rmtree(parts)
    if not any((root / PARTS).iterdir()):
        (root / PARTS).rmdir()
    files = f"; wrote {', '.join(written)}" if written else ""
    return f"{plan.name}: {len(plan.clips)} clips, {frames} labelled frames{files}"


def _part(parts: Path, clip: ClipPlan) -> Path:
    return parts / f"{clip.name}.json"


def _each(make: Callable[[ClipPlan], int], todo: Sequence[ClipPlan], workers: int) -> Iterator[int]:
    """What `make` returns for each clip, as they get done."""
    if workers == 1 or len(todo) < 2:
        yield from map(make, todo)
        return
    # Forked processes can't use the threads that OpenCV has started.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(todo)), context, _start_worker)
    try:
        for done in as_completed([pool.submit(make, clip) for clip in todo]):
            yield done.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker was killed, perhaps for lack of memory; run it again with fewer workers"
        ) from error
    finally:
        # After a fault or Ctrl-C only the clips that are being made are finished.
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    # Ctrl-C reaches the workers, too; it is for the main process to stop them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)


def end_with_parent() -> None:
    """A worker would wait for work for ever after its parent was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _is_made(clip: ClipPlan, part: Path, stamp: str) -> bool:
    """Whether a run that was stopped had done this clip, in the same way and from the same labels."""
    try:
        made = part.stat().st_mtime_ns
        if any(path.stat().st_mtime_ns >= made for path in clip.inputs):
            return False
        found = json.loads(part.read_bytes())
        frames = [image["id"] for image in found["images"]]
        return bool(found["stamp"] == stamp and frames == [frame.image_id for frame in clip.frames])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _make_clip(
    taxonomy: Taxonomy, split: str, with_instances: bool, parts: Path, stamp: str, clip: ClipPlan
) -> int:
    """All PNGs of a clip, then its part of the JSON files; returns the number of frames."""
    for source, target in clip.links:
        link_or_copy(source, target)
    for folder in (clip.labelmap, clip.panoptic_inst, clip.panoptic_video):
        if folder is not None and clip.frames:
            folder.mkdir(parents=True, exist_ok=True)
    ids = SegmentIds(taxonomy)
    height, width = clip.size
    part: dict[str, Any] = {"stamp": stamp, "images": [], "annotations": [], "numbered": [], "instances": []}
    for plan in clip.frames:
        frame, classes = clip.read(plan.t)
        id_map, segments = frame_to_ids(frame, taxonomy, ids)
        if clip.panoptic_video is not None:
            write_id_png(clip.panoptic_video / plan.label_name, id_map)
        if clip.labelmap is not None:
            _write_png(clip.labelmap / plan.label_name, classes)
        if clip.panoptic_inst is not None:
            values = np.where(frame.instance > 0, frame.instance, frame.semantic).astype(np.uint16)
            _write_png(clip.panoptic_inst / plan.label_name, values)
        image = {"file_name": plan.image_name, "width": width, "height": height}
        rows = [segment.to_dict() for segment in segments]
        part["images"].append({"id": plan.image_id, **image})
        part["annotations"].append(
            {"image_id": plan.image_id, "file_name": plan.label_name, "segments_info": rows}
        )
        if with_instances:
            part["numbered"].append({"id": plan.number, **image, "mode": split})
            part["instances"] += _instances(plan.number, id_map, segments)
    _write(_part(parts, clip), [json.dumps(part)])
    return len(clip.frames)


def _instances(image: int, id_map: IdMap, segments: Sequence[SegmentInfo]) -> Iterator[dict[str, Any]]:
    """The tracks of a frame as the instance JSON lists them (dossier 11.3), but for `id`."""
    for segment in segments:
        if segment.track_id is None or segment.bbox is None:
            continue
        x, y, w, h = map(int, segment.bbox)
        yield {
            "image_id": image,
            "category_id": segment.category_id,
            "fcn_id": segment.category_id,
            "inst_id": segment.track_id,
            "iscrowd": 0,
            "area": segment.area,
            "bbox": [float(value) for value in segment.bbox],
            "segmentation": encode_rle(id_map[y : y + h, x : x + w] == segment.id, (x, y), id_map.shape),
            "width": id_map.shape[1],
            "height": id_map.shape[0],
        }


def encode_rle(inside: NDArray[np.bool_], corner: tuple[int, int], size: tuple[int, int]) -> dict[str, Any]:
    """COCO's uncompressed run lengths: by columns, alternately of pixels outside and inside, outside first.

    Args:
        inside: (h, w), the part of the mask around which all is outside.
        corner: (x, y) of its first pixel.
        size: (H, W) of the whole mask.

    Returns:
        {"size": [H, W], "counts": [...]}, whose counts add up to H * W.
    """
    height, width = size
    columns = np.pad(inside.T.astype(np.int8), ((0, 0), (1, 1)))
    steps = np.diff(columns, axis=1)
    column, row = np.nonzero(steps == 1)
    starts = (corner[0] + column) * height + corner[1] + row
    column, row = np.nonzero(steps == -1)
    ends = (corner[0] + column) * height + corner[1] + row
    # A run that reaches the bottom goes on where the next column begins with one.
    apart = starts[1:] != ends[:-1]
    starts = starts[np.r_[True, apart]] if len(starts) else starts
    ends = ends[np.r_[apart, True]] if len(ends) else ends
    edges = np.r_[0, np.stack((starts, ends), 1).reshape(-1), height * width]
    counts = np.diff(edges)
    # Only the last run may be left out where it is empty; the first says that outside comes first.
    return {"size": [height, width], "counts": (counts if counts[-1] else counts[:-1]).tolist()}


def _panoptic_text(plan: SplitPlan, parts: Path) -> Iterator[str]:
    """COCO panoptic JSON (dossier 11.3), or with a list of frames for each video, as VIPSeg has it."""

    def rows(key: str) -> Iterator[Any]:
        for name, part in _read_parts(plan, parts):
            yield from [{"video_id": name, key: part[key]}] if plan.nested else part[key]

    yield '{"videos": [\n' if plan.nested else '{"images": [\n'
    yield from _lines(rows("images"))
    yield '], "annotations": [\n'
    yield from _lines(rows("annotations"))
    yield f'], "categories": {json.dumps(plan.taxonomy.to_dict()["categories"])}}}\n'


def _instance_text(plan: SplitPlan, parts: Path) -> Iterator[str]:
    """COCO instance JSON with track ids (dossier 11.3)."""
    things = [c for c in plan.taxonomy.to_dict()["categories"] if c["isthing"]]
    head = {"info": {"description": MADE}, "licenses": [], "categories": things}
    yield f'{json.dumps(head)[:-1]}, "images": [\n'
    yield from _lines(row for _, part in _read_parts(plan, parts) for row in part["numbered"])
    yield '], "annotations": [\n'
    rows = (row for _, part in _read_parts(plan, parts) for row in part["instances"])
    yield from _lines({"id": number, **row} for number, row in enumerate(rows, 1))
    yield "]}\n"


def _lines(rows: Iterable[Any]) -> Iterator[str]:
    for i, row in enumerate(rows):
        yield (",\n" if i else "") + json.dumps(row)


def _read_parts(plan: SplitPlan, parts: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """One clip after the other, so that memory doesn't grow with their number."""
    for clip in plan.clips:
        yield clip.name, json.loads(_part(parts, clip).read_bytes())


def _write_png(path: Path, values: NDArray[Any]) -> None:
    _, data = cv2.imencode(".png", values, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    with new_file(path) as part:
        part.write_bytes(data.tobytes())


def _write(path: Path, text: Iterable[str]) -> None:
    with new_file(path) as part, part.open("w", encoding="utf-8") as file:
        file.writelines(text)
