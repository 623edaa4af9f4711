"""prepare: what it makes is what the readers read, twice the same, and goes on after a stop."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from official_trees import (
    CITIES,
    SIZE,
    city_frame,
    city_maps,
    picture,
    save,
    write_cityscapes_vps,
    write_kitti_step,
    write_viper,
    write_vipseg,
)

from panoptube import cli
from panoptube import prepare as module
from panoptube.data.clip import Clip
from panoptube.data.datasets import read_dataset
from panoptube.data.files import MissingData
from panoptube.errors import UserError
from panoptube.evaluate import evaluate
from panoptube.panoptic.layouts import find_sources, read_clips
from panoptube.prepare import encode_rle, prepare


def files(root: Path) -> dict[str, str]:
    """Every file under a folder, and what is in it."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def unpack(name: str, root: Path) -> None:
    {"cityscapes-vps": write_cityscapes_vps, "viper": write_viper, "vipseg": write_vipseg}[name](root)


def compare_with_reader(root: Path, clips: list[Clip]) -> None:
    """The truth that evaluation reads is the truth that the reader gives, track by track."""
    taxonomy, stored = read_clips(root, root, clip_length=6)
    assert [c.name for c in stored] == [c.name for c in clips]
    for clip, read in zip(clips, stored):
        assert [(x.id, x.name, x.isthing, x.color) for x in taxonomy.categories] == [
            (x.id, x.name, x.isthing, x.color) for x in clip.taxonomy.categories
        ]
        assert len(read.truth) == len(clip.labelled)
        for t, frame in zip(clip.labelled, read.truth):
            truth, found = clip.truth(t), frame.frame()
            assert truth is not None
            assert (found.semantic == truth.semantic).all()
            assert (found.instance == truth.instance).all()


@pytest.mark.parametrize("name", ["cityscapes-vps", "viper", "vipseg"])
def test_evaluation_reads_the_truth(tmp_path: Path, name: str) -> None:
    unpack(name, tmp_path)
    prepare(name, tmp_path, workers=1, progress=False)
    compare_with_reader(tmp_path, read_dataset(name, tmp_path, "val"))
    result = evaluate(tmp_path, tmp_path, windows=(1, 3), progress=False)
    assert result.vpq is not None
    assert result.vpq.all.pq == 1


@pytest.mark.parametrize(("name", "workers"), [("cityscapes-vps", 2), ("viper", 1), ("vipseg", 1)])
def test_twice_is_identical_for_any_number_of_workers(tmp_path: Path, name: str, workers: int) -> None:
    unpack(name, tmp_path)
    before = files(tmp_path)
    prepare(name, tmp_path, workers=1, progress=False)
    once = files(tmp_path)
    assert {k: v for k, v in once.items() if k in before} == before
    assert len(once) > len(before)
    assert not [k for k in once if k.endswith(".part") or ".prepare" in k]
    prepare(name, tmp_path, workers=workers, progress=False)
    assert files(tmp_path) == once


def test_files_of_cityscapes_vps(tmp_path: Path) -> None:
    write_cityscapes_vps(tmp_path)
    lines = prepare("cityscapes-vps", tmp_path, workers=1, progress=False)
    wrote = "panoptic_gt_val_city_vps.json, instances_val_city_vps_rle.json"
    assert lines == [f"val: 2 clips, 12 labelled frames; wrote {wrote}"]
    val = tmp_path / "val"
    counts = {folder.name: len(list(folder.iterdir())) for folder in val.iterdir()}
    assert counts == {
        "cls": 12, "inst": 12, "img": 12, "img_all": 60,
        "labelmap": 12, "panoptic_inst": 12, "panoptic_video": 12,
    }  # fmt: skip
    for shift, city in enumerate(CITIES):
        for t in range(4, 30, 5):
            frame = city_frame(city, t)
            label = f"{frame}_{'gtFine_color' if t == 19 else 'final_mask'}.png"
            image = f"{frame}_{'leftImg8bit' if t == 19 else 'newImg8bit'}.png"
            colors, inst, ids = city_maps(t, shift)
            read = cv2.imread(str(val / "img" / image))[:, :, ::-1]
            assert (read == picture(t, shift)).all()
            assert (cv2.imread(str(val / "cls" / label))[:, :, ::-1] == colors).all()
            labelmap = cv2.imread(str(val / "labelmap" / label), cv2.IMREAD_UNCHANGED)
            assert (labelmap == ids).all()
            panoptic = cv2.imread(str(val / "panoptic_inst" / label), cv2.IMREAD_UNCHANGED)
            expected = np.where(inst >= 1000, ids.astype(int) * 1000 + inst % 1000, ids)
            assert panoptic.dtype == np.uint16
            assert (panoptic == expected).all()


def test_json_of_cityscapes_vps(tmp_path: Path) -> None:
    """Dossier 11.3."""
    write_cityscapes_vps(tmp_path)
    prepare("cityscapes-vps", tmp_path, workers=1, progress=False)
    truth = json.loads((tmp_path / "panoptic_gt_val_city_vps.json").read_text())
    names = sorted(city_frame(city, t) for city in CITIES for t in range(4, 30, 5))
    assert [image["id"] for image in truth["images"]] == names
    assert [a["image_id"] for a in truth["annotations"]] == names
    assert truth["images"][3] == {
        "id": names[3], "file_name": f"{names[3]}_leftImg8bit.png", "width": 16, "height": 10
    }  # fmt: skip
    assert truth["annotations"][3]["file_name"] == f"{names[3]}_gtFine_color.png"
    # Stuff has its colour; the first object of a class isn't it: that is kept for crowds.
    sky = next(s for s in truth["annotations"][0]["segments_info"] if s["category_id"] == 10)
    assert (sky["id"], sky["iscrowd"]) == (70 + 256 * 130 + 65536 * 180, 0)
    assert {s["category_id"] for a in truth["annotations"] for s in a["segments_info"]} == {0, 10, 11, 13}
    of_track: dict[tuple[str, int], set[int]] = {}
    for annotation in truth["annotations"]:
        for s in annotation["segments_info"]:
            if "track_id" in s:
                of_track.setdefault((annotation["image_id"][:4], s["track_id"]), set()).add(s["id"])
    assert {track for _, track in of_track} == {11007, 13000, 13021}
    assert all(len(ids) == 1 for ids in of_track.values())

    listed = json.loads((tmp_path / "instances_val_city_vps_rle.json").read_text())
    assert [c["id"] for c in listed["categories"]] == list(range(11, 19))
    assert [image["id"] for image in listed["images"]] == [int(name[:9]) for name in names]
    assert [a["id"] for a in listed["annotations"]] == list(range(1, 37))
    check_instances(listed, read_dataset("cityscapes-vps", tmp_path, "val"))


def check_instances(listed: dict[str, Any], clips: list[Clip]) -> None:
    """Masks, boxes and areas of the instance JSON against the reader's frames."""
    truths = [clip.truth(t) for clip in clips for t in clip.labelled]
    by_image = {image["id"]: truth for image, truth in zip(listed["images"], truths, strict=True)}
    for row in listed["annotations"]:
        truth = by_image[row["image_id"]]
        mask = truth.instance == row["inst_id"]
        ys, xs = np.nonzero(mask)
        assert row["area"] == mask.sum()
        assert row["bbox"] == [xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1]
        assert row["category_id"] == row["fcn_id"] == clips[0].taxonomy.categories[truth.semantic[mask][0]].id
        assert (decode(row["segmentation"]) == mask).all()
    tracks = sum(len(np.unique(truth.instance)) - 1 for truth in truths)
    assert len(listed["annotations"]) == tracks


def test_files_of_viper(tmp_path: Path) -> None:
    write_viper(tmp_path)
    write_viper(tmp_path, "train", sequences=1)
    day = tmp_path / "day.txt"
    day.write_text("004\n")
    lines = prepare("viper", tmp_path, ["val"], day, workers=1, progress=False)
    assert lines == [
        "val: 1 clips, 4 labelled frames; wrote viper_panoptic_val_video.json, instances_val_viper_rle.json"
    ]
    assert sorted(p.name for p in (tmp_path / "val").iterdir()) == [
        "cls", "img", "inst", "labelmap", "panoptic_video"
    ]  # fmt: skip
    listed = json.loads((tmp_path / "instances_val_viper_rle.json").read_text())
    assert [image["id"] for image in listed["images"]] == [40001, 40002, 40003, 40004]
    clips = read_dataset("viper", tmp_path, "val", day)
    check_instances(listed, clips)
    labelmap = cv2.imread(str(tmp_path / "val/labelmap/004_00001.png"), cv2.IMREAD_UNCHANGED)
    truth = clips[0].truth(0)
    assert truth is not None
    assert (labelmap == truth.semantic).all()  # no thing is without instance here
    lines = prepare("viper", tmp_path, workers=1, progress=False)
    assert [line.split(";")[0] for line in lines] == [
        "train: 1 clips, 4 labelled frames",
        "val: 2 clips, 8 labelled frames",
    ]
    # Training needs no truth to evaluate against, which would stand in the way of that of val.
    assert not (tmp_path / "train/panoptic_video").exists()
    assert list(find_sources(tmp_path)) == [""]


def test_a_downloaded_instance_json_stays(tmp_path: Path) -> None:
    write_cityscapes_vps(tmp_path)
    path = tmp_path / "instances_val_city_vps_rle.json"
    path.write_text('{"info": {}}')
    prepare("cityscapes-vps", tmp_path, workers=1, progress=False)
    assert path.read_text() == '{"info": {}}'


def test_truth_without_any_image(tmp_path: Path) -> None:
    """Scoring a result needs no images: 325 GB of them needn't be there."""
    write_cityscapes_vps(tmp_path, images=False)
    prepare("cityscapes-vps", tmp_path, workers=1, progress=False)
    assert len(list((tmp_path / "val/panoptic_video").iterdir())) == 12
    assert not (tmp_path / "val/img").exists()


def test_images_of_the_test_set(tmp_path: Path) -> None:
    write_cityscapes_vps(tmp_path, "test", labels=False)
    lines = prepare("cityscapes-vps", tmp_path, ["test"], workers=1, progress=False)
    assert lines == ["test: 2 clips, 0 labelled frames"]
    assert {p.name: len(list(p.iterdir())) for p in (tmp_path / "test").iterdir()} == {
        "img": 12,
        "img_all": 60,
    }


def test_goes_on_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for root in (whole, stopped):
        write_cityscapes_vps(root)
    prepare("cityscapes-vps", whole, workers=1, progress=False)
    written: list[str] = []
    write = module.write_id_png

    def stop(path: Path, ids: Any) -> None:
        if len(written) == 8:
            raise KeyboardInterrupt
        written.append(path.name)
        write(path, ids)

    monkeypatch.setattr(module, "write_id_png", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare("cityscapes-vps", stopped, workers=1, progress=False)
    assert not (stopped / "panoptic_gt_val_city_vps.json").exists()
    written.clear()
    monkeypatch.setattr(
        module, "write_id_png", lambda path, ids: (written.append(path.name), write(path, ids))
    )
    prepare("cityscapes-vps", stopped, workers=1, progress=False)
    assert {name[:4] for name in written} == {"0015"}  # clip 0005 was done
    assert files(stopped) == files(whole)


def test_what_changed_since_a_stop_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_viper(tmp_path, frames=6)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_panoptic_text", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare("viper", tmp_path, workers=1, progress=False)
    made: list[str] = []
    make = module._make_clip
    monkeypatch.setattr(module, "_make_clip", lambda *args: (made.append(args[-1].name), make(*args))[1])
    later = time.time() + 5
    os.utime(tmp_path / "val/cls/004/004_00002.png", (later, later))
    prepare("viper", tmp_path, workers=1, progress=False)
    assert made == ["004"]
    made.clear()
    with monkeypatch.context() as patch:
        patch.setattr(module, "_panoptic_text", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare("viper", tmp_path, frames=5, workers=1, progress=False)
    made.clear()
    prepare("viper", tmp_path, workers=1, progress=False)
    assert made == ["003", "004"]  # all six frames, not the five of before
    assert len(json.loads((tmp_path / "viper_panoptic_val_video.json").read_text())["images"]) == 12


def test_killed_in_the_middle(tmp_path: Path) -> None:
    """A process that is killed without warning leaves nothing that another run doesn't finish."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for root in (whole, killed):
        write_viper(root, sequences=4, frames=40)
    prepare("viper", whole, workers=1, progress=False)
    code = (
        f"from panoptube.prepare import prepare; prepare('viper', {str(killed)!r}, workers=1, progress=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    parts = killed / ".prepare/val"
    while not (parts.is_dir() and list(parts.glob("*.json"))) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "viper_panoptic_val_video.json").exists()
    prepare("viper", killed, workers=1, progress=False)
    assert files(killed) == files(whole)


def test_a_wrong_file_stops_it_before_the_json(tmp_path: Path) -> None:
    write_viper(tmp_path)
    save(tmp_path / "val/cls/004/004_00003.png", np.full(SIZE, 99, np.uint8))
    for workers in (1, 2):
        with pytest.raises(UserError, match=r"004_00003\.png has the value 99 at row 0, column 0"):
            prepare("viper", tmp_path, workers=workers, progress=False)
        assert not list(tmp_path.glob("*.json"))
        assert not list(tmp_path.rglob("*.part"))


def test_unknown_colours(tmp_path: Path) -> None:
    write_cityscapes_vps(tmp_path)
    path = tmp_path / f"val/cls/{city_frame('frankfurt', 4)}_final_mask.png"
    colors = city_maps(4, 0)[0]
    colors[0, 0] = (1, 2, 3)
    save(path, colors)
    with pytest.raises(UserError, match="colour 1, 2, 3 at row 0, column 0"):
        prepare("cityscapes-vps", tmp_path, workers=1, progress=False)
    prepare("cityscapes-vps", tmp_path, void_unknown=True, workers=1, progress=False)
    labelmap = cv2.imread(str(tmp_path / "val/labelmap" / path.name), cv2.IMREAD_UNCHANGED)
    assert labelmap[0, 0] == 255


def test_paths_in_the_list_stay_in_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_cityscapes_vps(root)
    path = root / "panoptic_im_val_city_vps.json"
    name = city_frame("frankfurt", 4)
    path.write_text(path.read_text().replace(f"{name}_newImg8bit.png", f"{name}_/../../../../x.png"))
    before = files(tmp_path)
    with pytest.raises(UserError, match=name):
        prepare("cityscapes-vps", root, workers=1, progress=False)
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", ["cityscapes-vps", "viper", "vipseg"])
def test_nothing_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingData, match=r"unpack .*https://") as caught:
        prepare(name, tmp_path, workers=1, progress=False)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_part_is_missing(tmp_path: Path) -> None:
    write_cityscapes_vps(tmp_path)
    shutil.rmtree(tmp_path / "gtFine")
    before = files(tmp_path)
    with pytest.raises(MissingData, match=r"gtFine_trainvaltest\.zip of https://www\.cityscapes-dataset"):
        prepare("cityscapes-vps", tmp_path, workers=1, progress=False)
    assert files(tmp_path) == before


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    write_kitti_step(tmp_path)
    with pytest.raises(UserError, match="kitti-step needs no preparation"):
        prepare("kitti-step", tmp_path, progress=False)
    with pytest.raises(UserError, match="no dataset is called 'kitti'"):
        prepare("kitti", tmp_path, progress=False)
    with pytest.raises(UserError, match=r"vipseg takes no list of sequences; leave out a\.txt"):
        prepare("vipseg", tmp_path, sequences=Path("a.txt"), progress=False)
    with pytest.raises(UserError, match="viper has no colours"):
        prepare("viper", tmp_path, void_unknown=True, progress=False)
    with pytest.raises(UserError, match="0 workers"):
        prepare("viper", tmp_path, workers=0, progress=False)


def command(monkeypatch: pytest.MonkeyPatch, *args: object) -> int:
    monkeypatch.setattr(sys, "argv", ["panoptube", "prepare", *map(str, args)])
    before = signal.getsignal(signal.SIGTERM)
    try:
        return cli.main()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_viper(tmp_path)
    listed = tmp_path / "day.txt"
    listed.write_text("003")
    options = ["--splits", "val", "--sequences", listed, "--frames", 3, "--workers", 1]
    assert command(monkeypatch, "viper", "--root", tmp_path, *options) == 0
    assert capsys.readouterr().out == (
        "val: 1 clips, 3 labelled frames; wrote viper_panoptic_val_video.json, instances_val_viper_rle.json\n"
    )


@pytest.mark.parametrize("name", ["cityscapes-vps", "viper", "vipseg"])
def test_command_shows_the_tree_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert command(monkeypatch, name, "--root", tmp_path) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"{name}, as it should be unpacked:"
    assert "ROOT/" in lines
    assert lines[-1].startswith("panoptube: no ")
    assert "https://" in lines[-1]
    assert lines[-2] == ""


def test_command_that_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_viper(tmp_path)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_id_png", stop)
    assert command(monkeypatch, "viper", "--root", tmp_path, "--workers", "1") == 130
    assert capsys.readouterr().err.endswith("interrupted; the same command goes on where it was\n")


def decode(rle: dict[str, Any]) -> np.ndarray:
    """COCO's run lengths, as slowly as they are said."""
    values = [value % 2 for value, count in enumerate(rle["counts"]) for _ in range(count)]
    return np.array(values, bool).reshape(rle["size"][::-1]).T


MASKS = ["1", "0|1", "1|1", "11|11", "01|10", "110|011|000", "1001|1001", "10|10|01"]


@pytest.mark.parametrize("rows", MASKS)
def test_run_lengths_by_hand(rows: str) -> None:
    mask = np.array([[c == "1" for c in row] for row in rows.split("|")])
    rle = encode_rle(mask, (0, 0), mask.shape)
    assert sum(rle["counts"]) == mask.size
    assert all(count > 0 for count in rle["counts"][1:])
    assert (decode(rle) == mask).all()


def test_run_lengths_of_a_part_of_the_picture() -> None:
    hotcoco = pytest.importorskip("hotcoco")
    rng = np.random.default_rng(1)
    for _ in range(50):
        mask = np.zeros((9, 12), bool)
        y, x = rng.integers(0, 6, 2)
        inside = rng.random((rng.integers(1, 4), rng.integers(1, 7))) < 0.7
        mask[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
        rle = encode_rle(inside, (int(x), int(y)), mask.shape)
        assert (decode(rle) == mask).all()
        assert all(count > 0 for count in rle["counts"][1:])
        packed = hotcoco.mask.fr_py_objects(rle, *mask.shape)
        assert (np.asarray(hotcoco.mask.decode(packed)).reshape(mask.shape) == mask).all()
