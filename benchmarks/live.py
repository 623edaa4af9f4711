"""Memory of an hour of a live stream, from the reader's thread to the files; no network.

    python benchmarks/live.py [--frames 90000] [--json FILE]

A source hands out small frames as fast as they are taken, as if 25 came in a second, and loses its
connection every 10,000. Prints the process's resident memory after 10 % and 100 % of them. Linux only.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from panoptube import live
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.clip import Image
from panoptube.panoptic.frame import PanopticFrame
from panoptube.predict import write_predictions
from panoptube.video import Choice, Timed
from prediction import resident_mib

SIZE = (32, 48)
RATE = 25
CONNECTION = 10_000
ROAD, CAR = CITYSCAPES.index("road"), CITYSCAPES.index("car")


class Endless(live.Live):
    """Gives a frame whenever the one before has been taken."""

    def __init__(self) -> None:
        self.fps = float(RATE)
        self._newest = None
        self.picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
        super().__init__("synthetic stream", None, Choice())

    def _connection(self) -> Iterator[Timed]:
        for t in range(CONNECTION):
            while self._newest is not None and not self._stopped:
                time.sleep(0.0002)
            yield t / RATE, partial(np.roll, self.picture, t, 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=90_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    live.WAITS = (0.01,) * 6
    video = Endless()
    count = 0
    memory: list[float] = []

    def step(image: Image) -> PanopticFrame:
        """A car in the middle; another one every minute."""
        nonlocal count
        count += 1
        if count in (arguments.frames // 10, arguments.frames):
            memory.append(resident_mib())
        instance = np.zeros(SIZE, np.int32)
        instance[10:20, 10:30] = 1 + count // (60 * RATE)
        semantic = np.where(instance > 0, CAR, ROAD).astype(np.uint8)
        return PanopticFrame(semantic, instance, {})

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        done = write_predictions(video, step, CITYSCAPES, out, arguments.frames, restart=lambda: None)
    result = {
        "frames": done.frames,
        "resident_mib_at_10_percent": memory[0],
        "resident_mib_at_100_percent": memory[1],
        "resident_mib_more": memory[1] - memory[0],
    }
    table = Table(video.name, "")
    for name, value in result.items():
        table.add_row(name.replace("_", " "), f"{value:.1f}" if isinstance(value, float) else str(value))
    Console().print(table, *done.notes, sep="\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
