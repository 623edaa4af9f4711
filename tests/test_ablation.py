"""Ablations: the paper's rows as data, training that stops and goes on, and the report's arithmetic."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import signal
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console

import temporal_terms
from panoptube import ablation, cli
from panoptube import train as training
from panoptube.ablation import ablate, jobs, planned, scores_of
from panoptube.ablation_report import AblationReport, RowScores, interval, seeds_needed, student_t
from panoptube.ablation_speed import Speed, measure_speeds
from panoptube.ablation_tables import KS, TABLES, changed, family_with, find_table, score_names
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.clip import Clip
from panoptube.data.labelled_video import write_labelled_video
from panoptube.data.pairs import FrameTargets
from panoptube.data.streets import street_clip
from panoptube.errors import UserError
from panoptube.network.vpsnet import vpsnet
from panoptube.network.weights import load_weights, save_weights
from panoptube.panoptic.frame import PanopticFrame
from panoptube.recipes import TEMPORAL, tiny_siamtrack_base_streets, tiny_siamtrack_streets, tiny_streets
from panoptube.train import check_finite

NARROW = (
    "network.backbone=resnet18",
    "network.channels=16",
    "network.semantic_channels=[16]",
    "network.semantic_groups=4",
    "network.box_channels=32",
    "network.mask_channels=16",
    "network.mask_convs=1",
    "network.match_channels=16",
    "network.train_proposals=50",
    "network.test_proposals=20",
    "network.rpn_samples=32",
    "network.roi_samples=32",
    "network.test_size=[64, 128]",
    "data.size=[64, 128]",
    "siamese.projection=[16, 8]",
    "train.warmup=2",
)
"""A network and streets small enough for a test."""


# --- rows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["table1", "table2"])
def test_published_means_are_those_of_the_windows(name: str) -> None:
    """To the rounding of the print, but for the cells that the paper itself has otherwise."""
    known = {
        ("table1", "FuseTrack", "stuff"): 0.95,
        ("table2", "FuseTrack", "stuff"): 0.55,
        ("table2", "SiamTrack", "things"): 0.25,
    }
    table = find_table(name, family_with("cityscapes-vps"))
    for row in table.rows:
        for part in ("vpq", "things", "stuff") if row.paper else ():
            mean = statistics.mean(row.paper[f"{part}_k{k}"] for k in KS)
            off = known.get((name, row.name, part), 0.0)
            assert abs(mean - row.paper[part]) == pytest.approx(off, abs=0.16), (row.name, part)


def test_tables_of_the_paper_agree_where_they_repeat_a_row() -> None:
    recipes = family_with("streets")
    rows = {name: {row.name: row for row in find_table(name, recipes).rows} for name in TABLES}
    same = [
        (rows["table1"]["SiamTrack-Base"], rows["table3"]["SiamTrack-Base"]),
        (rows["table1"]["SiamTrack-Base"], rows["table4"]["SiamTrack-Base"]),
        (rows["table1"]["Base + L_segment"], rows["table3"]["instances and classes"]),
        (rows["table1"]["Base + L_warp"], rows["table4"]["L_warp"]),
        (rows["table1"]["Base + L_tube"], rows["table4"]["L_tube"]),
        (rows["table1"]["SiamTrack"], rows["gap"]["gap 10"]),
    ]
    for a, b in same:
        assert a.run == b.run
        assert {name: a.paper[name] for name in b.paper if name != "tc"} == {
            name: value for name, value in b.paper.items() if name != "tc"
        }


def test_rows_have_the_terms_that_their_names_say() -> None:
    recipes = family_with("streets")
    terms = {
        name: [row.run.loss.temporal for row in find_table(name, recipes).rows]
        for name in ("table1", "table3")
    }
    pair = ("contrast_classes", "contrast_instances")
    assert terms["table1"] == [(), (), (), (), pair, ("warp",), ("tube",), tuple(TEMPORAL)]
    assert terms["table3"] == [(), ("contrast_instances",), ("contrast_classes",), pair]
    rows = find_table("table1", recipes).rows
    assert rows[0].run == tiny_streets()
    assert rows[1].run.train.steps == 2 * rows[0].run.train.steps
    assert rows[2].run.network.fuse
    base = tiny_siamtrack_base_streets()
    assert (rows[3].run.data, rows[3].run.loss, rows[3].run.train) == (base.data, base.loss, base.train)
    assert rows[3].run.siamese.both_frames
    assert rows[7].run.siamese == tiny_siamtrack_streets().siamese
    assert [row.run.data.gaps for row in find_table("gap", recipes).rows] == [(-5, 5), (-10, 10), (-15, 15)]
    videos = find_table("gap", family_with("cityscapes-vps")).rows
    assert [row.run.data.gaps for row in videos] == [(-1, 1), (-2, 2), (-3, 3)]
    viper = find_table("gap", family_with("viper")).rows
    assert [row.run.data.gaps for row in viper] == [(-5, 5), (-10, 10), (-15, 15)]


def test_settings_reach_the_rows_that_they_are_about() -> None:
    recipes = family_with("streets", ["train.lr=3e-4", "loss.warp=0.25", "siamese.alpha=10"])
    rows = {row.name: row.run for row in find_table("table1", recipes).rows}
    assert {run.train.lr for run in rows.values()} == {3e-4}
    assert rows["Base + L_warp"].loss.warp == rows["SiamTrack"].loss.warp == 0.25
    assert rows["Base + L_warp"].siamese.alpha == 10
    untouched = {row.name: row.run for row in find_table("table1", family_with("streets")).rows}
    for name in ("Track", "FuseTrack", "SiamTrack-Base"):
        train = untouched[name].train.model_copy(update={"lr": 3e-4})
        assert rows[name] == untouched[name].model_copy(update={"train": train})


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("loss.wrap=1", "did you mean loss.warp"),
        ("loss=1", "can't set 'loss=1'"),
        ("train.lr", "NAME=VALUE"),
        ("train.lr.low=1", "can't set"),
        ("train.lr=-1", "train.lr"),
        ("train.lr=fast", "train.lr"),
        ("data.gaps=[1, ", "no YAML"),
    ],
)
def test_wrong_settings(setting: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        changed(tiny_streets(), [setting])
    assert "\n" not in str(error.value)


# --- which runs ---------------------------------------------------------------------------------------------


def results(table: str, tmp_path: Path, **options: Any) -> dict[tuple[str, int], Path]:
    eval_seeds = options.pop("eval_seeds", (1000, 1020))
    init = options.pop("init", None)
    clips = ablation.EvalClips(eval_seeds)
    found = jobs(planned(table, **options), (0, 1), tmp_path, init, clips)
    return {(job.row, job.seed): job.result for job in found}


def test_equal_runs_of_several_tables_are_one(tmp_path: Path) -> None:
    first, third, fourth, gap = (results(name, tmp_path) for name in ("table1", "table3", "table4", "gap"))
    assert len(set(first.values())) == 16
    for seed in (0, 1):
        assert (
            first["SiamTrack-Base", seed] == third["SiamTrack-Base", seed] == fourth["SiamTrack-Base", seed]
        )
        assert first["Base + L_segment", seed] == third["instances and classes", seed]
        assert first["SiamTrack", seed] == gap["gap 10", seed]
    assert len({*first.values(), *third.values(), *fourth.values(), *gap.values()}) == 2 * (8 + 2 + 1 + 2)


def test_a_result_is_of_all_that_decides_it(tmp_path: Path) -> None:
    for name, content in (("a", b"1"), ("b", b"2"), ("c", b"1")):
        (tmp_path / name).write_bytes(content)
    base = results("table3", tmp_path)
    others: list[dict[str, Any]] = [
        {"steps": 7},
        {"init": tmp_path / "a"},
        {"init": tmp_path / "b"},
        {"settings": ["train.lr=1e-5"]},
        {"settings": ["train.accumulate=2"]},
        {"eval_seeds": (2000, 2020)},
    ]
    every = [base, *(results("table3", tmp_path, **options) for options in others)]
    assert len({path for found in every for path in found.values()}) == 8 * len(every)
    assert results("table3", tmp_path, init=tmp_path / "c") == results(
        "table3", tmp_path, init=tmp_path / "a"
    )
    assert results("table3", tmp_path, settings=["data.workers=3", "train.save_every=9"]) == base
    # Another clip range scores the same training.
    folders = {path.name.split(".")[0] for path in base.values()}
    again = results("table3", tmp_path, eval_seeds=(2000, 2020))
    assert {path.name.split(".")[0] for path in again.values()} == folders
    # Settings of the terms don't train Base again.
    tuned = results("table3", tmp_path, settings=["loss.contrast_classes=0.1", "siamese.temperature=0.1"])
    assert [row for (row, seed) in base if seed == 0 and tuned[row, 0] == base[row, 0]] == ["SiamTrack-Base"]


def test_newer_fields_at_their_default_leave_names_alone() -> None:
    run = tiny_streets()
    counted = ablation._what_counts(run)
    assert "paste" not in counted["data"]
    assert "ignore_untrusted" not in counted["network"]
    pasted = run.model_copy(update={"data": run.data.model_copy(update={"paste": 0.5})})
    assert ablation._what_counts(pasted)["data"].pop("paste") == 0.5


def test_several_tables_share_their_rows(tmp_path: Path) -> None:
    """Tables 1, 3 and 4 have 8, 2 and 1 rows that no other has; seeds come one after the other."""
    plans = [planned(name) for name in ("table1", "table3", "table4")]
    every = [jobs(plan, (3, 1), tmp_path, None, ablation.EvalClips((0, 1))) for plan in plans]
    chosen = ablation._only(plans, (), every)
    assert [job.seed for job in chosen] == [3] * 11 + [1] * 11
    assert len({job.result for job in chosen}) == 22
    assert [job.row for job in chosen[:3]] == ["Track", "Track, twice the steps", "FuseTrack"]
    assert [job.row for job in ablation._only(plans, ("L_warp", "instances"), every)] == [
        "instances",
        "L_warp",
    ] * 2


def test_datasets_are_judged_by_their_own_protocol() -> None:
    viper = ablation.EvalClips(dataset="viper", root=Path("viper"))
    assert (viper.protocol.windows, viper.protocol.min_tube, viper.every) == ((1, 5, 10, 15), 1024, 1)
    vps = ablation.EvalClips(dataset="cityscapes-vps", root=Path("vps"))
    assert (vps.protocol.windows, vps.every) == ((1, 2, 3, 4), 1)  # only each fifth frame has truth
    streets = ablation.EvalClips((0, 1))
    assert (streets.protocol.windows, streets.every) == ((1, 2, 3, 4), 5)
    for clips in (viper, vps, streets):
        assert tuple(map(clips.protocol.k, clips.protocol.windows)) == KS
    plan = planned("table1", family="viper", data="viper", settings=["data.sequences=val.txt"])
    found = ablation._eval_clips(plan, (0, 1), 30, 0.5)
    assert (found.dataset, found.root, found.sequences) == ("viper", Path("viper"), Path("val.txt"))


def test_shards_do_every_run_once(tmp_path: Path) -> None:
    everything = jobs(planned("table1"), (0, 1, 2), tmp_path, None, ablation.EvalClips((0, 1)))
    parts = [ablation._shared_out(everything, f"{i}/5")[0] for i in range(1, 6)]
    assert sorted(str(job.result) for part in parts for job in part) == sorted(
        str(job.result) for job in everything
    )
    assert [job.seed for job in everything] == sorted(job.seed for job in everything)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tables": ("table5",)}, "no table 'table5'; there are table1"),
        ({"tables": ()}, "name one or more"),
        ({"family": "roads"}, "no family of recipes 'roads'"),
        ({"tables": ("table2",)}, "--family cityscapes-vps and --data"),
        ({"family": "cityscapes-vps"}, "give its folder with --data"),
        ({"data": "videos"}, "leave out --data"),
        ({"steps": 0}, "give 1 or more"),
        ({"seeds": ()}, "one or more different"),
        ({"seeds": (1, 1)}, "one or more different"),
        ({"only": ("instance",)}, "did you mean 'instances'"),
        ({"shard": "3/2"}, "i/n"),
        ({"shard": "0/2"}, "i/n"),
        ({"shard": "half"}, "i/n"),
        ({"eval_seeds": (20, 10)}, "first and the one after the last"),
        ({"eval_seeds": (999_999, 1_000_001)}, "where training begins"),
        ({"eval_frames": 19}, "give 20 or more"),
        ({"eval_difficulty": 2.0}, "between 0 and 1"),
        ({"init": "none.safetensors"}, "none.safetensors"),
        ({"settings": ("loss.contrast_classes=0",)}, "contrast_classes"),
    ],
)
def test_mistakes_are_answered_in_one_line(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        ablate(**{"tables": ("table3",), "out": tmp_path / "out", "console": Console(quiet=True)} | options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


# --- running ------------------------------------------------------------------------------------------------


@pytest.fixture
def start(tmp_path: Path) -> Path:
    run = family_with("streets", NARROW).track
    torch.manual_seed(1)
    save_weights(tmp_path / "start.safetensors", vpsnet(run.network, CITYSCAPES), run)
    return tmp_path / "start.safetensors"


def run_small(out: Path, start: Path, **options: Any) -> AblationReport:
    given = {
        "tables": ("table3",),
        "init": start,
        "seeds": (0,),
        "steps": 3,
        "settings": NARROW,
        "only": ("SiamTrack-Base", "instances"),
        "eval_seeds": (5, 6),
        "eval_frames": 20,
        "accelerator": "cpu",
        "console": Console(quiet=True),
    }
    return ablate(out=out, **given | options)[0]


def files(out: Path, pattern: str) -> dict[str, Path]:
    return {path.name: path for path in sorted((out / "runs").glob(pattern))}


def measured_elsewhere(
    weights: Mapping[str, Path], size: tuple[int, int], *_: object, **__: object
) -> dict[str, Speed]:
    """In the place of `measure_speeds`, which takes seconds per network."""
    return dict.fromkeys(weights, Speed(3.0, 500.0, size, "elsewhere"))


def test_stopped_in_the_middle_and_gone_on(
    tmp_path: Path, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run is stopped within its training; all ends as if nothing had happened."""
    monkeypatch.setattr(AblationReport, "chart", lambda report, file: file.write(b"drawn elsewhere " * 9))
    monkeypatch.setattr(ablation, "measure_speeds", measured_elsewhere)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    expected = run_small(whole, start)
    assert [sorted(row.seeds) for row in expected.rows] == [[0], [0], [], []]
    # Rows of a seed see the same pairs from the same start: before the first update their losses agree.
    logs = [next(csv.DictReader(path.open())) for path in sorted(whole.glob("runs/*/losses.csv"))]
    assert len(logs) == 2
    for name in ("semantic", "classes", "masks", "match", "panoptic"):
        assert logs[0][name] == logs[1][name]
    steps: list[int] = []

    def check(numbers: dict[str, float], step: int, out: Path) -> None:
        steps.append(step)
        if len(steps) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        check_finite(numbers, step, out)

    monkeypatch.setattr(training, "check_finite", check)
    found = run_small(stopped, start)
    assert steps == [0, 1, 2, 0, 1]
    assert [sorted(row.seeds) for row in found.rows] == [[0], [], [], []]
    assert len(files(stopped, "*.json")) == 1
    found = run_small(stopped, start)
    assert steps == [0, 1, 2, 0, 1, 2]
    assert found.to_dict() == expected.to_dict()
    for name, folder in files(whole, "*-seed0-*").items():
        if folder.is_dir():
            a, b = (load_weights(out / "runs" / name / "weights.safetensors")[0] for out in (whole, stopped))
            assert all(torch.equal(x, b.state_dict()[key]) for key, x in a.state_dict().items())

    # What is finished is neither trained nor scored again, ...
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(ablation, "train", never)
    before = {path: path.stat().st_mtime_ns for path in files(stopped, "*.json").values()}
    assert run_small(stopped, start).to_dict() == expected.to_dict()
    assert {path: path.stat().st_mtime_ns for path in files(stopped, "*.json").values()} == before
    # ... nor what another table shares: here SiamTrack-Base.
    four = run_small(stopped, start, tables=("table4",), only=("SiamTrack-Base",))
    assert four.rows[0].seeds[0] == found.rows[0].seeds[0]
    monkeypatch.setattr(ablation, "train", training.train)
    # Scored again on other clips, it isn't trained again.
    other = run_small(stopped, start, eval_seeds=(6, 7))
    assert steps == [0, 1, 2, 0, 1, 2]
    assert other.clips != expected.clips
    # A broken result is named.
    broken = next(iter(before))
    broken.write_text("{")
    with pytest.raises(UserError, match="remove it to score"):
        run_small(stopped, start)
    for ending in ("md", "csv", "json", "png"):
        assert (stopped / f"table3.{ending}").stat().st_size > 100
    assert not list(stopped.rglob("*.partial"))


def test_command_line(tmp_path: Path, start: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = (
        f"panoptube ablate table3 table4 --out {tmp_path / 'out'} --init {start} --seeds 0 --steps 1 "
        f"--no-speed --only instances --shard 1/1 --eval-seeds 5 6 --eval-frames 20 --accelerator cpu --set"
    )
    monkeypatch.setattr("sys.argv", [*command.split(), *NARROW])
    assert cli.main() == 0
    assert "| instances | 0" in (tmp_path / "out" / "table3.md").read_text()
    assert "| L_warp | - " in (tmp_path / "out" / "table4.md").read_text()
    monkeypatch.setattr("sys.argv", [*command.replace("instances", "instance").split(), *NARROW])
    assert cli.main() == 2


def test_labelled_videos(tmp_path: Path, start: Path) -> None:
    """Table 2 trains on the split "train" and scores "val", with DIS flow; these aren't Cityscapes-VPS."""
    for seed in (5, 6):
        write_labelled_video(street_clip(seed, 20, (64, 128)), tmp_path / "videos")
    (tmp_path / "videos/index.json").write_text('{"clips": [{"clip": "streets-000006", "split": "val"}]}')
    own = ("data.workers=0", "data.fit=null", "data.dataset=labelled-video")
    found = run_small(
        tmp_path / "out",
        start,
        tables=("table2",),
        family="cityscapes-vps",
        data=tmp_path / "videos",
        settings=[*NARROW, *own],
        only=("SiamTrack",),
        steps=1,
    )
    assert [sorted(row.seeds) for row in found.rows] == [[], [], [], [0]]
    assert (found.same_data, found.flow) == (False, "DIS (OpenCV, preset medium)")
    assert set(found.rows[3].seeds[0]) == set(score_names())
    (result,) = (json.loads(path.read_text()) for path in files(tmp_path / "out", "*.json").values())
    assert list(result["vpq"]["per_clip"]) == ["streets-000006"]


def perfect(monkeypatch: pytest.MonkeyPatch, clips: list[Clip]) -> None:
    """A predictor that answers the truth of the clips, one after the other."""
    answers: Iterator[PanopticFrame] = (clip.truth(t) for clip in clips for t in range(len(clip)))  # type: ignore[misc]

    class Truth:
        def __init__(self, network: Any) -> None: ...

        def step(self, image: np.ndarray) -> PanopticFrame:
            return next(answers)

    monkeypatch.setattr(ablation, "VideoPredictor", Truth)


def test_scores_of_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    """VPQ is 100; so is TC where nothing moves, and with exact flow nearly so on a street."""
    network = vpsnet(family_with("streets", NARROW).track.network, CITYSCAPES)
    still = street_clip(5, 1, (64, 128))
    image, truth = still.image(0), still.truth(0)
    assert truth is not None
    clips = [Clip("still", CITYSCAPES, (64, 128), 10, 20, tuple(range(20)), lambda t: image, lambda t: truth)]
    perfect(monkeypatch, clips)
    vpq, tc = ablation.score(network, clips, progress=False)
    found = scores_of({"vpq": vpq.to_dict(), "tc": tc.to_dict()})
    assert list(found) == score_names()
    assert all(value == pytest.approx(100) for value in found.values())
    assert (tc.flow, tc.pairs) == ("DIS (OpenCV, preset medium)", 19)
    street = [street_clip(5, 20, (64, 128))]
    perfect(monkeypatch, street)
    vpq, tc = ablation.score(network, street, progress=False)
    assert vpq.all.pq == pytest.approx(1)
    assert [w.k for w in vpq.windows] == [0, 5, 10, 15]
    assert 0.5 < tc.tc < 1
    assert tc.flow == "exact (synthetic streets)"


def test_speed_is_measured_in_other_processes(start: Path) -> None:
    found = measure_speeds({"a": start}, (64, 128), frames=2, console=Console(quiet=True))
    assert found["a"].fps > 0.1
    assert 100 < found["a"].memory < 10_000
    assert found["a"].size == (64, 128)
    assert "PyTorch" in found["a"].machine


# --- the report ---------------------------------------------------------------------------------------------


def some_report() -> AblationReport:
    """Differences of B to A: seed 0 +1, seed 1 +3; seed 2 of A has no partner."""
    a = {0: {"vpq": 10.0, "things": 5.0, "stuff": 20.0, "tc": 60.0}, 1: {"vpq": 12.0, "things": 6.0}}
    a[2] = {"vpq": 17.0, "things": math.nan}
    b = {0: {"vpq": 11.0, "things": 6.0, "stuff": 20.5, "tc": 62.0}, 1: {"vpq": 15.0, "things": 9.0}}
    return AblationReport(
        name="table4",
        title="Some terms",
        source="Table 4",
        same_data=False,
        rows=(
            RowScores("A", {"vpq": 47.9, "tc": 78.3}, a, Speed(2.5, 900.4, (64, 128), "a machine")),
            RowScores("B", {"vpq": 48.6, "tc": 79.3}, b),
            RowScores("C", {}, {}),
        ),
        reference="A",
        ks=KS,
        windows=False,
        tc=True,
        clips="two clips",
        flow="exact",
    )


def test_report_by_hand(tmp_path: Path) -> None:
    """B - A is 1 and 3: mean 2, standard deviation sqrt 2, half an interval 12.7062 * sqrt 2 / sqrt 2."""
    report = some_report()
    difference = report.compared(report.rows[1], "vpq")
    assert difference is not None
    assert (difference.mean, difference.count) == (2, 2)
    assert difference.low == pytest.approx(2 - 12.7062)
    assert difference.high == pytest.approx(2 + 12.7062)
    single = report.compared(report.rows[1], "stuff")
    assert single is not None
    assert single.mean == 0.5
    assert math.isnan(single.low)
    assert report.compared(report.rows[0], "vpq") is report.compared(report.rows[2], "vpq") is None
    text = report.to_markdown()
    # A: 10, 12 and 17, of mean 13 and standard deviation sqrt 13; things 5 and 6.
    assert "| A | 13.0 ± 3.6 / 5.5 ± 0.7 / 20.0 | 60.0 | 2.50 | 900 |" in text
    assert "| *paper* | *48.6 / - / -* | *79.3* | - | - |" in text
    assert "| B | +2.0 [-10.7, +14.7] *+0.7* | +2.0 [-10.7, +14.7] | +0.5 | +2.0 *+1.0* | 2 |" in text
    assert "| C | - | - | - | - | 0 |" in text
    assert "flow: exact" in text
    assert "a machine" in text
    rows = {(row["row"], row["score"]): row for row in csv.DictReader(io.StringIO(report.to_csv()))}
    assert float(rows["A", "vpq"]["sd"]) == pytest.approx(13**0.5)
    assert (rows["B", "vpq"]["mean"], rows["B", "vpq"]["difference"]) == ("13.0", "2.0")
    assert float(rows["B", "vpq"]["paper_difference"]) == pytest.approx(0.7)
    assert (rows["C", "vpq"]["mean"], rows["C", "vpq"]["paper"]) == ("", "")
    assert rows["A", "fps"]["mean"] == "2.5"
    paths = report.write(tmp_path)
    assert [path.name for path in paths] == ["table4.md", "table4.csv", "table4.json", "table4.png"]
    data = json.loads(paths[2].read_text())
    assert data["rows"][0]["seeds"]["2"] == {"vpq": 17.0, "things": None}
    assert data["rows"][1]["differences"]["vpq"]["mean"] == 2
    picture = cv2.imread(str(paths[3]))
    assert picture.shape[1] > 1000
    assert picture.std() > 5


def test_report_of_nothing(tmp_path: Path) -> None:
    report = some_report()
    empty = replace(report, rows=tuple(replace(row, seeds={}, speed=None) for row in report.rows))
    assert "seeds (none yet)" in empty.to_markdown()
    assert len(empty.write(tmp_path)) == 4


def test_student_t() -> None:
    stats = pytest.importorskip("scipy.stats")
    for degrees in range(1, 100):
        assert student_t(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-3), degrees


def test_interval_and_seeds_needed() -> None:
    assert interval([4.0]).count == 1
    found = interval([1.0, 2.0, 3.0, 4.0])
    assert (found.mean, found.high - found.mean) == (2.5, pytest.approx(3.1824 * (5 / 3) ** 0.5 / 2))
    # Differences spread by sqrt 2: with 18 seeds 2.1098 * sqrt 2 / sqrt 18 = 0.703, with 17 it is 0.727.
    assert seeds_needed(1.0, 0.71) == 18
    assert seeds_needed(0.0, 1.0) == 2


# --- benchmarks/temporal_terms.py ---------------------------------------------------------------------------


def boxes_at(*columns: int) -> FrameTargets:
    """Cars 1, 2, ... of 8x8 pixels at these columns of 8x64 pixels, on a road; the last four are void."""
    semantic = torch.zeros(8, 64, dtype=torch.int64)
    semantic[:, 60:] = 255
    masks = torch.zeros(len(columns), 8, 64, dtype=torch.uint8)
    for mask, x in zip(masks, columns):
        mask[:, x : x + 8] = 1
        semantic[:, x : x + 8] = CITYSCAPES.index("car")
    ids = torch.arange(1, len(columns) + 1)
    return FrameTargets(torch.zeros(len(columns), 4), torch.full_like(ids, 3), masks, ids, semantic)


def test_retrieval_by_hand() -> None:
    """A feature for each car; then the cars of the reference look like each other's."""
    target, reference = (temporal_terms.thing_segments(boxes_at(*x)) for x in ((0, 16), (8, 40)))
    assert target[0] == [(3, 1), (3, 2)]
    assert target[1].flatten(1).sum(1).tolist() == [4, 4]
    joined = torch.zeros(2, 3, 2, 16)
    joined[0, 0, :, 0:2], joined[0, 1, :, 4:6] = 1, 1
    joined[1, 0, :, 2:4], joined[1, 1, :, 10:12] = 5, 5
    assert temporal_terms.retrieved(joined, target, reference) == [True, True]
    joined[1, :2, :, 10:12] = torch.tensor([1.0, 0.1])[:, None, None]
    joined[1, :2, :, 2:4] = torch.tensor([0.1, 1.0])[:, None, None]
    assert temporal_terms.retrieved(joined, target, reference) == [False, False]
    alone = temporal_terms.thing_segments(boxes_at(8))
    assert temporal_terms.retrieved(joined, target, alone) == []
    classes, masks = temporal_terms.class_segments(boxes_at(0, 16))
    assert classes == [(0, 0), (CITYSCAPES.index("car"), 0)]
    assert masks.flatten(1).sum(1).tolist() == [2 * 11, 2 * 4]


def test_differences_are_paired() -> None:
    """One run: over its streets. Two runs: over the runs."""
    name = "tube dice, %"
    base, other = [[{name: 1.0}, {name: 2.0}, {}]], [[{name: 2.0}, {name: 5.0}, {name: 9.0}]]
    assert temporal_terms.differences(base, other, name) == interval([1.0, 3.0])
    two = temporal_terms.differences(base * 2, [*other, [{name: 1.0}, {name: 2.0}, {}]], name)
    assert two == interval([2.0, 0.0])
    assert temporal_terms.mean_of(other, name) == pytest.approx(16 / 3)


def test_terms_of_a_pair(start: Path) -> None:
    network, _ = load_weights(start)
    (pair,) = temporal_terms.street_pairs(7, (64, 128), 10, 1)
    found = temporal_terms.measure(network, pair)
    assert set(found) <= set(temporal_terms.QUANTITIES)
    assert 0 <= found["tube dice, %"] <= 100
    assert found["warp error of logits"] > found["warp error of probabilities"] > 0
    again = temporal_terms.measure(network, pair)
    assert again == found
