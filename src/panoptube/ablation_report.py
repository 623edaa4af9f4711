"""A table of an ablation: our mean and spread beside the paper's numbers, and paired differences."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from panoptube.ablation_speed import Speed
from panoptube.checkpoint import write_atomically
from panoptube.metrics.quality import number

PARTS = ("vpq", "things", "stuff")
LABELS = {"vpq": "VPQ", "things": "VPQ-Th", "stuff": "VPQ-St", "tc": "TC"}
CSV_COLUMNS = (
    "row",
    "score",
    "seeds",
    "mean",
    "sd",
    "paper",
    "difference",
    "low",
    "high",
    "paper_difference",
)

# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom.
T_95 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval by Student's t; low and high are nan for a single value."""

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class RowScores:
    """What a row scored.

    Attributes:
        name: of the row.
        paper: published scores in percent by name.
        seeds: by seed, ours in percent by name; nan where there was nothing to score.
        speed: None where it wasn't measured.
    """

    name: str
    paper: Mapping[str, float]
    seeds: Mapping[int, Mapping[str, float]]
    speed: Speed | None = None

    def values(self, score: str) -> list[float]:
        """Of all seeds that have it."""
        found = [scores.get(score, math.nan) for scores in self.seeds.values()]
        return [value for value in found if math.isfinite(value)]


@dataclass(frozen=True)
class AblationReport:
    """A table with all that is known so far; rows without a finished run have no numbers.

    Attributes:
        name, title, source: of the table.
        same_data: whether the paper's numbers are of the clips that ours are of.
        rows: in its order.
        reference: the row that others are compared with.
        ks: names of the window lengths.
        windows, tc: whether each window length, and TC, is shown.
        clips: what was scored, in words.
        flow: whose flow TC has, in words.
    """

    name: str
    title: str
    source: str
    same_data: bool
    rows: tuple[RowScores, ...]
    reference: str
    ks: tuple[int, ...]
    windows: bool
    tc: bool
    clips: str
    flow: str

    @property
    def scores(self) -> list[str]:
        """Names of the scores in the order shown."""
        shown = [f"{part}_k{k}" for k in self.ks for part in PARTS] if self.windows else []
        return [*shown, *PARTS, *(["tc"] if self.tc else [])]

    def compared(self, row: RowScores, score: str) -> Interval | None:
        """Row less reference over the seeds that both have; None where there are none, and for itself."""
        reference = next(r for r in self.rows if r.name == self.reference)
        if row.name == self.reference:
            return None
        both = [
            ours[score] - reference.seeds[seed][score]
            for seed, ours in row.seeds.items()
            if seed in reference.seeds and score in ours and score in reference.seeds[seed]
        ]
        finite = [value for value in both if math.isfinite(value)]
        return interval(finite) if finite else None

    def paper_difference(self, row: RowScores, score: str) -> float | None:
        """The same of the published numbers."""
        reference = next(r for r in self.rows if r.name == self.reference)
        if row.name == self.reference or score not in row.paper or score not in reference.paper:
            return None
        return row.paper[score] - reference.paper[score]

    def to_markdown(self) -> str:
        """Two tables: scores, ours above the paper's, and differences to the reference."""
        seeds = sorted({seed for row in self.rows for seed in row.seeds})
        other = "" if self.same_data else "; other data, so compare differences, not scores"
        parts = [
            f"# {self.title}",
            f"Ours: mean ± standard deviation over seeds ({_listed(seeds)}), scored on {self.clips}. "
            f"The paper's, in italics: {self.source}{other}. All in percent.",
            _markdown(self._score_lines()),
            f"## Differences to {self.reference}",
            "Ours: mean of the differences within a seed, with its 95 % interval (Student's t). "
            "The paper's in italics.",
            _markdown(self._difference_lines()),
        ]
        if self.tc:
            parts.append(f"TC: neighbouring frames, flow: {self.flow}.")
        measured = [row.speed for row in self.rows if row.speed is not None]
        if measured:
            height, width = measured[0].size
            machines = "; ".join(dict.fromkeys(speed.machine for speed in measured))
            parts.append(
                f"Frames/s and peak memory: prediction of frames of {height}x{width}, each model in a fresh "
                f"process, by turns; {machines}."
            )
        needed = self._noise()
        if needed:
            parts.append(needed)
        return "\n\n".join(parts) + "\n"

    def _score_lines(self) -> list[list[str]]:
        speed = any(row.speed is not None for row in self.rows)
        groups = [[f"{part}_k{k}" for part in PARTS] for k in self.ks] if self.windows else []
        heads = [f"k = {k}" for k in self.ks] if self.windows else []
        lines = [["", *heads, "VPQ / Th / St", *(["TC"] if self.tc else [])]]
        lines[0] += ["frames/s", "peak MiB"] if speed else []
        groups = [*groups, list(PARTS), *([["tc"]] if self.tc else [])]
        for row in self.rows:
            cells = [" / ".join(_spread(row.values(score)) for score in group) for group in groups]
            if speed:
                known = row.speed
                cells += ["-", "-"] if known is None else [f"{known.fps:.2f}", f"{known.memory:.0f}"]
            lines.append([row.name, *cells])
            if row.paper:
                cells = [" / ".join(_one(row.paper.get(score)) for score in group) for group in groups]
                if speed:
                    cells += [_one(row.paper.get("fps")), "-"]
                lines.append(
                    ["*paper*", *(cell if set(cell) <= set("-/ ") else f"*{cell}*" for cell in cells)]
                )
        return lines

    def _difference_lines(self) -> list[list[str]]:
        names = [*PARTS, *(["tc"] if self.tc else [])]
        lines = [["", *(LABELS[name] for name in names), "seeds"]]
        for row in self.rows:
            if row.name == self.reference:
                continue
            found = [self.compared(row, name) for name in names]
            count = max((each.count for each in found if each is not None), default=0)
            cells = []
            for name, each in zip(names, found):
                paper = self.paper_difference(row, name)
                ours = "-" if each is None else _signed_interval(each)
                cells.append(ours if paper is None else f"{ours} *{paper:+.1f}*")
            lines.append([row.name, *cells, str(count)])
        return lines

    def _noise(self) -> str:
        """What the reference's spread says about the number of seeds."""
        reference = next(row for row in self.rows if row.name == self.reference)
        values = reference.values("vpq")
        if len(values) < 2:
            return ""
        spread = statistics.stdev(values)
        needed = ", ".join(f"{seeds_needed(spread, half)} for ± {half:g}" for half in (0.5, 1.0, 2.0))
        return (
            f"{self.reference} has a standard deviation of {spread:.2f} VPQ over {len(values)} seeds. If the "
            f"noise of two rows were independent, an interval of their difference would take so many seeds: "
            f"{needed}."
        )

    def csv_rows(self) -> Iterator[tuple[Any, ...]]:
        """One for each row and score, of `CSV_COLUMNS`; "" where there is no number."""
        for row in self.rows:
            for score in self.scores:
                values, difference = row.values(score), self.compared(row, score)
                yield (
                    row.name,
                    score,
                    len(values),
                    _or_empty(statistics.mean(values) if values else None),
                    _or_empty(statistics.stdev(values) if len(values) > 1 else None),
                    _or_empty(row.paper.get(score)),
                    *(_or_empty(getattr(difference, part, None)) for part in ("mean", "low", "high")),
                    _or_empty(self.paper_difference(row, score)),
                )
            if row.speed is not None:
                yield row.name, "fps", 1, row.speed.fps, "", _or_empty(row.paper.get("fps")), "", "", "", ""
                yield row.name, "memory_mib", 1, row.speed.memory, "", "", "", "", "", ""

    def to_csv(self) -> str:
        """Every number of every run, one a line, below a line of column names."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        writer.writerows(self.csv_rows())
        return text.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, every seed by itself; nan becomes None."""
        rows = []
        for row in self.rows:
            found = {score: self.compared(row, score) for score in self.scores}
            rows.append(
                {
                    "name": row.name,
                    "paper": dict(row.paper),
                    "seeds": {
                        str(seed): {name: number(value) for name, value in scores.items()}
                        for seed, scores in row.seeds.items()
                    },
                    "differences": {
                        score: {name: number(value) for name, value in asdict(each).items()}
                        for score, each in found.items()
                        if each is not None
                    },
                    "speed": None if row.speed is None else asdict(row.speed),
                }
            )
        named = {
            name: getattr(self, name) for name in ("name", "title", "source", "reference", "clips", "flow")
        }
        return {**named, "rows": rows}

    def chart(self, file: Any) -> None:
        """PNG: VPQ of every seed with mean and standard deviation, and the differences to the reference."""
        from matplotlib.figure import Figure

        names = [*PARTS, *(["tc"] if self.tc else [])]
        places = list(range(len(self.rows)))[::-1]
        figure = Figure(figsize=(11, 1.6 + 0.55 * len(places)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 3))
        for place, row in zip(places, self.rows):
            values = row.values("vpq")
            left.plot(values, [place] * len(values), "o", color="0.65", markersize=4, zorder=1)
            if values:
                spread = statistics.stdev(values) if len(values) > 1 else None
                left.errorbar(statistics.mean(values), place, xerr=spread, fmt="o", color="black", capsize=3)
            for i, name in enumerate(names):
                height = place + 0.36 * (0.5 - (i + 0.5) / len(names)) * 2
                color = f"C{i}"
                each, paper = self.compared(row, name), self.paper_difference(row, name)
                if each is not None:
                    error = [[each.mean - each.low], [each.high - each.mean]]
                    known = math.isfinite(each.low)
                    right.errorbar(
                        each.mean, height, xerr=error if known else None, fmt="o", color=color, capsize=3
                    )
                if paper is not None:
                    right.plot(paper, height, "D", color=color, markerfacecolor="white", markersize=5)
        left.set_yticks(places, [row.name for row in self.rows])
        left.set_xlabel("VPQ, percent\neach seed, mean and standard deviation")
        right.axvline(0, color="0.6", linewidth=1, zorder=0)
        right.set_xlabel(f"difference to {self.reference}, points\npaired by seed, with 95 % interval")
        for i, name in enumerate(names):
            right.plot([], [], "o", color=f"C{i}", label=LABELS[name])
        right.plot(
            [],
            [],
            "D",
            color="0.3",
            markerfacecolor="white",
            label="paper" if self.same_data else "paper, other data",
        )
        figure.legend(*right.get_legend_handles_labels(), loc="outside upper right", ncols=5, frameon=False)
        left.set_title(self.title, loc="left")
        for axes in (left, right):
            axes.grid(axis="x", color="0.9")
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(file, dpi=120, format="png")

    def write(self, folder: Path) -> list[Path]:
        """NAME.md, .csv, .json and .png in `folder`, each complete or not at all.

        Raises:
            UserError: a file can't be written.
        """
        texts = {
            "md": self.to_markdown(),
            "csv": self.to_csv(),
            "json": json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n",
        }
        written = []
        for ending, text in texts.items():
            written.append(folder / f"{self.name}.{ending}")
            data = text.encode()
            write_atomically(written[-1], lambda file, data=data: file.write(data))  # type: ignore[misc]
        written.append(folder / f"{self.name}.png")
        write_atomically(written[-1], self.chart)
        return written


def interval(values: Sequence[float]) -> Interval:
    """Mean of one or more values with its 95 % interval by Student's t.

    Examples:
        >>> found = interval([1.0, 2.0, 3.0])  # standard error 1 / sqrt(3), t of 2 degrees of freedom 4.3027
        >>> found.mean, round(found.low, 3), round(found.high, 3)
        (2.0, -0.484, 4.484)
    """
    mean = statistics.mean(values)
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan, len(values))
    half = student_t(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half, len(values))


def student_t(degrees: int) -> float:
    """Two-sided 95 % quantile of Student's t, to 3 digits or better."""
    if degrees <= len(T_95):
        return T_95[degrees - 1]
    z = 1.959964
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / degrees + second / degrees**2


def seeds_needed(spread: float, half: float) -> int:
    """Seeds after which a paired difference of rows with independent noise is known to ± `half`.

    Args:
        spread: standard deviation of one row over seeds.
        half: half the width of the 95 % interval; above 0.
    """
    count = 2
    while student_t(count - 1) * math.sqrt(2 / count) * spread > half:
        count += 1
    return count


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.1f}"


def _signed_interval(each: Interval) -> str:
    if math.isnan(each.low):
        return f"{each.mean:+.1f}"
    return f"{each.mean:+.1f} [{each.low:+.1f}, {each.high:+.1f}]"


def _one(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _or_empty(value: float | None) -> float | str:
    return "" if value is None or math.isnan(value) else value


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds)) or "none yet"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    head, *rest = lines
    ruled = [head, ["---", *["---:"] * (len(head) - 1)], *rest]
    return "\n".join(f"| {' | '.join(line)} |" for line in ruled)
