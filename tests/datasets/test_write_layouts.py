"""Clips written as the official layouts: the readers, `prepare` and `check` find what was written."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from official_trees import picture

from panoptube import cli
from panoptube.check.check import check
from panoptube.data import streets
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.class_maps import FROM_CITYSCAPES, TO_VIPER, with_classes
from panoptube.data.clip import Clip, Image
from panoptube.data.datasets import read_dataset
from panoptube.data.streets import street_clip, synthesize
from panoptube.data.viper import VIPER
from panoptube.data.write_layouts import CITYSCAPES_FRAMES, WRITERS, write_dataset
from panoptube.errors import UserError
from panoptube.panoptic.frame import VOID, Category, PanopticFrame, Taxonomy
from panoptube.panoptic.layouts import read_clips
from panoptube.prepare import prepare

SIZE = (20, 32)
NAMES = tuple(WRITERS)


def image(shift: int, t: int) -> Image:
    """Smooth, so that JPEG keeps it."""
    small = picture(t, shift, (3, 4))
    return np.asarray(cv2.resize(small, SIZE[::-1], interpolation=cv2.INTER_LINEAR))


def truth(shift: int, t: int) -> PanopticFrame:
    """Sky over road, a light, void, crowd; cars 5 and 9 that move, of which 9 hides in between, a rider, a
    train, and a person that comes late and has a large number.
    """
    semantic, instance = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.int32)

    def put(rows: slice, columns: slice, name: str, track: int = 0) -> None:
        semantic[rows, columns], instance[rows, columns] = CITYSCAPES.index(name), track

    put(slice(0, 8), slice(None), "sky")
    put(slice(0, 2), slice(0, 3), "traffic light")
    put(slice(2, 4), slice(0, 3), "traffic sign")
    put(slice(8, 12), slice(28, 32), "person")  # crowd
    x = (t + shift) % 12
    put(slice(9, 14), slice(x, x + 5), "car", 5)
    if t % 10 != 9:
        put(slice(14, 19), slice(20 - x, 26 - x), "car", 9)
    put(slice(4, 8), slice(5, 9), "rider", 300)
    put(slice(3, 8), slice(12, 20), "train", 2)
    if t > 12:
        put(slice(8, 14), slice(22, 25), "person", 70000)
    semantic[19], instance[19] = VOID, 0
    return PanopticFrame(semantic, instance)


def make_clip(shift: int = 0, name: str = "", length: int = 30) -> Clip:
    labelled = tuple(t for t in range(length) if t % 2 == 0 or t in CITYSCAPES_FRAMES)
    read = partial(image, shift), partial(truth, shift)
    return Clip(name or f"film_{shift}", CITYSCAPES, SIZE, 12.5, length, labelled, *read)


def make_clips(dataset: str, shifts: tuple[int, ...] = (0, 1, 2)) -> list[tuple[str, Clip]]:
    clips = [make_clip(shift) for shift in shifts]
    if dataset in FROM_CITYSCAPES:
        clips = [with_classes(clip, *FROM_CITYSCAPES[dataset]) for clip in clips]
    return [("val" if i == 1 else "train", clip) for i, clip in enumerate(clips)]


def wanted(dataset: str, frame: PanopticFrame, taxonomy: Taxonomy) -> PanopticFrame:
    """What a layout can hold of a frame: only KITTI-STEP and COCO can say crowd."""
    if dataset in ("kitti-step", "coco-video"):
        return frame
    crowd = (frame.semantic >= taxonomy.num_stuff) & (frame.instance == 0)
    return PanopticFrame(np.where(crowd, VOID, frame.semantic).astype(np.uint8), frame.instance)


def category_names(frame: PanopticFrame, taxonomy: Taxonomy) -> np.ndarray:
    table = np.array([*taxonomy.names, *["void"] * (256 - len(taxonomy))])
    return table[frame.semantic]


@pytest.mark.parametrize("dataset", NAMES)
def test_what_was_written_is_read(dataset: str, tmp_path: Path) -> None:
    clips = make_clips(dataset)
    out = write_dataset(dataset, clips, tmp_path / "deep" / "out")
    for split in ("train", "val"):
        mine = [clip for of, clip in clips if of == split]
        found = read_dataset(dataset, out, split)
        assert len(found) == len(mine)
        for clip, want in zip(found, mine):
            # VIPER's reader takes 50 frames.
            assert (clip.size, clip.length) == (want.size, want.length)
            labelled = CITYSCAPES_FRAMES if dataset == "cityscapes-vps" else want.labelled
            assert clip.labelled == labelled
            compare_images(clip, want, 4 if dataset == "vipseg" else 0)
            compare_truth(dataset, clip, want)
    assert [p.name for p in out.parent.iterdir()] == ["out"]


def compare_images(clip: Clip, want: Clip, most: int) -> None:
    """`most`: mean difference in grey levels."""
    for t in range(len(clip)):
        assert np.abs(clip.image(t).astype(int) - want.image(t)).mean() <= most


def compare_truth(dataset: str, clip: Clip, want: Clip) -> None:
    """Classes are the same pixel by pixel, and tracks are through the whole clip, both ways."""
    forward: dict[tuple[str, int], tuple[str, int]] = {}
    backward: dict[tuple[str, int], tuple[str, int]] = {}
    for t in clip.labelled:
        got, expected = clip.truth(t), want.truth(t)
        assert got is not None
        assert expected is not None
        expected = wanted(dataset, expected, want.taxonomy)
        names = category_names(got, clip.taxonomy)
        np.testing.assert_array_equal(names, category_names(expected, want.taxonomy))
        np.testing.assert_array_equal(got.instance > 0, expected.instance > 0)
        triples = zip(
            names.ravel().tolist(), got.instance.ravel().tolist(), expected.instance.ravel().tolist()
        )
        for name, one, other in set(triples):
            assert forward.setdefault((name, one), (name, other)) == (name, other)
            assert backward.setdefault((name, other), (name, one)) == (name, one)
    things = {name for name, track in forward if track}
    assert {"car", "person"} <= things  # or nothing would have been compared


def test_coco_video_keeps_names_numbers_and_rates(tmp_path: Path) -> None:
    out = write_dataset("coco-video", make_clips("coco-video"), tmp_path / "out")
    found = read_dataset("coco-video", out, "train")
    assert [(c.name, c.fps) for c in found] == [("film_0", 12.5), ("film_2", 12.5)]
    assert found[0].taxonomy.categories == CITYSCAPES.categories
    for shift, clip in zip((0, 2), found):
        np.testing.assert_array_equal(clip.read_truth(14).instance, truth(shift, 14).instance)


def test_numbers_in_the_files_by_hand(tmp_path: Path) -> None:
    """The encodings of the dossier and of DeepLab2, read with OpenCV alone."""
    roots = {name: write_dataset(name, make_clips(name, (0,)), tmp_path / name) for name in NAMES}

    def read(name: str, path: str) -> np.ndarray:
        found = cv2.imread(str(roots[name] / path), cv2.IMREAD_UNCHANGED)
        assert found is not None, path
        return found[:, :, ::-1] if found.ndim == 3 else found

    # At t = 4, car 5 is in columns 4 to 8, rows 9 to 13; it is the first car, whatever came before.
    cls = read("cityscapes-vps", "train/cls/0001_0001_city_000001_000004_final_mask.png")
    inst = read(
        "cityscapes-vps", "train/inst/0001_0001_city_000001_000004_original_image_instance_greyscale.png"
    )
    assert cls[10, 5].tolist() == [0, 0, 142]
    assert (inst.dtype, inst[10, 5], inst[16, 17], inst[0, 10], inst[19, 0]) == (
        np.uint16,
        26001,
        26002,
        23,
        0,
    )
    assert inst[9, 30] == 24  # crowd
    fine = read("cityscapes-vps", "gtFine/val/city/city_000001_000019_gtFine_instanceIds.png")
    assert sorted(set(fine[fine > 999].tolist())) == [24001, 25001, 26001, 31001]
    listed = json.loads((roots["cityscapes-vps"] / "panoptic_im_train_city_vps.json").read_text())["images"]
    assert [i["file_name"] for i in listed[2:4]] == [
        "0001_0003_city_000001_000014_newImg8bit.png",
        "0001_0004_city_000001_000019_leftImg8bit.png",
    ]
    cls, inst = (read("viper", f"train/{part}/001/001_00005.png") for part in ("cls", "inst"))
    assert (cls[10, 5], cls[0, 10], cls[19, 0], cls[5, 14]) == (24, 2, 0, 0)
    assert (inst[10, 5].tolist(), inst[0, 10].tolist()) == ([24, 0, 1], [2, 0, 0])
    label = read("kitti-step", "kitti-step/panoptic_maps/train/0000/000004.png")
    assert [label[p].tolist() for p in ((10, 5), (16, 17), (5, 6), (19, 0))] == [
        [13, 0, 1],
        [13, 0, 2],
        [12, 0, 0],
        [255, 0, 0],
    ]
    value = read("vipseg", "panomasks/film_0/00000004.png")
    assert (value[10, 5], value[16, 17], value[0, 10], value[19, 0], value[9, 30]) == (4901, 4902, 29, 0, 0)
    assert (roots["vipseg"] / "train.txt").read_text() == "film_0\n"


def test_more_than_255_objects_take_two_channels(tmp_path: Path) -> None:
    instance = np.arange(1, 301, dtype=np.int32).reshape(10, 30)
    semantic = np.full((10, 30), VIPER.index("car"), np.uint8)
    frame = PanopticFrame(semantic, instance)
    blank = np.zeros((10, 30, 3), np.uint8)
    clip = Clip("many", VIPER, (10, 30), 15, 1, (0,), lambda t: blank, lambda t: frame)
    write_dataset("viper", [("val", clip)], tmp_path / "out")
    inst = cv2.imread(str(tmp_path / "out/val/inst/001/001_00001.png"))[:, :, ::-1]
    assert inst[9, 29].tolist() == [24, 1, 44]  # 300
    (found,) = read_dataset("viper", tmp_path / "out", "val")
    np.testing.assert_array_equal(found.read_truth(0).instance % 65536, instance)


@pytest.mark.parametrize("dataset", ["cityscapes-vps", "viper", "vipseg"])
def test_prepare_runs_on_what_was_written(dataset: str, tmp_path: Path) -> None:
    out = write_dataset(dataset, make_clips(dataset), tmp_path / "out")
    lines = prepare(dataset, out, workers=1, progress=False)
    assert lines[-1].startswith("val: 1 clips, ")
    taxonomy, (stored,) = read_clips(out, out)
    want = make_clips(dataset)[1][1]
    labelled = CITYSCAPES_FRAMES if dataset == "cityscapes-vps" else want.labelled
    frames = dict(zip(labelled, stored.truth))
    assert len(frames) == len(stored.truth)
    made = replace(want, taxonomy=taxonomy, labelled=labelled, read_truth=lambda t: frames[t].frame())
    compare_truth(dataset, made, want)


@pytest.mark.parametrize("dataset", NAMES)
def test_streets_are_written_and_checked(dataset: str, tmp_path: Path) -> None:
    frames = 30 if dataset == "cityscapes-vps" else 2
    out = synthesize(2, tmp_path / "out", frames, (32, 64), seed=3, layout=dataset)
    (clip,) = read_dataset(dataset, out, "val")
    (other,) = read_dataset(dataset, out, "train")
    drawn = [street_clip(seed, frames, (32, 64)) for seed in (3, 4)]
    if dataset in FROM_CITYSCAPES:
        drawn = [with_classes(street, *FROM_CITYSCAPES[dataset]) for street in drawn]
    for found, street in zip((other, clip), drawn):
        t = clip.labelled[-1]
        expected = wanted(dataset, street.read_truth(t), street.taxonomy)
        np.testing.assert_array_equal(
            category_names(found.read_truth(t), found.taxonomy), category_names(expected, street.taxonomy)
        )
    faults = check(dataset, out, progress=False).faults
    assert [f.message for f in faults if f.severity == "error"] == []
    assert (out / "contact_sheet.png").is_file()


def test_classes_that_have_no_counterpart_are_void() -> None:
    clip = with_classes(make_clip(), *FROM_CITYSCAPES["viper"])
    before, after = truth(0, 14), pickle.loads(pickle.dumps(clip)).truth(14)
    assert after is not None
    names = category_names(before, CITYSCAPES)
    for name in set(names.ravel().tolist()):
        expected = TO_VIPER.get(name, "void")
        assert set(category_names(after, VIPER)[names == name].tolist()) == {expected}
    assert set(np.unique(after.instance)) == {0, 5, 9, 300, 70000}  # not the train
    kitti = with_classes(make_clip(), *FROM_CITYSCAPES["kitti-step"]).truth(14)
    assert kitti is not None
    assert set(np.unique(kitti.instance)) == {0, 5, 9, 70000}  # nor the rider
    for taxonomy, table in FROM_CITYSCAPES.values():
        with_classes(make_clip(), taxonomy, table)  # every name is a class
    with pytest.raises(UserError, match="no class 'cat'"):
        with_classes(make_clip(), VIPER, {"cat": "car"})
    with pytest.raises(ValueError, match="traffic light is stuff"):
        with_classes(make_clip(), VIPER, {"traffic light": "trafficlight"})


@pytest.mark.parametrize(
    ("dataset", "change", "message"),
    [
        ("cityscapes-vps", {"length": 31}, "31 frames.*takes 30"),
        ("cityscapes-vps", {"labelled": (4, 9)}, "truth in 4, 9, 14"),
        ("viper", {"taxonomy": CITYSCAPES}, "classes of 'cityscapes', not of 'viper'"),
        ("kitti-step", {"labelled": ()}, "film_0 has no truth"),
        ("vipseg", {"name": "../film"}, "can't be a folder's name"),
        ("coco-video", {"name": "a/b"}, "can't be a folder's name"),
    ],
)
def test_clips_that_do_not_fit_are_refused(
    dataset: str, change: dict[str, object], message: str, tmp_path: Path
) -> None:
    ((_, clip),) = make_clips(dataset, (0,))
    clip = replace(clip, **change)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message):
        write_dataset(dataset, [("val", clip)], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_two_clips_of_one_name_and_too_many_objects(tmp_path: Path) -> None:
    for dataset in ("vipseg", "coco-video"):
        ((split, clip),) = make_clips(dataset, (0,))
        with pytest.raises(UserError, match="two clips are called 'film_0'"):
            write_dataset(dataset, [(split, clip), (split, clip)], tmp_path / "out")
    ((_, clip),) = make_clips("vipseg", (0,))
    instance = np.arange(1, 641, dtype=np.int32).reshape(SIZE) % 100 + 1
    semantic = np.full(SIZE, clip.taxonomy.index("car"), np.uint8)
    crowded = replace(clip, read_truth=lambda t: PanopticFrame(semantic, instance))
    with pytest.raises(UserError, match="more than 99 objects of the class car"):
        write_dataset("vipseg", [("val", crowded)], tmp_path / "out")
    for dataset in NAMES:
        with pytest.raises(UserError, match="no clips"):
            write_dataset(dataset, [], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dataset", NAMES)
def test_nothing_is_left_of_a_failed_run_and_nothing_is_lost(dataset: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious.txt").write_text("keep")
    with pytest.raises(UserError, match="not empty"):
        write_dataset(dataset, make_clips(dataset), out)

    def stopped() -> Iterator[tuple[str, Clip]]:
        yield make_clips(dataset)[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(dataset, stopped(), out, overwrite=True)
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "precious.txt"]
    write_dataset(dataset, make_clips(dataset), out, overwrite=True)
    assert not (out / "precious.txt").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    for dataset in NAMES:
        with pytest.raises(UserError, match="No space left on device; make room"):
            write_dataset(dataset, make_clips(dataset), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_last_street_is_of_val(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streets, "street_clip", lambda seed, *_: make_clip(seed, length=1))
    for count, train, val in ((1, [], [0]), (2, [0], [1]), (6, [0, 1, 2, 3], [4, 5]), (5, [0, 1, 2, 3], [4])):
        out = synthesize(count, tmp_path / str(count), 1, SIZE, layout="coco-video")
        for split, seeds in (("train", train), ("val", val)):
            found = read_dataset("coco-video", out, split) if seeds else []
            assert [c.name for c in found] == [f"film_{seed}" for seed in seeds]
            assert (out / f"panoptic_{split}.json").exists() == bool(seeds)


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*args: str) -> int:
        monkeypatch.setattr(
            "sys.argv", ["panoptube", "synthesize", "--clips", "1", "--size", "32", "64", *args]
        )
        return cli.main()

    assert run("--out", str(tmp_path / "a"), "--as", "kitti-step", "--frames", "1") == 0
    assert len(read_dataset("kitti-step", tmp_path / "a", "val")) == 1
    assert run("--out", str(tmp_path / "b"), "--as", "cityscapes-vps", "--frames", "2") == 2
    error = capsys.readouterr().err
    assert "30 frames" in error.splitlines()[-1]
    with pytest.raises(UserError, match="no layout is called 'kitti'"):
        synthesize(1, tmp_path / "b", layout="kitti")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_any_classes_as_coco_video(tmp_path: Path) -> None:
    own = Taxonomy("own", (Category("floor", False, (0, 0, 0), 7), Category("cat", True, (9, 9, 9), 300)))
    frame = PanopticFrame(np.array([[0, 1, 1, VOID]], np.uint8), np.array([[0, 4, 0, 0]], np.int32))
    blank = np.zeros((1, 4, 3), np.uint8)
    clip = Clip("cats", own, (1, 4), 25, 1, (0,), lambda t: blank, lambda t: frame)
    out = write_dataset("coco-video", [("mine", clip)], tmp_path / "out")
    (found,) = read_dataset("coco-video", out, "mine")
    assert found.taxonomy.categories == own.categories
    np.testing.assert_array_equal(found.read_truth(0).semantic, frame.semantic)
    np.testing.assert_array_equal(found.read_truth(0).instance, frame.instance)
    with pytest.raises(UserError, match="not of 'own'"):
        write_dataset("coco-video", [("mine", clip), ("mine", make_clip())], tmp_path / "both")
