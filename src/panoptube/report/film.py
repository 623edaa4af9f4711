"""The result's video for the page: when each frame is shown, and its bytes, fewer where they are too many."""

from __future__ import annotations

import io
import math
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from panoptube.errors import UserError

LIMIT = 64_000_000
"""Bytes of video that a page holds at most. As text they are a third more, and browsers keep all of it in
memory."""
BITS_PER_PIXEL = 0.06
"""Below this H.264 is blurred at any size; a smaller picture looks better."""
HEADROOM = 0.85
"""Part of the limit to aim at: the encoder meets a bit rate only roughly."""
LEAST_RATE = 10_000
"""Bits per second, whatever the limit: x264 refuses much fewer."""


def frame_times(path: Path) -> NDArray[np.float64]:
    """(T + 1,) seconds at which a player shows each frame, and the end of the last one. Nothing is decoded.

    Raises:
        UserError: the file is missing, no video, or broken.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; `panoptube predict` writes it beside the result")
    try:
        with av.open(str(path)) as container:
            packets = [p for p in container.demux(video=0) if p.pts is not None and p.size]
            times = sorted(float(p.pts * p.time_base) for p in packets if p.pts is not None)
            rate = container.streams.video[0].average_rate
    except (av.error.FFmpegError, IndexError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a video that can be read; predict it again") from error
    if not times:
        raise UserError(f"{path} has no frames; predict it again")
    return np.array([*times, times[-1] + 1 / float(rate or 25)])


def read_film(path: Path, seconds: float, progress: Progress, limit: int = LIMIT) -> bytes:
    """The file's bytes, or those of a copy with fewer bits, and fewer pixels where it must be.

    Args:
        path: MP4 file that browsers play.
        seconds: how long it is.
        progress: shows how far the copy is.
        limit: bytes.

    Raises:
        UserError: it is too long to fit, or can't be read.
    """
    try:
        if path.stat().st_size <= limit:
            return path.read_bytes()
        small = _encode_smaller(path, max(HEADROOM * limit * 8 / seconds, LEAST_RATE), progress)
    except (OSError, av.error.FFmpegError) as error:
        raise UserError(f"can't read {path}: {error.strerror}; predict it again") from error
    if len(small) > limit:
        raise UserError(
            f"{path} takes {len(small) / 1e6:.0f} MB even when made smaller, and a page holds "
            f"{limit / 1e6:.0f}; predict a part of the video (--max-frames)"
        )
    return small


def _encode_smaller(path: Path, bits_per_second: float, progress: Progress) -> bytes:
    """The same frames at the same times."""
    target = io.BytesIO()
    with av.open(str(path)) as source, av.open(target, "w", "mp4") as out:
        old = source.streams.video[0]
        rate = old.average_rate or Fraction(25)
        scale = min(1, math.sqrt(bits_per_second / (BITS_PER_PIXEL * float(rate) * old.width * old.height)))
        bits = str(int(bits_per_second))
        new = out.add_stream(
            "libx264", rate, options={"preset": "veryfast", "maxrate": bits, "bufsize": bits}
        )
        assert isinstance(new, av.VideoStream)
        new.width, new.height = (max(2, 2 * round(scale * side / 2)) for side in (old.width, old.height))
        new.pix_fmt, new.bit_rate = "yuv420p", int(bits_per_second)
        assert old.time_base is not None
        new.codec_context.time_base = old.time_base
        codec = new.codec_context
        codec.colorspace = codec.color_primaries = codec.color_trc = 1  # H.264's number for BT.709
        task = progress.add_task("make the video smaller", total=old.frames or None)
        for frame in source.decode(old):
            small = frame.reformat(new.width, new.height, "yuv420p")
            small.pict_type = av.video.frame.PictureType.NONE  # the old choice is not the new encoder's
            out.mux(new.encode(small))
            progress.advance(task)
        out.mux(new.encode(None))
    return target.getvalue()
