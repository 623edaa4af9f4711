"""live.py: a server on this machine that streams, breaks off and comes back; a camera that isn't one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from panoptube import live
from panoptube.errors import UserError
from panoptube.video import Choice, Timed, VideoFile, open_video, without_password, write_video

SIZE = (48, 64)
FPS = 50


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """40 frames of MPEG-TS that get bluer; each a key frame, so that they can be begun anywhere."""
    path = tmp_path_factory.mktemp("live") / "v.ts"
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", FPS)
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = *SIZE, "yuv420p", 1
        for t in range(40):
            image = np.full((*SIZE, 3), (60, 60, 6 * t), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode(None))
    return path.read_bytes()


Answer = Callable[[int], Iterator[bytes]]


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Starts servers; the n-th connection gets what `answer(n)` yields, and then its end."""
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Answer, headers: dict[str, str] = {}) -> str:  # noqa: B006
        connections = iter(range(1000))

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                number = next(connections)
                parts = answer(number)
                first = next(parts, None)
                if first is None:
                    self.send_error(503)
                    return
                self.send_response(200)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    self.wfile.write(first)
                    for part in parts:
                        self.wfile.write(part)
                except (BrokenPipeError, ConnectionResetError):
                    pass

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/drive"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "WAITS", (0.01, 0.02, 0.03))


def paced(data: bytes, seconds: float = 0.4) -> Iterator[bytes]:
    """In 40 pieces, as a camera would."""
    size = -(-len(data) // 40)
    for k in range(0, len(data), size):
        yield data[k : k + size]
        time.sleep(seconds / 40)


def dropped(notes: list[str]) -> int:
    """How many frames, as the first note has it."""
    return int(notes[0].split(": ")[1].split(" of ")[0]) if "dropped" in notes[0] else 0


def test_a_stream_is_read_and_its_loss_is_said(
    film: bytes,
    serve: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Connections 0 (to look) and 1 are whole, 2 breaks in the middle, 3 is whole, then there is nothing."""

    def answer(number: int) -> Iterator[bytes]:
        half = film[: len(film) // 2]
        return paced(half if number == 2 else film) if number < 4 else iter(())

    video = open_video(serve(answer))
    assert (video.live, video.size, video.length) == (True, SIZE, None)
    assert video.fps == pytest.approx(FPS)
    came: list[float] = []  # also what nobody was fast enough to take: a connection's first come at once
    decode = live.decode

    def watched(*args: Any) -> Iterator[Timed]:
        for shown, make in decode(*args):
            came.append(float(make()[..., 2].mean()))
            yield shown, make

    monkeypatch.setattr(live, "decode", watched)
    frames = list(video.frames())
    times = [frame.time for frame in frames]
    assert times[0] < 40 / FPS, "within the first connection"
    assert np.all(np.diff(times) > 0)
    assert all(frame.image.shape == (*SIZE, 3) for frame in frames)
    # Of 40 + 20 + 40; whoever takes frames at once gets most of them.
    assert 20 < len(frames) <= 100, len(frames)
    assert len(frames) + dropped(video.notes) == len(came)
    assert 97 <= len(came) <= 100
    assert (np.diff(came) < -20).sum() == 2, "it began three times"
    assert frames[-1].image[..., 2].mean() > 6 * 39 - 10, "the last one of all"
    assert video.notes[-2:] == [
        f"{video.name}: the connection was lost and did not come back",
        f"{video.name}: the connection was lost and made again 2 times",
    ]
    said = capsys.readouterr().err
    assert said.count("the connection is lost; trying again in 0.01 s") == 3
    assert "trying again in 0.03 s" in said


def test_whoever_is_slow_gets_the_newest_and_is_told(film: bytes, serve: Callable[..., str]) -> None:
    video = open_video(serve(lambda n: paced(film) if n < 2 else iter(())))
    blue = []
    for frame in video.frames():
        blue.append(float(frame.image[..., 2].mean()))
        time.sleep(0.1)
    assert 2 <= len(blue) < 15
    assert blue[-1] > 6 * 39 - 10, "the last one of all"
    lost = dropped(video.notes)
    came = len(blue) + lost
    assert 39 <= came <= 40
    assert video.notes[0] == f"{video.name}: {lost} of {came} frames were dropped to keep up with it"


def test_an_iteration_that_is_left_or_stopped_ends_its_thread(film: bytes, serve: Callable[..., str]) -> None:
    def endless(_: int) -> Iterator[bytes]:
        while True:
            yield from paced(film)

    video = open_video(serve(endless))
    frames = video.frames()
    next(frames)
    frames.close()
    assert not any(t.name.startswith("panoptube") for t in threading.enumerate())
    frames = video.frames()
    next(frames)
    threading.Timer(0.1, video.stop).start()
    assert sum(1 for _ in frames) < 100
    assert not any(t.name.startswith("panoptube") for t in threading.enumerate())


def test_stride_end_and_size_of_a_stream(film: bytes, serve: Callable[..., str]) -> None:
    video = open_video(
        serve(lambda n: paced(film) if n < 2 else iter(())), choice=Choice(stride=4, end=0.5, max_size=32)
    )
    frames = list(video.frames())
    assert frames[0].image.shape == (24, 32, 3)
    assert 2 <= len(frames) <= 7
    assert frames[-1].time < 0.5
    assert video.fps == pytest.approx(FPS / 4)
    assert not any("lost" in note for note in video.notes), "it ended because it should"


def test_what_a_live_source_can_not_do(film: bytes, serve: Callable[..., str]) -> None:
    address = serve(lambda _: paced(film, 0))
    with pytest.raises(UserError, match=r"is live and has no start; leave it out \(--start\)"):
        open_video(address, choice=Choice(start=3))
    with pytest.raises(UserError, match=r"is live and has a rate of its own; leave out fps"):
        open_video(address, fps=10)


def test_an_address_that_says_how_long_it_takes_is_a_file(tmp_path: Path, serve: Callable[..., str]) -> None:
    path = tmp_path / "v.mp4"
    with write_video(path, 10, SIZE) as write:
        for t in range(30):
            write(np.full((*SIZE, 3), 8 * t, np.uint8))
    data = path.read_bytes()
    video = open_video(serve(lambda _: iter((data,)), {"Content-Length": str(len(data))}))
    assert isinstance(video, VideoFile)
    assert (video.live, video.length) == (False, 30)
    read = []
    for image in video:
        read.append(image)
        time.sleep(0.005)
    assert len(read) == 30, "however slow"
    assert video.notes == []


def test_streams_that_can_not_be_opened_are_named(serve: Callable[..., str]) -> None:
    for address, why in {
        "rtsp://ann:secret@127.0.0.1:9/cam?key=secret": "Connection refused",
        serve(lambda _: iter(())): "503|5XX",
        serve(lambda _: iter((b"<html>hello</html>",))): "Invalid data|Input/output error",
        "nothing://there": "Protocol not found",
    }.items():
        with pytest.raises(UserError, match=rf"can't be opened \(.*({why}).*\); check the address") as caught:
            open_video(address)
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_passwords_are_not_shown() -> None:
    assert without_password("rtsp://ann:pw@host:554/a/b?token=1#x") == "rtsp://host:554/a/b"
    assert without_password("http://host/a@b.ts") == "http://host/a@b.ts"
    assert without_password("/films/a?.mp4") == "/films/a?.mp4"


class FakeCamera:
    """As cv2.VideoCapture, 100 frames a second; is unplugged after 20."""

    opened = 0

    def __init__(self, number: int) -> None:
        self.there = number == 0
        self.count = 0
        FakeCamera.opened += 1

    def isOpened(self) -> bool:
        return self.there

    def get(self, _: int) -> float:
        return 0.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        time.sleep(0.01)
        self.count += 1
        if self.count > 20:
            return False, None
        return True, np.full((*SIZE, 3), (200, 100, 10), np.uint8)

    def release(self) -> None:
        self.there = False


def test_a_camera_by_its_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera)
    monkeypatch.chdir(tmp_path)
    video = open_video("0", choice=Choice(end=0.3))
    assert (video.name, video.live, video.size, video.fps) == ("camera 0", True, SIZE, 25)
    frames = list(video.frames())
    assert 15 < len(frames) <= 30
    assert frames[0].image[0, 0].tolist() == [10, 100, 200], "RGB"
    assert frames[-1].time == pytest.approx(0.28, abs=0.05)
    with pytest.raises(UserError, match=r"there is no camera 7 here, or another program uses it"):
        open_video("7")
    # A file of that name comes first.
    Path("0").mkdir()
    with pytest.raises(UserError, match="0 has no pictures"):
        open_video("0")


def test_a_real_camera_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="there is no camera 63 here"):
        open_video("63")
    assert capfd.readouterr().err == "", "OpenCV says nothing beside"


def test_an_error_while_reading_reaches_whoever_takes_frames(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera)
    video = open_video("0")

    def broken(self: FakeCamera) -> tuple[bool, np.ndarray]:
        raise MemoryError

    monkeypatch.setattr(FakeCamera, "read", broken)
    with pytest.raises(MemoryError):
        list(video)


def test_pictures_are_made_only_of_frames_that_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [0]
    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera)

    def count(picture: np.ndarray) -> np.ndarray:
        made[0] += 1
        return picture

    monkeypatch.setattr(live, "_rgb", count)
    video = open_video("0", choice=Choice(end=0.2))
    made[0] = 0
    taken = 0
    for _ in video:
        taken += 1
        time.sleep(0.06)
    assert made[0] == taken < 8
