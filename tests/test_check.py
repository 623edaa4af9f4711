"""check/: every kind of fault planted in small clips, and none found where there is none."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from panoptube import cli
from panoptube.check.check import check, check_clip
from panoptube.check.faults import KINDS, Fault, Ledger
from panoptube.check.labels import Labels, open_labels
from panoptube.check.page import draw_fault, write_page
from panoptube.check.report import Report
from panoptube.check.segments import find_segments, find_split
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.clip import Clip, Image
from panoptube.data.labelled_video import write_labelled_video
from panoptube.data.streets import street_clip
from panoptube.errors import UserError
from panoptube.panoptic.formats import PanopticVideoWriter
from panoptube.panoptic.frame import VOID, PanopticFrame

ROAD, PERSON, CAR, TRUCK = (CITYSCAPES.index(n) for n in ("road", "person", "car", "truck"))
SIZE = (72, 160)
FRAMES = 7
AT = 3
"""Frame that faults are planted in."""


class Film:
    """Three cars, two pixels a frame: 1 and 2 to the right, far from each other, 3 to the left below them."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.images: list[Image] = []
        self.truths: list[PanopticFrame] = []
        self.labelled = list(range(FRAMES))
        ground = rng.integers(60, 120, (*SIZE, 3)).astype(np.uint8)
        coats = rng.integers(0, 256, (4, 16, 20, 3)).astype(np.uint8)
        for t in range(FRAMES):
            image, instance = ground.copy(), np.zeros(SIZE, np.int32)
            for i, (x, y) in {1: (6 + 2 * t, 8), 2: (110 + 2 * t, 8), 3: (70 - 2 * t, 44)}.items():
                image[y : y + 16, x : x + 20] = coats[i]
                instance[y : y + 16, x : x + 20] = i
            semantic = np.where(instance > 0, CAR, ROAD).astype(np.uint8)
            self.images.append(cv2.GaussianBlur(image, (5, 5), 1.0))
            self.truths.append(PanopticFrame(semantic, instance))

    def labels(self, name: str = "film") -> Labels:
        clip = Clip(
            name, CITYSCAPES, SIZE, 10, FRAMES, tuple(self.labelled), self.images.__getitem__,
            self.truths.__getitem__,
        )  # fmt: skip
        return Labels(clip)

    def rename(self, frames: range, changes: dict[int, int]) -> None:
        for t in frames:
            old = self.truths[t].instance.copy()
            for before, after in changes.items():
                self.truths[t].instance[old == before] = after

    def set(self, t: int, track: int, label: int, new: int = 0) -> None:
        mask = self.truths[t].instance == track
        self.truths[t].semantic[mask] = label
        self.truths[t].instance[mask] = new


def kinds(faults: list[Fault]) -> list[tuple[str, int | None, tuple[int, ...]]]:
    return [(f.kind, f.frame, f.tracks) for f in faults]


def test_clean_clips_have_no_faults() -> None:
    assert check_clip(Film().labels()).faults == []


@pytest.mark.parametrize("seed", [3, 4])
def test_clean_streets_have_no_faults(seed: int) -> None:
    clip = replace(street_clip(seed, 5, (256, 512)), read_flow=None)
    assert [f for f in check_clip(Labels(clip)).faults if f.severity != "note"] == []


def swap(film: Film) -> None:
    film.rename(range(AT, FRAMES), {1: 3, 3: 1})


def jump(film: Film) -> None:
    film.rename(range(AT, FRAMES), {1: 9, 2: 1})


def renamed(film: Film) -> None:
    film.rename(range(AT, FRAMES), {1: 9})


def two_classes(film: Film) -> None:
    for t in range(AT, AT + 2):
        film.set(t, 1, TRUCK, 1)


def two_classes_at_once(film: Film) -> None:
    film.truths[AT].semantic[:12][film.truths[AT].instance[:12] == 1] = TRUCK


def class_in_the_id(film: Film) -> None:
    for t in range(AT, FRAMES):
        film.set(t, 1, TRUCK, 14001)


def lost(film: Film) -> None:
    film.set(AT, 1, ROAD)


def all_lost(film: Film) -> None:
    for i in (1, 2, 3):
        film.set(AT, i, VOID)


def no_instance(film: Film) -> None:
    film.set(AT, 1, CAR)


def tiny(film: Film) -> None:
    mask = np.argwhere(film.truths[AT].instance == 1)[9:]
    film.truths[AT].semantic[mask[:, 0], mask[:, 1]] = VOID
    film.truths[AT].instance[mask[:, 0], mask[:, 1]] = 0


def split(film: Film) -> None:
    film.rename(range(AT, AT + 1), {2: 1})


def duplicate(film: Film) -> None:
    film.images[AT] = film.images[AT - 1]


def almost_duplicate(film: Film) -> None:
    film.images[AT] = film.images[AT - 1] ^ np.uint8(1)


def gap(film: Film) -> None:
    film.labelled.remove(AT)


def other_size(film: Film) -> None:
    film.truths[AT] = PanopticFrame(np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.int32))


def id_on_stuff(film: Film) -> None:
    film.truths[AT].instance[0, 0] = 5


PLANTS: list[tuple[Callable[[Film], None], str, int, tuple[int, ...]]] = [
    (swap, "swap", AT, (1, 3)),
    (jump, "jump", AT, (1,)),
    (renamed, "renamed", AT, (1, 9)),
    (two_classes, "class", AT, (1,)),
    (two_classes_at_once, "class", AT, (1,)),
    (class_in_the_id, "class", AT, (1, 14001)),
    (lost, "lost", AT, (1,)),
    (all_lost, "lost", AT, (1,)),
    (no_instance, "no-instance", AT, (1,)),
    (tiny, "tiny", AT, (1,)),
    (split, "split", AT, (1,)),
    (duplicate, "duplicate", AT, ()),
    (almost_duplicate, "duplicate", AT, ()),
    (gap, "gap", AT, ()),
    (other_size, "file", AT, ()),
    (id_on_stuff, "file", AT, ()),
]


@pytest.mark.parametrize(
    ("plant", "kind", "frame", "tracks"), PLANTS, ids=lambda v: getattr(v, "__name__", "")
)
def test_planted_faults_are_found(
    plant: Callable[[Film], None], kind: str, frame: int, tracks: tuple[int, ...]
) -> None:
    film = Film()
    plant(film)
    labels = film.labels()
    faults = check_clip(labels).faults
    assert (kind, frame, tracks) in kinds(faults)
    assert all(f.clip == "film" for f in faults)
    # Nothing else is wrong, but what follows from it: other cars of the same plant, or their parts.
    followed = {"all_lost": {"lost"}, "split": {"split", "lost"}, "jump": {"jump"}}
    assert {f.kind for f in faults} <= followed.get(plant.__name__, {kind})
    shown = next(f for f in faults if f.kind == kind)
    panels = draw_fault(shown, labels)
    assert [p.frame for p in panels] == [t for t in (shown.before, shown.frame) if t is not None]
    assert all(p.picture.shape[1] == 400 for p in panels)


@pytest.mark.parametrize(
    ("plant", "marks"),
    [
        (swap, [["car 1", "car 3"], ["car 1", "car 3"]]),
        (renamed, [["car 1"], ["car 9"]]),
        (two_classes, [["car 1"], ["truck 1"]]),
        (two_classes_at_once, [["car 1"], ["car and truck 1"]]),
        (lost, [["car 1"], ["not in the labels"]]),
        (no_instance, [["car 1"], ["car without id"]]),
        (duplicate, [[], []]),
        (gap, [[]]),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_pictures_say_what_is_outlined(plant: Callable[[Film], None], marks: list[list[str]]) -> None:
    film = Film()
    plant(film)
    labels = film.labels()
    (fault,) = check_clip(labels).faults
    panels = draw_fault(fault, labels)
    assert [[text for _, text in panel.marks] for panel in panels] == marks
    assert [panel.lacks for panel in panels] == ["labels" if plant is gap else ""] * len(panels)
    for panel in panels:
        for color, _ in panel.marks:
            assert (panel.picture == color).all(axis=2).any()


def test_flow_goes_through_frames_without_labels() -> None:
    """Eight pixels a step are more than DIS has to find at once, and are no jump."""
    film = Film()
    film.labelled = [0, 3, 6]
    assert check_clip(film.labels()).faults == []
    film.rename(range(3, FRAMES), {1: 2, 2: 1})
    assert kinds(check_clip(film.labels()).faults) == [("swap", 3, (1, 2))]


def test_every_frame_is_read_once_and_in_order() -> None:
    film, read = Film(), []
    labels = film.labels()

    def read_image(t: int) -> Image:
        read.append(t)
        return film.images[t]

    check_clip(replace(labels, clip=replace(labels.clip, read_image=read_image)))
    assert read == list(range(FRAMES))


def test_the_clips_own_flow_is_used() -> None:
    """Without motion in the pictures only the given flow knows where things went."""
    film = Film()
    film.images = [film.images[0] for _ in range(FRAMES)]
    asked = []

    def read_flow(t: int, u: int) -> np.ndarray:
        asked.append((t, u))
        return np.full((*SIZE, 2), (2 * (u - t), 0), np.float32)

    labels = film.labels()
    check_clip(replace(labels, clip=replace(labels.clip, read_flow=read_flow)))
    assert asked == [(t, t + 1) for t in range(FRAMES - 1)]


def test_faults_in_a_row_are_one() -> None:
    ledger = Ledger()
    for place, weight in ((0, 1.0), (1, 3.0), (2, 2.0), (5, 1.0)):
        ledger.extend("a", place, Fault("tiny", "warning", "", frame=place, weight=weight))
    assert [(f.frame, f.frames) for f in ledger.faults()] == [(1, 3), (5, 1)]


def test_what_other_things_hide_is_not_split() -> None:
    film = Film()
    truth = film.truths[0]
    truth.instance[:] = 0
    truth.semantic[:] = ROAD
    for x in (10, 62):
        truth.instance[10:30, x : x + 8] = 1
    truth.semantic[truth.instance == 1] = CAR
    assert len(list(find_split(truth, find_segments(truth, CITYSCAPES), CITYSCAPES))) == 1
    truth.instance[10:30, 20:60] = 2
    truth.semantic[10:30, 20:60] = CAR
    assert list(find_split(truth, find_segments(truth, CITYSCAPES), CITYSCAPES)) == []


def test_a_picture_in_two_clips_is_a_duplicate() -> None:
    pictures: dict[bytes, tuple[str, int]] = {}
    assert check_clip(Film().labels("a"), pictures).faults == []
    faults = check_clip(Film().labels("b"), pictures).faults
    assert [f.message for f in faults] == [f"the same picture as frame {t} of a" for t in range(FRAMES)]


# --- PNG and JSON ------------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A folder as `panoptube predict` writes it."""
    with PanopticVideoWriter(tmp_path / "film", CITYSCAPES) as writer:
        for t, truth in enumerate(Film().truths):
            writer.write(f"{t:06d}", truth)
    return tmp_path / "film"


def change(folder: Path, edit: Callable[[list[dict]], None]) -> None:
    path = folder / "panoptic.json"
    data = json.loads(path.read_text())
    edit(data["annotations"][AT]["segments_info"])
    path.write_text(json.dumps(data))


def found(folder: Path) -> list[Fault]:
    return [f for f in check("panoptic", folder, progress=False).faults if f.kind != "unused"]


def test_clean_folders_have_no_faults(stored: Path) -> None:
    assert found(stored) == []


def grow(segments: list[dict]) -> None:
    segments[1]["area"] += 1


def move(segments: list[dict]) -> None:
    segments[1]["bbox"][2] += 2


def forget(segments: list[dict]) -> None:
    del segments[1]


def invent(segments: list[dict]) -> None:
    segments.append({"id": 77, "category_id": 13, "bbox": [0, 0, 4, 4]})


def repeat(segments: list[dict]) -> None:
    segments.append(dict(segments[1]))


@pytest.mark.parametrize(
    ("edit", "kind", "text"),
    [
        (grow, "area", "has area 321 in the JSON, 320 pixels in the PNG"),
        (move, "box", "has the box [12, 8, 22, 16] in the JSON, [12, 8, 20, 16] in the PNG"),
        (forget, "id", "320 pixels, which the JSON lacks"),
        (invent, "id", "the JSON lists car 77, which the PNG lacks"),
        (repeat, "id", "twice"),
    ],
)
def test_png_and_json_are_compared(
    stored: Path, edit: Callable[[list[dict]], None], kind: str, text: str
) -> None:
    change(stored, edit)
    faults = found(stored)
    assert [(f.kind, f.severity, f.frame) for f in faults] == [(kind, "error", AT)]
    assert text in faults[0].message
    assert "000003.png" in faults[0].message


def test_all_that_is_wrong_in_a_frame_is_listed(stored: Path) -> None:
    change(stored, lambda s: [grow(s), move(s), invent(s), s[2].update(area=1)])  # type: ignore[func-returns-value]
    assert [f.kind for f in found(stored)] == ["id", "area", "area", "box"]


def test_files_that_cannot_be_used_are_named(stored: Path) -> None:
    pngs = stored / "panoptic"
    (pngs / "000001.png").unlink()
    (pngs / "000002.png").write_bytes(b"\x89PNG")
    cv2.imwrite(str(pngs / "000004.png"), np.zeros((4, 4, 3), np.uint8))
    (pngs / "000009.png").write_bytes((pngs / "000005.png").read_bytes())
    faults = found(stored)
    assert {f.kind for f in faults} == {"file"}
    assert sorted(f.frame for f in faults if f.frame is not None) == [1, 2, 4]
    for name in ("000001.png", "000002.png", "000004.png", "000009.png"):
        assert sum(name in f.message for f in faults) == 1


def test_tracks_are_checked_without_images(stored: Path) -> None:
    film = Film()
    swap(film)
    with PanopticVideoWriter(stored, CITYSCAPES, overwrite=True) as writer:
        for t, truth in enumerate(film.truths):
            writer.write(f"{t:06d}", truth)
    assert kinds(found(stored)) == [("swap", AT, (1, 3))]


def test_a_broken_clip_does_not_hide_the_others(stored: Path) -> None:
    (stored.parent / "broken").mkdir()
    (stored.parent / "broken" / "panoptic.json").write_text("{")
    labels, faults = open_labels("panoptic", stored.parent, None)
    assert [item.clip.name for item in labels] == ["film"]
    assert [(f.kind, f.clip) for f in faults] == [("file", "broken")]


def test_datasets_are_checked_by_name(stored: Path, tmp_path: Path) -> None:
    """A COCO panoptic video of the same film, with its val split missing."""
    root = tmp_path / "coco"
    (root / "train").mkdir(parents=True)
    shutil.copytree(stored / "panoptic", root / "panoptic_train")
    film = Film()
    film.images[AT] = film.images[AT - 1]
    data = json.loads((stored / "panoptic.json").read_text())
    data["images"] = []
    for t, image in enumerate(film.images):
        cv2.imwrite(str(root / "train" / f"{t:06d}.png"), image)
        row = {
            "id": f"{t:06d}",
            "video_id": 1,
            "file_name": f"{t:06d}.png",
            "width": SIZE[1],
            "height": SIZE[0],
        }
        data["images"].append(row)
    (root / "panoptic_train.json").write_text(json.dumps(data))
    faults = [f for f in check("coco-video", root, progress=False).faults if f.kind != "unused"]
    assert [(f.kind, f.severity, f.clip) for f in faults] == [
        ("file", "note", ""),
        ("duplicate", "warning", "train/1"),
    ]
    assert "panoptic_val.json" in faults[0].message
    named = check("coco-video", root, "train", progress=False).faults
    assert [f.clip for f in named if f.kind != "unused"] == ["1"]


# --- reports -----------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two labelled videos; one has faults of all kinds of pictures."""
    film = Film()
    swap(film)
    film.set(AT, 2, ROAD)
    film.labelled.remove(1)
    root = tmp_path / "data"
    write_labelled_video(film.labels("a").clip, root)
    other = Film()
    other.images = [255 - image for image in other.images]
    write_labelled_video(other.labels("b").clip, root)
    (root / "a" / "label" / "000005.png").write_bytes(b"")
    return root


class Tags(HTMLParser):
    """Every tag of a page and the names of its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, list[str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, [key for key, _ in attrs]))


def printed(report: Report) -> str:
    text = io.StringIO()
    Console(width=200, file=text).print(report.table())
    return text.getvalue()


def test_reports(dataset: Path, tmp_path: Path) -> None:
    report = check("labelled-video", dataset, None, tmp_path / "r.json", tmp_path / "r.html", progress=False)
    assert (report.clips, report.frames) == (2, 2 * FRAMES)
    data = json.loads((tmp_path / "r.json").read_text())
    assert data["counts"]["file"] == 1
    assert data["counts"]["unused"] == len(CITYSCAPES) - 2
    assert list(data["counts"]) == list(KINDS)
    assert sum(data["counts"].values()) == len(data["faults"])
    assert {f["clip"] for f in data["faults"] if f["kind"] != "unused"} == {"a"}

    page = (tmp_path / "r.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    pictures = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    assert len(pictures) >= 3
    for picture in pictures:
        image = cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
    assert not list(tmp_path.glob("*.part"))

    text = printed(report)
    assert "lost" in text
    assert "000005.png" in text


def hostile(name: str) -> Labels:
    """A clip and a class that are called so, with an exchange of ids."""
    film = Film()
    swap(film)
    labels = film.labels(name)
    car = replace(CITYSCAPES.categories[CAR], name=name)
    categories = tuple(car if c is CITYSCAPES.categories[CAR] else c for c in CITYSCAPES.categories)
    return replace(labels, clip=replace(labels.clip, taxonomy=replace(CITYSCAPES, categories=categories)))


def test_hostile_names_do_no_harm(tmp_path: Path) -> None:
    """Clip and class names come from files that others wrote."""
    name = "<script>alert(1)</script>\"'&"
    labels = hostile(name)
    faults = check_clip(labels).faults
    assert [f.kind for f in faults] == ["swap"]
    write_page(tmp_path / "r.html", Report(name, name, 1, FRAMES, faults), [labels])
    page = (tmp_path / "r.html").read_text()
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 6
    tags = Tags()
    tags.feed(page)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags.found}
    assert not any(key.startswith("on") for _, keys in tags.found for key in keys)
    assert "url(" not in page
    assert "@import" not in page


def test_long_lists_are_cut_and_nothing_found_is_said(tmp_path: Path) -> None:
    labels = Film().labels()
    faults = [
        Fault("tiny", "warning", "small", "film", frame=t % FRAMES, where=(0, 0, 3, 3)) for t in range(150)
    ]
    write_page(tmp_path / "r.html", Report("data", "folder", 1, FRAMES, faults), [labels])
    page = (tmp_path / "r.html").read_text()
    assert page.count("<img") == 8
    assert page.count("<li>") == 101
    assert "142 more" in page
    assert "and 42 more, in the JSON report" in page
    write_page(tmp_path / "r.html", Report("data", "folder", 1, FRAMES, []), [labels])
    assert "Nothing was found." in (tmp_path / "r.html").read_text()


def test_names_are_escaped(tmp_path: Path) -> None:
    film = Film()
    swap(film)
    write_labelled_video(film.labels("<b>&[red]").clip, tmp_path / "data")
    report = check("labelled-video", tmp_path / "data", html=tmp_path / "r.html", progress=False)
    page = (tmp_path / "r.html").read_text()
    assert "&lt;b&gt;&amp;[red]" in page
    assert "<b>" not in page
    assert "<b>&[red]" in printed(report)


def test_mistakes_are_one_line(tmp_path: Path, dataset: Path) -> None:
    for name, root, options, text in [
        ("nothing", dataset, {}, "no dataset is called 'nothing'"),
        ("labelled-video", tmp_path / "none", {}, "no folder"),
        ("panoptic", dataset, {}, "holds no panoptic result"),
        ("panoptic", dataset, {"split": "val"}, "no split 'val'"),
        ("labelled-video", dataset, {"json": tmp_path / "no" / "r.json"}, "can't write"),
        ("kitti-step", dataset, {}, "no sequences"),
    ]:
        with pytest.raises(UserError, match=text) as error:
            check(name, root, progress=False, **options)
        assert "\n" not in str(error.value)


def test_command_line(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*args: object) -> int:
        monkeypatch.setattr(sys, "argv", ["panoptube", "check", *map(str, args)])
        return cli.main()

    assert run("labelled-video", "--root", dataset, "--json", tmp_path / "r.json") == 0
    output = capsys.readouterr().out
    assert "2 clips, 14 frames" in output
    assert "swap" in output
    assert (tmp_path / "r.json").is_file()
    assert run("labelled-video", "--root", tmp_path / "none") == 2


def test_torch_is_not_imported() -> None:
    code = "import sys, panoptube.check.check; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
