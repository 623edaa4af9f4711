"""submit: what the server would read is what was predicted, and nothing wrong is packed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import cv2
import numpy as np
import pytest
from test_write_layouts import make_clip

from panoptube import cli
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.datasets import read_dataset
from panoptube.data.write_layouts import CITYSCAPES_FRAMES, write_dataset
from panoptube.errors import UserError
from panoptube.evaluate import evaluate
from panoptube.panoptic.formats import PanopticVideoWriter
from panoptube.panoptic.frame import VOID, PanopticFrame
from panoptube.prepare import prepare
from panoptube.submit import submit


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two clips of the split val, prepared."""
    out = write_dataset("cityscapes-vps", [("val", make_clip(i)) for i in range(2)], tmp_path / "vps")
    prepare("cityscapes-vps", out, workers=1, progress=False)
    return out


def frames(root: Path, clip: int) -> list[PanopticFrame]:
    """The truth, and something else where there is none."""
    found = read_dataset("cityscapes-vps", root, "val")[clip]
    size = found.size
    other = PanopticFrame(np.full(size, 3, np.uint8), np.zeros(size, np.int32))
    return [found.truth(t) or other for t in range(len(found))]


def predict_all(root: Path, pred: Path) -> Path:
    """As `panoptube predict` writes each clip's 30 images."""
    for clip in range(2):
        with PanopticVideoWriter(pred / f"{clip + 1:04d}", CITYSCAPES) as writer:
            for t, frame in enumerate(frames(root, clip)):
                writer.write(f"{t:06d}", frame)
    return pred


def name(clip: int, t: int) -> str:
    return f"{clip:04d}_{6 * (clip - 1) + (t + 1) // 5:04d}_city_{clip:06d}_{t:06d}"


def unpack(file: Path, folder: Path) -> Path:
    with ZipFile(file) as packed:
        assert packed.namelist() == ["pred.json", "pan_pred.zip"]
        packed.extractall(folder)
    with ZipFile(folder / "pan_pred.zip") as packed:
        assert packed.namelist() == [f"{name(clip, t)}.png" for clip in (1, 2) for t in CITYSCAPES_FRAMES]
        packed.extractall(folder / "pan_pred")
    return folder


def score(root: Path, pred: Path) -> float:
    result = evaluate(root, pred, progress=False).vpq
    assert result is not None
    return result.all.pq


def test_a_packed_truth_scores_one(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "submission.zip"
    pred = predict_all(root, tmp_path / "pred")
    assert submit("cityscapes-vps", pred, root, out, "val", progress=False) == 12
    assert score(root, unpack(out, tmp_path / "unpacked")) == 1.0
    assert [p.name for p in out.parent.iterdir()] == ["submission.zip"]
    first = out.read_bytes()
    submit("cityscapes-vps", pred, root, out, "val", overwrite=True, progress=False)
    assert out.read_bytes() == first
    # Or the score would be of nothing: the last frame without its cars.
    wrong = frames(root, 1)
    semantic = wrong[29].semantic.copy()
    semantic[wrong[29].semantic == CITYSCAPES.index("car")] = VOID
    wrong[29] = PanopticFrame(semantic, np.where(semantic == VOID, 0, wrong[29].instance).astype(np.int32))
    with PanopticVideoWriter(pred / "0002", CITYSCAPES, overwrite=True) as writer:
        for t, frame in enumerate(wrong):
            writer.write(f"{t:06d}", frame)
    submit("cityscapes-vps", pred, root, out, "val", overwrite=True, progress=False)
    assert 0.5 < score(root, unpack(out, tmp_path / "again")) < 1


def test_the_json_by_hand(root: Path, tmp_path: Path) -> None:
    submit("cityscapes-vps", predict_all(root, tmp_path / "pred"), root, tmp_path / "s.zip", "val")
    folder = unpack(tmp_path / "s.zip", tmp_path / "unpacked")
    file = json.loads((folder / "pred.json").read_text())
    assert list(file) == ["annotations"]
    assert [list(a) for a in file["annotations"]] == [["segments_info"]] * 12
    png = cv2.imread(str(folder / "pan_pred" / f"{name(1, 4)}.png"))[:, :, ::-1].astype(int)
    color = png[10, 5]  # a car in rows 9 to 13, columns 4 to 8
    number = int(color[0] + 256 * color[1] + 65536 * color[2])
    (car,) = [s for s in file["annotations"][0]["segments_info"] if s["id"] == number]
    assert car == {"id": number, "category_id": 13, "iscrowd": 0, "area": 25, "bbox": [4, 9, 4, 4]}


@pytest.mark.parametrize("form", ["VVVV_FFFF", "image", "city", "leftImg8bit"])
def test_frames_are_found_by_their_names_in_one_folder(form: str, root: Path, tmp_path: Path) -> None:
    with PanopticVideoWriter(tmp_path / "pred", CITYSCAPES) as writer:
        for clip in (1, 0):  # the order doesn't matter
            for t, frame in enumerate(frames(root, clip)):
                source = f"city_{clip + 1:06d}_{t:06d}"
                if t not in CITYSCAPES_FRAMES:
                    writer.write(f"{source}_leftImg8bit", frame)
                    continue
                named = name(clip + 1, t)
                kind = "leftImg8bit" if t == 19 else "newImg8bit"
                image = f"{named}_{kind}"
                forms = {"VVVV_FFFF": named, "image": image, "city": source}
                writer.write(forms.get(form, f"{source}_leftImg8bit"), frame)
    submit("cityscapes-vps", tmp_path / "pred", root, tmp_path / "s.zip", "val", progress=False)
    unpacked = unpack(tmp_path / "s.zip", tmp_path / "unpacked")
    assert score(root, unpacked) == 1.0
    # What was made is a result itself.
    (unpacked / "pan_pred.zip").unlink()
    submit("cityscapes-vps", unpacked, root, tmp_path / "t.zip", "val", progress=False)
    assert (tmp_path / "t.zip").read_bytes() == (tmp_path / "s.zip").read_bytes()
    with ZipFile(tmp_path / "t.zip") as file:
        assert {info.date_time[0] for info in file.infolist()} == {1980}, "no time in it"


def edit(pred: Path, change: Callable[[list[dict]], object]) -> None:  # type: ignore[type-arg]
    path = pred / "0002" / "panoptic.json"
    data = json.loads(path.read_text())
    change(data["annotations"])
    path.write_text(json.dumps(data))


def crop(pred: Path) -> None:
    path = pred / "0002" / "panoptic" / "000029.png"
    cv2.imwrite(str(path), cv2.imread(str(path))[:, :-1])
    edit(pred, lambda a: [s.pop("area") for s in a[29]["segments_info"]])


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no clip": (lambda pred: (pred / "0002" / "panoptic.json").unlink(), "no folder 0002"),
    "no frame": (lambda pred: edit(pred, lambda a: a.pop(29)), "has no frame 0002_"),
    "a frame twice": (lambda pred: edit(pred, lambda a: a.append(a[0])), "lists a frame twice"),
    "no PNG": (lambda pred: (pred / "0002" / "panoptic" / "000029.png").unlink(), "can't read"),
    "a cut PNG": (
        lambda pred: (pred / "0002" / "panoptic" / "000029.png").write_bytes(b"\x89PNG\r\n\x1a\n1234"),
        "not a complete PNG",
    ),
    "another size": (crop, "is 31 x 20 pixels, the dataset says 32 x 20"),
    "an id that isn't listed": (
        lambda pred: edit(pred, lambda a: a[29]["segments_info"].pop()),
        "which the JSON doesn't list",
    ),
    "an unknown class": (
        lambda pred: edit(pred, lambda a: a[29]["segments_info"][0].update(category_id=19)),
        "category_id 19",
    ),
    "not JSON": (lambda pred: (pred / "0002" / "panoptic.json").write_text("{"), "not panoptic JSON"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_wrong_is_packed(fault: str, root: Path, tmp_path: Path) -> None:
    pred = predict_all(root, tmp_path / "pred")
    spoil, message = FAULTS[fault]
    spoil(pred)
    out = tmp_path / "submission.zip"
    out.write_text("an earlier one")
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        submit("cityscapes-vps", pred, root, out, "val", overwrite=True, progress=False)
    assert "\n" not in str(caught.value)
    assert out.read_text() == "an earlier one"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pred", "submission.zip", "vps"]


def test_numbered_frames_of_one_folder_are_not_of_every_clip(root: Path, tmp_path: Path) -> None:
    pred = predict_all(root, tmp_path / "pred")
    with pytest.raises(UserError, match="no frame 0001_0001"):
        submit("cityscapes-vps", pred / "0001", root, tmp_path / "s.zip", "val", progress=False)


def test_places_that_are_in_use(root: Path, tmp_path: Path) -> None:
    pred = predict_all(root, tmp_path / "pred")
    with pytest.raises(UserError, match="is a folder"):
        submit("cityscapes-vps", pred, root, tmp_path, "val")
    (tmp_path / "s.zip").write_text("mine")
    with pytest.raises(UserError, match="exists"):
        submit("cityscapes-vps", pred, root, tmp_path / "s.zip", "val")
    with pytest.raises(UserError, match="can't write"):
        submit("cityscapes-vps", pred, root, tmp_path / "s.zip" / "t.zip", "val", progress=False)
    with pytest.raises(UserError, match="no submission is known for 'viper'"):
        submit("viper", pred, root, tmp_path / "t.zip")
    with pytest.raises(UserError, match="panoptic_im_test_city_vps"):
        submit("cityscapes-vps", pred, root, tmp_path / "t.zip")
    assert (tmp_path / "s.zip").read_text() == "mine"
    assert not (tmp_path / "t.zip").exists()


def test_the_command(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pred, out = predict_all(root, tmp_path / "pred"), tmp_path / "s.zip"
    command = ["panoptube", "submit", "cityscapes-vps", "--pred", str(pred), "--root", str(root)]
    monkeypatch.setattr("sys.argv", [*command, "--out", str(out), "--split", "val"])
    assert cli.main() == 0
    assert capsys.readouterr().out.endswith(f"{out}: 12 frames\n")
    assert cli.main() == 2
    assert "exists" in capsys.readouterr().err
