"""Cameras and streams: whoever takes frames gets the newest; those that came meanwhile are dropped.

A lost connection is made again. Streams are read by PyAV, cameras by OpenCV, which numbers them in the same
way on Linux (V4L2), macOS (AVFoundation) and Windows (Media Foundation).
"""

from __future__ import annotations

import sys
import threading
import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import av
import av.error
import cv2
import numpy as np

from panoptube.data.clip import Image
from panoptube.errors import UserError
from panoptube.video import (
    Choice,
    Timed,
    VideoFile,
    VideoSource,
    decode,
    rate_of,
    shrunk,
    without_password,
)

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds before each try to get a lost connection back; after the last one the video ends."""

SILENCE = 10.0
"""Seconds without an answer after which a stream counts as lost."""

CAMERA_FPS = 25.0
"""Frames per second that a camera is taken for if it doesn't say."""


def open_stream(address: str, fps: float | None, choice: Choice) -> VideoSource:
    """An address; live unless what is there says how long it takes.

    Raises:
        UserError: it can't be opened, or has no video; or it is live, and `fps` or a start is asked for.
    """
    name = without_password(address)
    with closing(_connect(address)) as container:
        if not container.duration:
            return _Stream(address, name, fps, choice, container)
    return VideoFile(address, name, fps, choice)


def open_camera(number: int, fps: float | None, choice: Choice) -> VideoSource:
    """A camera of this machine, the first one is 0.

    Raises:
        UserError: there is none, it gives no pictures, or `fps` or a start is asked for.
    """
    return _Camera(number, fps, choice)


class Live(VideoSource):
    """Frames are read in a thread as fast as they come. Times are those of the frames, on the machine's clock
    from the first one on, so that a gap in the connection is a gap in time."""

    live = True

    def __init__(self, name: str, fps: float | None, choice: Choice) -> None:
        """Connects once, for the size and rate."""
        if fps is not None:
            raise UserError(f"{name} is live and has a rate of its own; leave out fps (--fps)")
        if choice.start > 0:
            raise UserError(f"{name} is live and has no start; leave it out (--start)")
        super().__init__(choice)
        self.name, self.length = name, None
        self._changed = threading.Condition()
        self._stopped = False
        first = next(self._connection(), None)
        if first is None:
            raise UserError(f"{name} gives no pictures; see whether a player shows some")
        self._full = first[1]().shape
        self.size = shrunk((self._full[0], self._full[1]), choice.max_size)

    @abstractmethod
    def _connection(self) -> Iterator[Timed]:
        """Frames until the connection is lost; raises UserError if there is none. Sets `fps`."""

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _chosen(self) -> Iterator[Timed]:
        self._newest: Timed | None = None
        self._came = self._dropped = self._losses = 0
        self._ended = self._stopped = self._gave_up = False
        self._error: BaseException | None = None
        reader = threading.Thread(target=self._read, name=f"panoptube {self.name}", daemon=True)
        reader.start()
        try:
            while (frame := self._take()) is not None:
                yield frame
            if self._error is not None:
                raise self._error
        finally:
            self.stop()
            reader.join(1.0)  # it may be waiting for an answer for longer than anyone wants to wait
            self._say_what_is_missing()

    def _take(self) -> Timed | None:
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._ended or self._stopped)
            frame, self._newest = self._newest, None
            return None if self._stopped else frame

    def _read(self) -> None:
        try:
            for frame in super()._chosen():
                with self._changed:
                    if self._stopped:
                        break
                    self._came += 1
                    self._dropped += self._newest is not None
                    self._newest = frame
                    self._changed.notify_all()
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _decode(self) -> Iterator[Timed]:
        begin: float | None = None
        last, tries = 0.0, 0
        while not self._stopped:
            try:
                offset: float | None = None
                for own, make in self._connection():
                    now = time.monotonic()
                    if begin is None:
                        begin, offset = now, -own
                    elif offset is None:
                        offset = max(now - begin, last + 1 / self.fps) - own
                    assert offset is not None
                    tries, last = 0, own + offset
                    yield last, make
            except UserError:  # it is not back yet; the first connection has been tried before
                pass
            self._losses += tries == 0
            if self._stopped:
                return
            if tries == len(WAITS):
                self._gave_up = True
                return
            print(
                f"panoptube: {self.name}: the connection is lost; trying again in {WAITS[tries]:g} s",
                file=sys.stderr,
            )
            with self._changed:
                self._changed.wait_for(lambda: self._stopped, WAITS[tries])
            tries += 1

    def _say_what_is_missing(self) -> None:
        if self._dropped:
            self.notes.append(
                f"{self.name}: {self._dropped} of {self._came} frames were dropped to keep up with it"
            )
        if self._gave_up:
            self.notes.append(f"{self.name}: the connection was lost and did not come back")
        if back := self._losses - self._gave_up:
            times = "once" if back == 1 else f"{back} times"
            self.notes.append(f"{self.name}: the connection was lost and made again {times}")


class _Stream(Live):
    def __init__(
        self,
        address: str,
        name: str,
        fps: float | None,
        choice: Choice,
        container: av.container.InputContainer,
    ) -> None:
        self._address = address
        self._container: av.container.InputContainer | None = container
        super().__init__(name, fps, choice)

    def _connection(self) -> Iterator[Timed]:
        container, self._container = self._container, None  # the first one is there already
        with closing(container or _connect(self._address)) as container:
            self.fps = rate_of(container.streams.video[0]) / self._choice.stride
            yield from decode(container, lambda: None)


def _connect(address: str) -> av.container.InputContainer:
    name = without_password(address)
    # Over UDP, FFmpeg's default, lost packets are broken pictures.
    options = {"rtsp_transport": "tcp"} if address.lower().startswith("rtsp") else {}
    try:
        container = av.open(address, options=options, timeout=SILENCE)
    except (av.error.FFmpegError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not a video"
        raise UserError(
            f"{name} can't be opened ({why}); check the address, and whether a player opens it"
        ) from error
    if not container.streams.video:
        container.close()
        raise UserError(f"{name} has no video in it; give the address of a video stream")
    return container


class _Camera(Live):
    def __init__(self, number: int, fps: float | None, choice: Choice) -> None:
        self._number = number
        super().__init__(f"camera {number}", fps, choice)

    def _connection(self) -> Iterator[Timed]:
        logging = cv2.utils.logging
        level = logging.getLogLevel()
        logging.setLogLevel(logging.LOG_LEVEL_SILENT)  # else it says at length what is said in one line here
        try:
            camera = cv2.VideoCapture(self._number)
        finally:
            logging.setLogLevel(level)
        try:
            if not camera.isOpened():
                raise UserError(
                    f"there is no camera {self._number} here, or another program uses it; the first one is 0"
                )
            self.fps = (camera.get(cv2.CAP_PROP_FPS) or CAMERA_FPS) / self._choice.stride
            while True:
                there, picture = camera.read()
                if not there:
                    return
                yield time.monotonic(), partial(_rgb, picture)
        finally:
            camera.release()


def _rgb(picture: Image) -> Image:
    return np.ascontiguousarray(picture[..., ::-1])
