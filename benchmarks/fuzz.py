"""Random damage to the files that panoptube reads: each is read rightly, or refused in one line.

    python benchmarks/fuzz.py [--examples 100000] [--json FILE]

Hypothesis damages valid files, bytes and structure both, and what is read is compared with what another
reader says, or with what a result must be. Anything but a `UserError` of one line, or a wrong result, is
shown as short as Hypothesis can make it, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import resource
import struct
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from PIL import Image
from rich.console import Console
from rich.table import Table

from panoptube.config import NetworkConfig, RunConfig
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.errors import UserError
from panoptube.network.vpsnet import vpsnet
from panoptube.network.weights import load_weights, save_weights
from panoptube.panoptic.formats import JSON_NAME, PNG_FOLDER, PanopticVideoWriter, read_panoptic_video
from panoptube.panoptic.frame import PanopticFrame
from panoptube.panoptic.id_png import read_id_png

SLOWEST = 10
"""Seconds that a reader may take for one file."""

LARGEST = 2048
"""MiB that reading may take, with what Hypothesis remembers."""

HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 255, 256, 2**24, 2**31, 2**32, 2**63, 2**64, 10**400, 0.5, -0.0, 1e308,
    float("nan"), float("inf"), "", "a", "0", "../x.png", "/etc/passwd", "\0", "\ud800", "é" * 300,
    [], {}, [[]], [None], {"": 0},
)  # fmt: skip
"""What is put in the place of a value of JSON."""


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        name: of what it reads.
        damaged: draws a file's content, or what to damage.
        read: reads it, and asserts that it is right.
        share: of the examples.
    """

    name: str
    damaged: st.SearchStrategy[Any]
    read: Callable[[Any], None]
    share: float


Edit = tuple[int, str, Any]
"""Where, what, and with what; see `edited`."""


def edits(length: int) -> st.SearchStrategy[list[Edit]]:
    """Some bytes of a file changed, left out, put in or repeated."""
    kinds = {
        "change": st.integers(0, 255),
        "cut": st.none(),
        "leave out": st.integers(1, 64),
        "put in": st.binary(max_size=32),
        "repeat": st.integers(1, 64),
    }
    one = st.one_of(
        *(st.tuples(st.integers(0, length), st.just(kind), value) for kind, value in kinds.items())
    )
    return st.lists(one, min_size=1, max_size=6)


def edited(whole: bytes, changes: list[Edit]) -> bytes:
    data = bytearray(whole)
    for at, kind, value in changes:
        at = min(at, len(data))
        if kind == "change":
            data[at : at + 1] = bytes([value])
        elif kind == "cut":
            del data[at:]
        elif kind == "leave out":
            del data[at : at + value]
        elif kind == "put in":
            data[at:at] = value
        else:
            data[at:at] = data[at : at + value]
    return bytes(data)


def damaged_bytes(whole: bytes) -> st.SearchStrategy[bytes]:
    return edits(len(whole)).map(partial(edited, whole))


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value in a JSON."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [at, *(place for key in keys for place in places(value[key], (*at, key)))]


@st.composite
def damaged_json(draw: st.DrawFn, whole: bytes) -> bytes:
    """Some values replaced, left out or repeated."""
    value = json.loads(whole)
    for _ in range(draw(st.integers(1, 4))):
        *way, last = draw(st.sampled_from(places(value)[1:] or [(None,)]))
        if last is None:
            break
        holder = value
        for key in way:
            holder = holder[key]
        how = draw(st.integers(0, 9))
        if how == 0:
            del holder[last]
        elif how == 1 and isinstance(holder, list):
            holder.append(holder[last])
        elif how == 2:
            other = draw(st.sampled_from(places(value)[1:]))
            taken = value
            for key in other:
                taken = taken[key]
            holder[last] = json.loads(json.dumps(taken))
        else:
            holder[last] = copy.deepcopy(draw(st.sampled_from(HOSTILE)))
    return json.dumps(value).encode()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """With the length and checksum that belong to it."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@st.composite
def damaged_png(draw: st.DrawFn, ids: np.ndarray) -> bytes:
    """A PNG whose checksums are right and whose fields or rows are not."""
    height, width = ids.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)
    rows[:, 0] = draw(st.lists(st.integers(0, 5), min_size=height, max_size=height))
    rows[:, 1:] = ids[..., None].view(np.uint8)[..., :3].reshape(height, -1)
    packed = zlib.compress(rows.tobytes(), draw(st.integers(0, 9)))
    if draw(st.booleans()):
        packed = draw(damaged_bytes(packed))
    fields = [width, height, 8, 2, 0, 0, 0]
    if draw(st.booleans()):
        place = draw(st.integers(0, 6))
        most = 2**32 - 1 if place < 2 else 255
        fields[place] = draw(st.integers(0, 40) | st.integers(0, most))
    cut = draw(st.integers(0, len(packed)))
    chunks = [
        png_chunk(b"IHDR", struct.pack(">IIBBBBB", *fields)),
        png_chunk(b"IDAT", packed[:cut]),
        png_chunk(b"IDAT", packed[cut:]),
        png_chunk(b"IEND", b""),
    ]
    if draw(st.integers(0, 4)) == 0:
        chunks.insert(draw(st.integers(0, 4)), draw(st.sampled_from(chunks)))
    if draw(st.integers(0, 4)) == 0:
        kind = draw(st.sampled_from([b"tRNS", b"PLTE", b"gAMA", b"xxxx", b"ABCD"]))
        chunks.insert(draw(st.integers(0, 4)), png_chunk(kind, draw(st.binary(max_size=12))))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@st.composite
def damaged_header(draw: st.DrawFn, whole: bytes) -> bytes:
    """The start of a safetensors file, up to the numbers: right length, wrong content."""
    header = json.loads(whole[8:])
    if draw(st.booleans()):  # what panoptube itself has put in
        inner = draw(st.sampled_from(["run", "taxonomy"]))
        text = header["__metadata__"][inner].encode()
        damage = damaged_json(text) if inner == "taxonomy" and draw(st.booleans()) else damaged_bytes(text)
        header["__metadata__"][inner] = draw(damage).decode(errors="replace")
        text = json.dumps(header).encode()
    else:
        text = draw(damaged_json(json.dumps(header).encode()))
    return struct.pack("<Q", len(text)) + text


def read_png(path: Path, data: bytes) -> None:
    """As Pillow does, where Pillow can."""
    path.write_bytes(data)
    ids = read_id_png(path)
    assert ids.dtype == np.uint32
    assert ids.ndim == 2
    try:
        with Image.open(io.BytesIO(data)) as image:
            other = np.asarray(image.convert("RGB"), np.uint32)
    except Exception:  # Pillow raises whatever a broken file leads it to
        return  # it is stricter with what lies beside the picture
    np.testing.assert_array_equal(ids, other @ np.array([1, 256, 65536], np.uint32))


def read_json(path: Path, data: bytes) -> None:
    """Frames whose maps hold known classes alone."""
    path.write_bytes(data)
    taxonomy, frames = read_panoptic_video(path, path.parent / PNG_FOLDER)
    assert frames
    for frame in frames:
        assert frame.path.parent == path.parent / PNG_FOLDER, "no file elsewhere"
        pixels = frame.frame()
        assert set(np.unique(pixels.semantic)) <= {*range(len(taxonomy)), 255}
        assert (pixels.instance >= 0).all()


def read_weights(path: Path, start: bytes, numbers: bytes, damage: tuple[str, Any]) -> None:
    """A network that can be computed with.

    Args:
        path: where to write the file.
        start, numbers: of the file without damage.
        damage: "start" and "file" with edits, "header" with another start. Hypothesis keeps it of every try;
            whole files would fill the memory.
    """
    kind, value = damage
    if kind == "file":
        data = edited(start + numbers, value)
    else:
        data = (edited(start, value) if kind == "start" else value) + numbers
    path.write_bytes(data)
    network, _ = load_weights(path)
    assert all(value.isfinite().all() for value in network.state_dict().values())


def targets(folder: Path) -> list[Target]:
    """All readers; their files lie in `folder`."""
    ids = np.zeros((5, 7), np.uint32)
    ids[1:4, 2:5] = 0x123456
    with PanopticVideoWriter(folder, CITYSCAPES) as write:
        for t in range(2):
            semantic = np.full((5, 7), CITYSCAPES.index("road"), np.uint8)
            instance = np.zeros((5, 7), np.int32)
            semantic[1:3, 2:4], instance[1:3, 2:4] = CITYSCAPES.index("car"), 1 + t
            write.write(f"{t}", PanopticFrame(semantic, instance, {1 + t: 0.5}), t / 10)
    result = (folder / JSON_NAME).read_bytes()
    torch.manual_seed(0)
    config = NetworkConfig(
        backbone="timm:tf_efficientnet_lite0",
        channels=8,
        semantic_channels=(8,),
        semantic_groups=2,
        box_channels=8,
        mask_channels=8,
        mask_convs=1,
        match_channels=8,
    )
    small = folder / "small.safetensors"
    save_weights(small, vpsnet(config, CITYSCAPES), RunConfig(name="small", network=config))
    weights = small.read_bytes()
    (length,) = struct.unpack_from("<Q", weights)
    start, numbers = weights[: 8 + length], weights[8 + length :]
    png = (folder / PNG_FOLDER / "0.png").read_bytes()
    return [
        Target("PNG", damaged_bytes(png) | damaged_png(ids), partial(read_png, folder / "a.png"), 0.5),
        Target(
            "JSON",
            damaged_bytes(result) | damaged_json(result),
            partial(read_json, folder / "a.json"),
            0.45,
        ),
        Target(
            "weights",
            # The header is where the structure is: damage falls there as often as into the numbers.
            st.tuples(st.just("start"), edits(len(start)))
            | st.tuples(st.just("file"), edits(len(weights)))
            | st.tuples(st.just("header"), damaged_header(start)),
            partial(read_weights, folder / "a.safetensors", start, numbers),
            0.05,
        ),
    ]


def peak() -> int:
    """MiB that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def fuzz(target: Target, examples: int) -> Counter[str]:
    """Reads so many damaged files.

    Returns:
        How many were read, and how many refused.

    Raises:
        Exception: whatever a reader raised that is no `UserError` of one line, or an `AssertionError` if what
            it read is wrong or it took too long or too much memory.
    """
    outcomes: Counter[str] = Counter()
    before = peak()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(target.damaged)
    def each(damaged: Any) -> None:
        begin, said = time.perf_counter(), ""
        try:
            target.read(damaged)
        except UserError as error:
            said = str(error)
        assert "\n" not in said
        outcomes["refused" if said else "read"] += 1
        assert time.perf_counter() - begin < SLOWEST
        assert peak() < before + LARGEST

    each()
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--examples", type=int, default=100_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the networks are tiny
    table, rows = Table("files", "tries", "read", "refused in one line", "seconds"), {}
    with tempfile.TemporaryDirectory() as folder:
        for target in targets(Path(folder)):
            begin = time.perf_counter()
            found = fuzz(target, round(arguments.examples * target.share))
            row = {"tries": found.total(), **found, "seconds": round(time.perf_counter() - begin)}
            rows[target.name] = row
            table.add_row(target.name, *(str(row.get(k, 0)) for k in ("tries", "read", "refused", "seconds")))
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
