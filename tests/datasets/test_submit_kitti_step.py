"""submit kitti-step: the archive, read as truth is, holds what was predicted; nothing wrong is packed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import cv2
import numpy as np
import pytest
from official_trees import write_kitti_step

from panoptube import cli
from panoptube.data import write_layouts
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.kitti_step import KITTI_STEP, find_sequences, read_kitti_step
from panoptube.errors import UserError
from panoptube.panoptic.formats import PanopticVideoWriter
from panoptube.panoptic.frame import VOID, PanopticFrame, Taxonomy
from panoptube.submit import submit

CAR, PERSON, SKY = (KITTI_STEP.index(name) for name in ("car", "person", "sky"))
NAMES = ("0000", "0001")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A test set of two sequences, three frames each; one skips a number."""
    root = tmp_path / "kitti"
    write_kitti_step(root)
    images = root / "testing" / "image_02"
    shutil.copytree(images / "0000", images / "0001")
    (images / "0001" / "000001.png").rename(images / "0001" / "000007.png")
    return root


def frame(size: tuple[int, int], t: int, first: int) -> PanopticFrame:
    """Sky, void, crowd of persons, and cars `first` and 70000, the latter from the second frame on."""
    semantic, instance = np.full(size, SKY, np.uint8), np.zeros(size, np.int32)
    semantic[0] = VOID
    semantic[1, :3] = PERSON
    semantic[2:4, t : t + 4], instance[2:4, t : t + 4] = CAR, first
    if t:
        semantic[5:7, 4:8], instance[5:7, 4:8] = CAR, 70000
        semantic[7:9, :2], instance[7:9, :2] = PERSON, 70000
    return PanopticFrame(semantic, instance)


def predict_all(root: Path, pred: Path, numbered: bool = True, taxonomy: Taxonomy = KITTI_STEP) -> Path:
    """As `panoptube predict` calls frames, or by the images' names."""
    for i, sequence in enumerate(find_sequences(root, "test")):
        with PanopticVideoWriter(pred / sequence.name, taxonomy) as writer:
            for t, image in enumerate(sequence.images):
                writer.write(f"{t:06d}" if numbered else image.stem, frame(sequence.size, t, 300 + i))
    return pred


def unpack_as_truth(file: Path, root: Path) -> Path:
    """The archive where the truth of a split val would be."""
    truth = root.parent / "as_truth"
    with ZipFile(file) as packed:
        packed.extractall(truth / "kitti-step/panoptic_maps/val")
    shutil.copytree(root / "testing", truth / "training")
    return truth


@pytest.mark.parametrize("numbered", [True, False])
def test_what_was_packed_is_what_was_predicted(numbered: bool, root: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "submission.zip"
    pred = predict_all(root, tmp_path / "pred", numbered)
    assert submit("kitti-step", pred, root, out, progress=False) == 6
    assert [p.name for p in out.parent.iterdir()] == ["submission.zip"]
    with ZipFile(out) as packed:
        assert packed.namelist() == [
            *(f"0000/{t:06d}.png" for t in (0, 1, 2)),
            *(f"0001/{t:06d}.png" for t in (0, 2, 7)),
        ]
    clips = read_kitti_step(unpack_as_truth(out, root), "val")
    assert [clip.name for clip in clips] == list(NAMES)
    for i, clip in enumerate(clips):
        tracks = {300 + i: 13 * 65536 + 1}  # the first car of the sequence
        for t in range(3):
            want, got = frame(clip.size, t, 300 + i), clip.read_truth(t)
            np.testing.assert_array_equal(got.semantic, want.semantic)
            for mine, theirs in set(zip(want.instance.ravel().tolist(), got.instance.ravel().tolist())):
                if mine != 70000:
                    assert theirs == tracks.get(mine, 0)
            car, person = (set(got.instance[want.semantic == c].tolist()) for c in (CAR, PERSON))
            assert car == {13 * 65536 + 1, *([13 * 65536 + 2] if t else [])}
            assert person == {0, *([11 * 65536 + 1] if t else [])}
    first = out.read_bytes()
    submit("kitti-step", pred, root, out, overwrite=True, progress=False)
    assert out.read_bytes() == first


def test_the_png_by_hand(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R = class, 256 G + B = object (DeepLab2, g3doc/setup/kitti_step.md); here of 300 cars."""
    many = np.zeros((10, 16), np.int32)
    many[:] = np.arange(1, 161).reshape(10, 16)
    semantic = np.full((10, 16), CAR, np.uint8)
    shutil.rmtree(root / "testing/image_02/0001")
    with PanopticVideoWriter(tmp_path / "pred", KITTI_STEP) as writer:  # one sequence needs no folder
        for t in range(3):
            writer.write(f"{t:06d}", PanopticFrame(semantic, many + 160 * t))
    assert submit("kitti-step", tmp_path / "pred", root, tmp_path / "s.zip", progress=False) == 3
    with ZipFile(tmp_path / "s.zip") as packed:
        data = np.frombuffer(packed.read("0000/000001.png"), np.uint8)
    png = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)[:, :, ::-1]
    assert (png.dtype, png.shape) == (np.uint8, (10, 16, 3))
    assert png[0, 0].tolist() == [13, 0, 161]
    assert png[9, 15].tolist() == [13, 1, 64]  # 320
    # 16 bits are all there is.
    monkeypatch.setattr(write_layouts, "OBJECTS", 479)
    with pytest.raises(UserError, match="clip 0000 has more than 479 objects of the class car"):
        submit("kitti-step", tmp_path / "pred", root, tmp_path / "t.zip", progress=False)
    assert not (tmp_path / "t.zip").exists()


def test_of_val_the_labelled_frames_are_needed(root: Path, tmp_path: Path) -> None:
    """And the truth, packed, is the truth."""
    (clip,) = read_kitti_step(root, "val")
    (root / "kitti-step/panoptic_maps/val/0002/000001.png").unlink()
    with PanopticVideoWriter(tmp_path / "pred" / "0002", KITTI_STEP) as writer:
        for t in (0, 2):
            writer.write(f"{t:06d}", clip.read_truth(t))
    assert submit("kitti-step", tmp_path / "pred", root, tmp_path / "s.zip", "val", progress=False) == 2
    with ZipFile(tmp_path / "s.zip") as packed:
        assert packed.namelist() == ["0002/000000.png", "0002/000002.png"]
        packed.extractall(root / "kitti-step/panoptic_maps/val")
    (again,) = read_kitti_step(root, "val")
    before, after = clip.read_truth(2), again.read_truth(2)
    np.testing.assert_array_equal(before.semantic, after.semantic)
    np.testing.assert_array_equal(before.instance > 0, after.instance > 0)


def edit(pred: Path, change: Callable[[list[dict]], object]) -> None:  # type: ignore[type-arg]
    path = pred / "0001" / "panoptic.json"
    data = json.loads(path.read_text())
    change(data["annotations"])
    path.write_text(json.dumps(data))


def crop(pred: Path) -> None:
    path = pred / "0001" / "panoptic" / "000002.png"
    cv2.imwrite(str(path), cv2.imread(str(path))[:, :-1])
    edit(pred, lambda a: [s.pop("area") for s in a[2]["segments_info"]])


def in_cityscapes_classes(pred: Path) -> None:
    path = pred / "0001" / "panoptic.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | CITYSCAPES.to_dict()))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no sequence": (lambda pred: shutil.rmtree(pred / "0001"), "has no folder 0001; predict that sequence"),
    "no frame": (lambda pred: edit(pred, lambda a: a.pop()), "has no frame 000002 of 0001; predict it"),
    "a frame twice": (lambda pred: edit(pred, lambda a: a.append(a[0])), "lists a frame twice"),
    "no PNG": (lambda pred: (pred / "0001/panoptic/000002.png").unlink(), "can't read"),
    "a cut PNG": (
        lambda pred: (pred / "0001/panoptic/000002.png").write_bytes(b"\x89PNG\r\n\x1a\n1234"),
        "not a complete PNG",
    ),
    "another size": (crop, "is 15 x 10 pixels, the dataset says 16 x 10; predict at the size"),
    "an id that isn't listed": (
        lambda pred: edit(pred, lambda a: a[2]["segments_info"].pop()),
        "which the JSON doesn't list",
    ),
    "an unknown class": (
        lambda pred: edit(pred, lambda a: a[2]["segments_info"][0].update(category_id=19)),
        "category_id 19",
    ),
    "other classes": (in_cityscapes_classes, "category 12 is 'rider' (thing), but 'kitti-step' says"),
    "not JSON": (lambda pred: (pred / "0001" / "panoptic.json").write_text("{"), "not panoptic JSON"),
    "one result for all": (
        lambda pred: [(pred / "0001" / p).rename(pred / p) for p in ("panoptic", "panoptic.json")],
        "is one result; name a folder with one for each sequence",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_wrong_is_packed(fault: str, root: Path, tmp_path: Path) -> None:
    pred = predict_all(root, tmp_path / "pred")
    spoil, message = FAULTS[fault]
    spoil(pred)
    out = tmp_path / "submission.zip"
    out.write_text("an earlier one")
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        submit("kitti-step", pred, root, out, overwrite=True, progress=False)
    assert "\n" not in str(caught.value)
    assert out.read_text() == "an earlier one"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kitti", "pred", "submission.zip"]


def test_the_command(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pred, out = predict_all(root, tmp_path / "pred"), tmp_path / "s.zip"
    command = ["panoptube", "submit", "kitti-step", "--pred", str(pred), "--root", str(root)]
    monkeypatch.setattr("sys.argv", [*command, "--out", str(out)])
    assert cli.main() == 0
    assert capsys.readouterr().out.endswith(f"{out}: 6 frames\n")
    assert cli.main() == 2
    assert "exists" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", [*command, "--out", str(tmp_path / "t.zip"), "--split", "all"])
    assert cli.main() == 2
    assert "no split 'all'" in capsys.readouterr().err
