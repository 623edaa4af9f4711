import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from panoptube.errors import UserError
from panoptube.panoptic.id_png import read_id_png, write_id_png


def encode(ids: np.ndarray, kinds: list[int], interlaced: int = 0) -> bytes:
    """A PNG whose rows are filtered as `kinds` says, by the formulas of the PNG specification, section 9."""
    rows, above = b"", np.zeros(3 * ids.shape[1], int)
    for y, row in enumerate(ids):
        now = np.stack([row & 255, row >> 8 & 255, row >> 16], 1).astype(int).reshape(-1)
        a, b, c = np.r_[0, 0, 0, now[:-3]], above, np.r_[0, 0, 0, above[:-3]]
        p = a + b - c
        nearest = np.argmin([abs(p - a), abs(p - b), abs(p - c)], 0)
        kind = kinds[y % len(kinds)]
        guess = [0 * a, a, b, (a + b) // 2, np.choose(nearest, [a, b, c])][min(kind, 4)]
        rows += bytes([kind]) + ((now - guess) % 256).astype(np.uint8).tobytes()
        above = now
    return png(ids.shape, zlib.compress(rows), interlaced)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(size: tuple[int, ...], packed: bytes, interlaced: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", size[1], size[0], 8, 2, 0, 0, interlaced)
    # Rows may come in several chunks, with others between.
    parts = chunk(b"IDAT", packed[:7]) + chunk(b"IDAT", packed[7:])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"tEXt", b"x\0y") + parts + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kinds", [[0], [1], [2], [3], [4], [4, 3, 2, 1, 0]])
@pytest.mark.parametrize("block", [1, 5])
def test_every_row_filter(kinds, block, tmp_path):
    # Noise has no equal neighbours; blocks have hardly any others.
    small = np.random.default_rng(0).integers(2**24, size=(8, 9)).astype(np.uint32)
    ids = small.repeat(block, 0).repeat(block, 1)
    path = tmp_path / "x.png"
    path.write_bytes(encode(ids, kinds))
    assert np.array_equal(read_id_png(path), ids)
    bgr = cv2.imread(str(path)).astype(np.uint32)
    assert np.array_equal(bgr @ np.array([65536, 256, 1], np.uint32), ids)


def test_rows_come_into_a_given_map(tmp_path):
    ids = np.random.default_rng(2).integers(2**24, size=(23, 9)).astype(np.uint32)
    path = tmp_path / "x.png"
    path.write_bytes(encode(ids, [4, 3, 2, 1, 0]))
    assert np.array_equal(read_id_png(path), ids)
    mine, other = np.ones_like(ids), np.ones((3, 4), np.uint32)
    assert read_id_png(path, mine) is mine
    assert np.array_equal(mine, ids)
    assert np.array_equal(read_id_png(path, other), ids)


def test_any_writer(tmp_path):
    ids = np.random.default_rng(1).integers(2**24, size=(5, 6)).astype(np.uint32).repeat(7, 0).repeat(9, 1)
    write_id_png(tmp_path / "ours.png", ids)
    bgr = np.ascontiguousarray(ids).view(np.uint8).reshape(*ids.shape, 4)[..., 2::-1]
    cv2.imwrite(str(tmp_path / "opencv.png"), bgr)
    for name in ("ours", "opencv"):
        assert np.array_equal(read_id_png(tmp_path / f"{name}.png"), ids), name


def test_interlaced(tmp_path):
    (tmp_path / "x.png").write_bytes(encode(np.array([[9306112]], np.uint32), [0], interlaced=1))
    assert read_id_png(tmp_path / "x.png").tolist() == [[9306112]]


@pytest.mark.parametrize("kind", range(5))
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 2), (31, 17)])
def test_stored_rows_and_ids_share_memory(shape, kind, tmp_path):
    """Every byte of noise differs, so a row that was written over before it was read would show."""
    ids = np.random.default_rng(3).integers(2**24, size=shape).astype(np.uint32)
    path = tmp_path / "x.png"
    path.write_bytes(encode(ids, [kind]))
    assert np.array_equal(read_id_png(path), ids)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encode(np.zeros((3, 4), np.uint32), [5]), "an unknown row filter"),
        (png((3, 4), zlib.compress(bytes(38))), "not as many rows"),
        (png((3, 4), zlib.compress(bytes(40))), "don't decompress to 3 x 4 pixels"),
        (png((3, 4), b"nonsense"), "broken PNG"),
        (png((0, 4), zlib.compress(b"")), "no image in it"),
        (
            png((3, 4), zlib.compress(bytes(39)), interlaced=2),
            "an unknown form of compression, filter",
        ),
        (png((3, 4), b"nonsense", interlaced=1), "not decodable"),
        (
            png((1, 1), zlib.compress(bytes(4)), interlaced=1)[:-12]
            + chunk(b"tRNS", b"")
            + chunk(b"IEND", b""),
            "not decodable",
        ),
        (png((2**14, 2**14 + 1), b"nonsense"), r"has 16385 x 16384 pixels; 268435456 are the most"),
        (png((2**31, 2**31), b"nonsense", interlaced=1), "are the most that are read"),
    ],
)
def test_broken_files_are_named(data, message, tmp_path):
    path: Path = tmp_path / "x.png"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message):
        read_id_png(path)


def test_a_flipped_bit_is_found(tmp_path):
    good = encode(np.arange(200, dtype=np.uint32).reshape(10, 20), [1])
    path = tmp_path / "x.png"
    for place in (20, 60, len(good) - 20):
        path.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        with pytest.raises(UserError, match=r"checksum|broken|complete"):
            read_id_png(path)
