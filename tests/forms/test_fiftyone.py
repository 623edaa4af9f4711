"""FiftyOne's own labels, without its database."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_results import FRAMES, STREET

from panoptube.forms.fiftyone import fill_sample, mask_targets
from panoptube.panoptic.frame import VOID

fo = pytest.importorskip("fiftyone")


def test_a_sample_gets_its_frames() -> None:
    sample = fo.Sample(filepath="drive.mp4")
    sample.frames[1]["other"] = fo.Classification(label="stays")
    assert fill_sample(sample, iter(FRAMES), STREET) == 3
    assert sorted(sample.frames.keys()) == [1, 2, 3]
    assert sample.frames[1]["other"].label == "stays"
    for number, frame in enumerate(FRAMES, 1):
        height, width = frame.size
        instance = np.zeros(frame.size, np.int32)
        for found in sample.frames[number]["panoptube"].detections:
            x, y, w, h = (round(v * n) for v, n in zip(found.bounding_box, (width, height) * 2))
            assert found.mask.shape == (h, w)
            instance[y : y + h, x : x + w][found.mask] = found.index
            assert found.confidence == frame.scores[found.index]
            assert found.label == ("person" if found.index == 5 else "car")
        assert (instance == frame.instance).all()
        targets = mask_targets(STREET)
        classes = sample.frames[number]["panoptube_classes"].mask
        assert ((classes == 0) == (frame.semantic == VOID)).all()
        for value in np.unique(classes[classes > 0]).tolist():
            assert (frame.semantic[classes == value] == STREET.index(targets[value])).all()
        assert sample.frames[number]["panoptube"].to_dict()["detections"]
