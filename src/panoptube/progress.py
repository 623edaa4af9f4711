"""How far long work is, on standard error, where that is a terminal; a log or a pipe gets nothing of it."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TimeRemainingColumn


def progress_bar(show: bool, *more: str | ProgressColumn, period: float = 30.0) -> Progress:
    """A bar with the time left, which disappears when it is done.

    Args:
        show: False for none.
        more: columns after the counts.
        period: seconds over which the speed is taken that the time left is computed from.
    """
    console = Console(stderr=True)
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), *more, TimeRemainingColumn())
    return Progress(
        *columns,
        console=console,
        transient=True,
        speed_estimate_period=period,
        disable=not (show and console.is_terminal),
    )
