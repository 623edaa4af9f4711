"""What a training run says: progress with named losses and time left, losses.csv, TensorBoard."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from panoptube.checkpoint import write_atomically
from panoptube.data.clip import Image

Validate = Callable[[int], tuple[dict[str, float], dict[str, Image]]]
"""Steps done -> scores by name, pictures (H, W, 3) uint8 RGB by name."""

LINE_EVERY = 30.0
"""Seconds between lines where the output is not a terminal."""
SMOOTHING = 0.95
"""Of the losses on the screen; the files have every step as it was."""


class TrainingLog:
    """Progress on the screen; the losses of every step in losses.csv and TensorBoard, in the folder `out`.

    A context manager. Rows of steps from `done` on, left by a run that was killed, are dropped, so that the
    file reads as if the run had never stopped.

    Args:
        out: the run's folder.
        done: steps done before.
        steps: steps in all.
        console: where progress goes; a terminal gets a live display, anything else a line now and then.
    """

    def __init__(self, out: Path, done: int, steps: int, console: Console) -> None:
        self.steps, self.console = steps, console
        self.path = out / "losses.csv"
        self.smooth: dict[str, float] = {}
        self.started = self.last_line = time.monotonic()
        self.first = done
        if self.path.exists():
            _drop_rows(self.path, done)
        self.file = open(self.path, "a", newline="")  # noqa: SIM115 - closed in __exit__
        self.board = _open_board(out / "tensorboard", done)
        self.progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self.task = self.progress.add_task("", total=steps, completed=done)
        self.losses = Text("waiting for the first pair")
        self.live = Live(Group(self.progress, self.losses), console=console, refresh_per_second=2)

    def __enter__(self) -> TrainingLog:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self.live.stop()
        self.file.close()
        if self.board is not None:
            self.board.close()

    def step(self, step: int, numbers: Mapping[str, float]) -> None:
        """Notes the numbers of step `step`, counted from 0: a loss per name, "total", "lr", "gradient"."""
        writer = csv.writer(self.file)
        if self.file.tell() == 0:
            writer.writerow(["step", *numbers])
        writer.writerow([step, *(f"{value:.6g}" for value in numbers.values())])
        self.file.flush()
        for name, value in numbers.items():
            if self.board is not None:
                self.board.add_scalar(f"train/{name}", value, step)
            self.smooth[name] = SMOOTHING * self.smooth.get(name, value) + (1 - SMOOTHING) * value
        losses = "  ".join(f"{name} {value:.3g}" for name, value in self.smooth.items())
        self.losses.plain = losses
        self.progress.update(self.task, completed=step + 1)
        now = time.monotonic()
        if step == self.first:  # starting the workers is no part of a step
            self.started = now
        per_step = (now - self.started) / max(step - self.first, 1)
        due = now - self.last_line > LINE_EVERY or step in (self.first, self.steps - 1)
        if due and not self.console.is_terminal:
            self.last_line = now
            left = timedelta(seconds=round(per_step * (self.steps - step - 1)))
            pace = f"{per_step:.2f} s/step  left {left}  " if step > self.first else ""
            self.console.print(f"step {step + 1}/{self.steps}  {pace}{losses}", soft_wrap=True)

    def validation(self, step: int, validate: Validate) -> None:
        """Runs a validation after `step` steps, shows and notes its scores; pictures go to TensorBoard."""
        self.live.stop()  # a validation has a bar of its own
        numbers, pictures = validate(step)
        if self.console.is_terminal:
            self.live.start()
        text = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        self.console.print(f"validation after {step} steps: {text}", soft_wrap=True)
        if self.board is not None:
            for name, value in numbers.items():
                self.board.add_scalar(f"validation/{name}", value, step)
            for name, picture in pictures.items():
                self.board.add_image(name, picture, step, dataformats="HWC")


def _open_board(folder: Path, done: int) -> Any:
    """A SummaryWriter, or None where tensorboard is not installed; it is an extra."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=done)  # type: ignore[no-untyped-call]


def _drop_rows(path: Path, done: int) -> None:
    rows = list(csv.reader(io.StringIO(path.read_text())))
    kept = rows[:1] + [row for row in rows[1:] if len(row) == len(rows[0]) and int(row[0]) < done]
    text = io.StringIO()
    csv.writer(text).writerows(kept)
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))
