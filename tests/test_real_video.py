"""benchmarks/real_video.py: the truth scores full marks, and the sheet shows image, labels and result."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import real_video
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.clip import Clip, Image
from panoptube.panoptic.frame import PanopticFrame
from panoptube.view.overlay import overlay

ROAD, PERSON, SKY, CAR = (CITYSCAPES.index(name) for name in ("road", "person", "sky", "car"))
FRAMES, SIZE = 20, (32, 64)


def truth(t: int) -> PanopticFrame:
    semantic, instance = np.full(SIZE, SKY, np.uint8), np.zeros(SIZE, np.int32)
    semantic[16:] = ROAD
    semantic[18:28, 4 + t : 24 + t], instance[18:28, 4 + t : 24 + t] = CAR, 3
    semantic[8:28, 50:56], instance[8:28, 50:56] = PERSON, 9
    return PanopticFrame(semantic, instance)


def image(t: int) -> Image:
    return np.repeat(truth(t).semantic[..., None] * 9, 3, -1)


CLIP = Clip("drive", CITYSCAPES, SIZE, 10.0, FRAMES, tuple(range(FRAMES)), image, truth)


class Told:
    """A predictor that knows the truth, but takes each car for a new one after frame 10."""

    def __init__(self, breaks: bool) -> None:
        self.t, self.breaks = -1, breaks

    def step(self, image: Image) -> PanopticFrame:
        self.t += 1
        frame = truth(self.t)
        if self.breaks and self.t > 9:
            frame.instance[frame.instance == 3] = 4
        return frame


@pytest.mark.parametrize("breaks", [False, True])
def test_scores_of_the_truth(breaks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackeval")
    monkeypatch.setattr(real_video, "VideoPredictor", lambda network: Told(breaks))
    result, sheet = real_video.score(None, [CLIP, CLIP])  # type: ignore[arg-type]
    found = real_video.figures(result)
    full = {"PQ, core classes", "PQ", "PQ, sky", "PQ, road", "PQ, person", "PQ, car", "IDF1, person", "SQ"}
    assert {found[name] for name in full} == {1}
    assert math.isnan(found["PQ, sidewalk"])
    assert found["IDF1, car"] == pytest.approx(0.5 if breaks else 1)
    assert (found["VPQ"] < 1) == (found["AQ"] < 1) == (found["STQ"] < 1) == breaks
    assert 0.9 < found["TC, DIS flow"] <= 1
    row = sheet[: len(sheet) // 2, real_video.WIDTH :]
    assert np.array_equal(row[:, : real_video.WIDTH], row[:, real_video.WIDTH :]) != breaks


def test_sheet_row() -> None:
    frame = truth(0)
    row = real_video.sheet_row("drive 0", image(0), frame, frame, CITYSCAPES)
    assert row.shape == (208, 3 * real_video.WIDTH, 3)
    expected = overlay(image(0), frame, CITYSCAPES)[20, 10]
    assert row[20 * 13 // 2 + 3, real_video.WIDTH + 10 * 13 // 2 + 3].tolist() == expected.tolist()


def test_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(real_video, "read_labelled_videos", lambda root, split: [CLIP])
    monkeypatch.setattr(real_video, "load_weights", lambda path: (path, None))
    monkeypatch.setattr(real_video, "for_inference", lambda network: network)
    monkeypatch.setattr(real_video, "VideoPredictor", lambda network: Told(network.parent.name == "new"))
    files = ["old/tiny.safetensors", "new/weights.safetensors"]
    monkeypatch.setattr(
        "sys.argv", ["real_video.py", str(tmp_path), str(tmp_path / "out"), "--weights", *files]
    )
    real_video.main()
    printed = capsys.readouterr().out
    assert "| | tiny | new |\n|---|---:|---:|\n" in printed
    assert "| PQ | 100.0 | 100.0 |" in printed
    assert "sidewalk" not in printed
    assert (tmp_path / "out/real_video.md").read_text().strip() == printed.strip()
    content = json.loads((tmp_path / "out/real_video.json").read_text())
    assert content["tiny"]["figures"]["PQ, sidewalk"] is None
    assert content["new"]["vpq"]["frames"] == 4
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "real_video.json", "real_video.md", "tiny.png", "new.png",
    }  # fmt: skip
