"""The published scripts' rules one by one, on maps drawn by hand: what strict mode corrects or refuses."""

import json
from pathlib import Path

import numpy as np
import pytest

from panoptube.errors import UserError
from panoptube.evaluate import evaluate
from panoptube.metrics.official_files import (
    cityscapes_videos,
    deal,
    panopticapi_frames,
    read_categories,
    viper_videos,
)
from panoptube.metrics.official_stq import official_confusion, official_stq
from panoptube.metrics.official_vpq import CITYSCAPES_RULES, PANOPTICAPI_RULES, VIPER_RULES, count_videos
from panoptube.panoptic.id_png import write_id_png

CATEGORIES = [
    {"id": 0, "name": "road", "isthing": 0},
    {"id": 3, "name": "car", "isthing": 1},
    {"id": 4, "name": "person", "isthing": 1},
]
ROAD, CAR = 0, 1


class Set:
    """Six frames in the form of Cityscapes-VPS; each is a row of ids."""

    def __init__(self, folder: Path, truth: list[list[int]], prediction: list[list[int]]) -> None:
        self.pngs, self.pred_pngs = folder / "gt" / "panoptic_video", folder / "pred" / "pan_pred"
        for place in (self.pngs, self.pred_pngs):
            place.mkdir(parents=True)
        self.truth: dict = {"images": [], "annotations": [], "categories": CATEGORIES}
        self.pred: dict = {"annotations": []}
        for i, (true, predicted) in enumerate(zip(truth, prediction)):
            name = f"0005_{i:04d}_x"
            self.truth["images"].append(
                {"id": name, "file_name": f"{name}_newImg8bit.png", "height": 1, "width": len(true)}
            )
            for ids, data, path in (
                (true, self.truth, self.pngs / f"{name}_final_mask.png"),
                (predicted, self.pred, self.pred_pngs / f"{name}.png"),
            ):
                row = np.array([ids], np.uint32)
                write_id_png(path, row)
                found, areas = np.unique(row[row > 0], return_counts=True)
                # Ids below 100 are road, the others cars; 900 and above are crowd.
                segments = [
                    {
                        "id": int(n),
                        "category_id": 0 if n < 100 else 3,
                        "iscrowd": int(n >= 900),
                        "area": int(a),
                    }
                    for n, a in zip(found, areas)
                ]
                entry = {"image_id": name, "file_name": path.name, "segments_info": segments}
                data["annotations"].append(entry)

    def segments(self, side: str, frame: int) -> list[dict]:
        return getattr(self, side)["annotations"][frame]["segments_info"]

    def videos(self):
        return cityscapes_videos(self.truth, self.pred, self.pngs, self.pred_pngs)

    def counts(self, window: int = 1) -> dict[str, tuple[int, int, int]]:
        (counts,) = count_videos(self.videos(), window, read_categories(self.truth), CITYSCAPES_RULES)
        return self._named(counts)

    def pq(self) -> dict[str, tuple[int, int, int]]:
        frames = panopticapi_frames(self.truth, self.pred, self.pngs, self.pred_pngs)
        counted = count_videos([frames], 1, read_categories(self.truth), PANOPTICAPI_RULES)
        return self._named(counted[0])

    @staticmethod
    def _named(counts) -> dict[str, tuple[int, int, int]]:
        triples = zip(counts.tp.tolist(), counts.fp.tolist(), counts.fn.tolist())
        return dict(zip(("road", "car", "person"), triples))


def drawn(tmp_path: Path, truth: list[int], prediction: list[int], frames: int = 6) -> Set:
    return Set(tmp_path, [truth] * frames, [prediction] * frames)


def test_only_the_last_crowd_of_a_class_excuses(tmp_path):
    found = drawn(tmp_path, [900, 900, 7, 901, 901], [100, 100, 7, 101, 101])
    assert found.counts()["car"] == (0, 6, 0)
    assert found.pq()["car"] == (0, 6, 0)


def test_first_or_last_listing_of_an_id_holds(tmp_path):
    found = drawn(tmp_path, [100, 100, 7, 7], [100, 100, 7, 7])
    for i in range(6):
        found.segments("truth", i).append({"id": 100, "category_id": 4, "iscrowd": 0, "area": 0})
    # The VPQ script still has a car, panopticapi a person.
    assert found.counts()["car"] == (6, 0, 0)
    assert found.pq() == {"road": (6, 0, 0), "car": (0, 6, 0), "person": (0, 0, 6)}


def test_areas_of_the_truth_come_from_the_json(tmp_path):
    found = drawn(tmp_path, [100, 100, 7, 7], [100, 100, 7, 7])
    for i in range(6):
        found.segments("truth", i)[1]["area"] = 4
    assert found.counts()["car"] == (0, 6, 6)
    for i in range(6):
        found.segments("truth", i)[1]["area"] = 1
    with pytest.raises(UserError, match="the official script stops: IoU 2 of id 100"):
        found.counts()
    # panopticapi has no such check.
    assert found.pq()["car"] == (6, 0, 0)


def test_a_listed_segment_without_pixels_is_missed(tmp_path):
    found = drawn(tmp_path, [7, 7], [7, 7])
    found.segments("truth", 0).append({"id": 100, "category_id": 3, "iscrowd": 0, "area": 5})
    assert found.counts()["car"] == (0, 0, 1)


def test_true_ids_that_arent_listed_are_neither_segment_nor_void(tmp_path):
    found = drawn(tmp_path, [100, 100, 7], [100, 100, 7])
    for i in range(6):
        found.segments("truth", i).pop()
    assert found.counts()["car"] == (0, 6, 0)
    # Listed in some frames of the window: more pixels than the listed area.
    mixed = drawn(tmp_path / "b", [100, 100, 7], [100, 100, 7])
    mixed.segments("truth", 0).pop()
    assert mixed.counts()["car"] == (5, 1, 0)
    with pytest.raises(UserError, match="the official script stops: IoU"):
        mixed.counts(2)


def test_id_0_can_be_listed(tmp_path):
    found = drawn(tmp_path, [0, 0, 7, 7], [0, 0, 7, 7])
    assert found.counts()["car"] == (0, 0, 0)
    for i in range(6):
        found.segments("pred", i).append({"id": 0, "category_id": 3})
    # A segment like any other, excused by void.
    assert found.counts()["car"] == (0, 0, 0)
    for i in range(6):
        found.segments("truth", i).append({"id": 0, "category_id": 3, "iscrowd": 0, "area": 2})
    # Void leaves the union, so nothing is left to divide by.
    with pytest.raises(UserError, match="the official script stops: IoU inf"):
        found.counts()


def test_frames_meet_by_position(tmp_path):
    rows = [[100, 100, 7, 7]] * 5 + [[7, 7, 100, 100]]
    found = Set(tmp_path, rows, rows)
    assert found.counts()["car"] == (6, 0, 0)
    # Segments and predictions follow the JSON, true PNGs their names.
    for data in (found.truth["images"], found.truth["annotations"], found.pred["annotations"]):
        data[0], data[5] = data[5], data[0]
    assert found.counts()["car"] == (4, 2, 2)
    assert found.pq()["car"] == (6, 0, 0)


def test_missing_and_surplus_predictions(tmp_path):
    found = drawn(tmp_path, [100, 7], [100, 7])
    del found.pred["annotations"][4:]
    assert found.counts()["car"] == (4, 0, 0)
    with pytest.raises(UserError, match="no prediction for the image 0005_0004_x"):
        found.pq()
    found.pred["annotations"] += found.pred["annotations"]
    assert found.counts()["car"] == (6, 0, 0)
    (found.pred_pngs / "0005_0003_x.png").unlink()
    with pytest.raises(UserError, match=r"can't read .*0005_0003_x\.png"):
        found.counts()


def test_ids_that_only_png_or_json_has(tmp_path):
    found = drawn(tmp_path, [100, 7], [100, 7])
    found.segments("pred", 2).append({"id": 55, "category_id": 0})
    with pytest.raises(UserError, match=r"0005_0002_x\.png doesn't hold id 55, which its JSON lists"):
        found.counts()
    found.segments("pred", 2)[:] = []
    with pytest.raises(UserError, match=r"0005_0002_x\.png holds id 7, which its JSON doesn't list"):
        found.pq()
    found.segments("pred", 2)[:] = [{"id": 7, "category_id": 0}, {"id": 100, "category_id": 9}]
    with pytest.raises(UserError, match="segment 100 has category_id 9, which the truth doesn't have"):
        found.counts()


def test_frames_are_dealt_out_evenly():
    assert [len(part) for part in deal(range(25), 4)] == [7, 6, 6, 6]
    assert deal([1, 2], 3) == [[1], [2], []]


def test_fewer_than_six_frames(tmp_path):
    with pytest.raises(UserError, match="5 annotations, and one video has 6"):
        drawn(tmp_path, [7], [7], frames=5).videos()


def test_stq_takes_predicted_void_as_one_more_class(tmp_path):
    found = drawn(tmp_path, [100, 100, 100, 100, 7, 7], [100, 100, 0, 0, 7, 7])
    videos, categories = found.videos(), read_categories(found.truth)
    result = official_stq(videos, categories, "deeplab2")
    # car 1/2, road 1, void 0.
    assert result.sq == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert result.aq == pytest.approx(12 * 12 / 24 / 24)
    assert official_confusion(videos, categories, "deeplab2")[CAR].tolist() == [0, 12, 0, 12]


def test_vipseg_takes_the_first_thing_of_a_video_for_crowd(tmp_path):
    found = drawn(tmp_path, [100, 100, 101, 101, 900], [100, 100, 101, 101, 900])
    videos, categories = found.videos(), read_categories(found.truth)
    assert official_stq(videos, categories, "deeplab2").tubes == 2
    # Id 100 is listed first and gets the number 0; that 900 is crowd isn't read.
    assert official_stq(videos, categories, "vipseg").tubes == 2
    videos = [[frame] for frame in videos[0]]
    assert official_stq(videos, categories, "vipseg").tubes == 12


def test_viper_counts_pixels_and_ignores_small_tubes(tmp_path):
    found = Set(tmp_path, [[100] * 1023 + [7] * 2000] * 6, [[100] * 1023 + [7] * 2000] * 6)
    for image in found.truth["images"]:
        image["file_name"] = image["file_name"].replace("_newImg8bit.png", "_final_mask.jpg")
    for i in range(6):
        (found.pred_pngs / f"0005_{i:04d}_x.png").rename(found.pred_pngs / f"0005_{i:04d}_x_final_mask.png")
        for segment in found.segments("truth", i):
            segment["area"] = 10**6

    def counts(window: int) -> tuple[int, int, int]:
        videos = viper_videos(found.truth, found.pred, found.pngs, found.pred_pngs, 1)
        (counted,) = count_videos(videos, window, read_categories(found.truth), VIPER_RULES)
        return int(counted.tp[CAR]), int(counted.fp[CAR]), int(counted.fn[CAR])

    # Smallness forgives the miss but not the hit.
    assert counts(1) == (0, 6, 0)
    assert counts(2) == (5, 0, 0)
    # A listed id without a pixel isn't small.
    for i in range(6):
        found.segments("truth", i).append({"id": 101, "category_id": 3, "iscrowd": 0})
    assert counts(1) == (0, 6, 6)


def test_strict_and_official_agree_on_clean_input(tmp_path):
    rng = np.random.default_rng(0)
    truth = [rng.choice([7, 100, 101, 102, 0], 60, p=[0.3, 0.3, 0.2, 0.1, 0.1]).tolist() for _ in range(12)]
    guess = [[i if rng.random() < 0.8 else 100 for i in row] for row in truth]
    for row in guess:
        row[:] = [i or 7 for i in row]
    found = Set(tmp_path, truth, guess)
    (tmp_path / "gt" / "panoptic_gt.json").write_text(json.dumps(with_colors(found.truth)))
    (tmp_path / "pred" / "pred.json").write_text(json.dumps(found.pred))
    metrics = ("vpq", "pq", "stq", "hota")
    strict, official = (
        evaluate(tmp_path / "gt", tmp_path / "pred", metrics=metrics, official=mode, progress=False)
        for mode in (False, True)
    )
    for name in ("all", "things", "stuff"):
        assert getattr(strict.vpq, name).pq == pytest.approx(getattr(official.vpq, name).pq, abs=1e-14)
        assert getattr(strict.pq.quality, name).pq == pytest.approx(
            getattr(official.pq.quality, name).pq, abs=1e-14
        )
    assert (strict.stq.stq, strict.stq.aq) == pytest.approx((official.stq.stq, official.stq.aq), abs=1e-14)
    assert strict.tracking.hota == pytest.approx(official.tracking.hota, abs=1e-14)
    assert 0 < strict.vpq.things.pq < 1


def with_colors(truth: dict) -> dict:
    return {**truth, "categories": [{**c, "color": [c["id"], 0, 0]} for c in CATEGORIES]}
