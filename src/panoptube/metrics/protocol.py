"""Which windows a dataset's VPQ is made of, what papers call them, and what is left out (dossier 13.1,
13.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from panoptube.errors import UserError


@dataclass(frozen=True)
class Protocol:
    """How VPQ is judged on a dataset.

    Attributes:
        name: as `--protocol` takes it.
        windows: window lengths in frames with truth, ascending.
        spacing: video frames from one frame with truth to the next, where papers name a window of n by the
            frames that it spans, k = spacing (n - 1). 0 where they name it by its length.
        single: what papers call a window of one frame.
        min_tube: a true tube of fewer pixels in a window is neither matched nor missed; a prediction that
            fits it is surplus all the same.
        excluded: names of classes that no mean contains.

    Raises:
        UserError: there are no windows, one is below 1, or they don't ascend.
    """

    name: str
    windows: tuple[int, ...]
    spacing: int = 0
    single: int = 0
    min_tube: int = 0
    excluded: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.windows or self.windows[0] < 1 or list(self.windows) != sorted(set(self.windows)):
            raise UserError(f"window lengths must ascend from 1 or more, got {self.windows}")

    def k(self, window: int) -> int:
        """What papers call a window of this length."""
        if window == 1:
            return self.single
        return self.spacing * (window - 1) if self.spacing else window

    def with_windows(self, windows: Sequence[int]) -> Protocol:
        """The same with other windows.

        Raises:
            UserError: as the constructor.
        """
        return replace(self, windows=tuple(windows))


CITYSCAPES_VPS = Protocol("cityscapes-vps", (1, 2, 3, 4), spacing=5)
"""Six labelled frames a clip, each the fifth; k = 0, 5, 10, 15."""

VIPER = Protocol("viper", (1, 5, 10, 15), min_tube=32 * 32, excluded=("mobilebarrier",))
"""Every frame labelled; k = 0, 5, 10, 15 are windows of 1, 5, 10, 15 frames. Small true tubes are ignored."""

VIPSEG = Protocol("vipseg", (1, 2, 4, 6), single=1)
"""As papers report it."""

VIPSEG_8 = Protocol("vipseg-8", (1, 2, 4, 6, 8), single=1)
"""As the dataset's own script has it."""

PROTOCOLS = {p.name: p for p in (CITYSCAPES_VPS, VIPER, VIPSEG, VIPSEG_8)}


def protocol_of(name: str) -> Protocol:
    """The protocol called `name`.

    Raises:
        UserError: there is none.
    """
    if name not in PROTOCOLS:
        raise UserError(f"there is no protocol {name!r}; choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
