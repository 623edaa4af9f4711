"""`panoptube evaluate --official`: all metrics as the published scripts compute them, from the files they
read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from panoptube.errors import UserError
from panoptube.evaluate import (
    Labels,
    compare_pair,
    flow_source,
    ordered,
)
from panoptube.evaluation import Evaluation
from panoptube.flow.source import FlowSource
from panoptube.metrics.official_files import (
    Listed,
    OfficialFrame,
    Video,
    cityscapes_videos,
    panopticapi_frames,
    read_categories,
    read_json,
    viper_videos,
    vipseg_videos,
)
from panoptube.metrics.official_stq import official_stq
from panoptube.metrics.official_tracking import official_tracking
from panoptube.metrics.official_vpq import (
    CITYSCAPES_RULES,
    PANOPTICAPI_RULES,
    VIPER_RULES,
    average,
    count_videos,
)
from panoptube.metrics.pq import PQResult, pq_result
from panoptube.metrics.protocol import CITYSCAPES_VPS, Protocol
from panoptube.metrics.quality import TubeCounts
from panoptube.metrics.tc import TC
from panoptube.metrics.vc import VC
from panoptube.metrics.vpq import ClipCounts, vpq_result
from panoptube.panoptic.frame import VOID, Category
from panoptube.panoptic.id_png import read_id_png
from panoptube.panoptic.layouts import Source, find_sources
from panoptube.progress import progress_bar

SCRIPTS: dict[str, tuple[str, Callable[..., list[Video]]]] = {
    "cityscapes-vps": ("cityscapes", cityscapes_videos),
    "viper": ("viper", viper_videos),
    "vipseg": ("vipseg", vipseg_videos),
    "vipseg-8": ("vipseg", vipseg_videos),
}


def evaluate_official(
    truth: Path,
    pred: Path,
    protocol: Protocol,
    metrics: Sequence[str],
    images: Path | None,
    flow: Path | None,
    workers: int,
    progress: bool,
) -> Evaluation:
    """Metrics of a result on disk, bug for bug; docs/metrics.md names each difference to `evaluate`.

    VPQ is that of mcahny/vps (Cityscapes-VPS, VIPER) or of VIPSeg's own script, PQ is panopticapi's, STQ
    deeplab2's or VIPSeg's, TC that of ETC, VC that of VSPW. Frames meet as the scripts let them meet: mostly
    by position.

    Args:
        as `evaluate`.

    Raises:
        UserError: the folders don't have the protocol's form, or the script would stop with an error.
    """
    source = flow_source(images, flow) if "tc" in metrics else None
    kind, read = SCRIPTS[protocol.name]
    places = [_source(folder, kind, protocol) for folder in (truth, pred)]
    data = [read_json(place.json) for place in places]
    truth_pngs, pred_pngs = (place.pngs for place in places)
    try:
        categories = read_categories(data[0])
        videos = read(*data, truth_pngs, pred_pngs)
        single = panopticapi_frames(data[0], data[1], truth_pngs, pred_pngs) if "pq" in metrics else []
    except KeyError as error:
        raise UserError(f"{places[0].json} has no {error}; the official script needs it") from error
    if "pq" in metrics and kind != "cityscapes":
        raise UserError("official PQ is panopticapi's, which is for Cityscapes-VPS folders; leave out pq")

    frames = [f for video in videos for f in video]
    with progress_bar(progress, "frames") as bar:
        task = bar.add_task("evaluate", total=len(frames))
        for _ in ordered(lambda frame: frame.table, frames, workers):
            bar.advance(task)
        tc = TC(_names(categories), source.name, official=True) if source else None
        if tc is not None and source is not None:
            task = bar.add_task("flow", total=sum(len(v) - 1 for v in videos))
            _count_tc(tc, source, videos, partial(bar.advance, task))
    known = {(f.truth_png, f.pred_png): f for f in frames}
    for frame in single:
        frame.share(known.get((frame.truth_png, frame.pred_png)))
    clips = [
        ClipCounts(str(i), len(video), counts)
        for i, (video, counts) in enumerate(zip(videos, _counts(videos, protocol, categories, metrics)))
    ]
    windows = [
        average([c.windows[i] for c in clips], n, protocol, categories)
        for i, n in enumerate(protocol.windows if "vpq" in metrics else ())
    ]
    return Evaluation(
        protocol=protocol.name,
        official=True,
        vpq=vpq_result(clips, windows, protocol, categories) if "vpq" in metrics else None,
        pq=_official_pq(single, categories) if "pq" in metrics else None,
        stq=official_stq(videos, categories, "vipseg" if kind == "vipseg" else "deeplab2")
        if "stq" in metrics
        else None,
        tc=tc.compute() if tc else None,
        vc=_official_vc(videos).compute() if "vc" in metrics else None,
        tracking=official_tracking(videos, categories).compute() if "hota" in metrics else None,
    )


def _source(folder: Path, kind: str, protocol: Protocol) -> Source:
    source = find_sources(Path(folder)).get("")
    if source is None or source.kind != kind:
        raise UserError(
            f"{folder} doesn't have the form that the official script of {protocol.name} reads; "
            "choose another --protocol, or leave out --official"
        )
    return source


def _counts(
    videos: Sequence[Video], protocol: Protocol, categories: Sequence[Category], metrics: Sequence[str]
) -> list[tuple[TubeCounts, ...]]:
    """For each video its counts by window."""
    if "vpq" not in metrics:
        return []
    rules = VIPER_RULES if protocol.name == "viper" else CITYSCAPES_RULES
    return list(zip(*(count_videos(videos, n, categories, rules) for n in protocol.windows)))


def _official_pq(frames: Sequence[OfficialFrame], categories: Sequence[Category]) -> PQResult:
    counted = count_videos([[f] for f in frames], 1, categories, PANOPTICAPI_RULES)
    total = TubeCounts.zero(len(categories))
    for counts in counted:
        total = total + counts
    named = [(f.pred_png.stem, counts) for f, counts in zip(frames, counted)]
    return pq_result(named, average(counted, 1, CITYSCAPES_VPS, categories), total)


def _official_vc(videos: Sequence[Video]) -> VC:
    vc = VC(official=True)
    for video in videos:
        for frame in video:
            vc.update(_class_ids(frame.pred_png, frame.prediction), _class_ids(frame.truth_png, frame.truth))
        vc.end_clip()
    return vc


def _count_tc(tc: TC, source: FlowSource, videos: Sequence[Video], done: Callable[[], Any]) -> None:
    for i, video in enumerate(videos):
        before: Labels | None = None
        names = [frame.pred_png.stem for frame in video]
        for j, frame in enumerate(video):
            labels = _class_ids(frame.pred_png, frame.prediction)
            if before is not None:
                clip = frame.pred_png.parent.name
                compare_pair(tc, source, before, labels, (clip or str(i), names[j - 1], names[j]))
                done()
            before = labels


def _class_ids(png: Path, listed: Sequence[Listed]) -> Labels:
    """(H, W) uint8 category ids, which the scripts of TC and VC take as they are; 255 where none is
    listed.
    """
    ids, inverse = np.unique(read_id_png(png), return_inverse=True)
    class_of = {s.id: s.category for s in listed}
    classes = np.array([class_of.get(i, VOID) for i in ids.tolist()], np.uint8)
    return classes[inverse].reshape(inverse.shape)


def _names(categories: Sequence[Category]) -> list[str]:
    """By category id; ids that no class has are named by their number."""
    by_id = {c.id: c.name for c in categories}
    return [by_id.get(i, str(i)) for i in range(max(by_id) + 1)]
