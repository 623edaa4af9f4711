"""Decode and encode: video file, pictures, stream, camera -> RGB frames and times; RGB frames -> MP4."""

from __future__ import annotations

import glob
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import av
import av.error
import cv2
import numpy as np
from av.video.reformatter import Colorspace
from PIL import Image as Pillow
from PIL import ImageOps

from panoptube.data.clip import Image
from panoptube.errors import UserError

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
PICTURES_FPS = 10.0
"""Frames per second that pictures are taken for unless told otherwise."""


SMALLEST = 16
"""Pixels of the long edge below which frames are not shrunk: nothing is left to see.
A video is written with no edge below it."""

LARGEST = 16_384
"""Pixels of an edge that a written video may have: x264 has no more."""

TICKS = 90_000
"""Of a second in a written video; whole for the usual rates."""

Timed = tuple[float, Callable[[], Image]]
"""When a frame is shown, in seconds, and how to make it: frames that are left out are never made."""


class TimedImage(NamedTuple):
    """One frame.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        time: when it is shown, in seconds from the video's first frame on; it grows from frame to frame.
    """

    image: Image
    time: float


@dataclass(frozen=True)
class Choice:
    """Which frames of a source are read, and how large.

    Attributes:
        stride: every so many-th frame, from the first on.
        start: seconds; frames that are shown earlier are left out.
        end: seconds; so are frames from here on. None for all.
        max_size: pixels; larger frames are shrunk until their long edge is this long. None for no limit.

    Raises:
        UserError: on creation, for a stride below 1, times that leave nothing, or a size below 16.
    """

    stride: int = 1
    start: float = 0.0
    end: float | None = None
    max_size: int | None = None

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise UserError(f"stride is {self.stride}; give 1 for every frame, 2 for every second one, ...")
        if self.end is not None and self.end <= self.start:
            raise UserError(
                f"the end ({self.end:g} s) is not after the start ({self.start:g} s); give a later end"
            )
        if self.max_size is not None and self.max_size < SMALLEST:
            raise UserError(f"max_size is {self.max_size}; give {SMALLEST} pixels or more")

    @classmethod
    def of(
        cls, stride: int, start: str | float | None, end: str | float | None, max_size: int | None
    ) -> Choice:
        """A choice whose times may be texts, as `seconds` reads them, or None for the whole source.

        Raises:
            UserError: as on creation, or a text is no time.
        """
        return cls(stride, seconds(start or 0), None if end is None else seconds(end), max_size)


def seconds(time: float | str) -> float:
    """Seconds of a number, or of a text such as "90", "1:30" or "0:01:30.5" (h:mm:ss).

    Raises:
        UserError: negative, or not of this form.
    """
    parts = str(time).strip().split(":")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = []
    if not 1 <= len(values) <= 3 or not all(0 <= v < float("inf") for v in values):
        raise UserError(f"{time} is not a time; give seconds, such as 90.5, or h:mm:ss, such as 0:01:30.5")
    return sum(v * 60.0**k for k, v in enumerate(reversed(values)))


class VideoSource(ABC):
    """Frames of one video, (H, W, 3) uint8 RGB, decoded while they are iterated; a new iteration starts anew.

    Attributes:
        name: of the file, folder, glob, stream or camera.
        size: (height, width) in pixels, of every frame.
        fps: frames per second; on average, where they aren't even.
        length: number of frames, where the source states it or how long it takes; otherwise None.
        live: whether frames come when they come, a camera's or a stream's, and are lost if they aren't taken.
        notes: what the last iteration had to leave out, a sentence each; complete once it has ended.
    """

    name: str
    size: tuple[int, int]
    fps: float
    length: int | None
    live: bool = False

    def __init__(self, choice: Choice = Choice()) -> None:
        self.notes: list[str] = []
        self._choice = choice
        self._full: tuple[int, ...] | None = None

    def __iter__(self) -> Iterator[Image]:
        return (frame.image for frame in self.frames())

    def frames(self) -> Generator[TimedImage, None, None]:
        """The frames with their times.

        Raises:
            UserError: a picture that can't be read, or a frame of another size than the first.
        """
        self.notes = []
        limit = self._choice.max_size
        for number, (time, make) in enumerate(self._chosen()):
            image = make()
            self._full = self._full or image.shape
            if image.shape != self._full:
                raise UserError(
                    f"{self.name}: frame {number} is {image.shape[1]}x{image.shape[0]}, the first was "
                    f"{self._full[1]}x{self._full[0]}; re-encode the video to one size"
                )
            if limit is not None and max(image.shape) > limit:
                small = shrunk((image.shape[0], image.shape[1]), limit)
                image = cv2.resize(image, small[::-1], interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
            yield TimedImage(image, time)

    def stop(self) -> None:
        """Let an iteration in another thread end soon, where it would not end by itself."""
        return

    def _chosen(self) -> Iterator[Timed]:
        choice, number = self._choice, 0
        for time, make in self._decode():
            # Times are fractions of ticks; a frame at the very start must not be lost to rounding.
            if time < choice.start - 1e-6:
                continue
            if choice.end is not None and time >= choice.end - 1e-6:
                return
            if number % choice.stride == 0:
                yield time, make
            number += 1

    @abstractmethod
    def _decode(self) -> Iterator[Timed]:
        """All frames, from a little before `start` on at the latest."""


def open_video(source: str | Path, fps: float | None = None, choice: Choice = Choice()) -> VideoSource:
    """Open a video file, a folder or a glob of pictures (in natural order of their names), one picture, the
    address of a stream (rtsp://, http://, ...), or a camera by its number.

    A video that breaks off, or has damaged parts, gives the frames that can be decoded, and its `notes` say
    what is missing. Rotation that the file asks for (phones) is applied. An address whose answer states how
    long it takes is read like a file; any other one is live.

    Args:
        source: path, a pattern with * ? [ ], an address, or a number such as "0".
        fps: frames per second of the source; None takes the video's own times, and 10 for pictures.
        choice: which frames to read, and how large.

    Raises:
        UserError: nothing there, not a video, no pictures, pictures of several sizes, no such camera, a
            stream that can't be opened, what may not be read, a start after the end; while iterating: a
            picture that can't be read, or a video frame of another size than the first.
    """
    if fps is not None and not 0 < fps <= 1000:
        raise UserError(f"{fps:g} frames per second is not possible; give a number above 0 and up to 1000")
    try:
        return _open(source, fps, choice)
    except PermissionError as error:
        raise UserError(f"{error.filename or source} may not be read; see its permissions") from error


def _open(source: str | Path, fps: float | None, choice: Choice) -> VideoSource:
    path = Path(source)
    if path.is_dir():
        pictures = _pictures(path.iterdir())
        if not pictures:
            raise UserError(
                f"{path} has no pictures ({', '.join(PICTURES)}); give a video file or a folder with some"
            )
        return _Pictures(path.name or str(path), pictures, fps, choice)
    if path.is_file():
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty (0 bytes); copy or download it again")
        if path.suffix.lower() in PICTURES:
            return _Pictures(path.name, [path], fps, choice)
        return VideoFile(str(path), path.name, fps, choice)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", str(source)) or re.fullmatch("[0-9]+", str(source)):
        from panoptube.live import open_camera, open_stream  # it builds on this file

        if str(source).isdigit():
            return open_camera(int(str(source)), fps, choice)
        return open_stream(str(source), fps, choice)
    if glob.has_magic(str(source)):
        pictures = _pictures(map(Path, glob.glob(str(source), recursive=True)))
        if not pictures:
            raise UserError(
                f"no picture matches {source}; check the pattern ({', '.join(PICTURES)} are read)"
            )
        return _Pictures(str(source), pictures, fps, choice)
    raise UserError(
        f"{source} does not exist; give a video file, a folder of pictures, a quoted pattern, the address of "
        "a stream, or a camera's number"
    )


def _pictures(paths: Iterable[Path]) -> list[Path]:
    found = [p for p in paths if p.suffix.lower() in PICTURES and not p.name.startswith(".") and p.is_file()]
    return sorted(
        found, key=lambda p: [(int(part), "") if part.isdigit() else (0, part) for part in _runs(p)]
    )


def _runs(path: Path) -> list[str]:
    """Letters and numbers of a path in turn, so that frame 10 comes after frame 9."""
    return re.split(r"([0-9]+)", path.as_posix())


class _Pictures(VideoSource):
    def __init__(self, name: str, paths: list[Path], fps: float | None, choice: Choice) -> None:
        """Sizes are compared here, from the headers alone, so that the last picture can't end a long run."""
        super().__init__(choice)
        self.name = name
        self._rate = fps or PICTURES_FPS
        self._paths = paths
        self.fps = self._rate / choice.stride
        sizes = [self._size(path) for path in paths]
        for path, size in zip(paths, sizes):
            if size != sizes[0]:
                raise UserError(
                    f"{path} is {size[1]}x{size[0]}, {paths[0].name} is {sizes[0][1]}x{sizes[0][0]}; "
                    "the pictures of a video must have one size"
                )
        self.length = sum(1 for _ in self._chosen())
        if not self.length:
            raise UserError(_too_late(name, choice.start, len(paths) / self._rate))
        self.size = shrunk(sizes[0], choice.max_size)

    @staticmethod
    def _size(path: Path) -> tuple[int, int]:
        try:
            with Pillow.open(path) as picture:
                # EXIF orientations from 5 on swap the axes.
                sideways = "exif" in picture.info and picture.getexif().get(0x0112, 1) >= 5
                width, height = picture.size
        except Exception as error:  # Pillow's readers raise whatever a broken header leads them to
            raise UserError(f"{path} is not a picture that can be read; replace or remove it") from error
        return (width, height) if sideways else (height, width)

    def _decode(self) -> Iterator[Timed]:
        for number, path in enumerate(self._paths):
            yield number / self._rate, partial(self._read, path)

    @staticmethod
    def _read(path: Path) -> Image:
        try:
            with Pillow.open(path) as picture:
                upright = ImageOps.exif_transpose(picture) if "exif" in picture.info else picture
                return np.array(upright.convert("RGB"))
        except Exception as error:  # as above; a picture that breaks off is an OSError
            raise UserError(f"{path} is broken ({error}); replace or remove it") from error


class VideoFile(VideoSource):
    """A file, or an address that answers like one.

    Args:
        place: what FFmpeg opens.
        name: what to call it.
        fps, choice: as for `open_video`.
    """

    def __init__(self, place: str, name: str, fps: float | None, choice: Choice) -> None:
        """Decodes the first frame: only that tells the rotation, and whether there is anything to decode."""
        super().__init__(choice)
        self.name, self._place, self._fps, self._shown = name, place, fps, without_password(place)
        with self._open() as container:
            stream = container.streams.video[0]
            self._rate = rate_of(stream)
            # MP4 and AVI state their number of frames; Matroska and others only how long they take.
            takes = (container.duration or 0) / 1e6
            frames = stream.frames or round(takes * self._rate)
            at_least = stream.frames or int(0.9 * takes * self._rate)
        if choice.start > 0 or choice.end is not None:
            until = takes if choice.end is None else min(choice.end, takes)
            frames = max(round((until - choice.start) * self._rate), 0)
            at_least = int(0.9 * frames)
        self.fps = (fps or self._rate) / choice.stride
        self.length = -(-frames // choice.stride) or None
        self._at_least = at_least // choice.stride
        first = next(iter(self), None)
        if first is None and choice.start > 0:
            raise UserError(_too_late(name, choice.start, takes))
        if first is None:
            raise UserError(
                f"{self._shown} has no frame that can be decoded; convert it to MP4 or get it again"
            )
        self.size = (first.shape[0], first.shape[1])

    def _open(self) -> av.container.InputContainer:
        try:
            container = av.open(self._place)
        except (av.error.FFmpegError, UnicodeDecodeError) as error:
            raise UserError(
                f"{self._shown} is not a video that can be read (damaged, incomplete, another kind of file); "
                "see whether a player opens it, or get it again"
            ) from error
        # FFmpeg reads any text as a film of a terminal.
        if container.format.name == "tty" or not container.streams.video:
            container.close()
            raise UserError(
                f"{self._shown} has no video in it; give a video file, a folder of pictures or a pattern"
            )
        return container

    def _chosen(self) -> Iterator[Timed]:
        start, stride, count = self._choice.start, self._choice.stride, 0
        self._damaged, self._at_end = False, False
        for time, make in super()._chosen():
            yield (start + count * stride / self._fps if self._fps else time), make
            count += 1
        if self._damaged or (self._at_end and count < self._at_least):
            of = f" of {self.length}" if self.length else ""
            self.notes.append(f"{self.name} is damaged or breaks off: {count} frames{of} could be decoded")

    def _decode(self) -> Iterator[Timed]:
        with self._open() as container:
            if self._choice.start > 0:
                stream = container.streams.video[0]
                assert stream.time_base is not None
                target = int(self._choice.start / stream.time_base) + (stream.start_time or 0)
                # Where it can't be sought, it is decoded from the beginning.
                with suppress(av.error.FFmpegError):
                    container.seek(target, stream=stream)
            yield from decode(container, self._broken)
        self._at_end = True

    def _broken(self) -> None:
        self._damaged = True


def decode(container: av.container.InputContainer, broken: Callable[[], None]) -> Iterator[Timed]:
    """The frames of an open video, with their presentation times from the start of the video stream on.

    Frames without a time, or with one that isn't later than the one before, follow at the stream's rate.

    Args:
        container: where it stands.
        broken: called for every packet that can't be decoded, and if reading breaks off.
    """
    stream = container.streams.video[0]
    zero, last = stream.start_time, None
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            frames = [] if packet is None else packet.decode()
        except av.error.InvalidDataError:  # skipped, as every player does
            broken()
            continue
        except IndexError:  # PyAV's, of a stream that a damaged file announced meanwhile
            broken()
            packets = container.demux(stream)
            continue
        except av.error.FFmpegError:
            broken()
            return
        if packet is None:
            return
        for frame in frames:
            assert isinstance(frame, av.VideoFrame)
            time = None
            if frame.pts is not None and frame.time_base is not None:
                zero = frame.pts if zero is None else zero
                time = float((frame.pts - zero) * frame.time_base)
            if last is not None and (time is None or time <= last):
                time = last + 1 / rate_of(stream)
            last = time or 0.0
            yield last, partial(_upright, frame)


def _upright(frame: av.VideoFrame) -> Image:
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))


def rate_of(stream: av.VideoStream) -> float:
    """Frames per second; a guess where the stream doesn't say."""
    return float(stream.average_rate or stream.guessed_rate or 25)


def without_password(place: str) -> str:
    """An address as it may be shown: without user, password, and what follows a question mark."""
    return re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*://)(?:[^/@]*@)?([^?#]*).*", r"\1\2", place, flags=re.DOTALL)


def shrunk(size: tuple[int, int], limit: int | None) -> tuple[int, int]:
    """(height, width) with a long edge of at most `limit`, and the same shape but for rounding."""
    scale = 1.0 if limit is None else min(limit / max(size), 1.0)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def _too_late(name: str, start: float, takes: float) -> str:
    return f"{name} takes {takes:.1f} s and has no frame from {start:g} s on; give an earlier start"


def written_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a video that is written of frames of this size: even, and at least 16, for H.264."""
    rows, columns = (max(n + n % 2, SMALLEST) for n in size)
    return rows, columns


class WriteFrame(Protocol):
    """Writes the next frame of a video: (height, width, 3) uint8 RGB, shown at `time`, in seconds."""

    def __call__(self, image: Image, time: float | None = None) -> None: ...


@contextmanager
def write_video(path: str | Path, fps: float, size: tuple[int, int]) -> Iterator[WriteFrame]:
    """Open an MP4 file to write (H.264, yuv420p, BT.709, index first: browsers play it while it loads).

        with write_video("out.mp4", fps=25, size=(480, 640)) as write:
            write(image)

    `write` takes (height, width, 3) uint8 RGB, and the time in seconds at which the frame is shown, for
    videos whose frames aren't evenly spaced; without one, it follows the frame before at `fps`. Frames grow
    to `written_size` by repeating the last row and column.
    The file appears, or replaces an older one, when the block ends without an exception, and not otherwise.

    Args:
        path: ends in .mp4.
        fps: frames per second.
        size: (height, width) of the frames in pixels.

    Raises:
        UserError: the name doesn't end in .mp4, frames are larger than 16384 pixels, the folder can't be
            written, or PyAV was built without x264.
        ValueError: from `write`, for a frame of another size or type, or not later than the one before.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise UserError(f"{path}: videos are written as MP4; end its name in .mp4")
    if max(size) > LARGEST:
        raise UserError(
            f"frames of {size[1]}x{size[0]} are too large for a video; shrink them (--max-size {LARGEST})"
        )
    if "libx264" not in av.codecs_available:
        raise UserError("this PyAV has no H.264 encoder (libx264); pip install --force-reinstall av")
    part = path.with_name(f".{path.stem}.part.mp4")
    container = av.open(str(part), "w", options={"movflags": "+faststart"})
    (height, width), (rows, columns) = size, written_size(size)
    rate = Fraction(fps).limit_denominator(1001)
    step = max(round(TICKS / rate), 1)
    stream = container.add_stream("libx264", rate, options={"crf": "20", "preset": "veryfast"})
    assert isinstance(stream, av.VideoStream)
    stream.height, stream.width, stream.pix_fmt = rows, columns, "yuv420p"
    # H.264's number for BT.709; untagged, players guess by the size of the picture.
    codec = stream.codec_context
    codec.colorspace = codec.color_primaries = codec.color_trc = 1

    codec.time_base = Fraction(1, TICKS)
    codec.framerate = rate
    before: int | None = None

    try:
        container.start_encoding()
    except OSError as error:
        raise UserError(f"{path} can't be written ({error.strerror}); choose another folder") from error

    def write(image: Image, time: float | None = None) -> None:
        nonlocal before
        if image.shape != (height, width, 3) or image.dtype != np.uint8:
            raise ValueError(f"expected {(height, width, 3)} uint8, got {image.shape} {image.dtype}")
        image = np.pad(image, ((0, rows - height), (0, columns - width), (0, 0)), "edge")
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
        if time is None:
            tick = 0 if before is None else before + step
        else:
            tick = round(time * TICKS)
        if before is not None and tick <= before:
            raise ValueError(f"a frame at {time} s is not later than the one before ({before / TICKS} s)")
        before = tick
        frame.pts, frame.time_base, frame.duration = tick, codec.time_base, step
        container.mux(stream.encode(frame))

    try:
        with container:
            yield write
            container.mux(stream.encode(None))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
