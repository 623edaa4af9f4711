"""Decode and encode: video file, folder or glob of pictures -> RGB frames; RGB frames -> MP4 file."""

from __future__ import annotations

import glob
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from av.video.reformatter import Colorspace
from PIL import Image as Pillow
from PIL import ImageOps

from panoptube.data.clip import Image
from panoptube.errors import UserError

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
PICTURES_FPS = 10.0
"""Frames per second that pictures are taken for unless told otherwise."""


class VideoSource(ABC):
    """Frames of one video, (H, W, 3) uint8 RGB, decoded while they are iterated; a new iteration starts anew.

    Attributes:
        name: of the file, folder or glob.
        size: (height, width) in pixels, of every frame.
        fps: frames per second.
        length: number of frames, where the source states it or how long it takes; otherwise None.
        notes: what the last iteration had to leave out, a sentence each; complete once it has ended.
    """

    name: str
    size: tuple[int, int]
    fps: float
    length: int | None

    def __init__(self) -> None:
        self.notes: list[str] = []

    @abstractmethod
    def __iter__(self) -> Iterator[Image]: ...


def open_video(source: str | Path, fps: float | None = None) -> VideoSource:
    """Open a video file, a folder or a glob of pictures (in natural order of their names), or one picture.

    A video that breaks off, or has damaged parts, gives the frames that can be decoded, and its `notes` say
    what is missing. Rotation that the file asks for (phones) is applied.

    Args:
        source: path, or a pattern with * ? [ ].
        fps: frames per second; None takes the video's own, and 10 for pictures.

    Raises:
        UserError: nothing there, not a video, no pictures, pictures of several sizes; while iterating: a
            picture that can't be read, or a video frame of another size than the first.
    """
    if fps is not None and not 0 < fps <= 1000:
        raise UserError(f"{fps:g} frames per second is not possible; give a number above 0 and up to 1000")
    path = Path(source)
    if path.is_dir():
        pictures = _pictures(path.iterdir())
        if not pictures:
            raise UserError(
                f"{path} has no pictures ({', '.join(PICTURES)}); give a video file or a folder with some"
            )
        return _Pictures(path.name or str(path), pictures, fps)
    if path.is_file():
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty (0 bytes); copy or download it again")
        return _Pictures(path.name, [path], fps) if path.suffix.lower() in PICTURES else _VideoFile(path, fps)
    if glob.has_magic(str(source)):
        pictures = _pictures(map(Path, glob.glob(str(source), recursive=True)))
        if not pictures:
            raise UserError(
                f"no picture matches {source}; check the pattern ({', '.join(PICTURES)} are read)"
            )
        return _Pictures(str(source), pictures, fps)
    raise UserError(f"{source} does not exist; give a video file, a folder of pictures or a quoted pattern")


def _pictures(paths: Iterable[Path]) -> list[Path]:
    found = [p for p in paths if p.suffix.lower() in PICTURES and not p.name.startswith(".") and p.is_file()]
    return sorted(
        found, key=lambda p: [(int(part), "") if part.isdigit() else (0, part) for part in _runs(p)]
    )


def _runs(path: Path) -> list[str]:
    """Letters and numbers of a path in turn, so that frame 10 comes after frame 9."""
    return re.split(r"([0-9]+)", path.as_posix())


class _Pictures(VideoSource):
    def __init__(self, name: str, paths: list[Path], fps: float | None) -> None:
        """Sizes are compared here, from the headers alone, so that the last picture can't end a long run."""
        super().__init__()
        self.name, self.fps, self.length = name, fps or PICTURES_FPS, len(paths)
        self._paths = paths
        sizes = [self._size(path) for path in paths]
        self.size = sizes[0]
        for path, size in zip(paths, sizes):
            if size != self.size:
                raise UserError(
                    f"{path} is {size[1]}x{size[0]}, {paths[0].name} is {self.size[1]}x{self.size[0]}; "
                    "the pictures of a video must have one size"
                )

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

    def __iter__(self) -> Iterator[Image]:
        for path in self._paths:
            try:
                with Pillow.open(path) as picture:
                    upright = ImageOps.exif_transpose(picture) if "exif" in picture.info else picture
                    image = np.array(upright.convert("RGB"))
            except Exception as error:  # as above; a picture that breaks off is an OSError
                raise UserError(f"{path} is broken ({error}); replace or remove it") from error
            yield image


class _VideoFile(VideoSource):
    def __init__(self, path: Path, fps: float | None) -> None:
        """Decodes the first frame: only that tells the rotation, and whether there is anything to decode."""
        super().__init__()
        self.name, self._path = path.name, path
        with self._open() as container:
            stream = container.streams.video[0]
            rate = float(stream.average_rate or stream.guessed_rate or 25)
            self.fps = fps or rate
            # MP4 and AVI state their number of frames; Matroska and others only how long they take.
            seconds = (container.duration or 0) / 1e6
            self.length = stream.frames or round(seconds * rate) or None
            self._at_least = stream.frames or int(0.9 * seconds * rate)
        first = next(iter(self), None)
        if first is None:
            raise UserError(f"{path} has no frame that can be decoded; convert it to MP4 or get it again")
        self.size = (first.shape[0], first.shape[1])

    def _open(self) -> av.container.InputContainer:
        try:
            container = av.open(str(self._path))
        except (av.error.FFmpegError, UnicodeDecodeError) as error:
            raise UserError(
                f"{self._path} is not a video that can be read (damaged, incomplete, another kind of file); "
                "see whether a player opens it, or get it again"
            ) from error
        # FFmpeg reads any text as a film of a terminal.
        if container.format.name == "tty" or not container.streams.video:
            container.close()
            raise UserError(
                f"{self._path} has no video in it; give a video file, a folder of pictures or a pattern"
            )
        return container

    def __iter__(self) -> Iterator[Image]:
        self.notes = []
        count = damaged = 0
        size: tuple[int, ...] | None = None
        with self._open() as container:
            for packet in container.demux(container.streams.video[0]):
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:  # skipped, as every player does
                    damaged += 1
                    continue
                for frame in frames:
                    assert isinstance(frame, av.VideoFrame)
                    image = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                    size = size or image.shape
                    if image.shape != size:
                        raise UserError(
                            f"{self._path}: frame {count} is {image.shape[1]}x{image.shape[0]}, the first "
                            f"was {size[1]}x{size[0]}; re-encode the video to one size"
                        )
                    count += 1
                    yield np.ascontiguousarray(image)
        if damaged or count < self._at_least:
            of = f" of {self.length}" if self.length else ""
            self.notes.append(f"{self.name} is damaged or breaks off: {count} frames{of} could be decoded")


@contextmanager
def write_video(path: str | Path, fps: float, size: tuple[int, int]) -> Iterator[Callable[[Image], None]]:
    """Open an MP4 file to write (H.264, yuv420p, BT.709, index first: browsers play it while it loads).

        with write_video("out.mp4", fps=25, size=(480, 640)) as write:
            write(image)

    `write` takes (height, width, 3) uint8 RGB. Odd sizes gain a row or column, since H.264 needs even ones.
    The file appears, or replaces an older one, when the block ends without an exception, and not otherwise.

    Args:
        path: ends in .mp4.
        fps: frames per second.
        size: (height, width) of the frames in pixels.

    Raises:
        UserError: the name doesn't end in .mp4, the folder can't be written, or PyAV was built without x264.
        ValueError: from `write`, for a frame of another size or type.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise UserError(f"{path}: videos are written as MP4; end its name in .mp4")
    if "libx264" not in av.codecs_available:
        raise UserError("this PyAV has no H.264 encoder (libx264); pip install --force-reinstall av")
    part = path.with_name(f".{path.stem}.part.mp4")
    container = av.open(str(part), "w", options={"movflags": "+faststart"})
    (height, width), (odd_height, odd_width) = size, (size[0] % 2, size[1] % 2)
    rate = Fraction(fps).limit_denominator(1001)
    stream = container.add_stream("libx264", rate, options={"crf": "20", "preset": "veryfast"})
    assert isinstance(stream, av.VideoStream)
    stream.height, stream.width, stream.pix_fmt = height + odd_height, width + odd_width, "yuv420p"
    # H.264's number for BT.709; untagged, players guess by the size of the picture.
    codec = stream.codec_context
    codec.colorspace = codec.color_primaries = codec.color_trc = 1

    try:
        container.start_encoding()
    except OSError as error:
        raise UserError(f"{path} can't be written ({error.strerror}); choose another folder") from error

    def write(image: Image) -> None:
        if image.shape != (height, width, 3) or image.dtype != np.uint8:
            raise ValueError(f"expected {(height, width, 3)} uint8, got {image.shape} {image.dtype}")
        image = np.pad(image, ((0, odd_height), (0, odd_width), (0, 0)), "edge")
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)))

    try:
        with container:
            yield write
            container.mux(stream.encode(None))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
