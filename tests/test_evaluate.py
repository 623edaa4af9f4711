import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from panoptube.cli import main
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.clip import Clip
from panoptube.errors import UserError
from panoptube.evaluate import always, evaluate, evaluate_clips, most_frequent_class, scored_frames
from panoptube.panoptic.formats import PanopticVideoWriter
from panoptube.panoptic.frame import Category, PanopticFrame, Taxonomy
from panoptube.panoptic.id_png import read_id_png, write_id_png

DATA = Path(__file__).parent / "data" / "metrics"
ROAD, CAR, PERSON = (CITYSCAPES.index(n) for n in ("road", "car", "person"))


def scene(t: int, track: int = 1, size: tuple[int, int] = (16, 24)) -> PanopticFrame:
    """A car that moves a pixel a frame over road, beside a strip of void."""
    semantic = np.zeros(size, np.uint8)
    instance = np.zeros(size, np.int32)
    semantic[:2] = 255
    semantic[6:10, t : t + 6] = CAR
    instance[6:10, t : t + 6] = track
    return PanopticFrame(semantic, instance)


def write(folder: Path, frames: dict[str, PanopticFrame], taxonomy: Taxonomy = CITYSCAPES) -> Path:
    with PanopticVideoWriter(folder, taxonomy) as writer:
        for name, frame in frames.items():
            writer.write(name, frame)
    return folder


def make_clip(name: str, length: int, labelled: tuple[int, ...] | None = None, **changes) -> Clip:
    settings = {
        "taxonomy": CITYSCAPES,
        "size": (16, 24),
        "fps": 17.0,
        "read_image": lambda t: np.zeros((16, 24, 3), np.uint8),
        "read_truth": scene,
    }
    labelled = tuple(range(length)) if labelled is None else labelled
    return Clip(name, length=length, labelled=labelled, **(settings | changes))


def perfect(clip):
    for t in range(len(clip)):
        yield scene(t, track=7)


@pytest.fixture
def city(tmp_path):
    shutil.copytree(DATA / "edge_half", tmp_path / "city")
    return tmp_path / "city"


def edit_json(path: Path, change) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


# Files


def test_one_video_against_the_labelled_frames_of_it(tmp_path):
    truth = write(tmp_path / "truth", {f"{t:06d}": scene(t) for t in (4, 9, 14)})
    everything = write(tmp_path / "pred", {f"{t:06d}": scene(t, track=5) for t in range(16)})
    two = (1, 2)
    with pytest.raises(UserError, match="has the frame '000000', which the truth doesn't have"):
        evaluate(truth, everything, windows=two, progress=False)
    result = evaluate(truth, everything, windows=two, skip_unlabelled=True, progress=False).vpq
    assert (result.frames, result.clips) == (3, 1)
    assert [w.windows for w in result.windows] == [3, 2]
    assert result.all.pq == 1.0
    # From the fourth frame on the car has another id.
    switch = {f"{t:06d}": scene(t, track=5 + (t > 10)) for t in range(16)}
    pred = write(tmp_path / "switch", switch)
    result = evaluate(truth, pred, windows=two, skip_unlabelled=True, progress=False).vpq
    # Window 2: the first perfect, the second with IoU 1/2 twice: two FPs and a FN.
    assert result.windows[0].things.pq == 1.0
    assert result.windows[1].things.pq == pytest.approx(1 / 2.5)
    assert result.stuff.pq == 1.0


def test_clip_folders_are_paired_by_name_and_end_windows(tmp_path):
    for clip in ("a", "b"):
        write(tmp_path / "truth" / clip, {f"{t:06d}": scene(t) for t in range(2)})
    write(tmp_path / "pred" / "b", {f"{t:06d}": scene(t) for t in range(2)})
    with pytest.raises(UserError, match="no folder 'a'; predict the clips that the truth has"):
        evaluate(tmp_path / "truth", tmp_path / "pred", progress=False)
    write(tmp_path / "pred" / "a", {f"{t:06d}": scene(t, track=1 + t) for t in range(2)})
    result = evaluate(tmp_path / "truth", tmp_path / "pred", windows=(1, 2), progress=False).vpq
    assert (result.frames, result.clips) == (4, 2)
    # a: the track breaks, two FPs and a FN; b: a hit.
    car = result.windows[1].classes[CAR]
    assert (car.tp, car.fp, car.fn) == (1, 2, 1)


def test_cityscapes_folders(city, tmp_path):
    expected = evaluate(city / "gt", city / "pred", progress=False).vpq
    # The dataset's own places: the JSON at the top, the PNGs below val/.
    real = tmp_path / "cityscapes_vps"
    (real / "val").mkdir(parents=True)
    (city / "gt" / "panoptic_video").rename(real / "val" / "panoptic_video")
    (city / "gt" / "panoptic_gt.json").rename(real / "panoptic_gt_val_city_vps.json")
    # A submission names no frames: annotations go with sorted PNGs.
    edit_json(
        city / "pred" / "pred.json",
        lambda d: [a.pop(name) for a in d["annotations"] for name in ("file_name", "image_id")],
    )
    assert evaluate(real, city / "pred", progress=False).vpq == expected
    assert 0 < expected.all.pq < 1


def test_order_of_the_json_does_not_matter(city):
    expected = evaluate(city / "gt", city / "pred", progress=False).vpq
    edit_json(
        city / "gt" / "panoptic_gt.json",
        lambda d: d.update(annotations=d["annotations"][::2] + d["annotations"][1::2]),
    )
    assert evaluate(city / "gt", city / "pred", progress=False).vpq == expected


def test_clip_length_cuts_the_frames(city):
    # 6 frames: one clip of 6 has 3 windows of 4, two clips of 3 have none, but 2 x 1 of 3.
    count = len(json.loads((city / "gt" / "panoptic_gt.json").read_text())["annotations"])
    assert count == 6
    six = evaluate(city / "gt", city / "pred", progress=False).vpq
    three = evaluate(
        city / "gt",
        city / "pred",
        clip_length=3,
        windows=(1, 2, 3),
        progress=False,
    ).vpq
    assert [w.windows for w in six.windows] == [6, 5, 4, 3]
    assert [w.windows for w in three.windows] == [6, 4, 2]
    assert six.windows[0] == three.windows[0]
    for wrong in (4, 0, 7):
        with pytest.raises(UserError, match=f"6 labelled frames, which can't be cut into clips of {wrong}"):
            evaluate(city / "gt", city / "pred", clip_length=wrong, progress=False)


def test_clips_are_not_mixed(city):
    def rename(data):
        for a in data["annotations"][:3]:
            new = a["file_name"].replace("0005_", "0004_", 1)
            (city / "gt" / "panoptic_video" / a["file_name"]).rename(city / "gt" / "panoptic_video" / new)
            a["file_name"] = new

    edit_json(city / "gt" / "panoptic_gt.json", rename)
    with pytest.raises(UserError, match="would mix the clips 0004 and 0005"):
        evaluate(city / "gt", city / "pred", progress=False)


def test_a_missing_frame_is_named(city):
    edit_json(city / "pred" / "pred.json", lambda d: d["annotations"].pop())
    with pytest.raises(UserError, match=r"pred\.json has no frame '0005_.*', which the truth has"):
        evaluate(city / "gt", city / "pred", progress=False)


def test_a_frame_twice_is_named(city):
    edit_json(city / "pred" / "pred.json", lambda d: d["annotations"].append(d["annotations"][0]))
    with pytest.raises(UserError, match=r"pred\.json lists a frame twice"):
        evaluate(city / "gt", city / "pred", progress=False)


def test_folders_that_are_no_results(city, tmp_path):
    with pytest.raises(UserError, match="nowhere is no folder; expected one with"):
        evaluate(city / "nowhere", city / "pred", progress=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no panoptic result; expected"):
        evaluate(city / "gt", tmp_path / "empty", progress=False)
    (city / "gt" / "panoptic_gt_2.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds panoptic_gt\.json and panoptic_gt_2\.json"):
        evaluate(city / "gt", city / "pred", progress=False)


def test_sizes_and_classes_must_agree(tmp_path):
    truth = write(tmp_path / "truth", {"000000": scene(0)})
    small = write(tmp_path / "small", {"000000": scene(0, size=(12, 24))})
    with pytest.raises(UserError, match=r"000000\.png is 24 x 12 pixels, its truth is 24 x 16 pixels"):
        evaluate(truth, small, progress=False)
    renamed = Taxonomy("x", (Category("grass", False, (1, 1, 1), 0), *CITYSCAPES.categories[1:]))
    other = write(tmp_path / "other", {"000000": scene(0)}, renamed)
    with pytest.raises(UserError, match=r"category 0 is 'grass' \(stuff\), but 'panoptic' says 'road'"):
        evaluate(truth, other, progress=False)


def test_without_torch(city):
    code = (
        "import sys\n"
        "from importlib import import_module\n"
        "from pathlib import Path\n"
        "import panoptube.metrics\n"
        "for path in sorted(Path(panoptube.metrics.__file__).parent.glob('[a-z]*.py')):\n"
        "    import_module(f'panoptube.metrics.{path.stem}')\n"
        "from panoptube.evaluate import evaluate\n"
        "metrics = ('vpq', 'pq', 'stq', 'vc', 'hota')\n"
        "for official in (False, True):\n"
        "    found = evaluate(Path('gt'), Path('pred'), metrics=metrics, official=official, progress=False)\n"
        "print(found.vpq.frames)\n"
        "import panoptube.view.mistakes\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=city, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("6\n", 0), done.stderr


METRICS = ("vpq", "pq", "stq", "vc", "hota")


@pytest.mark.parametrize("name", ["edge_half", "city_empty"])
def test_any_number_of_workers_gives_the_same(name):
    # One clip is divided by frames, four clips by clips.
    folder = DATA / name
    one, *others = (
        evaluate(folder / "gt", folder / "pred", metrics=METRICS, workers=n, progress=False)
        for n in (1, 2, 3, 8)
    )
    for other in others:
        assert one.to_dict() == other.to_dict()
        assert str(one) == str(other)


def test_faults_with_several_workers(city):
    with pytest.raises(UserError, match="0 workers can't work"):
        evaluate(city / "gt", city / "pred", workers=0, progress=False)
    (city / "pred" / "pan_pred" / "0005_0006_synth_000000_000006.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"0006_synth_000000_000006\.png is not a complete PNG"):
        evaluate(city / "gt", city / "pred", workers=3, progress=False)


def test_official_on_files(city):
    strict, official = (
        evaluate(city / "gt", city / "pred", metrics=METRICS, official=mode, progress=False)
        for mode in (False, True)
    )
    assert official.vpq.all.pq == pytest.approx(strict.vpq.all.pq, abs=1e-15)
    assert official.pq.quality.all.pq == pytest.approx(strict.pq.quality.all.pq, abs=1e-15)
    assert [f.name for f in official.pq.frames] == [f.name for f in strict.pq.frames]
    expected = json.loads((city / "expected.json").read_text())
    assert official.stq.stq == pytest.approx(expected["stq_deeplab2"]["STQ"], abs=1e-12)
    assert 100 * official.vpq.all.pq == pytest.approx(
        expected["vpq_cityscapes"]["final"]["vpq_all"], abs=1e-10
    )
    with pytest.raises(UserError, match="have their own windows and clips"):
        evaluate(city / "gt", city / "pred", official=True, windows=(1,), progress=False)
    with pytest.raises(UserError, match="doesn't have the form that the official script of viper reads"):
        evaluate(city / "gt", city / "pred", "viper", official=True, progress=False)


def test_viper_strict_is_official():
    folder = DATA / "viper_small_tubes"
    strict, official = (
        evaluate(folder / "gt", folder / "pred", "viper", official=mode, progress=False)
        for mode in (False, True)
    )
    assert [c.name for c in strict.vpq.per_clip] == ["003", "011", "019"]
    assert [c.frames for c in strict.vpq.per_clip] == [20, 20, 20]
    assert "mobilebarrier" not in [c.name for c in strict.vpq.windows[0].classes]
    for mine, theirs in zip(strict.vpq.windows, official.vpq.windows):
        assert (mine.k, mine.windows, mine.all.classes) == (theirs.k, theirs.windows, theirs.all.classes)
        assert mine.all.pq == pytest.approx(theirs.all.pq, abs=1e-14)


def vipseg(folder: Path, track: int, lengths: dict[str, int]) -> None:
    """Videos of `scene` in VIPSeg's form: truth in gt/, prediction in pred/."""
    for side, name, pngs in (("gt", "panoptic_gt_VIPSeg_val", "panomasksRGB"), ("pred", "pred", "pan_pred")):
        videos = []
        for video, length in lengths.items():
            part = folder / "part" / side / video
            write(part, {f"{t:08d}": scene(t, track if side == "pred" else 1) for t in range(length)})
            entries = json.loads((part / "panoptic.json").read_text())["annotations"]
            videos.append({"video_id": video, "annotations": entries})
            (folder / side / pngs).mkdir(parents=True, exist_ok=True)
            (part / "panoptic").rename(folder / side / pngs / video)
        images = [
            {"video_id": v["video_id"], "images": [{"file_name": a["file_name"]} for a in v["annotations"]]}
            for v in videos
        ]
        data = {"videos": images, "annotations": videos, "categories": CITYSCAPES.to_dict()["categories"]}
        (folder / side / f"{name}.json").write_text(json.dumps(data))


def test_vipseg(tmp_path):
    vipseg(tmp_path, 9, {"a": 7, "b": 3})
    found = evaluate(tmp_path / "gt", tmp_path / "pred", "vipseg", ("vpq", "stq"), progress=False)
    assert [w.windows for w in found.vpq.windows] == [7 + 3, 6 + 2, 4, 2]
    assert [c.name for c in found.vpq.per_clip] == ["a", "b"]
    assert (found.vpq.all.pq, found.stq.stq) == (1, 1)
    official = evaluate(tmp_path / "gt", tmp_path / "pred", "vipseg", ("vpq",), True, progress=False)
    assert official.vpq.all.pq == 1
    edit_json(tmp_path / "pred" / "pred.json", lambda d: d["annotations"].pop())
    with pytest.raises(UserError, match="has no video 'b'; predict the clips that the truth has"):
        evaluate(tmp_path / "gt", tmp_path / "pred", "vipseg", progress=False)


def test_tc_names_its_flow(tmp_path):
    truth = write(tmp_path / "truth", {f"{t:06d}": scene(t) for t in (0, 5)})
    pred = write(tmp_path / "pred", {f"{t:06d}": scene(t) for t in range(6)})
    (tmp_path / "flow").mkdir()
    still = np.zeros((16, 24, 2), np.float32)
    for t in range(5):
        moving = still.copy()
        moving[6:10, t : t + 6, 0] = 1
        np.save(tmp_path / "flow" / f"{t:06d}.npy", moving)
    options = {"metrics": ("tc",), "skip_unlabelled": True, "progress": False}
    found = evaluate(truth, pred, flow=tmp_path / "flow", **options).tc
    assert (found.pairs, found.flow) == (5, "given (flow)")
    # A column of road is uncovered behind the car in each pair, and was car before: 4 pixels of 24 + 4.
    assert dict(found.classes)["car"] == pytest.approx(24 / 28)
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for t in range(6):
        noise = rng.integers(256, size=(16, 24)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "images" / f"{t:06d}.jpg"), noise)
    assert "DIS" in evaluate(truth, pred, images=tmp_path / "images", **options).tc.flow
    with pytest.raises(UserError, match="give either --images or --flow"):
        evaluate(truth, pred, **options)
    (tmp_path / "flow" / "000003.npy").unlink()
    with pytest.raises(UserError, match="lacks the flow from 000003 to 000004"):
        evaluate(truth, pred, flow=tmp_path / "flow", **options)
    np.save(tmp_path / "flow" / "000003.npy", still[1:])
    with pytest.raises(UserError, match=r"TC of 000003 and 000004: .*must agree"):
        evaluate(truth, pred, flow=tmp_path / "flow", **options)


def test_results_are_written_in_three_forms(city, tmp_path):
    found = evaluate(city / "gt", city / "pred", metrics=METRICS, progress=False)
    files = [tmp_path / name for name in ("a.json", "a.csv", "a.md")]
    found.write(*files)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["a.csv", "a.json", "a.md"]
    data = json.loads(files[0].read_text())
    assert data["vpq"]["vpq"] == found.vpq.all.pq
    assert data["protocol"] == "cityscapes-vps"
    rows = list(csv.DictReader(files[1].open()))
    assert {r["metric"] for r in rows} >= {"vpq", "pq", "stq", "aq", "sq", "iou", "vc8", "hota", "idf1"}
    (mean,) = [r for r in rows if (r["metric"], r["k"], r["scope"]) == ("vpq", "mean", "all")]
    assert float(mean["score"]) == found.vpq.all.pq
    page = files[2].read_text()
    assert f"| {' | '.join(found.vpq.row())} |" in page
    assert "| class | PQ | SQ | RQ | TP/FP/FN |" in page
    # Each result prints by itself, and all together.
    for part in (found.vpq, found.pq, found.stq, found.vc, found.tracking):
        assert part.tables()
        assert str(part).strip() in str(found)
    with pytest.raises(UserError, match="can't write"):
        found.write(tmp_path / "nowhere" / "a.json", None, None)


def test_the_worst_come_first(city):
    found = evaluate(city / "gt", city / "pred", metrics=("vpq", "pq"), progress=False)
    clips, frames = found.worst(3)
    assert len(list(clips.columns[0].cells)) == 1
    costs = [float(cell) for cell in frames.columns[1].cells]
    assert costs == sorted(costs, reverse=True)
    assert len(costs) == 3
    assert found.worst(0) == []


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda p: edit_json(p / "pred/pred.json", lambda d: d["annotations"].pop()), "has no frame"),
        (lambda p: next(p.glob("pred/pan_pred/*")).unlink(), "can't read"),
        (lambda p: shutil.copy(next(p.glob("pred/pan_pred/*")), p / "pred/pan_pred/more.png"), "more.png"),
        (lambda p: next(p.glob("pred/pan_pred/*")).write_bytes(b"\x89PNG"), "is not a complete PNG"),
        (lambda p: write_id_png(min(p.glob("pred/pan_pred/*")), np.ones((4, 5), np.uint32)), "5 x 4 pixels"),
        (lambda p: fill(min(p.glob("pred/pan_pred/*")), 77), "id 77"),
        (lambda p: edit_json(p / "pred/pred.json", class_99), "category_id 99"),
        (
            lambda p: edit_json(p / "gt/panoptic_gt.json", lambda d: d.update(annotations=[])),
            "no annotations",
        ),
        (lambda p: edit_json(p / "pred/pred.json", lambda d: d.update(annotations=[])), "no annotations"),
        (lambda p: (p / "pred/pred.json").write_text("{"), "is not panoptic JSON"),
        (lambda p: edit_json(p / "pred/pred.json", twice), "lists a frame twice"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(city, break_it, message, capsys, monkeypatch):
    break_it(city)
    arguments = ["panoptube", "evaluate", "--truth", str(city / "gt"), "--pred", str(city / "pred")]
    monkeypatch.setattr(sys, "argv", arguments)
    assert main() == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("panoptube: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert str(city) in lines[0]


def fill(path, segment_id):
    write_id_png(path, np.full_like(read_id_png(path), segment_id))


def class_99(data):
    data["annotations"][0]["segments_info"][0]["category_id"] = 99


def twice(data):
    data["annotations"].append(data["annotations"][0])


def test_command_line_prints_and_writes(city, tmp_path, capsys, monkeypatch):
    options = ["--metrics", "stq", "--worst", "2", "--csv", str(tmp_path / "a.csv"), "--workers", "2"]
    arguments = ["panoptube", "evaluate", "--truth", str(city / "gt"), "--pred", str(city / "pred"), *options]
    monkeypatch.setattr(sys, "argv", arguments)
    assert main() == 0
    out = capsys.readouterr().out
    assert "VPQ / VPQ-Th / VPQ-St in percent" in out
    assert "STQ" in out
    assert "Frames that cost most" in out
    assert (tmp_path / "a.csv").read_text().startswith("metric,k,scope,name,score")


def test_shows_progress_on_standard_error(city, capsys, monkeypatch):
    evaluate(city / "gt", city / "pred", progress=True)
    assert capsys.readouterr() == ("", ""), "nothing where nobody looks"
    monkeypatch.setenv("FORCE_COLOR", "1")
    evaluate(city / "gt", city / "pred", progress=True)
    shown = capsys.readouterr()
    assert "6/6" in shown.err
    assert shown.out == ""


# Clips


def test_every_fifth_frame_of_fully_labelled_clips():
    clips = [make_clip("a", 16), make_clip("b", 11)]
    assert scored_frames(clips[0], 5) == (4, 9, 14)
    result = evaluate_clips(perfect, clips, windows=(1, 2), progress=False)
    assert (result.frames, result.clips) == (3 + 2, 2)
    assert [w.windows for w in result.windows] == [5, 3]
    assert result.all.pq == 1.0
    assert [w.k for w in evaluate_clips(perfect, clips, 1, (1, 2, 5), False).windows] == [0, 1, 4]


def test_all_labelled_frames_of_sparsely_labelled_clips():
    seen: list[int] = []

    def read_truth(t: int) -> PanopticFrame:
        seen.append(t)
        return scene(t)

    clip = make_clip("a", 12, (1, 4, 11), read_truth=read_truth)
    assert evaluate_clips(perfect, iter([clip]), windows=(1, 2, 3), progress=False).frames == 3
    assert seen == [1, 4, 11]


def test_frames_are_scored_as_they_come():
    alive: list[int] = []

    def predict(clip):
        for t in range(len(clip)):
            alive.append(t)
            yield scene(t)

    clip = make_clip("a", 10, read_truth=lambda t: scene(alive[-1]))
    assert evaluate_clips(predict, [clip], windows=(1,), progress=False).all.pq == 1.0


def test_faults_of_clips_and_predictors():
    clip = make_clip("a", 10)
    with pytest.raises(UserError, match="there are no clips"):
        evaluate_clips(perfect, [], progress=False)
    with pytest.raises(UserError, match="no clip has a frame to score"):
        evaluate_clips(perfect, [make_clip("b", 4)], progress=False)
    with pytest.raises(UserError, match="every is 0"):
        evaluate_clips(perfect, [clip], every=0, progress=False)
    other = make_clip("b", 10, taxonomy=Taxonomy("other", CITYSCAPES.categories))
    with pytest.raises(UserError, match="clip 'b' has the taxonomy 'other'"):
        evaluate_clips(perfect, [clip, other], progress=False)
    for count in (9, 11):
        with pytest.raises(ValueError, match=f"{count} predicted frames for clip 'a', which has 10"):
            evaluate_clips(lambda clip, n=count: (scene(t) for t in range(n)), [clip], progress=False)
    with pytest.raises(ValueError, match="must agree"):
        evaluate_clips(lambda clip: (scene(t, size=(12, 24)) for t in range(10)), [clip], progress=False)


# The baseline


def test_most_frequent_class_by_hand():
    rows = {
        0: [[ROAD, ROAD, CAR, 255, PERSON]],
        1: [[ROAD, CAR, CAR, 255, 255]],
        2: [[CAR, CAR, CAR, 255, ROAD]],
    }
    clip = make_clip(
        "a",
        4,
        (0, 1, 2),
        size=(1, 5),
        read_truth=lambda t: PanopticFrame(np.array(rows[t], np.uint8), np.zeros((1, 5), np.int32)),
    )
    answer = most_frequent_class([clip], CITYSCAPES, (1, 5))
    # Always void: car, which has 6 pixels of all. Road and person once each: road comes first.
    assert answer.semantic.tolist() == [[ROAD, CAR, CAR, CAR, ROAD]]
    assert answer.instance.tolist() == [[0, 1, 1, 1, 0]]
    answer.check(CITYSCAPES)
    wide = most_frequent_class([clip], CITYSCAPES, (2, 10))
    assert np.array_equal(wide.semantic, answer.semantic.repeat(2, 0).repeat(2, 1))


def test_baseline_is_scored_like_any_predictor():
    clip = make_clip("a", 10, read_truth=lambda t: scene(3))
    answer = most_frequent_class([clip], CITYSCAPES, (16, 24))
    assert evaluate_clips(always(answer), [clip], windows=(1, 2), progress=False).all.pq == 1.0
    moving = make_clip("b", 15)
    result = evaluate_clips(always(answer), [moving], windows=(1, 2), progress=False)
    assert 0 < result.all.pq < 1
    half = PanopticFrame(answer.semantic[::2, ::2].copy(), answer.instance[::2, ::2].copy())
    (frame, *rest) = always(half)(make_clip("c", 3))
    assert (frame.size, len(rest)) == ((16, 24), 2)


def test_faults_of_the_baseline():
    void = PanopticFrame(np.full((16, 24), 255, np.uint8), np.zeros((16, 24), np.int32))
    for clips in ([], [make_clip("a", 3, read_truth=lambda t: void)], [make_clip("a", 3, ())]):
        with pytest.raises(UserError, match="no clip has a labelled pixel"):
            most_frequent_class(clips, CITYSCAPES, (16, 24))
    other = make_clip("b", 3, taxonomy=Taxonomy("other", CITYSCAPES.categories))
    with pytest.raises(UserError, match="clip 'b' has the taxonomy 'other', not 'cityscapes'"):
        most_frequent_class([other], CITYSCAPES, (16, 24))
