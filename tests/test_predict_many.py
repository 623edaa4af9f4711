"""predict_many.py: real workers on tiny films; what there is if one fails or all is stopped."""

from __future__ import annotations

import csv
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from panoptube import cli, predict_many
from panoptube.errors import UserError
from panoptube.predict import predict
from panoptube.predict_many import PredictManySummary, VideoRow, read_list
from panoptube.video import write_video
from test_predict import SIZE, names, narrow


def film(path: Path, frames: int) -> None:
    """Noise that moves right; the faster, the fewer frames it has."""
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    path.parent.mkdir(exist_ok=True)
    with write_video(path, 10, SIZE) as write:
        for t in range(frames):
            write(np.roll(picture, 100 * t // frames, 1))


def films(folder: Path, **frames: int) -> Path:
    """Films of so many frames, by name, and the list of them."""
    for name, count in frames.items():
        film(folder / f"{name}.mp4", count)
    return listed(folder, *(f"{name}.mp4" for name in frames))


def listed(folder: Path, *lines: str) -> Path:
    path = folder / "list.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def run(videos: Path, out: Path, weights: Path, **options: object) -> PredictManySummary:
    options = {"device": "cpu", "precision": "float32", "progress": False, **options}
    return predict_many.predict_many(videos, out, weights=weights, **options)  # type: ignore[arg-type]


def table(out: Path) -> dict[str, dict[str, str]]:
    with (out / "videos.csv").open(newline="", encoding="utf-8") as file:
        return {row["folder"]: row for row in csv.DictReader(file)}


def shown(out: Path) -> list[str]:
    return [name for name in names(out) if name != ".lock"]


def states(out: Path) -> dict[str, str]:
    return {folder: row["state"] for folder, row in table(out).items()}


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_each_result_is_what_predict_writes_and_a_broken_video_stops_no_other(tmp_path: Path) -> None:
    _, weights = narrow(tmp_path)
    film(tmp_path / "day 1" / "drive.mp4", 6)
    film(tmp_path / "last.mp4", 3)
    (tmp_path / "broken.mp4").write_text("not a film")
    videos = listed(tmp_path, "# films", "day 1/drive.mp4", "", "broken.mp4", str(tmp_path / "last.mp4"))
    out = tmp_path / "results" / "all"
    done = run(videos, out, weights, workers=2, max_frames=4)
    assert shown(out) == ["day-1-drive", "last", "videos.csv"]
    assert [(row.folder, row.state, row.frames) for row in done.videos] == [
        ("day-1-drive", "done", 4),
        ("broken", "failed", None),
        ("last", "done", 3),
    ]
    assert (done.table, done.failed) == (out / "videos.csv", 1)
    for source, folder in (("day 1/drive.mp4", "day-1-drive"), ("last.mp4", "last")):
        alone = tmp_path / f"alone-{folder}"
        summary = predict(tmp_path / source, alone, weights, max_frames=4, device="cpu", precision="float32")
        assert files(out / folder) == files(alone)
        row = table(out)[folder]
        assert row["source"] == str(tmp_path / source)
        assert (row["frames"], row["tracks"]) == (str(summary.frames), str(summary.tracks))
        assert 0 < float(row["seconds"]) < 60
        assert row["note"] == ""
    row = table(out)["broken"]
    assert row["note"].startswith(f"{tmp_path / 'broken.mp4'} is not a video that can be read")
    assert row["frames"] == row["tracks"] == row["seconds"] == ""

    # Once more: what failed is tried again, what is done is not, and what was done without a note gets one.
    film(tmp_path / "broken.mp4", 2)
    kept = [line for line in (out / "videos.csv").read_text().splitlines() if ",last," not in line]
    (out / "videos.csv").write_text("\n".join(kept))
    left = out / ".broken.123.part"
    left.mkdir()
    before = (out / "last" / "panoptic.json").stat().st_mtime_ns
    seconds = table(out)["day-1-drive"]["seconds"]
    again = run(videos, out, weights)
    assert [row.state for row in again.videos] == ["done"] * 3
    assert again.videos[0].seconds == float(seconds)
    assert (again.videos[2].frames, again.videos[2].tracks) == (3, done.videos[2].tracks)
    assert again.videos[2].seconds is None
    assert (out / "last" / "panoptic.json").stat().st_mtime_ns == before
    assert shown(out) == ["broken", "day-1-drive", "last", "videos.csv"]


@contextmanager
def killing(out: Path, times: dict[str, int]) -> Iterator[dict[str, set[int]]]:
    """Kills workers while they write the results of these names, so many of them; gives their ids."""
    killed: dict[str, set[int]] = {name: set() for name in times}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.005):
            for part in out.glob(".*.part") if out.exists() else ():
                match = re.fullmatch(r"\.(.+)\.([0-9]+)\.part", part.name)
                if match is None or len(killed.get(match[1], ())) >= times.get(match[1], 0):
                    continue
                pid = int(match[2])
                if pid not in killed[match[1]] and any((part / "panoptic").glob("*.png")):
                    killed[match[1]].add(pid)
                    os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


@pytest.mark.skipif(os.name != "posix", reason="kills by POSIX's signals")
def test_a_killed_worker_loses_its_video_alone_which_is_tried_once_more(tmp_path: Path) -> None:
    before = set(multiprocessing.active_children())  # other tests' among them
    _, weights = narrow(tmp_path)
    videos, out = films(tmp_path, doomed=1500, lucky=40), tmp_path / "out"
    with killing(out, {"doomed": 2, "lucky": 1}) as killed:
        done = run(videos, out, weights, workers=2)
    assert {name: len(pids) for name, pids in killed.items()} == {"doomed": 2, "lucky": 1}
    assert len(set.union(*killed.values())) == 3
    assert states(out) == {"doomed": "failed", "lucky": "done"}
    assert table(out)["doomed"]["note"].startswith(
        "its worker was killed (signal 9), twice, perhaps for lack"
    )
    assert (done.videos[1].frames, done.failed) == (40, 1)
    assert shown(out) == ["lucky", "videos.csv"]
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.skipif(os.name != "posix", reason="kills by POSIX's signals")
def test_workers_that_die_while_they_start_are_not_replaced_for_ever(tmp_path: Path) -> None:
    videos = films(tmp_path, a=2)
    ended, before = threading.Event(), set(multiprocessing.active_children())

    def kill() -> None:
        while not ended.wait(0.01):
            for child in {*multiprocessing.active_children()} - before:
                child.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        with pytest.raises(UserError, match=r"no worker lives .* take fewer workers and run it again"):
            run(videos, tmp_path / "out", tmp_path / "any", workers=2)
    finally:
        ended.set()
        thread.join()
    assert shown(tmp_path / "out") == []


COMMAND = "import sys; from panoptube.cli import main; sys.exit(main())"


@contextmanager
def interrupted(tmp_path: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A run at the long one of two videos, to be stopped while entered; then looks at what is left."""
    _, weights = narrow(tmp_path)
    videos, out = films(tmp_path, short=2, long=1500), tmp_path / "out"
    command = ["predict-many", videos, "--out", out, "--weights", weights, *options]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, command)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until = time.monotonic() + 120
    while not list(out.glob(".long.*.part/panoptic/*.png")):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    worker = int(next(out.glob(".long.*.part")).name.split(".")[2])
    yield process
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == (
        f"panoptube: interrupted; 1 of 2 videos are finished in {out}; the same command goes on"
    )
    assert "Traceback" not in said
    assert states(out) == {"short": "done"}
    assert shown(out) == ["short", "videos.csv"]
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is sent by POSIX's signals")
def test_ctrl_c_keeps_what_is_finished_and_says_so(tmp_path: Path) -> None:
    with interrupted(tmp_path, "--device", "cpu") as process:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: workers get it, too


def test_names_depend_on_the_source_alone(tmp_path: Path) -> None:
    (tmp_path / "seq.01").mkdir()
    (tmp_path / "[1]").mkdir()
    lines = {
        "drive.mp4": "drive",
        f"{tmp_path}/Drive 2.MP4": "Drive-2",
        "b/drive.mp4": "b-drive",
        "seq.01": "seq.01",
        "'quoted'/*.png": "quoted",
        "[1]": "1",
        "../other/ä.webm": None,
        "/elsewhere/x.3gp": "elsewhere-x",
        "rtsp://user:secret@host:554/cam?token=secret": "host-554-cam",
        "0": "0",
    }
    found = read_list(listed(tmp_path, *lines))
    for video, (line, name) in zip(found, lines.items()):
        if name is not None:
            assert video.folder == name
        assert "secret" not in video.shown
        if ".." not in line:
            assert video.source == (line if "://" in line or line == "0" else str(tmp_path / line))
    assert found[6].folder.endswith("-other-ä")
    assert found[6].source == str(tmp_path.parent / "other" / "ä.webm")
    listed(tmp_path, "b/drive.mp4")
    assert read_list(tmp_path / "seq.01" / ".." / "list.txt")[0].folder == "b-drive"


def test_a_pattern_is_taken_in_a_folder_whose_name_looks_like_one(tmp_path: Path) -> None:
    folder = tmp_path / "a[1]"
    folder.mkdir()
    video = read_list(listed(folder, "frames/*.png"))[0]
    assert video.source == f"{tmp_path}/a[[]1]/frames/*.png"
    assert video.shown == f"{folder}/frames/*.png"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# nothing\n\n", "lists no video; write one a line"),
        (b"\xff\xfe\0", r"not UTF-8 text.*or the video to panoptube predict"),
        (b"a.mp4\na.mp4", r"would both be called a; rename one"),
        (b"a.mp4\nA.avi", r"a\.mp4 and .*A\.avi would both be called A; rename one"),
        (b"x/y.mp4\nx-y.mp4", r"x/y\.mp4 and .*x-y\.mp4 would both be called x-y"),
        (b"videos.csv.mp4", "would both be called videos.csv"),
        (b"*.png", "has no name to call its result by"),
    ],
)
def test_mistakes_in_a_list_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        run(tmp_path / "list.txt", tmp_path / "out", tmp_path / "any")
    assert not (tmp_path / "out").exists()


def test_mistakes_of_the_command_are_named_before_anything_is_started(tmp_path: Path) -> None:
    videos, any_ = listed(tmp_path, "a.mp4"), tmp_path / "any"
    with pytest.raises(UserError, match=r"can't read .*no\.txt: No such file"):
        run(tmp_path / "no.txt", tmp_path / "out", any_)
    with pytest.raises(UserError, match="0 workers asked for"):
        run(videos, tmp_path / "out", any_, workers=0)
    with pytest.raises(UserError, match="max_frames is 0"):
        run(videos, tmp_path / "out", any_, max_frames=0)
    with pytest.raises(UserError, match="stride is 0"):
        run(videos, tmp_path / "out", any_, stride=0)
    assert names(tmp_path) == ["list.txt"]
    with pytest.raises(UserError, match=r"can't write .*list\.txt"):
        run(videos, videos, any_)


def test_one_run_at_a_time_writes_to_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with (
        FileLock(out / ".lock"),
        pytest.raises(UserError, match=r"another run is writing to .*out; wait for it"),
    ):
        run(listed(tmp_path, "a.mp4"), out, tmp_path / "any")
    assert shown(out) == []


def test_weights_that_are_missing_end_it(tmp_path: Path) -> None:
    before = set(multiprocessing.active_children())
    with pytest.raises(UserError, match=r"no\.safetensors: no such weights file"):
        run(films(tmp_path, a=2), tmp_path / "out", tmp_path / "no.safetensors")
    assert shown(tmp_path / "out") == []
    assert set(multiprocessing.active_children()) <= before


def test_what_is_no_table_or_of_another_source_is_left_alone(tmp_path: Path) -> None:
    videos, out, any_ = listed(tmp_path, "a.mp4"), tmp_path / "out", tmp_path / "any"
    out.mkdir()
    path = out / "videos.csv"
    head = "source,folder,state,frames,tracks,seconds,note\n"
    for text in (
        "a,b\n1,2\n",
        "a,b\n",
        "",
        head + "x,a,gone,1,1,1,\n",
        head + "x,a,done,many,1,1,\n",
        head + "x,a\n",
        "\0",
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=r"videos\.csv is not a table of results; move it away"):
            run(videos, out, any_)
        assert path.read_text() == text
    path.write_text(head + "/elsewhere/a.mp4,a,done,2,1,0.5,\n")
    (out / "a").mkdir()
    (out / "a" / "panoptic.json").touch()
    with pytest.raises(UserError, match=r"is the result of /elsewhere/a\.mp4, not of .*name another folder"):
        run(videos, out, any_)


def test_the_exit_code_says_whether_any_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [VideoRow("a.mp4", "a", "done", 5, 1, 2.0), VideoRow("b.mp4", "b", "done", 6, 1, 2.0)]
    monkeypatch.setattr(
        predict_many, "predict_many", lambda *_: PredictManySummary(tmp_path / "videos.csv", tuple(rows))
    )
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["panoptube", "predict-many", "list.txt", "--out", "out"])
    assert cli.main() == 0
    assert capsys.readouterr().out == "out: 2 videos, 11 frames\n"
    rows[0] = VideoRow("a.mp4", "a", "failed", note="no")
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    said = f"panoptube: 1 of 2 videos failed; {tmp_path / 'videos.csv'} says why\n"
    assert capsys.readouterr() == ("", said)
