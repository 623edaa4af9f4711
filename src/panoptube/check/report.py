"""All faults of a dataset, as a table and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from panoptube.check.faults import KINDS, Fault
from panoptube.data.new_file import write_text


@dataclass(frozen=True)
class Report:
    """What `check` found.

    Attributes:
        dataset, root: name and folder. clips, frames: how many were read. faults: all of them.
    """

    dataset: str
    root: str
    clips: int
    frames: int
    faults: list[Fault]

    def worst(self, kind: str) -> list[Fault]:
        """The faults of a kind, those to look at first before others."""
        order = ("error", "warning", "note")
        found = [f for f in self.faults if f.kind == kind]
        return sorted(found, key=lambda f: (order.index(f.severity), -f.weight))

    def table(self) -> Table:
        """A row for each kind that was found, with its worst case."""
        table = Table(title=f"{self.dataset}: {self.clips} clips, {self.frames} frames", title_justify="left")
        for head in ("kind", "severity", "faults", "clips", "worst"):
            table.add_column(head, justify="right" if head in ("faults", "clips") else "left")
        for kind in KINDS:
            found = self.worst(kind)
            if found:
                severities = Counter(f.severity for f in found)
                table.add_row(
                    kind,
                    ", ".join(severities),
                    str(len(found)),
                    str(len({f.clip for f in found} - {""})),
                    # Text, since square brackets in a message are no markup.
                    Text(f"{place(found[0])}{found[0].message}"),
                )
        if not self.faults:
            table.add_row("none", "", "0", "0", "")
        return table

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the attributes, and the number of faults by kind."""
        counts = Counter(f.kind for f in self.faults)
        return {
            "dataset": self.dataset,
            "root": self.root,
            "clips": self.clips,
            "frames": self.frames,
            "counts": {kind: counts[kind] for kind in KINDS},
            "faults": [{"what": KINDS[f.kind], **asdict(f)} for f in self.faults],
        }

    def write_json(self, path: Path) -> None:
        """Write `to_dict` to a file.

        Raises:
            UserError: it can't be written.
        """
        write_text(path, json.dumps(self.to_dict(), indent=1) + "\n")


def place(fault: Fault) -> str:
    """Clip and frame, to begin a line with; empty for the dataset."""
    if not fault.clip:
        return ""
    return f"{fault.clip}{'' if fault.frame is None else f', frame {fault.frame}'}: "
