import json
import struct
import zlib

import cv2
import numpy as np
import pytest

from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.errors import UserError
from panoptube.panoptic.formats import (
    PanopticVideoWriter,
    read_panoptic_video,
)
from panoptube.panoptic.frame import VOID, Category, PanopticFrame, Taxonomy
from panoptube.panoptic.id_png import read_id_png, write_id_png
from panoptube.panoptic.runs import find_runs
from panoptube.panoptic.segment_ids import SegmentIds, SegmentInfo, frame_to_ids, ids_to_frame

CAR, PERSON = CITYSCAPES.index("car"), CITYSCAPES.index("person")


def random_frame(seed: int, size: tuple[int, int] = (20, 31)) -> PanopticFrame:
    """Blobs of stuff, things, crowd and void."""
    rng = np.random.default_rng(seed)
    values = np.array(
        [(0, 0), (8, 0), (10, 0), (CAR, 0), (CAR, 1), (CAR, 2**31 - 1), (PERSON, 5), (PERSON, 12), (VOID, 0)]
    )
    pick = cv2.resize(rng.integers(len(values), size=(7, 9)).astype(np.uint8), size[::-1], interpolation=0)
    semantic, instance = np.moveaxis(values[pick], -1, 0)
    scores = {int(t): round(float(rng.random()), 3) for t in np.unique(instance) if t not in (0, 12)}
    return PanopticFrame(semantic.astype(np.uint8), instance.astype(np.int32), scores)


def assert_same(a: PanopticFrame, b: PanopticFrame) -> None:
    assert np.array_equal(a.semantic, b.semantic)
    assert np.array_equal(a.instance, b.instance)
    assert a.scores == b.scores


@pytest.fixture
def written(tmp_path):
    """A folder with three frames, and the frames."""
    frames = [random_frame(seed) for seed in range(3)]
    with PanopticVideoWriter(tmp_path / "out", CITYSCAPES) as writer:
        for t, frame in enumerate(frames):
            writer.write(f"{t:06d}", frame)
    return tmp_path / "out", frames


def read(folder, taxonomy=None):
    return read_panoptic_video(folder / "panoptic.json", folder / "panoptic", taxonomy)


def edit_json(folder, change):
    path = folder / "panoptic.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


# Runs


def test_runs_end_where_any_map_changes_and_with_the_row():
    a = np.array([[1, 1, 2, 2], [2, 2, 2, 2]], np.uint8)
    b = np.array([[0, 0, 0, 5], [5, 5, 5, 5]], np.int32)
    runs = find_runs(a, b)
    assert runs.starts.tolist() == [0, 2, 3, 4]
    assert runs.lengths.tolist() == [2, 1, 1, 4]
    assert find_runs(np.zeros((0, 4))).lengths.tolist() == []
    with pytest.raises(ValueError, match="must share one"):
        find_runs(a, b[:1])


# Segment ids


def test_ids_of_stuff_and_crowd_are_the_category_colour():
    ids = SegmentIds(CITYSCAPES)
    for label, category in enumerate(CITYSCAPES.categories):
        r, g, b = category.color
        assert ids(label, 0) == r + 256 * g + 65536 * b


def test_ids_of_thousands_of_tracks_are_unique_and_near_the_category_colour():
    ids = SegmentIds(CITYSCAPES)
    tracks = {ids(label, track) for track in range(1, 5001) for label in (CAR, PERSON)}
    fixed = {ids(label, 0) for label in range(len(CITYSCAPES))}
    assert len(tracks) == 10000
    assert not tracks & (fixed | {0})
    assert max(tracks) < 2**24
    first = [ids(CAR, track) for track in range(1, 1001)]
    colors = np.array([(i & 255, i >> 8 & 255, i >> 16) for i in first])
    assert np.abs(colors - CITYSCAPES.categories[CAR].color).max() <= 30


def test_ids_depend_on_the_order_of_appearance_only():
    a, b = SegmentIds(CITYSCAPES), SegmentIds(CITYSCAPES)
    assert [a(CAR, t) for t in (3, 9, 3)] == [b(CAR, t) for t in (70, 2, 70)]
    # By hand: the offset is floor(61 x (0.81917, 0.67104, 0.54970)) - 30 = (19, 10, 3), the base (0, 0, 142).
    assert a(CAR, 3) == 19 + 256 * 10 + 65536 * 145


def test_ids_cope_with_black_and_equal_colours():
    category = [Category(str(i), i > 1, (0, 0, 0), i) for i in range(4)]
    ids = SegmentIds(Taxonomy("black", tuple(category)))
    got = [ids(label, track) for label in range(4) for track in ((0,) if label < 2 else range(400))]
    assert len(set(got)) == len(got)
    assert 0 not in got


def test_ids_when_the_neighbourhood_is_full():
    # A corner of the colour cube has 31^3 colours within +-30; twice as many tracks still get one each.
    ids = SegmentIds(Taxonomy("corner", (Category("car", True, (0, 0, 0), 1),)))
    got = {ids(0, track) for track in range(60000)}
    assert len(got) == 60000
    assert 0 not in got


# Frame <-> ids


@pytest.mark.parametrize("seed", range(4))
def test_frame_to_ids_and_back_is_exact(seed):
    frame = random_frame(seed)
    id_map, segments = frame_to_ids(frame, CITYSCAPES, SegmentIds(CITYSCAPES))
    assert id_map.dtype == np.uint32
    assert np.array_equal(id_map == 0, frame.semantic == VOID)
    assert_same(ids_to_frame(id_map, segments, CITYSCAPES), frame)


def test_segment_table_agrees_with_the_frame():
    frame = random_frame(5)
    _, segments = frame_to_ids(frame, CITYSCAPES, SegmentIds(CITYSCAPES))
    expected = frame.segments()
    assert len(segments) == len(expected) > 5
    for ours, theirs in zip(segments, expected):
        assert ours.category_id == CITYSCAPES.categories[theirs.label].id
        assert (ours.area, ours.bbox, ours.track_id) == (theirs.area, theirs.bbox, theirs.id or None)
        assert ours.score == theirs.score
        assert ours.iscrowd == (theirs.label == CAR and theirs.id == 0)


def test_ids_of_a_track_stay_the_same_through_the_video():
    ids = SegmentIds(CITYSCAPES)
    seen: dict[tuple[int, int], int] = {}
    for seed in range(6):
        for s in frame_to_ids(random_frame(seed), CITYSCAPES, ids)[1]:
            assert seen.setdefault((s.category_id, s.track_id or 0), s.id) == s.id
    assert len(set(seen.values())) == len(seen)


def test_frames_without_segments_or_pixels():
    for size in ((3, 4), (0, 4)):
        void = PanopticFrame(np.full(size, VOID, np.uint8), np.zeros(size, np.int32))
        id_map, segments = frame_to_ids(void, CITYSCAPES, SegmentIds(CITYSCAPES))
        assert (id_map.shape, id_map.any(), segments) == (size, False, [])
        assert_same(ids_to_frame(id_map, [], CITYSCAPES), void)


def test_frames_that_do_not_fit_the_taxonomy():
    zeros = np.zeros((2, 2), np.int32)
    for label, track, message in ((19, 0, "class 19"), (0, 3, "track id 3 lies on road")):
        frame = PanopticFrame(np.full((2, 2), label, np.uint8), zeros + track)
        with pytest.raises(ValueError, match=message):
            frame_to_ids(frame, CITYSCAPES, SegmentIds(CITYSCAPES))


def test_all_crowd_of_a_class_is_one_segment_and_ids_serve_as_tracks():
    id_map = np.array([[9, 9, 4, 7]], np.uint32)
    table = [
        SegmentInfo(9, 13, iscrowd=True),
        SegmentInfo(4, 13, iscrowd=True),
        SegmentInfo(7, 13, score=0.5),
    ]
    frame = ids_to_frame(id_map, table, CITYSCAPES)
    assert frame.instance.tolist() == [[0, 0, 0, 7]]
    assert frame.scores == {7: 0.5}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([SegmentInfo(7, 13)], "PNG holds id 9, which the JSON doesn't list"),
        (
            [SegmentInfo(7, 13), SegmentInfo(9, 13), SegmentInfo(3, 0)],
            "lists id 3, which the PNG doesn't hold",
        ),
        ([SegmentInfo(7, 13), SegmentInfo(9, 77)], "category_id 77, which 'cityscapes' doesn't have"),
        ([SegmentInfo(7, 13), SegmentInfo(9, 13), SegmentInfo(7, 0)], "lists id 7 twice"),
        ([SegmentInfo(7, 13), SegmentInfo(9, 13), SegmentInfo(0, 0)], "uses id 0, which is void"),
        ([SegmentInfo(7, 13), SegmentInfo(9, 13, area=4)], "area 4 in the JSON and 3 pixels in the PNG"),
        ([SegmentInfo(7, 13), SegmentInfo(9, 0, iscrowd=True)], "crowd of road"),
        ([], "PNG holds id 7"),
    ],
)
def test_tables_that_contradict_the_map(table, message):
    with pytest.raises(UserError, match=message):
        ids_to_frame(np.array([[7, 9, 9, 9]], np.uint32), table, CITYSCAPES)


# PNG


def test_png_holds_every_id(tmp_path):
    ids = np.array([[0, 1, 255, 256], [65535, 65536, 9306112, 2**24 - 1]], np.uint32)
    write_id_png(tmp_path / "x.png", ids)
    assert np.array_equal(read_id_png(tmp_path / "x.png"), ids)
    r, g, b = cv2.cvtColor(cv2.imread(str(tmp_path / "x.png")), cv2.COLOR_BGR2RGB)[1, 2].astype(int)
    assert r + 256 * g + 65536 * b == 9306112
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def png(bits: int, color: int, row: bytes) -> bytes:
    """A PNG of one row, made by hand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 1, bits, color, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def test_png_faults(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(png(8, 2, bytes([1, 0, 0, 2, 0, 0])))
    assert read_id_png(path).tolist() == [[1, 2]]
    path.write_bytes(png(8, 0, bytes([1, 2])))
    with pytest.raises(UserError, match=r"x\.png is not an 8-bit RGB PNG"):
        read_id_png(path)
    path.write_bytes(png(8, 6, bytes(8)))
    with pytest.raises(UserError, match="not an 8-bit RGB PNG"):
        read_id_png(path)
    write_id_png(path, np.arange(5000, dtype=np.uint32).reshape(50, 100))
    data = path.read_bytes()
    for cut in (0, 7, 20, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(UserError, match="not a complete PNG"):
            read_id_png(path)
    path.write_bytes(data[: len(data) // 2] + bytes(20) + data[len(data) // 2 + 20 :])
    with pytest.raises(UserError, match="broken PNG"):
        read_id_png(path)
    with pytest.raises(UserError, match=r"can't read .*missing\.png"):
        read_id_png(tmp_path / "missing.png")
    with pytest.raises(UserError, match=r"can't write .*nowhere"):
        write_id_png(tmp_path / "nowhere" / "x.png", np.zeros((1, 1), np.uint32))


# Writing and reading a video


def test_a_video_reads_back_as_it_was_written(written):
    folder, frames = written
    taxonomy, stored = read(folder)
    assert taxonomy.categories == CITYSCAPES.categories
    assert [s.name for s in stored] == ["000000", "000001", "000002"]
    for expected, got in zip(frames, stored):
        assert_same(got.frame(), expected)


def test_the_folder_holds_pngs_and_json_in_coco_form(written):
    folder, frames = written
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*")) == [
        "panoptic",
        "panoptic.json",
        "panoptic/000000.png",
        "panoptic/000001.png",
        "panoptic/000002.png",
    ]
    data = json.loads((folder / "panoptic.json").read_text())
    assert data["categories"][13] == {"id": 13, "name": "car", "isthing": 1, "color": [0, 0, 142]}
    annotation = data["annotations"][1]
    assert (annotation["file_name"], annotation["image_id"]) == ("000001.png", "000001")
    crowd = [s for s in annotation["segments_info"] if s["iscrowd"] == 1]
    assert [(s["id"], s["category_id"], "track_id" in s) for s in crowd] == [(142 * 65536, 13, False)]
    assert sum(s["area"] for s in annotation["segments_info"]) == (frames[1].semantic != VOID).sum()


def test_an_exception_leaves_no_json(tmp_path):
    def frames():
        yield random_frame(0)
        raise RuntimeError("the camera is gone")

    def run():
        with PanopticVideoWriter(tmp_path, CITYSCAPES) as writer:
            for frame in frames():
                writer.write("000000", frame)
                assert not (tmp_path / "panoptic.json").exists()

    with pytest.raises(RuntimeError, match="the camera is gone"):
        run()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["panoptic"]


def test_a_result_is_not_overwritten_unasked(written):
    folder, frames = written
    with pytest.raises(UserError, match=r"panoptic\.json exists"):
        PanopticVideoWriter(folder, CITYSCAPES)
    with PanopticVideoWriter(folder, CITYSCAPES, overwrite=True) as writer:
        writer.write("000000", frames[2])
    _, stored = read(folder)
    assert len(stored) == 1
    assert_same(stored[0].frame(), frames[2])


def test_writing_faults(tmp_path):
    with PanopticVideoWriter(tmp_path / "a", CITYSCAPES) as writer:
        writer.write("x", random_frame(0))
        for name in ("x", "", "a/b", "/x"):
            with pytest.raises(ValueError, match="frame names must be plain"):
                writer.write(name, random_frame(0))
        with pytest.raises(ValueError, match="the first was"):
            writer.write("y", random_frame(0, (20, 30)))
    with (
        pytest.raises(UserError, match="the video is empty"),
        PanopticVideoWriter(tmp_path / "b", CITYSCAPES),
    ):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't write to"):
        PanopticVideoWriter(tmp_path / "file", CITYSCAPES)


def test_categories_may_come_in_any_order(written):
    folder, frames = written
    edit_json(folder, lambda d: d["categories"].reverse())
    taxonomy, stored = read(folder)
    assert taxonomy.num_things == 8
    assert taxonomy.names[0] == "sky"
    got = stored[0].frame()
    expected = np.array([taxonomy.index(n) for n in CITYSCAPES.names] + [0] * (VOID - 19) + [VOID], np.uint8)
    assert np.array_equal(got.semantic, expected[frames[0].semantic])


def test_track_ids_that_are_another_identity_are_not_believed(written):
    folder, frames = written

    def same_track_for_all(data):
        for a in data["annotations"]:
            for s in a["segments_info"]:
                if "track_id" in s:
                    s["track_id"] = 1

    edit_json(folder, same_track_for_all)
    _, stored = read(folder)
    got = stored[0].frame()
    # Other numbers, but the same tracks apart.
    pairs = {(int(a), int(b)) for a, b in zip(frames[0].instance.ravel(), got.instance.ravel())}
    assert len(pairs) == len(np.unique(frames[0].instance)) == len(np.unique(got.instance)) > 3


def test_a_submission_without_names_goes_by_sorted_pngs(written):
    folder, frames = written

    def strip(data):
        del data["categories"]
        for a in data["annotations"]:
            del a["file_name"], a["image_id"]

    edit_json(folder, strip)
    _, stored = read(folder, CITYSCAPES)
    assert_same(stored[2].frame(), frames[2])
    with pytest.raises(UserError, match="has no categories"):
        read(folder)
    (folder / "panoptic" / "000001.png").unlink()
    with pytest.raises(UserError, match=r"3 annotations without file_name, but .* has 2 PNGs"):
        read(folder, CITYSCAPES)


def first_segment(data):
    return data["annotations"][0]["segments_info"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("annotations"), "not panoptic JSON: annotations: Field required"),
        (lambda d: first_segment(d).pop("id"), r"annotations\.0\.segments_info\.0\.id: Field required"),
        (lambda d: first_segment(d).update(id=2**24), "less than 16777216"),
        (lambda d: first_segment(d).update(category_id=99), "segment .* of 000000.png has category_id 99"),
        (lambda d: d.update(annotations=[]), "has no annotations"),
        (lambda d: first_segment(d).update(area=2**63), "less than 9007199254740992"),
        (lambda d: first_segment(d).update(score=float("inf")), "finite number"),
        *[
            (
                lambda d, name=name: d["annotations"][0].update(file_name=name),
                "is no PNG in .*write the result",
            )
            for name in ("../000000.png", "/etc/passwd", "", ".", "a\0.png")
        ],
        (lambda d: d["categories"][3].update(id=0), "id 0 twice"),
        (lambda d: d["categories"].pop(0), "category_id 0, which 'panoptic' doesn't have"),
    ],
)
def test_faults_of_the_json(written, change, message):
    folder, _ = written
    edit_json(folder, change)
    with pytest.raises(UserError, match=message) as error:
        read(folder)
    assert "panoptic.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_faults_of_the_files(written):
    folder, _ = written
    with pytest.raises(UserError, match=r"can't read .*nothing\.json"):
        read_panoptic_video(folder / "nothing.json", folder / "panoptic")
    with pytest.raises(UserError, match="nowhere is no folder"):
        read_panoptic_video(folder / "panoptic.json", folder / "nowhere")
    _, stored = read(folder)
    (folder / "panoptic" / "000000.png").unlink()
    with pytest.raises(UserError, match=r"can't read .*000000\.png"):
        stored[0].frame()
    write_id_png(folder / "panoptic" / "000001.png", np.full((20, 31), 5, np.uint32))
    with pytest.raises(UserError, match=r"000001\.png: the PNG holds id 5"):
        stored[1].frame()
    (folder / "panoptic.json").write_text((folder / "panoptic.json").read_text()[:200])
    with pytest.raises(UserError, match=r"panoptic\.json is not panoptic JSON: Invalid JSON"):
        read(folder)


def test_faults_of_size_and_classes(written):
    folder, _ = written
    edit_json(folder, lambda d: d.update(images=[{"id": "000001", "width": 31, "height": 21}]))
    _, stored = read(folder)
    assert stored[0].ids().shape == (20, 31)
    with pytest.raises(UserError, match="is 31 x 20 pixels, its JSON says 31 x 21 pixels"):
        stored[1].frame()
    edit_json(folder, lambda d: d["categories"][13].update(name="lorry"))
    with pytest.raises(UserError, match=r"category 13 is 'lorry' \(thing\), but 'cityscapes' says 'car'"):
        read(folder, CITYSCAPES)
