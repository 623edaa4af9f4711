"""Files as the published scripts read them: which picture meets which list of segments, right or wrong.

Three layouts: Cityscapes-VPS, VIPER and VIPSeg. A video is a list of frames, a frame two PNGs and two lists.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from panoptube.errors import UserError
from panoptube.metrics.table import FrameTable, compare_ids
from panoptube.panoptic.frame import Category
from panoptube.panoptic.id_png import read_id_png

T = TypeVar("T")

CLIP_LENGTH = 6
"""Labelled frames of a Cityscapes-VPS clip, which the script takes for granted."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry of a `segments_info`. `area` is None where the file has none."""

    id: int
    category: int
    iscrowd: bool
    area: int | None


@dataclass(frozen=True)
class OfficialFrame:
    """What the scripts take for one frame; `table` is read from the PNGs when first asked for.

    The table's keys are segment ids.
    """

    truth_png: Path
    pred_png: Path
    truth: tuple[Listed, ...] = field(repr=False)
    prediction: tuple[Listed, ...] = field(repr=False)
    _read: dict[str, tuple[FrameTable, tuple[int, int]]] = field(default_factory=dict, repr=False)

    @property
    def table(self) -> FrameTable:
        """Raises UserError if a PNG is missing or broken, or the two differ in size."""
        return self._content()[0]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width); raises as `table`."""
        return self._content()[1]

    def _content(self) -> tuple[FrameTable, tuple[int, int]]:
        if "content" not in self._read:
            truth, prediction = read_id_png(self.truth_png), read_id_png(self.pred_png)
            try:
                table = compare_ids(prediction, truth)
            except ValueError as error:
                raise UserError(f"{self.pred_png}: {error}; predict at the size of the labels") from error
            self._read["content"] = table, (truth.shape[0], truth.shape[1])
        return self._read["content"]

    def share(self, other: OfficialFrame | None) -> None:
        """Take what `other`, a frame of the same two PNGs, has read."""
        if other is not None:
            self._read.update(other._read)


Video = list[OfficialFrame]


def read_categories(data: dict[str, Any]) -> tuple[Category, ...]:
    """The classes of a truth file, in its order; of an id that it has twice the last."""
    by_id = {c["id"]: c for c in data["categories"]}
    return tuple(
        Category(str(c.get("name", i)), c["isthing"] == 1, (0, 0, 0), int(i)) for i, c in by_id.items()
    )


def read_json(path: Path) -> dict[str, Any]:
    """Any JSON object.

    Raises:
        UserError: the file is missing, or no JSON object.
    """
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise UserError(f"{path} is not a JSON object with annotations")
    return data


def cityscapes_videos(
    truth: dict[str, Any], pred: dict[str, Any], pngs: Path, pred_pngs: Path
) -> list[Video]:
    """Cityscapes-VPS, `tools/eval_vpq.py`: everything goes by position.

    True PNGs come in the order of their names; true segments, predicted segments and predicted PNGs in that
    of the JSONs. What is too long in one list is dropped. There are as many videos as the truth has sixes
    of annotations, and the frames are dealt out to them evenly.

    Args:
        truth, pred: the JSONs.
        pngs, pred_pngs: folders.

    Raises:
        UserError: less than six annotations, a PNG is missing, or an entry.
    """
    try:
        names = sorted(
            i["file_name"]
            .replace("_newImg8bit.png", "_final_mask.png")
            .replace("_leftImg8bit.png", "_gtFine_color.png")
            for i in truth["images"]
        )
        pred_names = [f"{i['id']}.png" for i in truth["images"]]
        truths = [_listed(a) for a in truth["annotations"]]
        predictions = [_listed(a) for a in pred["annotations"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"the official script stops: an entry {error} is missing") from error
    _need([*(pngs / n for n in names), *(pred_pngs / n for n in pred_names)])
    frames = [
        OfficialFrame(pngs / name, pred_pngs / pred_name, listed, predicted)
        for listed, predicted, name, pred_name in zip(truths, predictions, names, pred_names)
    ]
    videos = len(truths) // CLIP_LENGTH
    if not videos:
        raise UserError(
            f"the official script stops: {len(truths)} annotations, and one video has {CLIP_LENGTH}"
        )
    return deal(frames, videos)


def panopticapi_frames(truth: dict[str, Any], pred: dict[str, Any], pngs: Path, pred_pngs: Path) -> Video:
    """panopticapi: frames meet by `image_id`, and `file_name` is where each annotation has its PNG.

    Raises:
        UserError: a frame of the truth isn't predicted, a PNG is missing, or an entry.
    """
    try:
        by_image = {a["image_id"]: a for a in pred["annotations"]}
        frames: Video = []
        for annotation in truth["annotations"]:
            image = annotation["image_id"]
            if image not in by_image:
                raise UserError(f"the official script stops: no prediction for the image {image}")
            predicted = by_image[image]
            frames.append(
                OfficialFrame(
                    pngs / annotation["file_name"],
                    pred_pngs / predicted["file_name"],
                    _last_listings(_listed(annotation)),
                    _last_listings(_listed(predicted)),
                )
            )
    except (KeyError, TypeError) as error:
        raise UserError(f"the official script stops: an entry {error} is missing") from error
    _need([p for f in frames for p in (f.truth_png, f.pred_png)])
    return frames


def viper_videos(
    truth: dict[str, Any], pred: dict[str, Any], pngs: Path, pred_pngs: Path, videos: int | None = None
) -> list[Video]:
    """VIPER, `tools/dataset/viper.py`: by position too, in the order of the JSON.

    A true PNG that is missing is skipped, so that all later ones meet the wrong frame.

    Args:
        truth, pred: the JSONs.
        pngs, pred_pngs: folders.
        videos: among how many videos to deal out the frames; None counts the sequence numbers that file names
            begin with.

    Raises:
        UserError: a predicted PNG is missing, or an entry.
    """
    try:
        names = [Path(i["file_name"]).name.replace(".jpg", ".png") for i in truth["images"]]
        # Of an id that a frame lists twice, the last entry holds.
        truths = [_last_listings(_listed(a)) for a in truth["annotations"]]
        predictions = [_last_listings(_listed(a)) for a in pred["annotations"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"the official script stops: an entry {error} is missing") from error
    _need([pred_pngs / n for n in names])
    found = [pngs / n for n in names if (pngs / n).is_file()]
    frames = [
        OfficialFrame(png, pred_pngs / name, listed, predicted)
        for listed, predicted, png, name in zip(truths, predictions, found, names)
    ]
    return deal(frames, videos or len({n.split("_")[0] for n in names}))


def vipseg_videos(truth: dict[str, Any], pred: dict[str, Any], pngs: Path, pred_pngs: Path) -> list[Video]:
    """VIPSeg, `eval_vpq_vspw.py`: videos by their ids, frames of a video by position.

    Raises:
        UserError: a video isn't predicted or has another number of frames, a PNG is missing, or an entry.
    """
    videos: list[Video] = []
    try:
        truths, predictions = (
            {v["video_id"]: [_listed(a) for a in v["annotations"]] for v in data["annotations"]}
            for data in (truth, pred)
        )
        for video in truth["videos"]:
            name = video["video_id"]
            if name not in predictions or len(predictions[name]) != len(truths[name]):
                raise UserError(
                    f"the official script stops: video {name} has {len(truths[name])} frames, of which "
                    f"{len(predictions.get(name, ()))} are predicted"
                )
            files = [i["file_name"] for i in video["images"]]
            videos.append(
                [
                    OfficialFrame(pngs / name / f, pred_pngs / name / f, listed, predicted)
                    for listed, predicted, f in zip(truths[name], predictions[name], files)
                ]
            )
    except (KeyError, TypeError) as error:
        raise UserError(f"the official script stops: an entry {error} is missing") from error
    _need([p for v in videos for f in v for p in (f.truth_png, f.pred_png)])
    return videos


def deal(items: Sequence[T], parts: int) -> list[list[T]]:
    """Consecutive parts, the first ones an item longer where it doesn't come out even."""
    length, longer = divmod(len(items), parts)
    starts = [i * length + min(i, longer) for i in range(parts + 1)]
    return [list(items[starts[i] : starts[i + 1]]) for i in range(parts)]


def _listed(annotation: dict[str, Any]) -> tuple[Listed, ...]:
    return tuple(
        Listed(s["id"], s["category_id"], s.get("iscrowd", 0) == 1, s.get("area"))
        for s in annotation["segments_info"]
    )


def _last_listings(listed: Iterable[Listed]) -> tuple[Listed, ...]:
    """Of an id listed twice the last entry, at the place of the first."""
    return tuple({s.id: s for s in listed}.values())


def _need(paths: Iterable[Path]) -> None:
    missing = next((p for p in paths if not p.is_file()), None)
    if missing is not None:
        raise UserError(f"can't read {missing}: it is missing")
