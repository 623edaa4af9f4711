"""All metrics of results on disk, and VPQ of a predictor on clips. Nothing here imports torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from panoptube.data.clip import Clip
from panoptube.errors import UserError
from panoptube.evaluation import Evaluation
from panoptube.flow.source import DISFlow, FlowSource, GivenFlow
from panoptube.metrics.pq import PQ
from panoptube.metrics.protocol import Protocol, protocol_of
from panoptube.metrics.stored import compare_stored
from panoptube.metrics.stq import STQ
from panoptube.metrics.table import FrameTable
from panoptube.metrics.tc import TC
from panoptube.metrics.tracking import Tracking
from panoptube.metrics.vc import VC
from panoptube.metrics.vpq import VPQ, VPQResult
from panoptube.panoptic.formats import StoredFrame
from panoptube.panoptic.frame import PanopticFrame, Taxonomy
from panoptube.panoptic.layouts import StoredClip, read_clips
from panoptube.progress import progress_bar

T = TypeVar("T")
R = TypeVar("R")

Predictor = Callable[[Clip], Iterator[PanopticFrame]]
"""Answers every frame of a clip, in order."""

METRICS = ("vpq", "pq", "stq", "tc", "vc", "hota")


def evaluate(
    truth: Path,
    pred: Path,
    protocol: str = "cityscapes-vps",
    metrics: Sequence[str] = ("vpq",),
    official: bool = False,
    windows: Sequence[int] | None = None,
    clip_length: int = 6,
    skip_unlabelled: bool = False,
    images: Path | None = None,
    flow: Path | None = None,
    workers: int = 1,
    taxonomy: Taxonomy | None = None,
    progress: bool = True,
) -> Evaluation:
    """Metrics of a result on disk against truth on disk, dossier 13.

    Both are folders, each in one of these forms:

    * `panoptic.json` and `panoptic/`, what `panoptube predict` writes: one clip;
    * folders of that form, one for each clip: clips are paired by folder name;
    * Cityscapes-VPS: truth `panoptic_gt_val_city_vps.json` with `panoptic_video/` or `val/panoptic_video/`,
      prediction `pred.json` with `pan_pred/`: all clips in one file, `clip_length` labelled frames each,
      ordered by name;
    * VIPER: truth `viper_panoptic*.json` with `panoptic_video/`, prediction `pred.json` with `pan/`;
    * VIPSeg: truth `panoptic_gt*.json` with `panomasksRGB/`, prediction `pred.json` with `pan_pred/CLIP/`;
    * COCO panoptic video, truth alone: `panoptic_SPLIT.json` itself; a result has a folder for each video.

    The truth says which frames count and how they form clips. Frames are paired by name. Each pair is read
    once and reduced to a table of overlaps, from which all of VPQ, PQ, STQ and tracking are made.

    Args:
        truth, pred: folders.
        protocol: whose windows VPQ has, one of `PROTOCOLS`.
        metrics: some of `METRICS`; `hota` brings HOTA, IDF1 and MOTSA, and needs TrackEval.
        official: compute as the published scripts do, bug for bug; docs/metrics.md names each difference.
        windows: other window lengths than the protocol's, in frames with truth.
        clip_length: labelled frames of one clip, where one file holds several clips.
        skip_unlabelled: predicted frames without truth don't count, instead of being a fault. TC uses them.
        images, flow: for TC one of the two: a folder with the image of each frame, NAME.png or .jpg, whose
            flow is then computed by DIS; or a folder with the flow from each frame to the next, NAME.flo,
            .npy or .png. A folder for each clip may be in between.
        workers: threads that read PNGs; the result is the same for any number.
        taxonomy: what `category_id` means; None takes the truth's `categories`.
        progress: show a bar with the time left.

    Raises:
        UserError: a folder has none of these forms, a frame is missing or surplus, the files contradict each
            other, or the metrics lack something; with `official`, the script would stop with an error.
    """
    check_metrics(metrics, workers)
    judged = protocol_of(protocol)
    if official:
        # That module stands on this one.
        from panoptube.evaluate_official import evaluate_official

        if windows is not None or skip_unlabelled or clip_length != 6:
            raise UserError(
                "the published scripts have their own windows and clips; leave out --windows, --clip-length "
                "and --skip-unlabelled"
            )
        return evaluate_official(truth, pred, judged, metrics, images, flow, workers, progress)
    if windows is not None:
        judged = judged.with_windows(windows)
    source = flow_source(images, flow) if "tc" in metrics else None
    taxonomy, clips = read_clips(Path(truth), Path(pred), clip_length, taxonomy, skip_unlabelled)
    tc = TC(taxonomy.names, source.name) if source else None
    names = [t.name for clip in clips for t in clip.truth]
    unique = len(set(names)) == len(names)
    with progress_bar(progress, "frames") as bar:
        task = bar.add_task("evaluate", total=len(names))

        def count(clip: StoredClip, threads: int) -> _Counted:
            counted = _Counted.start(taxonomy, judged, metrics)
            pairs = list(zip(clip.prediction, clip.truth))
            read = partial(_read, maps=counted.vc is not None)
            for (_, true), found in zip(pairs, ordered(read, pairs, threads)):
                counted.add(found, true, true.name if unique else f"{clip.name}/{true.name}")
                bar.advance(task)
            counted.end_clip(clip.name)
            return counted

        # Clip by clip is quicker: threads then hardly wait for each other. A few long clips go by frame.
        by_clip = len(clips) >= workers
        total = _Counted.start(taxonomy, judged, metrics)
        for counted in ordered(
            partial(count, threads=1 if by_clip else workers), clips, workers if by_clip else 1
        ):
            total.merge(counted)
        if tc is not None and source is not None:
            _compare_neighbours(tc, source, clips, bar)
    return Evaluation(
        protocol=protocol,
        official=False,
        vpq=total.vpq.compute() if total.vpq else None,
        pq=total.pq.compute() if total.pq else None,
        stq=total.stq.compute() if total.stq else None,
        tc=tc.compute() if tc else None,
        vc=total.vc.compute() if total.vc else None,
        tracking=total.tracking.compute() if total.tracking else None,
    )


Labels = NDArray[np.uint8]
Found = tuple[FrameTable, Labels | None, Labels | None]
"""A frame's table, and its predicted and true classes if they are needed."""


@dataclass
class _Counted:
    """The metrics that were asked for, of the clips counted so far."""

    vpq: VPQ | None
    pq: PQ | None
    stq: STQ | None
    tracking: Tracking | None
    vc: VC | None

    @classmethod
    def start(cls, taxonomy: Taxonomy, protocol: Protocol, metrics: Sequence[str]) -> _Counted:
        return cls(
            VPQ(taxonomy, protocol) if "vpq" in metrics else None,
            PQ(taxonomy) if "pq" in metrics else None,
            STQ(taxonomy) if "stq" in metrics else None,
            Tracking(taxonomy) if "hota" in metrics else None,
            VC() if "vc" in metrics else None,
        )

    def add(self, found: Found, true: StoredFrame, name: str) -> None:
        """Count the next frame of a clip."""
        table, predicted_labels, true_labels = found
        for metric in (self.vpq, self.stq, self.tracking):
            if metric is not None:
                metric.update_table(table)
        if self.pq is not None:
            self.pq.update_table(table, name)
        if self.vc is not None and predicted_labels is not None and true_labels is not None:
            try:
                self.vc.update(predicted_labels, true_labels)
            except ValueError as error:
                raise UserError(f"{true.path}: {error}") from error

    def end_clip(self, name: str) -> None:
        for metric in (self.vpq, self.stq, self.tracking):
            if metric is not None:
                metric.end_clip(name)
        if self.vc is not None:
            self.vc.end_clip()

    def merge(self, other: _Counted) -> None:
        """Add what `other`, of the same metrics, counted on the clips after these."""
        if self.vpq is not None and other.vpq is not None:
            self.vpq.merge(other.vpq)
        if self.pq is not None and other.pq is not None:
            self.pq.merge(other.pq)
        if self.stq is not None and other.stq is not None:
            self.stq.merge(other.stq)
        if self.tracking is not None and other.tracking is not None:
            self.tracking.merge(other.tracking)
        if self.vc is not None and other.vc is not None:
            self.vc.merge(other.vc)


def _read(pair: tuple[StoredFrame, StoredFrame], maps: bool) -> Found:
    predicted, true = pair
    table = compare_stored(predicted, true)
    if not maps:
        return table, None, None
    return table, predicted.frame().semantic, true.frame().semantic


def check_metrics(metrics: Sequence[str], workers: int) -> None:
    """Raises UserError for names that aren't in `METRICS`, or no workers."""
    unknown = [m for m in metrics if m not in METRICS]
    if unknown or not metrics:
        named = f"there is no metric {unknown[0]!r}" if unknown else "no metric was named"
        raise UserError(f"{named}; choose some of {', '.join(METRICS)}")
    if workers < 1:
        raise UserError(f"{workers} workers can't work; give 1 or more")


def flow_source(images: Path | None, flow: Path | None) -> FlowSource:
    """Raises UserError unless exactly one is given, and is a folder."""
    if (images is None) == (flow is None):
        raise UserError("TC needs optical flow; give either --images or --flow")
    return GivenFlow(flow) if flow is not None else DISFlow(Path(images or ""))


def ordered(function: Callable[[T], R], items: Sequence[T], workers: int) -> Iterator[R]:
    """`map` over threads, in order, never far ahead of what was asked for."""
    if workers == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[R]] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(function, item))
                if len(ahead) > 4 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _compare_neighbours(tc: TC, source: FlowSource, clips: Sequence[StoredClip], bar: Progress) -> None:
    """All predicted frames of each clip, with or without truth, two by two."""
    task = bar.add_task("flow", total=sum(len(c.predicted) - 1 for c in clips))
    for clip in clips:
        frames = sorted(clip.predicted, key=lambda f: f.name)
        before: Labels | None = None
        for i, frame in enumerate(frames):
            labels = frame.frame().semantic
            if before is not None:
                compare_pair(tc, source, before, labels, (clip.name, frames[i - 1].name, frame.name))
                bar.advance(task)
            before = labels


def compare_pair(
    tc: TC, source: FlowSource, before: Labels, after: Labels, names: tuple[str, str, str]
) -> None:
    """Count two neighbouring frames of a clip.

    Args:
        names: of the clip, and of the two frames.

    Raises:
        UserError: there is no flow, or it has another size.
    """
    clip, first, second = names
    flow = source(clip, first, second)
    try:
        tc.update(before, after, flow)
    except ValueError as error:
        raise UserError(f"TC of {first} and {second}: {error}") from error


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
    protocol = Protocol("clips", tuple(windows), spacing=every)
    metric: VPQ | None = None
    with progress_bar(progress, "frames") as bar:
        task = bar.add_task("evaluate", total=sum(map(len, clips)) if isinstance(clips, Sequence) else None)
        for clip in clips:
            if metric is None:
                metric = VPQ(clip.taxonomy, protocol)
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
            metric.end_clip(clip.name)
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
