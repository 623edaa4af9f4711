import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.clip import Clip
from panoptube.errors import UserError
from panoptube.evaluate import always, evaluate, evaluate_clips, most_frequent_class, scored_frames
from panoptube.panoptic.formats import PanopticVideoWriter
from panoptube.panoptic.frame import Category, PanopticFrame, Taxonomy

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
        "from pathlib import Path\n"
        "import panoptube.metrics.table, panoptube.metrics.vpq, panoptube.panoptic.formats\n"
        "from panoptube.evaluate import evaluate\n"
        "print(evaluate(Path('gt'), Path('pred'), progress=False).vpq.frames)\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=city, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("6\n", 0), done.stderr


def test_shows_progress_on_standard_error(city, capsys):
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
