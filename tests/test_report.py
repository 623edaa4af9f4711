"""report/: counts by hand, what hostile or broken results do, and the page in a real browser."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.progress import Progress

from chromium import CHROMIUM, Page, browser
from panoptube import cli
from panoptube.errors import UserError
from panoptube.panoptic.formats import PanopticVideoWriter
from panoptube.panoptic.frame import VOID, Category, PanopticFrame, Taxonomy
from panoptube.report.film import frame_times, read_film
from panoptube.report.page import steps
from panoptube.report.report import report
from panoptube.report.summary import SeenTrack
from panoptube.video import write_video
from panoptube.view.overlay import track_color

HOSTILE = "</script><script>document.title='owned'</script><!--<img src=x onerror=alert(1)>"
SIZE = (40, 60)
FRAMES = 12
FPS = 10


def taxonomy(car: str = "car") -> Taxonomy:
    return Taxonomy(
        "two",
        (
            Category("road", False, (128, 64, 128), 7),
            Category("sky", False, (70, 130, 180), 23),
            Category(car, True, (0, 0, 142), 26),
        ),
    )


def write_result(folder: Path, car: str = "car") -> Path:
    """Car 5 drives right, 2 pixels a frame, and is hidden in frame 6; car 6 is there from frame 8 on. Half is
    road, and a quarter void.
    """
    with (
        write_video(_made(folder) / "overlay.mp4", FPS, SIZE) as write,
        PanopticVideoWriter(folder, taxonomy(car)) as panoptic,
    ):
        for t in range(FRAMES):
            instance = np.zeros(SIZE, np.int32)
            semantic = np.zeros(SIZE, np.uint8)
            semantic[20:], semantic[20:, 30:] = 1, VOID
            if t != 6:
                instance[4:10, 2 * t : 2 * t + 10] = 5
            if t >= 8:
                instance[12:18, 40:44] = 6
            semantic[instance > 0] = 2
            panoptic.write(f"{t:06d}", PanopticFrame(semantic, instance))
            write(np.full((*SIZE, 3), 20 * t, np.uint8))
    return folder


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


class Scripts(HTMLParser):
    """Text of each script and title, and the addresses that elements name."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: dict[str, list[str]] = {"script": [], "title": []}
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, text: str) -> None:
        if self.tags and self.tags[-1] in self.texts and text.strip():
            self.texts[self.tags[-1]].append(text)


def read(page: Path) -> dict[str, Any]:
    return dict(json.loads(Scripts(page.read_text(encoding="utf-8")).texts["script"][0]))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_result(tmp_path_factory.mktemp("report") / "film")
    done = report(folder)
    assert (done.out, done.frames, done.tracks) == (folder.with_name("film.html"), FRAMES, 2)
    return done.out


def test_the_page_says_what_the_result_holds(made: Path) -> None:
    data = read(made)
    assert (data["name"], data["size"], data["times"], data["hidden"]) == ("film", [60, 40], None, 0)
    assert data["shown"] == pytest.approx([t / FPS for t in range(FRAMES + 1)])
    car, road, sky = data["classes"]
    assert [(c["name"], c["thing"], c["tracks"]) for c in (car, road, sky)] == [
        ("car", True, 2), ("road", False, 0), ("sky", False, 0),
    ]  # fmt: skip
    assert car["steps"] == [[0, 1], [6, 0], [7, 1], [8, 2]]
    # Of 2400 pixels, road has 1200 without the cars' 60 and 24; sky has 600.
    assert sky["steps"] == [[0, 0.25]]
    assert road["steps"] == [[0, 0.475], [6, 0.5], [7, 0.475], [8, 0.465]]
    assert road["share"] == pytest.approx((7 * 0.475 + 0.5 + 4 * 0.465) / 12, abs=1e-6)


def test_tracks_are_runs_with_a_box_every_few_frames(made: Path) -> None:
    five, six = read(made)["tracks"]
    assert (five["id"], five["area"], five["frames"], six["area"], six["frames"]) == (5, 60, 11, 24, 4)
    assert five["color"] == "#{:02x}{:02x}{:02x}".format(*track_color(5))
    assert five["runs"] == [
        [0, 5, [0, 4, 10, 6, 10, 4, 10, 6]],
        [7, 11, [14, 4, 10, 6, 22, 4, 10, 6]],
    ]
    assert six["runs"] == [[8, 11, [40, 12, 4, 6, 40, 12, 4, 6]]]
    long = SeenTrack(2, 1)
    for t in range(3, 16):
        long.see(t, 1, (t, 0, 1, 1))
    assert [box[0] for box in long.runs[0].boxes] == [3, 8, 13, 15]


def test_curves_keep_changes_and_average_where_there_are_too_many_frames() -> None:
    assert steps(np.array([2, 2, 0, 0, 2]), 99) == [[0, 2], [2, 0], [4, 2]]
    assert steps(np.array([0.0, 0.5, 0.2, 0.4]), 2) == [[0, 0.25], [2, 0.3]]
    assert len(steps(np.random.default_rng(0).random(10_000), 600)) == 600


def test_original_times_are_used_where_the_json_has_them(tmp_path: Path) -> None:
    folder = write_result(tmp_path / "film")
    content = json.loads((folder / "panoptic.json").read_text())
    for t, row in enumerate(content["annotations"]):
        row["time"] = 30 + t**2 / 10
    (folder / "panoptic.json").write_text(json.dumps(content))
    data = read(report(folder, tmp_path / "page.html").out)
    assert data["times"] == pytest.approx([*(30 + t**2 / 10 for t in range(12)), 42.2])
    assert data["shown"][3] == pytest.approx(0.3)
    content["annotations"][4]["time"] = 0
    (folder / "panoptic.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="times of the frames don't increase"):
        report(folder, tmp_path / "other.html")


def test_no_name_becomes_markup(tmp_path: Path) -> None:
    folder = write_result(tmp_path / "a <b> & \"c'", HOSTILE)
    page = report(folder, tmp_path / "page.html").out
    text = page.read_text(encoding="utf-8")
    parsed = Scripts(text)
    assert parsed.tags.count("script") == 2
    assert "img" not in parsed.tags
    assert parsed.texts["title"] == ["a <b> & \"c'"]
    assert read(page)["classes"][0]["name"] == HOSTILE
    assert all(address.startswith("data:video/mp4;base64,") for address in parsed.addresses)
    assert re.search(r"https?://(?!www\.w3\.org/2000/svg)", text) is None


def test_faults_are_one_line_and_leave_nothing(tmp_path: Path) -> None:
    page = tmp_path / "page.html"

    def fails(folder: Path, match: str) -> None:
        with pytest.raises(UserError, match=match) as error:
            report(folder, page)
        assert "\n" not in str(error.value)
        assert not page.exists()

    fails(tmp_path / "nowhere", "holds no panoptic.json")
    folder = write_result(tmp_path / "film")
    film, png = folder / "overlay.mp4", folder / "panoptic" / "000007.png"
    whole = png.read_bytes()
    png.write_bytes(whole[:60])
    fails(folder, "000007.png is not a complete PNG")
    png.unlink()
    fails(folder, "can't read .*000007.png")
    png.write_bytes((folder / "panoptic" / "000008.png").read_bytes())
    fails(folder, "000007.png: the PNG holds id")
    png.write_bytes(whole)
    with write_video(film, FPS, SIZE) as write:
        write(np.zeros((*SIZE, 3), np.uint8))
    fails(folder, "overlay.mp4 has 1 frames, panoptic.json has 12")
    film.write_bytes(b"no video")
    fails(folder, "is not a video")
    film.unlink()
    fails(folder, "overlay.mp4 is missing")


def test_an_existing_page_is_only_replaced_on_demand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, page = write_result(tmp_path / "film"), tmp_path / "page.html"
    page.write_text("mine")
    command = ["panoptube", "report", str(folder), "--out", str(page)]
    monkeypatch.setattr(sys, "argv", command)
    assert cli.main() == 2
    assert f"{page} exists" in capsys.readouterr().err
    assert page.read_text() == "mine"
    monkeypatch.setattr(sys, "argv", [*command, "--overwrite"])
    assert cli.main() == 0
    assert capsys.readouterr().out == f"{page}: 12 frames, 2 tracks\n"
    assert read(page)["name"] == "film"
    with pytest.raises(UserError, match="is a folder"):
        report(folder, tmp_path)


def test_a_large_video_is_made_smaller_with_the_same_times(tmp_path: Path) -> None:
    path, rng = tmp_path / "noise.mp4", np.random.default_rng(0)
    with write_video(path, FPS, (96, 128)) as write:
        for _ in range(40):
            write(rng.integers(0, 256, (96, 128, 3), np.uint8))
    size, times = path.stat().st_size, frame_times(path)
    with Progress(disable=True) as progress:
        assert read_film(path, 4, progress, size) == path.read_bytes()
        small = read_film(path, 4, progress, size // 8)
        with pytest.raises(UserError, match="predict a part of the video"):
            read_film(path, 4, progress, 500)
    assert len(small) <= size // 8
    copy = tmp_path / "small.mp4"
    copy.write_bytes(small)
    assert frame_times(copy) == pytest.approx(times, abs=1e-3)


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as opened:
        yield opened


def at(page: Page) -> float:
    return float(page.run("document.getElementById('video').currentTime"))


@needs_browser
def test_in_a_browser_a_click_on_a_track_goes_to_it(made: Path, page: Page) -> None:
    page.open(made.as_uri())
    assert at(page) == 0
    x, y, width = page.run(
        "(() => { const r = document.querySelectorAll('.row')[1].querySelector('.lane')"
        ".getBoundingClientRect(); return [r.left, r.top + r.height / 2, r.width]; })()"
    )
    page.click(x + width * 9.5 / FRAMES, y)
    assert at(page) == pytest.approx(0.95)
    assert page.run("document.getElementById('readout').textContent") == "frame 10 of 12, 0:00.90"
    assert "car 6: 0:00.80 to 0:01.20" in page.run("document.getElementById('about').textContent")
    # Its box, 4 x 6 pixels at (40, 12) of 60 x 40.
    style = page.run(
        "(() => { const b = document.getElementById('box'); return [b.hidden, ...['left', 'top', 'width', "
        "'height'].map((side) => parseFloat(b.style[side]))]; })()"
    )
    assert style == [False, *(pytest.approx(v) for v in (100 * 40 / 60, 30, 100 * 4 / 60, 15))]
    page.click(x + width * 0.1, y)  # before it is there: to where it is next
    assert at(page) == pytest.approx(0.85)
    assert page.run("location.hash") == "#track=6"
    page.press("ArrowUp")
    page.press("Enter", "\r")
    assert at(page) == pytest.approx(0.05)
    page.press("ArrowRight")
    assert at(page) == pytest.approx(0.15)
    heads = page.run("Array.from(document.querySelectorAll('.head'), (h) => h.style.left)")
    assert len(heads) == 3
    assert len(set(heads)) == 1
    page.run("document.getElementById('video').play()")
    page.until("document.getElementById('video').ended")
    page.until("document.querySelector('.head').style.left.endsWith('* 1)')")
    assert page.complaints == []


@needs_browser
def test_in_a_browser_a_link_opens_at_a_track_and_hostile_names_are_text(tmp_path: Path, page: Page) -> None:
    made = report(write_result(tmp_path / "film", HOSTILE)).out
    page.open(made.as_uri() + "#track=6")
    assert at(page) == pytest.approx(0.85)
    assert page.run("document.title") == "film"
    assert page.run("document.querySelector('.group').firstChild.data") == HOSTILE
    assert page.run("document.querySelectorAll('img, script').length") == 2
    assert page.complaints == []
