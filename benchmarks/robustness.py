"""Bad input, full disks and signals against the command line: a table of what came of each.

    python benchmarks/robustness.py [--only KIND] [--json FILE]

Every try is a process of its own, forked from one that has imported all, which saves seconds. It must end
with a right result, or with exit code 2 and one line, or, when it is stopped, leave what it had written
readable; all else is a fault, shown below the table with the command, and the exit code is 1. Random damage
to JSON, PNG and weights, far more of it, is `benchmarks/fuzz.py`'s.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import multiprocessing
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import safetensors.torch
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from panoptube.cli import main as main_of_panoptube
from panoptube.config import NetworkConfig, RunConfig
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.streets import street_clip
from panoptube.errors import UserError
from panoptube.network.vpsnet import vpsnet
from panoptube.network.weights import save_weights
from panoptube.panoptic.formats import JSON_NAME, PNG_FOLDER, read_panoptic_video
from panoptube.panoptic.id_png import read_id_png
from panoptube.predict import predict
from panoptube.video import open_video

HANGS = 120
"""Seconds after which a process counts as one that hangs."""

NOBODY = 65534
"""The user that may read and write little."""

GOOD = ("right result", "one line, exit code 2", "stopped, nothing lost")


@dataclass(frozen=True)
class Try:
    """One command.

    Attributes:
        kind: of fault.
        words: what follows `panoptube`.
        out: what it would write.
        stop: signal, and seconds after the first frame was written.
        largest: bytes that a file may have, as if the disk were full then.
        user: who runs it.
    """

    kind: str
    words: tuple[str, ...]
    out: Path | None = None
    stop: tuple[signal.Signals, float] | None = None
    largest: int | None = None
    user: int | None = None


class Inputs:
    """Good files to damage; all below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, 0
        torch.manual_seed(0)
        config = NetworkConfig(
            backbone="resnet18",
            channels=16,
            semantic_channels=(16,),
            semantic_groups=4,
            box_channels=16,
            mask_channels=16,
            mask_convs=1,
            match_channels=16,
            test_proposals=20,
            test_size=(64, 96),
        )
        self.weights = folder / "good.safetensors"
        save_weights(self.weights, vpsnet(config, CITYSCAPES).eval(), RunConfig(name="x", network=config))
        clip = street_clip(0, frames=12, size=(96, 128))
        self.images = [clip.image(t) for t in range(12)]
        self.films = {name: self.film(name) for name in ("mp4", "front.mp4", "mkv", "avi", "ts")}
        self.result = folder / "result"
        predict(self.films["mp4"], self.result, self.weights)

    def film(self, name: str, frames: int = 12, size: int = 1) -> Path:
        """A video; front.mp4 has the table of its frames in front of them."""
        path = self.folder / f"film{frames}-{size}.{name}"
        options = {"movflags": "faststart"} if name == "front.mp4" else {}
        with av.open(str(path), "w", options=options) as container:
            stream = container.add_stream("mpeg4", 12)
            stream.width, stream.height, stream.pix_fmt = 128 * size, 96 * size, "yuv420p"
            for t in range(frames):
                image = self.images[t % 12].repeat(size, 0).repeat(size, 1)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
            container.mux(stream.encode())
        return path

    def place(self) -> Path:
        """A new folder for one try."""
        self.number += 1
        path = self.folder / f"{self.number:04d}"
        path.mkdir()
        return path

    def write(self, name: str, data: bytes) -> Path:
        path = self.place() / name
        path.write_bytes(data)
        return path

    def predict(self, kind: str, source: object, weights: Path | None = None, **options: Any) -> Try:
        out = self.place() / "out"
        words = ["predict", str(source), "--out", str(out), "--weights", str(weights or self.weights)]
        words += ["--precision", "float32"]  # trying out bfloat16 takes longer than all frames
        return Try(kind, (*words, *options.pop("words", ())), out, **options)


def truncated_videos(inputs: Inputs) -> Iterator[Try]:
    """At every tenth of the length."""
    for name, film in inputs.films.items():
        data = film.read_bytes()
        for tenth in range(1, 10):
            path = inputs.write(f"{tenth}.{name}", data[: len(data) * tenth // 10])
            yield inputs.predict("truncated video", path)


def corrupted_videos(inputs: Inputs) -> Iterator[Try]:
    """From one byte to one in a hundred."""
    for name, film in inputs.films.items():
        for seed in range(10):
            chance, data = random.Random(seed), bytearray(film.read_bytes())
            for _ in range(1 if seed < 2 else len(data) * seed // 1000):
                data[chance.randrange(len(data))] = chance.randrange(256)
            yield inputs.predict("corrupted bytes in a video", inputs.write(f"{seed}.{name}", bytes(data)))


def videos_without_frames(inputs: Inputs) -> Iterator[Try]:
    for name in ("mp4", "mkv", "avi"):
        yield inputs.predict("nothing to see", inputs.film(name, frames=0))
    yield inputs.predict("nothing to see", inputs.write("empty.mp4", b""))
    yield inputs.predict("nothing to see", inputs.write("text.mp4", b"not a film\n" * 100))
    yield inputs.predict("nothing to see", inputs.place())
    yield inputs.predict("nothing to see", inputs.write("notes.txt", b"none").parent)
    yield inputs.predict("nothing to see", inputs.folder / "missing.mp4")
    sound = inputs.place() / "sound.wav"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", 8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    yield inputs.predict("nothing to see", sound)


def changing_sizes(inputs: Inputs) -> Iterator[Try]:
    kind = "size that changes"
    folder = inputs.place()
    for t, size in enumerate(((96, 128), (48, 64), (96, 128), (128, 96))):
        cv2.imwrite(str(folder / f"{t}.png"), cv2.resize(inputs.images[t], size[::-1]))
    yield inputs.predict(kind, folder)
    small, large = inputs.films["ts"].read_bytes(), inputs.film("ts", size=2).read_bytes()
    yield inputs.predict(kind, inputs.write("grows.ts", small + large))
    yield inputs.predict(kind, inputs.write("shrinks.ts", large + small))


def odd_pictures(inputs: Inputs) -> Iterator[Try]:
    """Of all kinds that cameras and programs write."""
    rgb = Image.fromarray(inputs.images[0])
    for width, height in ((1, 1), (1, 60), (60, 1), (2, 3), (20000, 1)):
        path = inputs.place() / "a.png"
        rgb.resize((width, height)).save(path)
        yield inputs.predict("picture of few pixels", path)
    deep = inputs.images[0].astype(np.uint16) * 257
    turned = rgb.getexif()
    turned[0x0112] = 6
    kinds: dict[str, Callable[[Path], Any]] = {
        "grey.png": rgb.convert("L").save,
        "grey-alpha.png": rgb.convert("LA").save,
        "rgba.png": rgb.convert("RGBA").save,
        "palette.png": rgb.convert("P").save,
        "palette-clear.png": partial(rgb.convert("P").save, transparency=3),
        "bit.png": rgb.convert("1").save,
        "cmyk.jpg": rgb.convert("CMYK").save,
        "grey.jpg": rgb.convert("L").save,
        "turned.jpg": partial(rgb.save, exif=turned),
        "float.tif": rgb.convert("F").save,
        "int.tif": rgb.convert("I").save,
        "cmyk.tif": rgb.convert("CMYK").save,
        "lab.tif": rgb.convert("LAB").save,
        "moving.gif": partial(rgb.save, save_all=True, append_images=[rgb.rotate(90)]),
        "a.webp": rgb.save,
        "a.bmp": rgb.save,
        "deep.png": lambda path: cv2.imwrite(str(path), deep),
        "deep-grey.png": lambda path: cv2.imwrite(str(path), deep[..., 0]),
        "deep-alpha.png": lambda path: cv2.imwrite(str(path), np.dstack([deep, deep[..., 0]])),
        "deep.tif": lambda path: cv2.imwrite(str(path), deep),
    }
    for name, save in kinds.items():
        path = inputs.place() / name
        save(path)
        yield inputs.predict("grey, RGBA, 16-bit, CMYK, ... picture", path)
        data = path.read_bytes()
        yield inputs.predict("truncated picture", inputs.write(name, data[: len(data) // 2]))
    folder = inputs.place()
    for t, name in enumerate(("grey.png", "rgba.png", "cmyk.jpg", "deep.png")):
        kinds[name](folder / f"{t}-{name}")
    yield inputs.predict("grey, RGBA, 16-bit, CMYK, ... picture", folder)


def what_may_not_be_read(inputs: Inputs) -> Iterator[Try]:
    """Nobody's rights; only where this script may change the user."""
    if os.geteuid() != 0:
        return
    kind, words = "no right to read or write", ("--max-frames", "3")
    for path in (inputs.folder, *inputs.folder.parents):
        if path.stat().st_uid == 0 and path != path.parent and path.is_relative_to(tempfile.gettempdir()):
            path.chmod(path.stat().st_mode | 0o755)
    film = inputs.write("closed.mp4", inputs.films["mp4"].read_bytes())
    film.chmod(0)
    folder = inputs.place()
    cv2.imwrite(str(folder / "0.png"), inputs.images[0])
    folder.chmod(0)
    weights = inputs.write("closed.safetensors", inputs.weights.read_bytes())
    weights.chmod(0)
    for source in (film, folder, folder / "0.png", f"{folder}/*.png"):
        made = inputs.predict(kind, source, user=NOBODY, words=words)
        assert made.out is not None
        made.out.parent.chmod(0o777)
        yield made
    made = inputs.predict(kind, inputs.films["mp4"], weights, user=NOBODY)
    assert made.out is not None
    made.out.parent.chmod(0o777)
    yield made
    yield inputs.predict(kind, inputs.films["mp4"], user=NOBODY)  # the folder of the result is root's


def full_disks(inputs: Inputs) -> Iterator[Try]:
    """As if it were full after so many bytes of a file."""
    for largest in (0, 100, 1000, 3000, 10_000, 20_000, 40_000):
        yield inputs.predict("full disk", inputs.films["mp4"], largest=largest)
    for command in (("report", str(inputs.result)), ("synthesize", "--clips", "1", "--frames", "3")):
        for largest in (0, 1000, 20_000):
            out = inputs.place() / ("page.html" if command[0] == "report" else "streets")
            yield Try("full disk", (*command, "--out", str(out)), out, largest=largest)


def interruptions(inputs: Inputs) -> Iterator[Try]:
    """At a moment of writing, and over an earlier result."""
    film, chance = inputs.film("mp4", frames=240), random.Random(0)
    for number, name in (
        (signal.SIGINT, "Ctrl-C"),
        (signal.SIGTERM, "SIGTERM"),
        (signal.SIGKILL, "SIGKILL"),
    ):
        for index in range(15):
            made = inputs.predict(
                f"{name} while it writes",
                film,
                stop=(number, 4 * chance.random()),
                words=("--overwrite",) if index % 3 == 2 else (),
            )
            assert made.out is not None
            if index % 3 == 2:
                shutil.copytree(inputs.result, made.out)
            yield made


def hostile_jsons(inputs: Inputs) -> Iterator[Try]:
    """A result's JSON that lies, in every command that reads results."""
    good = json.loads((inputs.result / JSON_NAME).read_text())
    first = good["annotations"][0]
    segment = first["segments_info"][0]

    def changed(**values: object) -> dict[str, Any]:
        return {**good, "annotations": [{**first, **values}, *good["annotations"][1:]]}

    def listed(**values: object) -> dict[str, Any]:
        return changed(segments_info=[{**segment, **values}, *first["segments_info"][1:]])

    texts: list[str | bytes] = [
        "",
        "{}",
        "[]",
        "null",
        "1",
        '"a"',
        "{",
        '{"annotations": 1}',
        '{"annotations": []}',
        "[" * 100_000,
        '{"a":' * 100_000,
        "9" * 5000,
        b"\xff\xfe\x00",
        b"\xef\xbb\xbf{}",
        '{"annotations": [], "annotations": [1]}',
    ]
    values: list[dict[str, Any]] = [
        changed(file_name="../../../../etc/passwd"),
        changed(file_name="/etc/passwd"),
        changed(file_name=""),
        changed(file_name="\0"),
        changed(file_name="."),
        changed(file_name="x" * 5000),
        changed(file_name=good["annotations"][1]["file_name"]),
        changed(segments_info=None),
        changed(segments_info=[]),
        changed(segments_info=[segment, segment]),
        changed(time=-1),
        changed(time=math.nan),
        changed(time=1e308),
        changed(time="soon"),
        changed(cut="yes"),
        listed(id=-1),
        listed(id=0),
        listed(id=2**24),
        listed(id=10**400),
        listed(category_id=999),
        listed(category_id=-(2**63)),
        listed(category_id="car"),
        listed(area=-5),
        listed(area=2**70),
        listed(bbox=[math.nan] * 4),
        listed(bbox=[1e308] * 4),
        listed(track_id=2**40),
        listed(score=math.inf),
        listed(iscrowd=2),
        {**good, "categories": []},
        {**good, "categories": good["categories"][:1]},
        {**good, "categories": good["categories"] * 20},
        {**good, "categories": [{**c, "name": "<script>alert(1)</script>"} for c in good["categories"]]},
        {**good, "categories": [{**c, "color": [999, -1, 2**40]} for c in good["categories"]]},
        {**good, "categories": [{**c, "id": c["id"] + 2**40} for c in good["categories"]]},
    ]
    for text in [*texts, *(json.dumps(value) for value in values)]:
        folder = inputs.place() / "result"
        shutil.copytree(inputs.result, folder)
        (folder / JSON_NAME).write_bytes(text if isinstance(text, bytes) else text.encode())
        yield from readings(inputs, "hostile JSON", folder)


def readings(inputs: Inputs, kind: str, result: Path) -> Iterator[Try]:
    """Commands that read a result."""
    page, table = inputs.place() / "page.html", inputs.place() / "converted"
    yield Try(kind, ("report", str(result), "--out", str(page)), page)
    yield Try(kind, ("evaluate", "--truth", str(inputs.result), "--pred", str(result)))
    yield Try(kind, ("convert-result", str(result), "--to", "coco-panoptic", "--out", str(table)), table)


def bombs(inputs: Inputs) -> Iterator[Try]:
    """Small files that claim, or hold, pictures that no memory can."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    def bomb(edge: int, rows: int) -> bytes:
        packer = zlib.compressobj(9)
        packed = [packer.compress(bytes(1 + 3 * edge)) for _ in range(rows)]
        body = b"".join([*packed, packer.flush()])
        header = struct.pack(">IIBBBBB", edge, edge, 8, 2, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")

    for data in (bomb(40_000, 40_000), bomb(2**31 - 1, 0), bomb(65_500, 10), bomb(2**31 - 1, 1)):
        path = inputs.write("0.png", data)
        yield inputs.predict("PNG bomb", path)
        folder = inputs.place() / "result"
        shutil.copytree(inputs.result, folder)
        shutil.copy(path, next((folder / PNG_FOLDER).glob("*.png")))
        yield from readings(inputs, "PNG bomb", folder)


def bad_weights(inputs: Inputs) -> Iterator[Try]:
    data = inputs.weights.read_bytes()
    with safetensors.safe_open(inputs.weights, "pt") as file:
        about = file.metadata()
    good = safetensors.torch.load(data)
    name = next(key for key in good if good[key].dim() == 4)
    run, taxonomy = about["run"], json.loads(about["taxonomy"])
    states: list[tuple[dict[str, torch.Tensor], dict[str, str]]] = [
        ({**good, name: good[name][:1]}, about),
        ({**good, name: good[name].flatten()}, about),
        ({**good, name: good[name].double()}, about),
        ({**good, name: good[name].half()}, about),
        ({**good, name: good[name].to(torch.int32)}, about),
        ({**good, name: torch.full_like(good[name], math.nan)}, about),
        ({**good, name: torch.full_like(good[name], math.inf)}, about),
        (
            {key: torch.full_like(v, math.nan) if v.is_floating_point() else v for key, v in good.items()},
            about,
        ),
        ({key: v * 1e30 if v.is_floating_point() else v for key, v in good.items()}, about),
        ({key: value for key, value in good.items() if key != name}, about),
        ({**good, "more": good[name].clone()}, about),
        ({}, about),
        (good, {}),
        (good, {"run": run}),
        (good, {**about, "run": "a: ["}),
        (good, {**about, "run": run.replace("resnet18", "resnet50")}),
        (good, {**about, "run": run.replace("resnet18", "no such")}),
        (good, {**about, "run": run.replace("channels: 16", f"channels: {10**12}")}),
        (good, {**about, "taxonomy": "{}"}),
        (good, {**about, "taxonomy": json.dumps({**taxonomy, "categories": taxonomy["categories"][:3]})}),
    ]
    contents = [safetensors.torch.save(state, metadata) for state, metadata in states]
    contents += [b"", b"\0" * 8, struct.pack("<Q", 2**62), data[:100], data[: len(data) // 2], data + b"x"]
    for content in contents:
        yield inputs.predict("bad weights", inputs.films["mp4"], inputs.write("w.safetensors", content))
    pickled = io.BytesIO()
    torch.save(good, pickled)
    yield inputs.predict("bad weights", inputs.films["mp4"], inputs.write("w.pth", pickled.getvalue()))


KINDS = (
    truncated_videos,
    corrupted_videos,
    videos_without_frames,
    changing_sizes,
    odd_pictures,
    what_may_not_be_read,
    full_disks,
    interruptions,
    hostile_jsons,
    bombs,
    bad_weights,
)


def result_is_right(out: Path) -> bool:
    """Whether maps, table and video of a result agree, or a page is whole."""
    try:
        return _agrees(out)
    except (UserError, OSError):
        return False


def _agrees(out: Path) -> bool:
    if out.suffix == ".html":
        return out.read_text().rstrip().endswith("</html>")
    if not (out / JSON_NAME).exists():  # of another command
        return any(out.iterdir())
    _, frames = read_panoptic_video(out / JSON_NAME, out / PNG_FOLDER)
    sizes = {frame.frame().size for frame in frames}
    maps = len(list((out / PNG_FOLDER).glob("*.png")))
    shown = sum(1 for _ in open_video(out / "overlay.mp4")) if (out / "overlay.mp4").exists() else maps
    return len(sizes) == 1 and maps == len(frames) == shown


def first_frame(out: Path, process: multiprocessing.process.BaseProcess) -> None:
    """Waits until it has written one."""
    until = time.monotonic() + HANGS
    while not wait([process.sentinel], 0.01) and time.monotonic() < until:
        if any(out.parent.glob(f".{out.name}.*.part/{PNG_FOLDER}/*.png")):
            return


def command(words: tuple[str, ...], said: Connection, largest: int | None, user: int | None) -> None:
    """Becomes `panoptube` with these words, whose stderr is the pipe `said`."""
    os.dup2(said.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    if user is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    sys.argv = ["panoptube", *words]
    sys.exit(main_of_panoptube())


class Running:
    """The command of a try, and what it says."""

    # Starting a process asks the others, too, whether they have ended, and whoever asks first gets the code.
    _asking = threading.Lock()

    def __init__(self, made: Try, *more: str) -> None:
        context = multiprocessing.get_context("forkserver")
        ours, theirs = context.Pipe(duplex=False)
        self.process = context.Process(
            target=command, args=((*made.words, *more), theirs, made.largest, made.user)
        )
        with self._asking:
            self.process.start()
        theirs.close()
        self._read: list[bytes] = []
        self._reader = threading.Thread(target=self._listen, args=(ours,))
        self._reader.start()

    def _listen(self, pipe: Connection) -> None:
        while data := os.read(pipe.fileno(), 65536):
            self._read.append(data)

    def end(self) -> tuple[int | None, str]:
        """Waits for it, and kills it if it hangs: exit code, or None for that, and stderr."""
        hangs = not wait([self.process.sentinel], HANGS)
        with self._asking:
            if hangs:
                self.process.kill()
            self.process.join()
        self._reader.join()
        return None if hangs else self.process.exitcode, b"".join(self._read).decode(errors="replace")


def outcome(made: Try) -> str:
    """Runs the command, and says what came of it; one of `GOOD`, or a fault."""
    before = made.out.exists() if made.out else False
    running = Running(made)
    if made.stop is not None and made.out is not None and running.process.pid is not None:
        first_frame(made.out, running.process)
        time.sleep(made.stop[1])
        with suppress(ProcessLookupError):
            os.kill(running.process.pid, made.stop[0])
    code, said = running.end()
    if code is None:
        return "hangs"
    lines = [line for line in said.splitlines() if line.strip()]
    if "Traceback" in said:
        return f"traceback: {lines[-1]}"
    if code == -signal.SIGKILL and made.stop is not None:
        return after_kill(made, before)
    left = [p.name for p in made.out.parent.iterdir() if p != made.out] if made.out else []
    if left:
        return f"left behind: {left}"
    if made.out is not None and made.out.exists() and not result_is_right(made.out):
        return "half-written"
    written = made.out is not None and made.out.exists()
    if code == 0:
        return GOOD[0] if written or made.out is None else "no result"
    if written and not before:
        return f"a result, and exit code {code}"
    if before and not written:
        return "lost the earlier result"
    if code == 2:
        one = len(lines) == 1 and lines[0].startswith("panoptube: ")
        return GOOD[1] if one else f"not one line: {lines}"
    if code == 130 and made.stop is not None:
        return GOOD[2]
    return f"exit code {code}: {lines[-1:]}"


def after_kill(made: Try, before: bool) -> str:
    """What SIGKILL left is readable, and the same command goes on as if nothing had been."""
    assert made.out is not None
    for part in made.out.parent.glob(f".{made.out.name}.*.part"):
        for path in (part / PNG_FOLDER).glob("*.png"):
            read_id_png(path)
    if made.out.exists() and not result_is_right(made.out):
        return "half-written"
    if before and not made.out.exists():
        return "lost the earlier result"
    code, _ = Running(made, *({"--overwrite", "--max-frames=3"} - set(made.words))).end()
    left = [p.name for p in made.out.parent.iterdir() if p != made.out]
    if code or left or not result_is_right(made.out):
        return f"does not go on: exit code {code}, left behind: {left}"
    return GOOD[2]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=[kind.__name__ for kind in KINDS])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # the networks are tiny, and two processes run at a time
    commands = ("predict", "report.report", "evaluate", "convert_result")
    multiprocessing.set_forkserver_preload(["__main__", *(f"panoptube.{name}" for name in commands)])
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    faults: list[tuple[str, Try]] = []
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(2) as pool:
        inputs = Inputs(Path(name))
        kinds = [kind for kind in KINDS if arguments.only in (None, kind.__name__)]
        tries = [made for kind in kinds for made in kind(inputs)]
        done = pool.map(outcome, tries)
        for made, came in track(
            zip(tries, done), "tries", len(tries), console=Console(stderr=True), transient=True
        ):
            rows[made.kind][came if came in GOOD else "fault"] += 1
            if came not in GOOD:
                faults.append((came, made))
    table = Table("kind of fault", "tries", *GOOD, "fault")
    for kind, found in [*rows.items(), ("all", sum(rows.values(), Counter()))]:
        table.add_row(kind, str(found.total()), *(str(found[column] or "") for column in (*GOOD, "fault")))
    Console(width=120).print(table)
    for came, made in faults:
        print(f"{made.kind}: {came}\n    panoptube {' '.join(made.words)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
