"""What a labelled frame is: classes (Taxonomy) and one class and one track id per pixel (PanopticFrame)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from panoptube.errors import UserError
from panoptube.panoptic.runs import find_runs

VOID = 255
"""The ignore label of every semantic map: unlabelled."""

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Category:
    """One class of a dataset. `id` is the dataset's own category id, as its files have it."""

    name: str
    isthing: bool
    color: Color
    id: int


@dataclass(frozen=True)
class Taxonomy:
    """The classes of a dataset: names, colours, which are things. Whatever counts classes asks this.

    A pixel's class is the position in `categories`: stuff first, then things (the order of the network's
    semantic channels, dossier 0.4). Void is 255 and not a category.

    Raises:
        UserError: no classes, more than 255, a name or an id twice, a thing before a stuff class, a colour
            outside 0..255.
    """

    name: str
    categories: tuple[Category, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.categories) < 256:
            raise UserError(
                f"taxonomy {self.name!r} has {len(self.categories)} classes; 1 to 255 are possible"
            )
        for what in ("name", "id"):
            values = [getattr(c, what) for c in self.categories]
            twice = {v for v in values if values.count(v) > 1}
            if twice:
                raise UserError(
                    f"taxonomy {self.name!r} has the {what} {sorted(twice)[0]!r} twice; make it unique"
                )
        things = [c.isthing for c in self.categories]
        if things != sorted(things):
            first = next(
                c.name for c, d in zip(self.categories, self.categories[1:]) if c.isthing and not d.isthing
            )
            raise UserError(
                f"taxonomy {self.name!r} has the thing {first!r} before a stuff class; list stuff first"
            )
        for c in self.categories:
            if len(c.color) != 3 or not all(0 <= v <= 255 for v in c.color):
                raise UserError(
                    f"taxonomy {self.name!r}: colour {c.color} of {c.name!r} is not three numbers in 0..255"
                )

    def __len__(self) -> int:
        return len(self.categories)

    @cached_property
    def num_stuff(self) -> int:
        return sum(not c.isthing for c in self.categories)

    @property
    def num_things(self) -> int:
        return sum(c.isthing for c in self.categories)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.categories)

    @property
    def colors(self) -> NDArray[np.uint8]:
        """(256, 3) uint8 RGB, indexed by the semantic map; void and unused classes are black."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self)] = [c.color for c in self.categories]
        return table

    def is_thing(self, label: int) -> bool:
        """Whether class `label` (position in `categories`) is a thing. Void is not."""
        return self.num_stuff <= label < len(self)

    def index(self, name: str) -> int:
        """Position of the class called `name`.

        Raises:
            UserError: there is none.
        """
        if name not in self.names:
            raise UserError(f"taxonomy {self.name!r} has no class {name!r}; it has {', '.join(self.names)}")
        return self.names.index(name)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the inverse of `from_dict`."""
        categories = [
            {"id": c.id, "name": c.name, "isthing": int(c.isthing), "color": list(c.color)}
            for c in self.categories
        ]
        return {"name": self.name, "categories": categories}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Taxonomy:
        """From `to_dict`'s form, which is also the `categories` of COCO panoptic JSON.

        Raises:
            UserError: an entry is missing or of the wrong kind, or the classes don't fit together.
        """
        try:
            categories = tuple(
                Category(
                    str(c["name"]),
                    bool(c["isthing"]),
                    (int(c["color"][0]), int(c["color"][1]), int(c["color"][2])),
                    int(c["id"]),
                )
                for c in data["categories"]
            )
            return cls(str(data.get("name", "unnamed")), categories)
        except (KeyError, TypeError, IndexError, ValueError, OverflowError) as error:
            raise UserError(
                f"not a taxonomy ({error!r}); each category needs id, name, isthing and color"
            ) from error


class Segment(NamedTuple):
    """One segment of one frame. `bbox` is x, y, width, height in pixels."""

    label: int
    id: int
    area: int
    bbox: tuple[int, int, int, int]
    score: float | None


@dataclass(frozen=True)
class PanopticFrame:
    """One class and one track id for every pixel of a frame.

    A track's key is (class, id). There is no segment table beside the map that could disagree with it:
    `segments` computes it.

    Attributes:
        semantic: (H, W) uint8, position of the class in the taxonomy, 255 = void.
        instance: (H, W) int32. 0 = stuff, or crowd where the class is a thing; > 0 = track id, unique in the
            video.
        scores: confidence in [0, 1] by track id; ids without a score are fine.

    Raises:
        ValueError: shapes or dtypes are others than these, or an id is negative.
    """

    semantic: NDArray[np.uint8]
    instance: NDArray[np.int32]
    scores: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, array, dtype in (
            ("semantic", self.semantic, np.uint8),
            ("instance", self.instance, np.int32),
        ):
            if array.ndim != 2 or array.dtype != dtype:
                raise ValueError(f"{name} must be (H, W) {np.dtype(dtype)}, got {array.shape} {array.dtype}")
        if self.semantic.shape != self.instance.shape:
            raise ValueError(
                f"semantic is {self.semantic.shape}, instance is {self.instance.shape}; they must agree"
            )
        if self.instance.size and int(self.instance.min()) < 0:
            raise ValueError(f"instance holds {int(self.instance.min())}; track ids are 0 or more")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.semantic.shape[0], self.semantic.shape[1]

    def check(self, taxonomy: Taxonomy) -> None:
        """Whether the maps fit the taxonomy.

        Raises:
            ValueError: a class that the taxonomy doesn't have, or a track id on stuff or void.
        """
        labels = np.unique(self.semantic)
        unknown = [int(v) for v in labels if v != VOID and v >= len(taxonomy)]
        if unknown:
            raise ValueError(
                f"semantic holds class {unknown[0]}; {taxonomy.name!r} has 0..{len(taxonomy) - 1} and 255"
            )
        stray = (self.instance > 0) & ((self.semantic < taxonomy.num_stuff) | (self.semantic == VOID))
        if stray.any():
            y, x = map(int, np.argwhere(stray)[0])
            label = int(self.semantic[y, x])
            where = "void" if label == VOID else taxonomy.names[label]
            raise ValueError(
                f"track id {self.instance[y, x]} at row {y}, column {x} lies on {where}; only things have ids"
            )

    def tracks(self) -> list[int]:
        """The track ids that have a pixel, ascending."""
        starts = find_runs(self.instance).starts
        return [track for track in np.unique(self.instance.ravel()[starts]).tolist() if track]

    def segments(self) -> list[Segment]:
        """The segments of the frame, by class, then id; void is none. Crowd is a thing class with id 0."""
        starts, lengths = find_runs(self.semantic, self.instance)
        keys = self.semantic.ravel()[starts].astype(np.int64) << 32 | self.instance.ravel()[starts]
        y, x = np.divmod(starts, max(self.size[1], 1))
        found: list[Segment] = []
        for value in np.unique(keys).tolist():
            label, track = value >> 32, value & 0xFFFFFFFF
            if label == VOID:
                continue
            runs = keys == value
            left, right = int(x[runs].min()), int((x + lengths)[runs].max())
            top, bottom = int(y[runs].min()), int(y[runs].max()) + 1
            box = (left, top, right - left, bottom - top)
            score = self.scores.get(track) if track else None
            found.append(Segment(label, track, int(lengths[runs].sum()), box, score))
        return found
