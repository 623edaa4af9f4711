"""docs/own_data.md, word by word: its commands on videos of a few pixels, with a narrow network."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from panoptube import cli
from panoptube.data.coco_video import read_coco_video
from panoptube.network.weights import load_weights
from panoptube.panoptic.formats import PanopticVideoWriter
from panoptube.panoptic.frame import PanopticFrame
from panoptube.panoptic.id_png import write_id_png
from panoptube.predict import shipped_weights

PAGE = Path(__file__).parents[1] / "docs/own_data.md"
SIZE = (32, 64)
FRAMES = 6
TINY = shlex.split("""
    --train.steps 2 --train.warmup 0 --train.save-every 2 --data.size 32 64 --data.scale 1 1 --accelerator cpu
    --network.channels 8 --network.semantic-channels 8 --network.semantic-groups 2 --network.box-channels 8
    --network.mask-channels 8 --network.mask-convs 1 --network.match-channels 8 --network.test-size 32 64
    --network.train-proposals 20 --network.test-proposals 10 --network.rpn-samples 16 --network.roi-samples 8
""")
"""What is added to the page's command, so that it takes seconds."""

Panoptube = Callable[[list[str]], int]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Panoptube:
    """A command line in `tmp_path`, in this process; returns its exit code."""
    monkeypatch.chdir(tmp_path)

    def call(arguments: list[str]) -> int:
        monkeypatch.setattr(sys, "argv", ["panoptube", *arguments])
        before = signal.getsignal(signal.SIGTERM)
        try:
            return cli.main()
        finally:
            signal.signal(signal.SIGTERM, before)

    return call


def commands(name: str) -> list[list[str]]:
    """The page's `panoptube NAME` lines, without "panoptube"."""
    text = PAGE.read_text().replace("\\\n", "")
    return [shlex.split(line) for line in re.findall(rf"^    panoptube ({name} .*)$", text, re.MULTILINE)]


def pictures(folder: Path, name: str = "frame_{:06d}.png") -> None:
    folder.mkdir(parents=True)
    for t in range(FRAMES):
        noise = np.random.default_rng(t).integers(0, 255, (*SIZE, 3), np.uint8)
        cv2.imwrite(str(folder / name.format(t)), noise)


def export(folder: Path) -> None:
    """Sky over road, a car that drives on, and a dog of masks in one group."""
    pictures(folder / "images")
    labels = {"road": "#804080", "car": "#00008e", "sky": "#4682b4", "dog": "#dc143c"}
    rows = [f"<label><name>{name}</name><color>{color}</color></label>" for name, color in labels.items()]
    tracks = []
    for label, top in (("sky", 0), ("road", 16)):
        points = f"0,{top};64,{top};64,{top + 16};0,{top + 16}"
        shapes = [f'<polygon frame="{t}" outside="0" points="{points}" z_order="0"/>' for t in range(FRAMES)]
        tracks.append((label, "", "".join(shapes)))
    boxes = [(4 + 2 * t, 24 + 2 * t) for t in range(FRAMES)]
    shapes = [
        f'<polygon frame="{t}" outside="0" points="{a},12;{b},12;{b},28;{a},28" z_order="1"/>'
        for t, (a, b) in enumerate(boxes)
    ]
    tracks.append(("car", "", "".join(shapes)))
    for t in range(FRAMES):
        box = 'left="46" top="8" width="12" height="10" z_order="1"'
        tracks.append(("dog", ' group_id="3"', f'<mask frame="{t}" outside="0" rle="0, 120" {box}/>'))
    found = [f'<track id="{i}" label="{a}"{b}>{c}</track>' for i, (a, b, c) in enumerate(tracks)]
    meta = f"<size>{FRAMES}</size><mode>interpolation</mode><start_frame>0</start_frame>"
    meta += f"<labels>{''.join(rows)}</labels>"
    (folder / "annotations.xml").write_text(
        f"<annotations><meta><task>{meta}</task></meta>{''.join(found)}</annotations>"
    )


def coco(root: Path, split: str, video: str) -> None:
    """COCO panoptic of each frame, as one's own script would write it: a car on a road."""
    pictures(root / split / video, "shot{}.png")
    (root / f"panoptic_{split}" / video).mkdir(parents=True)
    categories = [{"id": 5, "name": "car", "isthing": 1}, {"id": 3, "name": "road", "isthing": 0}]
    images, annotations = [], []
    for t in range(FRAMES):
        ids = np.full(SIZE, 300, np.uint32)
        ids[8:24, 10 + t : 30 + t] = 70000
        write_id_png(root / f"panoptic_{split}" / video / f"shot{t}.png", ids)
        name = f"{video}/shot{t}.png"
        images.append({"id": t, "video_id": 1, "file_name": name, "width": SIZE[1], "height": SIZE[0]})
        segments = [{"id": 300, "category_id": 3}, {"id": 70000, "category_id": 5}]
        annotations.append({"image_id": t, "file_name": name, "segments_info": segments})
    videos = [{"id": 1, "name": video}]
    data = {"categories": categories, "videos": videos, "images": images, "annotations": annotations}
    (root / f"panoptic_{split}.json").write_text(json.dumps(data))


def train_predict_evaluate(run: Panoptube, out: pytest.CaptureFixture[str]) -> str:
    """Steps 2 to 4 of the page; returns what evaluate printed."""
    shutil.copyfile(shipped_weights(), "start.safetensors")
    (check,) = commands("check")
    assert run(check) == 0
    (train,) = commands("train")
    assert run(train + TINY) == 0
    (predict,) = commands("predict")
    assert run(predict) == 0
    out.readouterr()
    (evaluate,) = commands("evaluate")
    assert run(evaluate) == 0
    return out.readouterr().out


def test_from_cvat_to_a_score(tmp_path: Path, run: Panoptube, capsys: pytest.CaptureFixture[str]) -> None:
    for place in ("train/drive_a", "train/drive_b", "val/drive_c"):
        export(tmp_path / "exports" / place)
    imports = commands("import-cvat")
    assert len(imports) == 2
    for command in imports:
        assert run(command) == 0
    printed = train_predict_evaluate(run, capsys)
    assert "VPQ" in printed
    network, made = load_weights(tmp_path / "runs/mine/weights.safetensors")
    assert network.taxonomy.names == ("road", "sky", "car", "dog")
    assert made.train.steps == 2
    assert (tmp_path / "runs/mine/pictures").is_dir()  # val was scored


def test_from_coco_panoptic_to_a_score(
    tmp_path: Path, run: Panoptube, capsys: pytest.CaptureFixture[str]
) -> None:
    coco(tmp_path / "data/mine", "train", "drive_a")
    coco(tmp_path / "data/mine", "val", "drive_c")
    assert "VPQ" in train_predict_evaluate(run, capsys)


def test_the_truth_itself_scores_100(
    tmp_path: Path, run: Panoptube, capsys: pytest.CaptureFixture[str]
) -> None:
    """The frames of a result are numbered; those of the truth may be called anything."""
    coco(tmp_path / "data/mine", "val", "drive_c")
    (clip,) = read_coco_video(tmp_path / "data/mine", "val")
    with PanopticVideoWriter(tmp_path / "pred/drive_c", clip.taxonomy) as writer:
        for t in range(FRAMES):
            writer.write(f"{t:06d}", clip.read_truth(t))
    (evaluate,) = commands("evaluate")
    assert run([*evaluate, "--json", "score.json"]) == 0
    assert "100.0" in capsys.readouterr().out
    # and with an object lost, less
    with PanopticVideoWriter(tmp_path / "pred/drive_c", clip.taxonomy, overwrite=True) as writer:
        for t in range(FRAMES):
            semantic = np.where(clip.read_truth(t).semantic == 1, 0, clip.read_truth(t).semantic)
            writer.write(f"{t:06d}", PanopticFrame(semantic, np.zeros(SIZE, np.int32)))
    assert run(evaluate) == 0
    assert "100.0" not in capsys.readouterr().out


def test_other_classes_in_val_are_refused(
    tmp_path: Path, run: Panoptube, capsys: pytest.CaptureFixture[str]
) -> None:
    coco(tmp_path / "data/mine", "train", "drive_a")
    coco(tmp_path / "data/mine", "val", "drive_c")
    path = tmp_path / "data/mine/panoptic_val.json"
    path.write_text(path.read_text().replace('"car"', '"truck"'))
    shutil.copyfile(shipped_weights(), "start.safetensors")
    (train,) = commands("train")
    assert run(train + TINY) == 2
    assert "has other classes than 'train'" in capsys.readouterr().err


def test_streets_with_other_classes_are_refused(
    tmp_path: Path, run: Panoptube, capsys: pytest.CaptureFixture[str]
) -> None:
    coco(tmp_path / "data/mine", "train", "drive_a")
    (train,) = commands("train")
    place = train.index("--data.streets")
    assert run(train[:place] + train[place + 2 :] + TINY) == 2
    assert "set data.streets to 0" in capsys.readouterr().err
