"""A web page on this machine: a video is dropped in, and its labelled video comes out."""

# Without `from __future__ import annotations`: gradio reads the annotations of the page's functions, and
# would not find names in them that were imported inside a function.

import asyncio
import base64
import errno
import html
import ipaddress
import json
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
import traceback
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

from panoptube.data.clip import Image
from panoptube.data.new_folder import disk_errors
from panoptube.errors import UserError
from panoptube.flow.images import ImageFlow
from panoptube.network.exported import ExportedNetwork
from panoptube.network.inference import Precision
from panoptube.network.vpsnet import Detections, VPSNet
from panoptube.panoptic.formats import JSON_NAME
from panoptube.panoptic.frame import PanopticFrame, Taxonomy
from panoptube.predict import PredictSummary, load_network, look_ahead, write_predictions
from panoptube.predictor import VideoPredictor
from panoptube.report.report import report
from panoptube.video import open_video, shrunk
from panoptube.view.overlay import OVERLAY_NAME, overlay

if TYPE_CHECKING:
    from gradio import Blocks

PAUSE = 0.4
"""Seconds between two pictures on the page."""

PICTURE_SIZE = 960
"""Pixels of the long edge of those pictures, at most."""

NO_PICTURE = '<p class="empty">The labelled video appears here.</p>'
"""HTML in their place when there is none."""


@dataclass(frozen=True)
class Result:
    """What a page gets in the end.

    Attributes:
        summary: of the prediction.
        video: the overlay.
        archive: a zip of the result's folder.
        page: the report.
        legend: HTML of the classes that occur.
    """

    summary: PredictSummary
    video: Path
    archive: Path
    page: Path
    legend: str


class Cancelled(Exception):
    """Whoever asked for a prediction doesn't want it any more."""


class Job:
    """One video of one page; `run` is called in a thread, everything else from any other.

    Attributes:
        name: of the result: the file's, without its suffix.
        folder: where the result is written; nothing else is in there.
        future: ends with the `Result`.
    """

    future: Future[Result]

    def __init__(self, source: Path, folder: Path) -> None:
        self.folder = folder
        self.name = source.stem.strip(". ") or "video"
        self._source = source
        self._cancelled = threading.Event()
        self._length: int | None = None
        self._times: list[float] = []
        self._latest: tuple[Image, PanopticFrame] | None = None
        self._doing = ""

    @property
    def frames(self) -> int:
        """How many are labelled."""
        return len(self._times)

    def cancel(self) -> None:
        """Let it end before the next frame; at once if it hasn't begun."""
        self._cancelled.set()
        self.future.cancel()

    def run(self, network: VPSNet | ExportedNetwork, flow: ImageFlow) -> Result:
        """Label the video, and make the report and the zip; an exception leaves nothing of them.

        Raises:
            Cancelled: `cancel` was called.
            UserError: as `predict` and `report`.
        """
        try:
            return self._run(network, flow)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def _run(self, network: VPSNet | ExportedNetwork, flow: ImageFlow) -> Result:
        self._doing = "Reading the video"
        video = open_video(self._source)
        self._length = video.length
        predictor = VideoPredictor(network, flow=flow)

        def step(image: Image, found: Detections | None = None) -> PanopticFrame:
            self._go_on()
            frame = predictor.step(image, found)
            self._latest = image, frame
            self._times.append(time.monotonic())
            self._doing = ""
            return frame

        out = self.folder / self.name
        summary = write_predictions(
            video,
            step,
            network.taxonomy,
            out,
            restart=predictor.restart,
            progress=False,
            ahead=look_ahead(predictor, video),
        )
        self._doing = "Making the report"
        self._go_on()
        page = report(out, self.folder / f"{self.name}.html", progress=False).out
        self._doing = "Packing the result"
        self._go_on()
        archive = self.folder / f"{self.name}.zip"
        with disk_errors(archive):
            _pack(out, archive)
        self._go_on()
        return Result(summary, out / OVERLAY_NAME, archive, page, _legend(out / JSON_NAME))

    def _go_on(self) -> None:
        if self._cancelled.is_set():
            raise Cancelled

    def status(self) -> str:
        """What it is doing, in a line; empty before it begins."""
        if self._cancelled.is_set():
            return "Cancelling"
        count = self.frames
        if self._doing or not count:
            return self._doing
        parts = [f"Frame {count}" + (f" of {self._length}" if self._length else "")]
        if count > 1:
            # From the first frame on, which takes longer than the others.
            each = (self._times[-1] - self._times[0]) / (count - 1)
            parts.append(f"{1 / each:.1f} frames/s")
            if self._length:
                parts.append(f"{_clock(max(self._length - count, 0) * each)} left")
        return " · ".join(parts)

    def share(self) -> float | None:
        """How much of the video is labelled, 0 to 1; None if its length isn't known."""
        return min(self.frames / self._length, 1.0) if self._length else None

    def picture(self, taxonomy: Taxonomy) -> bytes:
        """The latest labelled frame as a JPEG; there must be one."""
        assert self._latest is not None
        image, frame = self._latest
        drawn = overlay(image, frame, taxonomy)
        height, width = shrunk(frame.size, PICTURE_SIZE)
        small = cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA)
        _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
        return jpeg.tobytes()

    def explain(self, error: UserError) -> str:
        """The error's line with the names of files, not where they are on the server."""
        text = str(error)
        for folder in (self._source.parent, self.folder):
            text = text.replace(f"{folder}{os.sep}", "")
        return text


@dataclass(frozen=True)
class View:
    """What a page shows.

    Attributes:
        status: HTML.
        running: whether there is something to cancel.
        picture: HTML of the latest frame, or instead of it.
        result: what can be looked at and downloaded.
    """

    status: str
    running: bool = False
    picture: str = NO_PICTURE
    result: Result | None = None


class Desk:
    """Takes videos from pages and labels them one after the other, in one thread.

    Args:
        network, flow: as `load_network` returns them.
        folder: for results; whoever made it removes it.
    """

    def __init__(self, network: VPSNet | ExportedNetwork, flow: ImageFlow, folder: Path) -> None:
        self.folder = folder
        self._network, self._flow = network, flow
        self._worker = ThreadPoolExecutor(1)
        self._jobs: dict[str, Job] = {}

    def start(self, page: str, source: Path) -> Job:
        """Queue a video for a page; what that page had before is forgotten."""
        self.forget(page)
        job = Job(source, Path(tempfile.mkdtemp(dir=self.folder)))
        job.future = self._worker.submit(job.run, self._network, self._flow)
        self._jobs[page] = job
        return job

    def cancel(self, page: str) -> None:
        """Stop the page's prediction, if there is one."""
        if page in self._jobs:
            self._jobs[page].cancel()

    def forget(self, page: str) -> None:
        """Stop the page's prediction and remove its result, as when the page is closed."""
        job = self._jobs.pop(page, None)
        if job is not None:
            job.cancel()
            job.future.add_done_callback(lambda _: shutil.rmtree(job.folder, ignore_errors=True))

    def close(self) -> None:
        """Stop everything; returns once nothing is written any more."""
        for job in list(self._jobs.values()):
            job.cancel()
        self._worker.shutdown(cancel_futures=True)

    async def label(self, page: str, source: Path | None) -> AsyncIterator[View]:
        """What the page shows from the press of its button to the result, or to what went wrong.

        Args:
            page: any name of its own.
            source: the video, or None if none was chosen.
        """
        if source is None:
            yield View(_problem("Choose a video first."))
            return
        job = self.start(page, source)
        shown, picture = 0, NO_PICTURE
        while not job.future.done():
            if job.frames != shown:
                shown = job.frames
                jpeg = await asyncio.to_thread(job.picture, self._network.taxonomy)
                picture = _picture(jpeg, shown)
            yield View(_status(job.status() or self._waiting(job), job.share()), True, picture)
            await asyncio.sleep(PAUSE)
        if job.future.cancelled():
            yield View(_status("Cancelled. Nothing was kept."))
            return
        try:
            result = job.future.result()
        except Cancelled:
            yield View(_status("Cancelled. Nothing was kept."))
        except UserError as error:
            yield View(_problem(job.explain(error)))
        except Exception as error:  # a defect, which the terminal tells; the next video may be fine
            traceback.print_exception(error)
            yield View(_problem(f"{job.name} could not be labelled; the server's terminal says more."))
        else:
            yield View(_finished(result.summary), result=result)

    def _waiting(self, job: Job) -> str:
        ahead = 0
        for other in self._jobs.values():
            if other is job:
                break
            ahead += not other.future.done()
        return f"Waiting: {ahead} before this one" if ahead else "Waiting to begin"


def _pack(result: Path, archive: Path) -> None:
    """Zips a folder with its name; stored, since PNG and MP4 don't get smaller."""
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(p for p in result.rglob("*") if p.is_file()):
            file.write(path, path.relative_to(result.parent))


def _legend(path: Path) -> str:
    """HTML of the classes in a panoptic.json: most frequent first, objects with their number."""
    content = json.loads(path.read_text(encoding="utf-8"))
    segments: dict[int, int] = {}
    tracks: dict[int, set[int]] = {}
    for annotation in content["annotations"]:
        for segment in annotation["segments_info"]:
            category = segment["category_id"]
            segments[category] = segments.get(category, 0) + 1
            if "track_id" in segment:
                tracks.setdefault(category, set()).add(segment["track_id"])
    found = [c for c in content["categories"] if c["id"] in segments]
    found.sort(key=lambda c: -segments[c["id"]])
    areas, objects = "", ""
    for category in found:
        name = html.escape(category["name"])
        if category["isthing"]:
            objects += f"<span><b>{len(tracks.get(category['id'], ()))}</b> {name}</span>"
        else:
            color = "rgb({}, {}, {})".format(*category["color"])
            areas += f'<span><i style="background: {color}"></i>{name}</span>'
    lines = (("Areas", areas), ("Objects, each in a colour of its own", objects))
    return "".join(f'<p class="legend"><em>{title}</em>{spans}</p>' for title, spans in lines if spans)


def _status(text: str, share: float | None = None) -> str:
    bar = "" if share is None else f'<progress value="{share:.4f}"></progress>'
    return f'<p id="status">{html.escape(text)}</p>{bar}'


def _problem(text: str) -> str:
    return f'<p id="status" class="problem" role="alert">{html.escape(text)}</p>'


def _finished(summary: PredictSummary) -> str:
    text = f"{summary.frames} frames, {summary.tracks} tracks, {summary.fps:.1f} frames/s"
    return _status(text) + "".join(f"<p>{html.escape(note)}</p>" for note in summary.notes)


def _picture(jpeg: bytes, number: int) -> str:
    # In the page's text, so that no file is left for each picture.
    data = base64.b64encode(jpeg).decode()
    return f'<img id="latest" alt="labelled frame {number}" src="data:image/jpeg;base64,{data}">'


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


STYLE = """
.gradio-container { max-width: 1280px !important; }
#latest { width: 100%; max-height: 70vh; object-fit: contain; border-radius: 8px; background: #0001; }
.empty { padding: 12vh 16px; text-align: center; border-radius: 8px; background: #8882; }
#status { font-size: 1.05rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
#status.problem { color: #b91c1c; }
.dark #status.problem { color: #fca5a5; }
progress { appearance: none; width: 100%; height: 10px; border: 0; border-radius: 5px; overflow: hidden;
  background: var(--border-color-primary); color: var(--primary-500); }
progress::-webkit-progress-bar { background: var(--border-color-primary); }
progress::-webkit-progress-value { background: var(--primary-500); }
progress::-moz-progress-bar { background: var(--primary-500); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 0 0 10px; font-size: 0.95rem; }
.legend em { flex-basis: 100%; font-style: normal; opacity: 0.75; }
.legend i { display: inline-block; width: 14px; height: 14px; margin-right: 6px; border-radius: 3px;
  vertical-align: -2px; }
"""


def build_page(desk: Desk) -> "Blocks":
    """The page, not served yet. gradio keeps uploads in the desk's folder."""
    os.environ["GRADIO_TEMP_DIR"] = str(desk.folder)  # read when components are made
    import gradio

    with gradio.Blocks(title="panoptube", analytics_enabled=False) as page:
        gradio.HTML("<h1>panoptube</h1><p>Every pixel labelled, every segment followed.</p>")
        with gradio.Row():
            with gradio.Column(scale=1, min_width=300):
                source = gradio.File(label="Video", type="filepath", height=150, elem_id="source")
                with gradio.Row():
                    go = gradio.Button("Label the video", variant="primary", elem_id="go", min_width=120)
                    stop = gradio.Button("Cancel", interactive=False, elem_id="stop", min_width=80)
                status = gradio.HTML(_status("Drop a video, or click to choose one."))
                archive = gradio.DownloadButton("Download the result (zip)", visible=False, elem_id="archive")
                report_page = gradio.DownloadButton(
                    "Download the report (HTML)", visible=False, elem_id="report"
                )
            with gradio.Column(scale=2, min_width=400):
                picture = gradio.HTML(NO_PICTURE)
                video = gradio.Video(
                    label="Labelled video", visible=False, interactive=False, elem_id="video", buttons=[]
                )
                legend = gradio.HTML(visible=False)

        async def label(chosen: str | None, request: gradio.Request) -> AsyncIterator[dict[Any, Any]]:
            first = True
            async for view in desk.label(request.session_hash, Path(chosen) if chosen else None):
                update = {
                    status: view.status,
                    picture: gradio.update(value=view.picture, visible=view.result is None),
                }
                if first or not view.running:
                    done = view.result
                    update |= {
                        go: gradio.update(interactive=not view.running),
                        stop: gradio.update(interactive=view.running),
                        video: gradio.update(value=done and str(done.video), visible=bool(done)),
                        archive: gradio.update(value=done and str(done.archive), visible=bool(done)),
                        report_page: gradio.update(value=done and str(done.page), visible=bool(done)),
                        legend: gradio.update(value=done.legend if done else "", visible=bool(done)),
                    }
                first = False
                yield update

        def cancel(request: gradio.Request) -> None:
            desk.cancel(request.session_hash)

        def leave(request: gradio.Request) -> None:
            desk.forget(request.session_hash)

        # The desk has the queue, so that a page that waits can say so and be cancelled.
        go.click(
            label,
            source,
            [status, picture, go, stop, video, archive, report_page, legend],
            show_progress="hidden",
            concurrency_limit=None,
            api_visibility="private",
        )
        stop.click(cancel, queue=False, show_progress="hidden", api_visibility="private")
        page.unload(leave)
    return page  # type: ignore[no-any-return]


Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'"


class StayHere:
    """Around a web application: its pages load from nowhere else, and it fetches nothing for them."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def add_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY)]
            await send(message)

        # gradio would fetch what follows, from wherever it is.
        if any(part in scope.get("path", "") for part in ("/file=http:", "/file=https:", "/proxy=")):
            await add_policy({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body"})
            return
        await self._app(scope, receive, add_policy)


def build_app(desk: Desk) -> Application:
    """The page as an ASGI application."""
    import gradio
    from fastapi import FastAPI

    mono = ("ui-monospace", "monospace")
    app = gradio.mount_gradio_app(
        FastAPI(openapi_url=None),
        build_page(desk),
        "/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        show_error=True,
        # Fonts that the system has; gradio's own themes ask Google for theirs.
        theme=gradio.themes.Default(primary_hue="blue", font=("system-ui", "sans-serif"), font_mono=mono),
        css=STYLE,
    )
    return StayHere(app)


def listen(host: str, port: int) -> socket.socket:
    """A socket that waits for connections at `host` and `port`; port 0 takes a free one.

    Raises:
        UserError: the port is in use or needs rights, or the host isn't this machine.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"there is no port {port}; give --port a number from 1024 to 65535")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} is in use; choose another with --port") from error
        if error.errno == errno.EACCES:
            raise UserError(f"port {port} needs more rights; choose one from 1024 on with --port") from error
        raise UserError(
            f"{host} is no address of this machine; leave out --host, or give 0.0.0.0 for all of them"
        ) from error


def serve(
    port: int = 7860,
    host: str = "127.0.0.1",
    weights: str | Path | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> None:
    """Serve a page that labels videos, until Ctrl-C or SIGTERM raises KeyboardInterrupt.

    One video at a time is labelled; others wait. Uploads and results are in one temporary folder, which is
    gone in the end. The page and the server ask nothing of other machines.

    Args:
        port: where to listen; 0 for any that is free.
        host: address to listen at. Only this machine can reach 127.0.0.1; everybody who can reach it can use
            the page.
        weights, device, precision: as in `predict`.

    Raises:
        UserError: gradio isn't installed, the port is in use, or as in `predict`.
    """
    with (
        listen(host, port) as listener,
        tempfile.TemporaryDirectory(prefix="panoptube-", ignore_cleanup_errors=True) as name,
    ):
        folder = Path(name).resolve()
        # Read on import: where gradio keeps files, and whether it asks its makers for a newer version.
        os.environ |= {"GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False"}
        try:
            import gradio  # noqa: F401
            import uvicorn
        except ModuleNotFoundError as error:
            raise UserError('serve needs gradio; pip install "panoptube[serve]"') from error
        desk = Desk(*load_network(weights, device, None, precision), folder)
        address, port = listener.getsockname()[:2]
        if not ipaddress.ip_address(address).is_loopback:
            print(f"panoptube: everybody on the network can use this page (--host {host})", file=sys.stderr)
        try:
            # What fails in a page's functions gradio prints itself; what uvicorn would log is connections
            # that the end of the server cuts off. Its log_config would close the handlers of all loggers.
            config = uvicorn.Config(
                build_app(desk), log_config=None, log_level="critical", timeout_graceful_shutdown=1
            )
            server = uvicorn.Server(config)
            shown = f"[{host}]" if ":" in host else host
            print(f"panoptube: http://{shown}:{port} (Ctrl-C ends it)", flush=True)
            server.run(sockets=[listener])
            if not server.started:
                raise RuntimeError("the page could not be started")
        finally:
            desk.close()
