import cv2
import numpy as np
import pytest

from panoptube.errors import UserError
from panoptube.flow.source import DISFlow, GivenFlow, dis_flow


def test_given_flow_is_found_by_the_first_frame(tmp_path):
    for place, value in ((tmp_path, 1), (tmp_path / "clip", 2)):
        place.mkdir(exist_ok=True)
        np.save(place / "000.npy", np.full((2, 3, 2), value, np.float32))
    source = GivenFlow(tmp_path)
    assert source("clip", "000", "001").max() == 2
    assert source("other", "000", "001").max() == 1
    assert tmp_path.name in source.name
    with pytest.raises(UserError, match=r"lacks the flow from 001 to 002: expected 001 with \.flo or \.npy"):
        source("clip", "001", "002")
    with pytest.raises(UserError, match="is no folder"):
        GivenFlow(tmp_path / "nowhere")


def test_dis_finds_a_shift(tmp_path):
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(256, size=(64, 96)).astype(np.uint8), (0, 0), 2)
    moved = np.roll(image, (2, 3), (0, 1))
    flow = dis_flow(image, moved)
    assert np.abs(np.median(flow, (0, 1)) - (3, 2)).max() < 0.3
    for name, picture in (("000.png", image), ("001_leftImg8bit.png", moved)):
        cv2.imwrite(str(tmp_path / name), picture)
    source = DISFlow(tmp_path)
    assert np.array_equal(source("clip", "000", "001"), flow)
    assert "DIS" in source.name
    cv2.imwrite(str(tmp_path / "002.png"), image[:32])
    with pytest.raises(UserError, match="differ in size"):
        source("clip", "001", "002")
    with pytest.raises(UserError, match="lacks the image of frame 003"):
        source("clip", "002", "003")
    (tmp_path / "003.png").write_bytes(b"no")
    with pytest.raises(UserError, match=r"003\.png is no image"):
        source("clip", "002", "003")
    with pytest.raises(UserError, match="too small"):
        dis_flow(image[:8, :8], image[:8, :8])
