"""VPQ of results on disk, and of a predictor on clips. Nothing here imports torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from panoptube.data.clip import Clip
from panoptube.errors import UserError
from panoptube.metrics.vpq import VPQ, VPQResult
from panoptube.panoptic.formats import JSON_NAME, PNG_FOLDER, StoredFrame, read_panoptic_video
from panoptube.panoptic.frame import PanopticFrame, Taxonomy

Predictor = Callable[[Clip], Iterator[PanopticFrame]]
"""Answers every frame of a clip, in order."""

LAYOUTS = f"""{JSON_NAME} with {PNG_FOLDER}/ | folders of those, one for each clip | \
pred.json with pan_pred/ | panoptic_gt*.json with panoptic_video/ or val/panoptic_video/"""


def evaluate(
    truth: Path,
    pred: Path,
    clip_length: int = 6,
    windows: Sequence[int] = (1, 2, 3, 4),
    taxonomy: Taxonomy | None = None,
    progress: bool = True,
) -> VPQResult:
    """VPQ of a result on disk against truth on disk, dossier 13.1.

    Both are folders, each in one of these forms:

    * `panoptic.json` and `panoptic/`, what `panoptube predict` writes: one clip;
    * folders of that form, one for each clip: clips are paired by folder name;
    * Cityscapes-VPS: truth `panoptic_gt_val_city_vps.json` with `panoptic_video/` or `val/panoptic_video/`,
      prediction `pred.json` with `pan_pred/`: all clips in one file, `clip_length` labelled frames each,
      ordered by name.

    The truth says which frames count and how they form clips. Frames are paired by name; a prediction may
    hold more frames than the truth, such as all frames of the video.

    Args:
        truth: folder.
        pred: folder.
        clip_length: labelled frames of one clip, where one file holds several clips.
        windows: window lengths in labelled frames.
        taxonomy: what `category_id` means; None takes the truth's `categories`.
        progress: show a bar with the time left.

    Raises:
        UserError: a folder has none of these forms, a frame is missing, the files contradict each other, the
            number of labelled frames isn't a multiple of `clip_length`, or the windows don't ascend.
    """
    taxonomy, clips = _read_truth(Path(truth), clip_length, taxonomy)
    pairs = _pair(clips, Path(pred), taxonomy)
    metric = VPQ(taxonomy, windows)
    with _bar(progress) as bar:
        task = bar.add_task("evaluate", total=sum(map(len, pairs)))
        for clip in pairs:
            for true_frame, pred_frame in clip:
                expected, predicted = true_frame.frame(), pred_frame.frame()
                if predicted.size != expected.size:
                    raise UserError(
                        f"{pred_frame.path} is {_size(predicted)}, its truth is {_size(expected)}; "
                        "predict at the size of the labels"
                    )
                metric.update(predicted, expected)
                bar.advance(task)
            metric.end_clip()
    return metric.compute()


def evaluate_clips(
    predict: Predictor,
    clips: Iterable[Clip],
    every: int = 5,
    windows: Sequence[int] = (1, 2, 3, 4),
    progress: bool = True,
) -> VPQResult:
    """VPQ of a predictor. It answers every frame of a clip; frames with truth are scored as they come.

    Of a clip with truth for every frame only frames every - 1, 2 every - 1, ... count: with 5 the frames 4,
    9, 14, ... (dossier 11.6), so that windows span the same time as on Cityscapes-VPS. Of any other clip all
    frames with truth count.

    Args:
        predict: clip -> one PanopticFrame for each of its frames, in order.
        clips: all of one taxonomy.
        every: stride of the scored frames, at least 1.
        windows: window lengths in scored frames.
        progress: show a bar with the time left.

    Raises:
        UserError: there are no clips, their taxonomies differ, or none has a frame to score.
        ValueError: `predict` answers more or fewer frames than the clip has, of another size, or with classes
            that the taxonomy lacks.
    """
    if every < 1:
        raise UserError(f"every is {every}; score each frame with 1, or every n-th with n")
    metric: VPQ | None = None
    with _bar(progress) as bar:
        task = bar.add_task("evaluate", total=sum(map(len, clips)) if isinstance(clips, Sequence) else None)
        for clip in clips:
            if metric is None:
                metric = VPQ(clip.taxonomy, windows, spacing=every)
            elif clip.taxonomy != metric.taxonomy:
                raise UserError(
                    f"clip {clip.name!r} has the taxonomy {clip.taxonomy.name!r}, the clips before "
                    f"{metric.taxonomy.name!r}; evaluate them apart"
                )
            scored = set(scored_frames(clip, every))
            answered = 0
            for t, frame in enumerate(predict(clip)):
                if t in scored:
                    expected = clip.truth(t)
                    assert expected is not None
                    metric.update(frame, expected)
                answered += 1
                bar.advance(task)
            if answered != len(clip):
                raise ValueError(f"{answered} predicted frames for clip {clip.name!r}, which has {len(clip)}")
            metric.end_clip()
    if metric is None:
        raise UserError("there are no clips to evaluate")
    result = metric.compute()
    if not result.frames:
        raise UserError(f"no clip has a frame to score; give clips with truth and {every} frames or more")
    return result


def scored_frames(clip: Clip, every: int) -> tuple[int, ...]:
    """The frames of a clip that `evaluate_clips` scores."""
    return clip.labelled[every - 1 :: every] if len(clip.labelled) == len(clip) else clip.labelled


def most_frequent_class(clips: Iterable[Clip], taxonomy: Taxonomy, size: tuple[int, int]) -> PanopticFrame:
    """The answer that looks at no image: at each pixel the class that the truth most often has there.

    What a network must beat. Positions that are always void get the class that is most frequent overall; of
    equally frequent classes the first. All pixels of a thing class are one instance, id 1. Memory: 4 bytes
    for each class and pixel of `size`.

    Args:
        clips: to count over; all their labelled frames.
        taxonomy: of the clips.
        size: (height, width) to count and answer at; truth of another size is resized, nearest pixel.

    Raises:
        UserError: the clips have another taxonomy, or no labelled pixel.
    """
    counts = np.zeros((len(taxonomy), *size), np.int32)
    labels = np.arange(len(taxonomy), dtype=np.uint8)[:, None, None]
    for clip in clips:
        if clip.taxonomy != taxonomy:
            raise UserError(
                f"clip {clip.name!r} has the taxonomy {clip.taxonomy.name!r}, not {taxonomy.name!r}"
            )
        for t in clip.labelled:
            truth = clip.truth(t)
            assert truth is not None
            counts += _resize(truth, size).semantic == labels
    if not counts.any():
        raise UserError("no clip has a labelled pixel to count; give clips with truth")
    semantic = counts.argmax(0).astype(np.uint8)
    semantic[counts.max(0) == 0] = counts.sum((1, 2), dtype=np.int64).argmax()
    return PanopticFrame(semantic, (semantic >= taxonomy.num_stuff).astype(np.int32))


def always(frame: PanopticFrame) -> Predictor:
    """The predictor that answers `frame` every time, resized to the clip, nearest pixel."""

    def predict(clip: Clip) -> Iterator[PanopticFrame]:
        answer = _resize(frame, clip.size)
        for _ in range(len(clip)):
            yield answer

    return predict


def _resize(frame: PanopticFrame, size: tuple[int, int]) -> PanopticFrame:
    if frame.size == size:
        return frame
    maps = [
        cv2.resize(m, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        for m in (frame.semantic, frame.instance)
    ]
    return PanopticFrame(maps[0], maps[1], frame.scores)


class _Source(NamedTuple):
    """One JSON with its PNGs. `many`: it holds clips one after another."""

    json: Path
    pngs: Path
    many: bool


def _sources(folder: Path) -> dict[str, _Source]:
    """What a folder holds, by clip name ("" for a folder that isn't divided)."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; expected one with {LAYOUTS}")
    if (folder / JSON_NAME).is_file():
        return {"": _Source(folder / JSON_NAME, folder / PNG_FOLDER, many=False)}
    if (folder / "pred.json").is_file():
        return {"": _Source(folder / "pred.json", folder / "pan_pred", many=True)}
    truths = sorted(folder.glob("panoptic_gt*.json"))
    if len(truths) > 1:
        raise UserError(
            f"{folder} holds {truths[0].name} and {truths[1].name}; leave the one to evaluate against"
        )
    if truths:
        inner = folder / "val" / "panoptic_video"
        return {"": _Source(truths[0], inner if inner.is_dir() else folder / "panoptic_video", many=True)}
    parts = sorted(p.parent for p in folder.glob(f"*/{JSON_NAME}"))
    if not parts:
        raise UserError(f"{folder} holds no panoptic result; expected {LAYOUTS}")
    return {p.name: _Source(p / JSON_NAME, p / PNG_FOLDER, many=False) for p in parts}


def _read_truth(
    folder: Path, clip_length: int, taxonomy: Taxonomy | None
) -> tuple[Taxonomy, dict[str, list[list[StoredFrame]]]]:
    """Taxonomy, and clips by folder name."""
    found: dict[str, list[list[StoredFrame]]] = {}
    for name, source in _sources(folder).items():
        taxonomy, frames = read_panoptic_video(source.json, source.pngs, taxonomy)
        found[name] = _cut(source.json, frames, clip_length) if source.many else [frames]
    assert taxonomy is not None
    return taxonomy, found


def _cut(path: Path, frames: list[StoredFrame], clip_length: int) -> list[list[StoredFrame]]:
    """Clips of `clip_length` frames, in the order of names; clip numbers that names start with must agree."""
    if clip_length < 1 or len(frames) % clip_length:
        raise UserError(
            f"{path} has {len(frames)} labelled frames, which can't be cut into clips of {clip_length}; "
            "complete it, or set the clip length"
        )
    frames = sorted(frames, key=lambda f: f.name)
    clips = [frames[i : i + clip_length] for i in range(0, len(frames), clip_length)]
    for clip in clips:
        # VVVV_FFFF_city_SSSSSS_NNNNNN, dossier 11.2
        numbers = [match[1] if (match := re.match(r"(\d{4})_\d{4}_", f.name)) else "" for f in clip]
        if len(set(numbers)) > 1:
            raise UserError(
                f"{path}: clips of {clip_length} labelled frames would mix the clips {numbers[0]} and "
                f"{numbers[-1]}; complete it, or set the clip length"
            )
    return clips


def _pair(
    clips: dict[str, list[list[StoredFrame]]], pred: Path, taxonomy: Taxonomy
) -> list[list[tuple[StoredFrame, StoredFrame]]]:
    """For each clip the pairs of truth and prediction."""
    sources = _sources(pred)
    pairs: list[list[tuple[StoredFrame, StoredFrame]]] = []
    for name, parts in clips.items():
        source = sources.get(name)
        if source is None:
            what = f"no folder {name!r}" if name else "clip folders, but the truth is one file"
            raise UserError(f"{pred} has {what}; predict the clips that the truth has")
        _, frames = read_panoptic_video(source.json, source.pngs, taxonomy)
        by_name = {f.name: f for f in frames}
        if len(by_name) < len(frames):
            raise UserError(f"{source.json} lists a frame twice; write the result again")
        for part in parts:
            missing = next((f.name for f in part if f.name not in by_name), None)
            if missing is not None:
                raise UserError(
                    f"{source.json} has no frame {missing!r}, which the truth has; predict it too"
                )
            pairs.append([(f, by_name[f.name]) for f in part])
    return pairs


def _bar(show: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("frames"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not show,
    )


def _size(frame: PanopticFrame) -> str:
    return f"{frame.size[1]} x {frame.size[0]} pixels"
