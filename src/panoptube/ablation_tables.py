"""The tables of the SiamTrack paper as data: each row's configuration, and the numbers that were published.

Woo et al., "Learning to Associate Every Segment for Video Panoptic Segmentation", CVPR 2021, tables 1 to 4,
and the gaps compared in its section on training (dossier 9.1 and 14). Scores are in percent.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from panoptube.config import RunConfig, SiameseConfig
from panoptube.errors import UserError
from panoptube.recipes import (
    TEMPORAL,
    fusetrack,
    fusetrack_viper,
    siamtrack,
    siamtrack_viper,
    tiny_fusetrack_streets,
    tiny_siamtrack_streets,
    tiny_streets,
    track,
    track_viper,
)

SEGMENT = ("contrast_classes", "contrast_instances")
"""The terms of L_segment."""

KS = (0, 5, 10, 15)
"""What the paper calls its windows: frames that they span."""


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        name: as the report shows it.
        run: what is trained. Equal runs of several tables have equal names, so that they are trained once.
        paper: published scores by name, as in `score_names`; no entry where the paper has none.
    """

    name: str
    run: RunConfig
    paper: Mapping[str, float]


@dataclass(frozen=True)
class AblationTable:
    """One table.

    Attributes:
        name: as the command line takes it.
        title: what is compared.
        source: where the published numbers come from.
        dataset: that they are of, by its name in `data.datasets`.
        rows: in the paper's order.
        reference: name of the row that others are compared with.
        windows: whether scores are shown for each window length, too.
        tc: whether TC is shown.
        speed: whether frames per second and memory are measured.
    """

    name: str
    title: str
    source: str
    dataset: str
    rows: tuple[Row, ...]
    reference: str
    windows: bool = False
    tc: bool = False
    speed: bool = False


@dataclass(frozen=True)
class Family:
    """The recipes that rows are made of; `siamtrack` has all temporal terms."""

    track: RunConfig
    fusetrack: RunConfig
    siamtrack: RunConfig


FAMILIES: dict[str, Callable[[], Family]] = {
    "streets": lambda: Family(
        tiny_streets(),
        changed(tiny_fusetrack_streets(), ["data.exact_flow=false"]),  # what it has when it predicts
        tiny_siamtrack_streets(),
    ),
    "cityscapes-vps": lambda: Family(track(), fusetrack(), siamtrack()),
    "viper": lambda: Family(track_viper(), fusetrack_viper(), siamtrack_viper()),
}
"""Small networks on synthetic streets for one CPU, and the published ones on the paper's datasets."""


def score_names(ks: Sequence[int] = KS) -> list[str]:
    """Names of scores: vpq_k0, things_k0, stuff_k0, ..., then the means vpq, things, stuff, then tc."""
    parts = ("vpq", "things", "stuff")
    return [f"{part}_k{k}" for k in ks for part in parts] + [*parts, "tc"]


def table1(family: Family) -> AblationTable:
    """Main results on VIPER, and a Track row that sees as many frames as SiamTrack's pairs have."""
    longer = family.track.train.model_copy(update={"steps": 2 * family.track.train.steps})
    twice = family.track.model_copy(update={"name": "track-twice", "train": longer})
    base = _published("49.5/39.1/58.1 50.8/46.6/54.0 46.7/38.8/53.0 44.5/34.5/52.4 47.9/39.8/54.3", 5.1)
    segment = _published("50.7/41.7/58.2 52.6/50.8/54.2 48.4/42.9/53.3 46.5/39.3/52.8 49.6/43.7/54.6", 5.1)
    warp = _published("50.3/40.4/58.6 51.3/47.6/54.3 47.3/40.0/53.3 45.4/36.4/52.9 48.6/41.1/54.8", 5.1)
    tube = _published("50.7/41.0/58.6 52.4/49.6/54.6 48.5/42.5/53.5 46.7/39.3/52.8 49.6/43.1/54.9", 5.1)
    ours = _published("51.1/42.3/58.5 53.4/51.9/54.6 49.2/44.1/53.5 47.2/40.3/52.9 50.2/44.7/55.0", 5.1)
    return AblationTable(
        "table1",
        "Losses of SiamTrack",
        "Table 1, VIPER validation",
        "viper",
        (
            Row(
                "Track",
                family.track,
                _published("48.1/38.0/57.1 49.3/45.6/53.7 45.9/37.9/52.7 43.2/33.6/51.6 46.6/38.8/53.8", 5.1),
            ),
            Row("Track, twice the steps", twice, {}),
            Row(
                "FuseTrack",
                family.fusetrack,
                _published("49.8/40.3/57.7 51.6/49.0/53.8 47.2/40.4/52.8 45.1/36.5/52.3 48.4/41.6/53.2", 1.6),
            ),
            Row("SiamTrack-Base", with_terms(family.siamtrack), base),
            Row("Base + L_segment", with_terms(family.siamtrack, *SEGMENT), segment),
            Row("Base + L_warp", with_terms(family.siamtrack, "warp"), warp),
            Row("Base + L_tube", with_terms(family.siamtrack, "tube"), tube),
            Row("SiamTrack", with_terms(family.siamtrack, *TEMPORAL), ours),
        ),
        reference="SiamTrack-Base",
        windows=True,
        tc=True,
        speed=True,
    )


def table2(family: Family) -> AblationTable:
    """Main results on Cityscapes-VPS, validation; the truth of its test split isn't public."""
    base = _published("63.2/57.0/67.7 56.2/42.6/66.3 53.2/38.3/65.2 51.5/33.7/64.5 56.0/42.9/65.8", 4.5)
    ours = _published("64.6/58.3/69.1 57.6/45.6/66.6 54.2/39.2/65.2 52.7/36.7/64.6 57.3/44.7/66.4", 4.5)
    return AblationTable(
        "table2",
        "SiamTrack on Cityscapes-VPS",
        "Table 2, Cityscapes-VPS validation",
        "cityscapes-vps",
        (
            Row(
                "Track",
                family.track,
                _published("63.1/56.4/68.0 56.1/44.1/64.9 53.1/39.0/63.4 51.3/35.4/62.9 55.9/43.7/64.8", 4.5),
            ),
            Row(
                "FuseTrack",
                family.fusetrack,
                _published("64.5/58.1/69.1 57.4/45.2/66.4 54.1/39.5/64.7 52.2/36.0/64.0 57.2/44.7/66.6", 1.3),
            ),
            Row("SiamTrack-Base", with_terms(family.siamtrack), base),
            Row("SiamTrack", with_terms(family.siamtrack, *TEMPORAL), ours),
        ),
        reference="SiamTrack-Base",
        windows=True,
        tc=True,
        speed=True,
    )


def table3(family: Family) -> AblationTable:
    """The two graphs of L_segment."""
    return AblationTable(
        "table3",
        "Graphs of L_segment",
        "Table 3, VIPER validation",
        "viper",
        (
            Row("SiamTrack-Base", with_terms(family.siamtrack), _means(47.9, 39.8, 54.3)),
            Row("instances", with_terms(family.siamtrack, "contrast_instances"), _means(48.4, 40.6, 54.2)),
            Row("classes", with_terms(family.siamtrack, "contrast_classes"), _means(47.6, 39.6, 54.1)),
            Row("instances and classes", with_terms(family.siamtrack, *SEGMENT), _means(49.6, 43.7, 54.6)),
        ),
        reference="SiamTrack-Base",
    )


def table4(family: Family) -> AblationTable:
    """The two terms of L_pixel."""
    return AblationTable(
        "table4",
        "Terms of L_pixel",
        "Table 4, VIPER validation",
        "viper",
        (
            Row("SiamTrack-Base", with_terms(family.siamtrack), _means(47.9, 39.8, 54.3, 78.3)),
            Row("L_warp", with_terms(family.siamtrack, "warp"), _means(48.6, 41.1, 54.8, 79.3)),
            Row("L_tube", with_terms(family.siamtrack, "tube"), _means(49.6, 43.1, 54.9, 80.8)),
            Row(
                "L_warp and L_tube",
                with_terms(family.siamtrack, "warp", "tube"),
                _means(49.9, 43.8, 55.0, 82.2),
            ),
        ),
        reference="SiamTrack-Base",
        tc=True,
    )


def gap(family: Family) -> AblationTable:
    """Frames between target and reference, all losses on."""
    full = with_terms(family.siamtrack, *TEMPORAL)
    return AblationTable(
        "gap",
        "Gap between target and reference",
        "section on training, VIPER validation",
        "viper",
        tuple(
            Row(f"gap {frames}", _with_gap(full, frames), {"vpq": vpq})
            for frames, vpq in ((5, 49.8), (10, 50.2), (15, 49.9))
        ),
        reference="gap 10",
    )


TABLES: dict[str, Callable[[Family], AblationTable]] = {
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "table4": table4,
    "gap": gap,
}
"""By the name that the command line takes."""


def with_terms(siamtrack: RunConfig, *terms: str) -> RunConfig:
    """SiamTrack with some of its temporal terms, weighted as in `siamtrack`; with none it is SiamTrack-Base.

    Raises:
        UserError: a term that the row is about has no weight.
    """
    for term in terms:
        if not getattr(siamtrack.loss, term) > 0:
            raise UserError(f"a row is about loss.{term}, whose weight is 0; give it one above 0")
    kept = [term for term in TEMPORAL if term in terms]
    loss = siamtrack.loss.model_copy(update={term: 0.0 for term in TEMPORAL if term not in kept})
    update: dict[str, Any] = {"loss": loss, "name": "-".join(["siamtrack", *kept])}
    if len(kept) == len(TEMPORAL):
        update["name"] = "siamtrack"
    if not kept:  # settings of the terms say nothing about Base, which needn't be trained again for others
        base = SiameseConfig(both_frames=True, match_both_ways=siamtrack.siamese.match_both_ways)
        update |= {"name": "siamtrack-base", "siamese": base}
    return siamtrack.model_copy(update=update)


def _with_gap(run: RunConfig, frames: int) -> RunConfig:
    """Frames with truth are five apart where gaps count them, as on Cityscapes-VPS."""
    distance = frames // 5 if run.data.gaps_in == "labels" else frames
    if run.data.gaps == (-distance, distance):
        return run
    data = run.data.model_copy(update={"gaps": (-distance, distance)})
    return run.model_copy(update={"data": data, "name": f"{run.name}-gap{frames}"})


def find_table(name: str, family: Family) -> AblationTable:
    """The table of that name, its rows made of `family`.

    Raises:
        UserError: there is none, or a term that a row is about has no weight.
    """
    if name not in TABLES:
        raise UserError(f"no table {name!r}; there are {', '.join(TABLES)}")
    return TABLES[name](family)


def family_with(name: str, settings: Sequence[str] = ()) -> Family:
    """The family of that name with some settings changed.

    Settings of `siamese` and weights of the temporal losses go to SiamTrack's rows, all others to all rows.

    Args:
        name: one of `FAMILIES`.
        settings: such as "train.lr=3e-4" or "data.gaps=[-5, 5]", values in YAML.

    Raises:
        UserError: no such family or setting, or a value out of range.
    """
    if name not in FAMILIES:
        raise UserError(f"no family of recipes {name!r}; there are {', '.join(FAMILIES)}")
    recipes = FAMILIES[name]()
    own = ("siamese.", *(f"loss.{term}=" for term in TEMPORAL))
    common = [setting for setting in settings if not setting.startswith(own)]
    return Family(
        changed(recipes.track, common),
        changed(recipes.fusetrack, common),
        changed(recipes.siamtrack, settings),
    )


def changed(run: RunConfig, settings: Sequence[str]) -> RunConfig:
    """A run with settings changed, each like "train.lr=3e-4", the value in YAML.

    Raises:
        UserError: not of this form, no such setting, or a value out of range.
    """
    data = run.model_dump(mode="json")
    for setting in settings:
        path, given, text = setting.partition("=")
        *parts, last = path.split(".")
        place: Any = data
        for part in parts:
            place = place.get(part) if isinstance(place, dict) else None
        if not given or not isinstance(place, dict) or last not in place or isinstance(place[last], dict):
            close = difflib.get_close_matches(path, list(_paths(data)), n=1)
            hint = f"; did you mean {close[0]}?" if close and close[0] != path else ""
            raise UserError(f"can't set {setting!r}{hint or '; give NAME=VALUE, such as train.lr=3e-4'}")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"can't set {setting!r}; its value is no YAML") from error
        if isinstance(value, str) and isinstance(place[last], (int, float)):
            with contextlib.suppress(ValueError):
                value = float(value)  # YAML takes 3e-4 for a string
        place[last] = value
    return RunConfig.from_yaml(yaml.safe_dump(data), source="with these settings")


def _paths(data: Mapping[str, Any], at: str = "") -> list[str]:
    found: list[str] = []
    for name, value in data.items():
        found += _paths(value, f"{at}{name}.") if isinstance(value, dict) else [f"{at}{name}"]
    return found


def _published(cells: str, fps: float) -> dict[str, float]:
    """The paper's cells, VPQ/VPQ-Th/VPQ-St for each of `KS` and their mean."""
    values = [float(value) for cell in cells.split() for value in cell.split("/")]
    return dict(zip(score_names(), values, strict=False)) | {"fps": fps}


def _means(vpq: float, things: float, stuff: float, tc: float | None = None) -> dict[str, float]:
    return {"vpq": vpq, "things": things, "stuff": stuff} | ({} if tc is None else {"tc": tc})
