"""serve.py: what a page is told, what is left behind, and the page in a real browser."""

from __future__ import annotations

import asyncio
import html
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from chromium import CHROMIUM, browser
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.streets import street_clip
from panoptube.errors import UserError
from panoptube.panoptic.frame import PanopticFrame
from panoptube.serve import Desk, View, listen, serve
from panoptube.video import open_video, write_video

SIZE = (64, 128)
ROAD, SKY, CAR = (CITYSCAPES.index(name) for name in ("road", "sky", "car"))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames of a street."""
    path, clip = tmp_path_factory.mktemp("serve") / "film.mp4", street_clip(3, 6, SIZE)
    with write_video(path, clip.fps, SIZE) as write:
        for t in range(clip.length):
            write(clip.read_image(t))
    return path


class Fake:
    """In place of the predictor: a car on a road.

    Waits from frame `stop` on, as long as `gate` is closed; `held` tells that it does.
    """

    stop = 99
    gate = threading.Event()
    held = threading.Event()
    broken = False
    fuses = True  # so that nothing is looked at ahead

    def __init__(self, network: object, flow: object) -> None:
        self._number = 0

    def restart(self) -> None:
        return

    def step(self, image: np.ndarray, found: object = None) -> PanopticFrame:
        if self.broken:
            raise ValueError("a defect")
        if self._number >= self.stop:
            self.held.set()
            assert self.gate.wait(60)
        self._number += 1
        semantic, instance = np.full(SIZE, SKY, np.uint8), np.zeros(SIZE, np.int32)
        semantic[32:] = ROAD
        instance[20:44, 10:40] = 7
        semantic[instance > 0] = CAR
        return PanopticFrame(semantic, instance)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(Fake, "gate", threading.Event())
    monkeypatch.setattr(Fake, "held", threading.Event())
    monkeypatch.setattr("panoptube.serve.VideoPredictor", Fake)
    monkeypatch.setattr("panoptube.serve.PAUSE", 0.01)
    folder = tmp_path / "desk"
    folder.mkdir()
    made = Desk(SimpleNamespace(taxonomy=CITYSCAPES), None, folder)  # type: ignore[arg-type]
    yield made
    Fake.gate.set()
    made.close()


def views(
    desk: Desk, source: Path | None, page: str = "a", do: Callable[[View], None] | None = None
) -> list[View]:
    """What a page is shown, from first to last; `do` is called with each of it."""

    async def collect() -> list[View]:
        found = []
        async for view in desk.label(page, source):
            found.append(view)
            if do is not None:
                do(view)
        return found

    return asyncio.run(collect())


def text(view: View) -> str:
    return html.unescape(re.sub("<[^>]*>", "", view.status))


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_video_becomes_overlay_zip_and_report(
    desk: Desk, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fake, "stop", 3)

    def go_on(view: View) -> None:
        if "Frame 3 of 6" in view.status and "labelled frame 3" in view.picture:
            assert re.fullmatch(r"Frame 3 of 6 · [0-9.]+ frames/s · 0:[0-9]{2} left", text(view))
            assert '<progress value="0.5000">' in view.status
            assert 'src="data:image/jpeg;base64,' in view.picture
            Fake.gate.set()

    *during, last = views(desk, film, do=go_on)
    assert all(view.running and view.result is None for view in during)
    assert Fake.gate.is_set()
    assert not last.running
    assert re.fullmatch(r"6 frames, 1 tracks, [0-9.]+ frames/s", text(last))
    result = last.result
    assert result is not None
    assert (result.archive.name, result.page.name) == ("film.zip", "film.html")
    with zipfile.ZipFile(result.archive) as archive:
        names = archive.namelist()
        content = json.loads(archive.read("film/panoptic.json"))
    pictures = [f"film/panoptic/{t:06d}.png" for t in range(6)]
    assert sorted(names) == ["film/overlay.mp4", "film/panoptic.json", *pictures]
    assert len(content["annotations"]) == 6
    assert len(list(open_video(result.video))) == 6
    assert "<title>film</title>" in result.page.read_text(encoding="utf-8")
    assert "<b>1</b> car" in result.legend
    assert 'rgb(128, 64, 128)"></i>road' in result.legend
    assert "sky" in result.legend

    desk.forget("a")  # as when the page is closed
    assert files(desk.folder) == []


def test_what_is_no_video_is_a_line_and_the_next_one_goes_on(desk: Desk, film: Path, tmp_path: Path) -> None:
    (only,) = views(desk, None)
    assert text(only) == "Choose a video first."
    bad = tmp_path / "<b>.mp4"
    bad.write_text("no video")
    *_, last = views(desk, bad)
    assert not last.running
    assert last.result is None
    assert last.status.count("\n") == 0
    assert ">&lt;b&gt;.mp4 is not a video that can be read" in last.status
    assert str(tmp_path) not in last.status
    *_, last = views(desk, film)
    assert last.result is not None


def test_a_defect_is_told_by_the_terminal(
    desk: Desk, film: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Fake, "broken", True)
        *_, last = views(desk, film)
    assert text(last) == "film could not be labelled; the server's terminal says more."
    assert "ValueError: a defect" in capsys.readouterr().err
    assert files(desk.folder) == []
    *_, last = views(desk, film)
    assert last.result is not None


def test_a_cancelled_prediction_leaves_nothing(
    desk: Desk, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fake, "stop", 2)

    def cancel(view: View) -> None:
        if "Frame 2 of 6" in view.status:
            assert Fake.held.wait(60)  # earlier it would end before it says that it will
            desk.cancel("b")  # no prediction of that page
            desk.cancel("a")
        if "Cancelling" in view.status:
            Fake.gate.set()

    *_, before, last = views(desk, film, do=cancel)
    assert text(before) == "Cancelling"
    assert text(last) == "Cancelled. Nothing was kept."
    assert last.result is None
    assert files(desk.folder) == []


def test_others_wait_and_may_be_cancelled_while_they_do(
    desk: Desk, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fake, "stop", 1)
    first = desk.start("a", film)
    seen = []

    def cancel(view: View) -> None:
        seen.append(text(view))
        desk.cancel("b")

    *_, last = views(desk, film, "b", cancel)
    assert seen[0] == "Waiting: 1 before this one"
    assert text(last) == "Cancelled. Nothing was kept."
    assert not first.future.done()
    third = desk.start("c", film)
    desk.forget("a")  # a closed page doesn't hold up the others
    Fake.gate.set()
    assert third.future.result(60).summary.frames == 6
    assert not first.folder.exists()
    desk.close()
    assert not any("part" in name for name in files(desk.folder))


def test_ports_and_hosts_that_cannot_be_had() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is in use; choose another with --port"):
            listen("127.0.0.1", port)
    with pytest.raises(UserError, match="no port 70000"):
        listen("127.0.0.1", 70000)
    with pytest.raises(UserError, match=r"192\.0\.2\.1 is no address of this machine"):
        listen("192.0.2.1", 0)


def test_without_gradio_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):  # which it sets
        monkeypatch.setenv(name, "")
    with pytest.raises(UserError, match=r'serve needs gradio; pip install "panoptube\[serve\]"'):
        serve(0)


def test_all_addresses_are_served_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gradio")
    import uvicorn

    network = SimpleNamespace(taxonomy=CITYSCAPES)
    monkeypatch.setattr("panoptube.serve.load_network", lambda *_: (network, None))
    folders: list[Path] = []

    def stop(server: uvicorn.Server, sockets: list[socket.socket]) -> None:
        folders.append(Path(os.environ["GRADIO_TEMP_DIR"]))
        assert folders[0].is_dir()
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", stop)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "")
    handler = logging.Handler()  # the caller's
    monkeypatch.setattr(handler, "close", lambda: pytest.fail("it was closed"))
    with pytest.raises(KeyboardInterrupt):
        serve(0, "0.0.0.0")
    printed = capsys.readouterr()
    assert printed.err == "panoptube: everybody on the network can use this page (--host 0.0.0.0)\n"
    assert re.fullmatch(r"panoptube: http://0\.0\.0\.0:[0-9]+ \(Ctrl-C ends it\)\n", printed.out)
    assert not folders[0].exists()


SERVER = """
import sys

def watch(event, args):
    if event in ("socket.connect", "socket.sendto") and not str(args[1]).startswith(("('127.", "('::1'")):
        print("asked", args[1], file=sys.stderr)
    if event == "socket.getaddrinfo" and args[0] != "127.0.0.1":
        print("asked for", args[0], file=sys.stderr)

sys.addaudithook(watch)
from panoptube.cli import main
sys.exit(main())
"""


class Server:
    """`panoptube serve` in a process that says on stderr if it asks anything of another machine."""

    def __init__(self, folder: Path) -> None:
        options = ("--port", "0", "--device", "cpu", "--precision", "float32")
        self.errors = folder / "stderr"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVER, "serve", *options],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | {"TMPDIR": str(folder)},
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.fullmatch(r"panoptube: (http://127\.0\.0\.1:[0-9]+) \(Ctrl-C ends it\)\n", line)
        assert found is not None, (line, self.errors.read_text())
        self.url = found[1]


def get(url: str) -> tuple[Any, str]:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.headers, answer.read().decode()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    pytest.importorskip("gradio")
    folder = tmp_path / "server"
    folder.mkdir()
    started = Server(folder)
    yield started
    started.process.kill()
    started.process.wait()


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_in_a_browser_a_video_is_labelled_and_another_cancelled(
    server: Server, film: Path, tmp_path: Path
) -> None:
    long = tmp_path / "long.mp4"
    frames = list(open_video(film))
    with write_video(long, 10, SIZE) as write:
        for t in range(600):
            write(frames[t % 6])
    (bad := tmp_path / "bad.mp4").write_text("no video")

    headers, source = get(server.url)
    assert headers["content-security-policy"].startswith("default-src 'self' ")
    # What is loaded or connected to before any script runs; the rest is seen by the browser.
    assert re.search(r"<(script|link|img|iframe)[^>]*(src|href)=.https?://(?!127\.0\.0\.1)", source) is None
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(f"{server.url}/gradio_api/file=http://192.0.2.1/")

    status = "document.querySelector('#status').innerText"
    press = "document.querySelector('#{}').click()"
    with browser() as page:

        def label(path: Path) -> None:
            page.run("document.querySelector('#source button[aria-label=Clear]')?.click()")
            page.until("document.querySelector('#source input[type=file]') !== null")
            page.choose("#source input[type=file]", path)
            page.until(f"document.querySelector('#source').innerText.includes('{path.stem}')")
            page.until("document.querySelector('#go')?.disabled === false")
            page.run(press.format("go"))

        page.open(server.url)
        page.until("document.querySelector('#source input[type=file]') !== null")
        label(film)
        page.until("document.querySelector('#latest') !== null", 120)
        page.until("document.querySelector('#video video')?.readyState > 1", 120)
        assert page.run(status).startswith("6 frames, ")
        assert page.run("document.querySelector('#video video').duration") == pytest.approx(0.6, abs=0.02)
        page.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "downloads"))
        for name in ("archive", "report"):
            page.run(press.format(name))
        end = time.monotonic() + 60
        while [p.name for p in sorted(tmp_path.glob("downloads/*"))] != ["film.html", "film.zip"]:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert zipfile.ZipFile(tmp_path / "downloads" / "film.zip").testzip() is None

        label(long)
        page.until(f"{status}.startsWith('Frame ')", 120)
        assert page.run("document.querySelector('#video video')") is None
        page.run(press.format("stop"))
        page.until(f"{status} === 'Cancelled. Nothing was kept.'", 60)

        label(bad)
        page.until(f"{status}.startsWith('bad.mp4 is not a video')", 60)
        label(long)
        page.until(f"{status}.startsWith('Frame ')", 120)

        outside = [u for u in page.requested if not u.startswith((server.url + "/", "data:", "blob:"))]
        assert outside == []
        assert page.complaints == []

        # In the middle of a prediction, with the page open.
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 130
    assert server.errors.read_text() == "panoptube: interrupted\n"
    assert [p.name for p in server.errors.parent.iterdir()] == ["stderr"]
