"""Id maps as RGB PNGs: a pixel holds the id of its segment, R + 256 G + 65536 B, 0 = void (dossier 11.4).

Reading them is nearly all the work of an evaluation, so PNGs are decoded here, straight to ids: libdeflate
inflates, and rows are put together pixel by pixel, since almost every pixel of a label map equals a
neighbour. Both take one call for the whole picture, without Python's lock: threads then hardly meet.
"""

# mypy: disallow-untyped-decorators=False, warn-return-any=False
# (numba is untyped)

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
from numba import njit
from numpy.typing import NDArray
from PIL import Image as Pillow

from panoptube.data.new_file import new_file
from panoptube.errors import UserError
from panoptube.panoptic.segment_ids import IDS, IdMap

BROKEN = (OSError, SyntaxError, ValueError, struct.error, zlib.error, Pillow.DecompressionBombError)
"""What Pillow raises for pictures that aren't whole."""

MOST_PIXELS = 2**28
"""Of a map. A file of a few megabytes can hold one that no memory can."""

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def write_id_png(path: Path, id_map: IdMap) -> None:
    """Write an id map as RGB PNG, beside first, then renamed.

    Raises:
        UserError: the file can't be written.
    """
    rgba = np.ascontiguousarray(id_map, "<u4").view(np.uint8).reshape(*id_map.shape, 4)
    _, data = cv2.imencode(".png", cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    with new_file(path) as part:
        part.write_bytes(data.tobytes())


def read_id_png(path: Path, out: IdMap | None = None) -> IdMap:
    """(H, W) uint32 id map of an RGB PNG.

    Args:
        path: the file.
        out: a map to fill and to return, if it has the right size: new memory costs as much as decoding.

    Raises:
        UserError: the file is missing, cut short, broken, not 8-bit RGB, or has more than `MOST_PIXELS`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from error
    if not data.startswith(SIGNATURE) or not data.endswith(b"IEND\xaeB`\x82"):
        raise UserError(f"{path} is not a complete PNG; write or copy it again")
    try:
        width, height, depth, color, interlaced, packed = _read_chunks(data)
        # Colour type 2 is RGB.
        if (depth, color) != (8, 2):
            raise UserError(f"{path} is not an 8-bit RGB PNG; segment ids are R + 256 G + 65536 B")
        if width * height > MOST_PIXELS:
            raise UserError(f"{path} has {width} x {height} pixels; {MOST_PIXELS} are the most that are read")
        if interlaced:
            return _decode_interlaced(data)
        ids = (
            out if out is not None and out.shape == (height, width) else np.empty((height, width), np.uint32)
        )
        _inflate(packed, ids)
    except (ValueError, struct.error) as error:
        raise UserError(f"{path} is a broken PNG ({error}); write or copy it again") from error
    return ids


def _read_chunks(data: bytes) -> tuple[int, int, int, int, int, bytes]:
    """Width, height, bit depth, colour type, interlacing and the compressed rows; checksums are checked.

    Raises:
        ValueError, struct.error: the file is broken.
    """
    header: tuple[int, ...] | None = None
    packed: list[bytes] = []
    place = len(SIGNATURE)
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        body = data[place + 8 : place + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, place + 8 + length)
        if zlib.crc32(body, zlib.crc32(kind)) != checksum:
            raise ValueError(f"wrong checksum in {kind!r}")
        if kind == b"IHDR":
            header = struct.unpack(">IIBBBBB", body)
            if header[4] or header[5] or header[6] > 1:
                raise ValueError("an unknown form of compression, filter or interlacing")
        elif kind == b"IDAT":
            packed.append(body)
        place += 12 + length
    if header is None or not packed or not header[0] or not header[1]:
        raise ValueError("no image in it")
    return header[0], header[1], header[2], header[3], header[6], b"".join(packed)


def _decode_interlaced(data: bytes) -> IdMap:
    """Rare, so Pillow may do it.

    Raises:
        ValueError: it can't.
    """
    try:
        with Pillow.open(BytesIO(data), formats=["PNG"]) as image:
            pixels = np.asarray(image.convert("RGB"))
    except BROKEN as error:
        raise ValueError("not decodable") from error
    ids: IdMap = cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA).view("<u4")[..., 0] & np.uint32(IDS - 1)
    return ids


def _inflate(packed: bytes, ids: IdMap) -> None:
    """Decompress the rows and undo their filters.

    A row has fewer bytes as stored, 3 W + 1, than as ids, 4 W. Stored rows at the end of the map's own memory
    are therefore always read before an id is written there, and no other memory is needed.

    Raises:
        ValueError: they are broken.
    """
    height, width = ids.shape
    stored = ids.reshape(-1).view(np.uint8)[-height * (3 * width + 1) :]
    try:
        size = len(imagecodecs.deflate_decode(packed, out=stored.data))
    except imagecodecs.DeflateError as error:
        raise ValueError(f"its rows don't decompress to {height} x {width} pixels") from error
    if size != len(stored):
        raise ValueError("not as many rows as it should have")
    if not _unfilter(stored.reshape(height, 3 * width + 1), np.zeros(width, np.uint32), ids):
        raise ValueError("an unknown row filter")


@njit(nogil=True, cache=True)
def _unfilter(rows: NDArray[np.uint8], above: NDArray[np.uint32], ids: IdMap) -> bool:
    """Undo PNG's row filters (PNG specification, section 9).

    Each byte is stored as the difference to a guess made from the pixels to the left (a), above (b), and
    above the left one (c). In a label map most differences are 0, and a guess is mostly one whole
    neighbour.

    Args:
        rows: (H, 1 + 3 W), each row's filter type, then its differences; may lie at the end of `ids`.
        above: (W,) ids of the row above the first one.
        ids: (H, W), filled in.

    Returns:
        Whether all filter types exist.
    """
    height, width = ids.shape
    for y in range(height):
        row, out = rows[y], ids[y]
        kind = row[0]
        if kind > 4:
            return False
        a = c = 0
        for x in range(width):
            stored = int(row[3 * x + 1]) | int(row[3 * x + 2]) << 8 | int(row[3 * x + 3]) << 16
            b = int(above[x])
            if kind == 0:
                guess = 0
            elif kind == 1:
                guess = a
            elif kind == 2:
                guess = b
            elif kind == 3:
                # Means of the channels, without carrying from one into the next.
                guess = (a & b) + (((a ^ b) & 0xFEFEFE) >> 1)
            elif b == c:
                guess = a
            elif a == c:
                guess = b
            else:
                guess = _paeth(a, b, c)
            a = guess if stored == 0 else _add(guess, stored)
            out[x] = a
            c = b
        above = out
    return True


@njit(nogil=True, cache=True)
def _add(first: int, second: int) -> int:
    """Sum of the three bytes, each modulo 256."""
    return ((first & 0x7F7F7F) + (second & 0x7F7F7F)) ^ ((first ^ second) & 0x808080)


@njit(nogil=True, cache=True)
def _paeth(a: int, b: int, c: int) -> int:
    """Of each channel the one of a, b, c that is nearest to a + b - c; the first of equals."""
    guess = 0
    for shift in (0, 8, 16):
        left, up, corner = (a >> shift) & 255, (b >> shift) & 255, (c >> shift) & 255
        to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
        best = corner
        if to_left <= to_up and to_left <= to_corner:
            best = left
        elif to_up <= to_corner:
            best = up
        guess |= best << shift
    return guess
