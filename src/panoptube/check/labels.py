"""What can be checked: datasets by name, as clips, with their JSON where they have one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import NoReturn

from panoptube.check.faults import Fault
from panoptube.data.clip import Clip
from panoptube.data.coco_video import find_videos
from panoptube.data.datasets import DATASETS
from panoptube.data.files import MissingData
from panoptube.data.labelled_video import read_labelled_videos
from panoptube.errors import UserError
from panoptube.panoptic.formats import StoredFrame, read_nested_videos, read_panoptic_video
from panoptube.panoptic.frame import Taxonomy
from panoptube.panoptic.layouts import Source, find_sources

SPLITS = ("train", "val")
"""Those with labels."""
NAMES = (*DATASETS, "panoptic")
"""What can be checked: the datasets, and a folder as `panoptube predict` writes it."""


@dataclass(frozen=True)
class Labels:
    """A clip to check.

    Attributes:
        clip: with `labelled` as its files are.
        stored: PNG and JSON of a labelled frame, by its index; they are then checked against each other, and
            `clip.read_truth` isn't asked.
        has_images: False where there are labels alone.
    """

    clip: Clip
    stored: Mapping[int, StoredFrame] = field(default_factory=dict)
    has_images: bool = True


def _panoptic(root: Path, split: str | None) -> Iterator[Labels | Fault]:
    if split is not None:
        raise UserError(f"a panoptic folder has no split {split!r}; leave --split out")
    for name, source in find_sources(root).items():
        try:
            taxonomy, clips = _stored_clips(name or root.name, source)
        except UserError as error:
            yield Fault("file", "error", str(error), name)
            continue
        for clip_name, frames in clips.items():
            yield _stored_labels(clip_name, frames, taxonomy)
        listed = {frame.path for frames in clips.values() for frame in frames}
        for path in sorted(set(source.pngs.rglob("*.png")) - listed):
            yield Fault(
                "file", "error", f"{path} is in no entry of {source.json.name}; list or remove it", name
            )


def _dataset(name: str, root: Path, split: str | None) -> Iterator[Labels | Fault]:
    """One of `DATASETS`; without a split, all that there are."""
    if name == "labelled-video":
        yield from map(Labels, read_labelled_videos(root, split))
        return
    if split is not None:
        yield from _split(name, root, split)
        return
    for part in SPLITS:
        try:
            for labels in _split(name, root, part):
                yield replace(labels, clip=replace(labels.clip, name=f"{part}/{labels.clip.name}"))
        except MissingData as error:
            # It may never have been unpacked.
            yield Fault("file", "note", f"{part}: {error}")


def _split(name: str, root: Path, split: str) -> list[Labels]:
    if name == "coco-video":
        return [Labels(clip, stored) for clip, stored in find_videos(root, split)]
    return [Labels(clip) for clip in DATASETS[name].read(root, split)]


def open_labels(name: str, root: Path, split: str | None) -> tuple[list[Labels], list[Fault]]:
    """The clips of a dataset, and faults of those that can't be opened.

    Raises:
        UserError: no dataset of that name, or nothing in it can be opened.
    """
    if name not in NAMES:
        raise UserError(f"no dataset is called {name!r}; there are {', '.join(NAMES)}")
    found = list(_panoptic(root, split) if name == "panoptic" else _dataset(name, root, split))
    labels = [f for f in found if isinstance(f, Labels)]
    faults = [f for f in found if isinstance(f, Fault)]
    if not labels:
        raise UserError(faults[0].message if faults else f"{root} holds no clips of {name}")
    return labels, faults


def _stored_clips(name: str, source: Source) -> tuple[Taxonomy, dict[str, list[StoredFrame]]]:
    if source.kind == "vipseg":
        taxonomy, videos = read_nested_videos(source.json, source.pngs)
        return taxonomy, {video: frames for video, frames in videos.items() if frames}
    taxonomy, frames = read_panoptic_video(source.json, source.pngs)
    clips: dict[str, list[StoredFrame]] = {}
    for frame in sorted(frames, key=attrgetter("name")):
        # Cityscapes-VPS and VIPER name frames CLIP_FRAME (dossier 11.2, 11.5).
        clips.setdefault(name if source.kind == "one" else frame.name.split("_")[0], []).append(frame)
    return taxonomy, clips


def _stored_labels(name: str, frames: Sequence[StoredFrame], taxonomy: Taxonomy) -> Labels:
    def no_image(t: int) -> NoReturn:
        raise UserError(f"{frames[t].path.parent} has labels, no images")

    clip = Clip(
        name=name,
        taxonomy=taxonomy,
        size=_size(frames),
        fps=25,  # unknown, and not asked for
        length=len(frames),
        labelled=tuple(range(len(frames))),
        read_image=no_image,
        read_truth=lambda t: frames[t].frame(),
    )
    return Labels(clip, dict(enumerate(frames)), has_images=False)


def _size(frames: Sequence[StoredFrame]) -> tuple[int, int]:
    """Of the first frame that can be read; (0, 0) if none can."""
    for frame in frames:
        try:
            height, width = frame.ids().shape
        except UserError:
            continue
        return height, width
    return 0, 0
