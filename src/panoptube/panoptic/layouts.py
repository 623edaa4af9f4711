"""Folders with results or truth, in every form that datasets and submissions have, as clips of stored
frames.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from panoptube.data.coco_video import find_videos
from panoptube.errors import UserError
from panoptube.panoptic.formats import (
    JSON_NAME,
    PNG_FOLDER,
    StoredFrame,
    read_nested_videos,
    read_panoptic_video,
)
from panoptube.panoptic.frame import Taxonomy

LAYOUTS = f"""{JSON_NAME} with {PNG_FOLDER}/ | folders of those, one for each clip | \
Cityscapes-VPS: panoptic_gt*.json with panoptic_video/ or val/panoptic_video/, pred.json with pan_pred/ | \
VIPER: viper_panoptic*.json with panoptic_video/, pred.json with pan/ | \
VIPSeg: panoptic_gt*.json with panomasksRGB/, pred.json with pan_pred/CLIP/ | \
for truth, panoptic_SPLIT.json of COCO panoptic video itself"""

_COCO_VIDEO = re.compile(r"panoptic_(.+)\.json")
"""The file of a split of COCO panoptic video, named itself: its folder may hold several."""

Kind = Literal["one", "cityscapes", "viper", "vipseg"]


class Source(NamedTuple):
    """One JSON with its PNGs. `kind`: how it is divided into clips; "one" is a single clip."""

    json: Path
    pngs: Path
    kind: Kind


def find_sources(folder: Path) -> dict[str, Source]:
    """What a folder holds, by clip name ("" for a folder that isn't divided).

    Raises:
        UserError: there is no such folder, or it has none of the forms.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; expected one with {LAYOUTS}")
    if (folder / JSON_NAME).is_file():
        return {"": Source(folder / JSON_NAME, folder / PNG_FOLDER, "one")}
    if (folder / "pred.json").is_file():
        if (folder / "pan").is_dir():
            return {"": Source(folder / "pred.json", folder / "pan", "viper")}
        pngs = folder / "pan_pred"
        nested = pngs.is_dir() and any(p.is_dir() for p in pngs.iterdir())
        return {"": Source(folder / "pred.json", pngs, "vipseg" if nested else "cityscapes")}
    truths = sorted([*folder.glob("panoptic_gt*.json"), *folder.glob("viper_panoptic*.json")])
    if len(truths) > 1:
        raise UserError(
            f"{folder} holds {truths[0].name} and {truths[1].name}; leave the one to evaluate against"
        )
    if truths:
        if (folder / "panomasksRGB").is_dir():
            return {"": Source(truths[0], folder / "panomasksRGB", "vipseg")}
        inner = folder / "val" / "panoptic_video"
        pngs = inner if inner.is_dir() else folder / "panoptic_video"
        viper = truths[0].name.startswith("viper")
        return {"": Source(truths[0], pngs, "viper" if viper else "cityscapes")}
    parts = sorted(p.parent for p in folder.glob(f"*/{JSON_NAME}"))
    if not parts:
        raise UserError(f"{folder} holds no panoptic result; expected {LAYOUTS}")
    return {p.name: Source(p / JSON_NAME, p / PNG_FOLDER, "one") for p in parts}


@dataclass(frozen=True)
class StoredClip:
    """A clip of the truth with its prediction.

    Attributes:
        name: unique in its set. truth: frames with truth, in order. prediction: as many predicted frames,
        each for the true one at its place. predicted: all predicted frames of the clip, in order; more than
        those if there are some without truth.
    """

    name: str
    truth: list[StoredFrame]
    prediction: list[StoredFrame]
    predicted: list[StoredFrame]


def read_clips(
    truth: Path,
    pred: Path,
    clip_length: int = 6,
    taxonomy: Taxonomy | None = None,
    skip_unlabelled: bool = False,
) -> tuple[Taxonomy, list[StoredClip]]:
    """Open truth and prediction; PNGs are read later, frame by frame.

    The truth says which frames there are and how they form clips. Frames are paired by name.

    Args:
        truth, pred: folders, each in one of the forms of `LAYOUTS`; the truth may also be the
            panoptic_SPLIT.json of COCO panoptic video, whose frames are 000000, 000001, ... in each video.
        clip_length: frames of a clip, where one JSON holds several clips without saying so (Cityscapes-VPS).
        taxonomy: what `category_id` means; None takes the truth's categories.
        skip_unlabelled: predicted frames without truth are fine and don't count.

    Raises:
        UserError: a folder has none of the forms, a frame is missing, surplus or there twice, or the files
            contradict each other.
    """
    taxonomy, clips = _read_truth(truth, clip_length, taxonomy)
    predicted = _read_predicted(pred, taxonomy, list(clips))
    paired: list[StoredClip] = []
    for folder, parts in clips.items():
        frames, source = predicted[folder]
        by_name = {f.name: f for f in frames}
        wanted = [f.name for part in parts.values() for f in part]
        missing = next((n for n in wanted if n not in by_name), None)
        if missing is not None:
            raise UserError(f"{source} has no frame {missing!r}, which the truth has; predict it too")
        _check_folder(source, frames)
        surplus = set(by_name) - set(wanted)
        if surplus and not skip_unlabelled:
            raise UserError(
                f"{source} has the frame {min(surplus)!r}, which the truth doesn't have; "
                "leave it out, or add --skip-unlabelled"
            )
        for name, part in parts.items():
            mates = [by_name[f.name] for f in part]
            # Frames without truth can only be told to be of this clip where the source has no other.
            own = frames if len(parts) == 1 else mates
            paired.append(StoredClip(name, part, mates, own))
    return taxonomy, paired


def _read_truth(
    folder: Path, clip_length: int, taxonomy: Taxonomy | None
) -> tuple[Taxonomy, dict[str, dict[str, list[StoredFrame]]]]:
    """Taxonomy, and by the name of the folder that a prediction must have, clips by name."""
    if folder.is_file() and (split := _COCO_VIDEO.fullmatch(folder.name)):
        return _read_coco_video(folder, split[1], taxonomy)
    found: dict[str, dict[str, list[StoredFrame]]] = {}
    for name, source in find_sources(folder).items():
        if source.kind == "vipseg":
            taxonomy, videos = read_nested_videos(source.json, source.pngs, taxonomy)
            found |= {video: {video: frames} for video, frames in videos.items() if frames}
            frames = [f for frames in videos.values() for f in frames]
        else:
            taxonomy, frames = read_panoptic_video(source.json, source.pngs, taxonomy)
            if source.kind == "one":
                found[name] = {name or folder.name: frames}
            elif source.kind == "viper":
                found[name] = _by_sequence(frames)
            else:
                found[name] = _cut(source.json, frames, clip_length)
        _check_unique(source.json, frames)
    assert taxonomy is not None
    return taxonomy, found


def _read_coco_video(
    path: Path, split: str, taxonomy: Taxonomy | None
) -> tuple[Taxonomy, dict[str, dict[str, list[StoredFrame]]]]:
    """Frames are called by their place in the video, as `panoptube predict` calls them."""
    videos = [(clip, labels) for clip, labels in find_videos(path.parent, split, taxonomy) if labels]
    clips = {
        clip.name: {clip.name: [replace(frame, name=f"{t:06d}") for t, frame in labels.items()]}
        for clip, labels in videos
    }
    return videos[0][0].taxonomy, clips


def _read_predicted(
    folder: Path, taxonomy: Taxonomy, names: Sequence[str]
) -> dict[str, tuple[list[StoredFrame], Path]]:
    """For each name that the truth has, the predicted frames and the JSON that lists them."""
    sources = find_sources(folder)
    single = sources.get("")
    if single is not None and single.kind == "vipseg":
        _, videos = read_nested_videos(single.json, single.pngs, taxonomy)
        surplus = sorted(set(videos) - set(names))
        if surplus:
            raise UserError(f"{single.json} has the video {surplus[0]}, which the truth doesn't have")
        found = {name: (frames, single.json) for name, frames in videos.items()}
    else:
        found = {
            name: (read_panoptic_video(source.json, source.pngs, taxonomy)[1], source.json)
            for name, source in sources.items()
            if name in names
        }
    for name in names:
        if name not in found:
            part = "video" if single else "folder"
            what = f"no {part} {name!r}" if name else "clip folders, but the truth is one file"
            raise UserError(f"{folder} has {what}; predict the clips that the truth has")
    for frames, path in found.values():
        _check_unique(path, frames)
    return found


def _check_unique(path: Path, frames: Sequence[StoredFrame]) -> None:
    place, count = Counter(f.path for f in frames).most_common(1)[0]
    if count > 1:
        raise UserError(f"{path} lists a frame twice, {place.name}; write the result again")


def _check_folder(path: Path, frames: Sequence[StoredFrame]) -> None:
    """PNGs that no JSON lists would silently not count."""
    listed = {f.path for f in frames}
    for folder in sorted({f.path.parent for f in frames}):
        stray = next((p for p in sorted(folder.glob("*.png")) if p not in listed), None)
        if stray is not None:
            raise UserError(f"{stray} is a frame that {path.name} doesn't list; list it, or remove it")


def _cut(path: Path, frames: list[StoredFrame], clip_length: int) -> dict[str, list[StoredFrame]]:
    """Clips of `clip_length` frames, in the order of names; clip numbers that names start with must agree."""
    if clip_length < 1 or len(frames) % clip_length:
        raise UserError(
            f"{path} has {len(frames)} labelled frames, which can't be cut into clips of {clip_length}; "
            "complete it, or set the clip length"
        )
    frames = sorted(frames, key=lambda f: f.name)
    clips: dict[str, list[StoredFrame]] = {}
    for i in range(0, len(frames), clip_length):
        clip = frames[i : i + clip_length]
        # VVVV_FFFF_city_SSSSSS_NNNNNN, dossier 11.2
        numbers = [match[1] if (match := re.match(r"(\d{4})_\d{4}_", f.name)) else "" for f in clip]
        if len(set(numbers)) > 1:
            raise UserError(
                f"{path}: clips of {clip_length} labelled frames would mix the clips {numbers[0]} and "
                f"{numbers[-1]}; complete it, or set the clip length"
            )
        # A clip that was cut in parts has its number several times.
        clips[numbers[0] if numbers[0] and numbers[0] not in clips else clip[0].name] = clip
    return clips


def _by_sequence(frames: Sequence[StoredFrame]) -> dict[str, list[StoredFrame]]:
    """VIPER: file names are SSS_FFFFF, sequence and frame (dossier 11.5)."""
    clips: dict[str, list[StoredFrame]] = {}
    for frame in sorted(frames, key=lambda f: f.name):
        clips.setdefault(frame.name.split("_")[0], []).append(frame)
    return clips
