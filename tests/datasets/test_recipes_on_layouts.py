"""The published recipes on the official layouts: prepared, trained, all of val labelled, tables filled in.

Networks and frames are small; gaps, losses and all else are the recipes' own.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from panoptube import ablation, cli
from panoptube.ablation_report import AblationReport
from panoptube.ablation_speed import Speed
from panoptube.ablation_tables import changed, score_names
from panoptube.config import RunConfig
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.class_maps import FROM_CITYSCAPES, with_classes
from panoptube.data.clip import Clip
from panoptube.data.datasets import read_dataset
from panoptube.data.pairs import PairDataset
from panoptube.data.streets import street_clip
from panoptube.data.write_layouts import write_dataset
from panoptube.metrics.protocol import PROTOCOLS
from panoptube.network.vpsnet import vpsnet
from panoptube.network.weights import load_weights, save_weights
from panoptube.panoptic.formats import read_panoptic_video
from panoptube.panoptic.frame import VOID, PanopticFrame
from panoptube.predict import write_predictions
from panoptube.predictor import VideoPredictor
from panoptube.prepare import prepare
from panoptube.recipes import RECIPES, load_run
from panoptube.train import train
from panoptube.video import open_video

pytestmark = pytest.mark.xdist_group("recipes")  # what they share takes half a minute

FRAMES = {"cityscapes-vps": 30, "viper": 16}
"""Frames of a clip: VIPER's longest window is 15."""
SIZES = {"cityscapes-vps": (64, 128), "viper": (72, 128)}
"""In the proportions of the recipes' `fit`."""
TABLES = {"cityscapes-vps": "table2", "viper": "table1"}
ROWS = {
    "Track": "track",
    "FuseTrack": "fusetrack",
    "SiamTrack-Base": "siamtrack-base",
    "SiamTrack": "siamtrack",
}
"""Recipes that rows of the tables train; all rows of table 2."""
ALONE = ("fuse", "siamtrack-8gb", "fuse-viper")
"""Recipes that are in no table."""
EVERY = tuple(name for name in RECIPES if load_run(name).data.dataset in FRAMES)
SMALL = (
    "network.backbone=resnet18",
    "network.channels=16",
    "network.semantic_channels=[16]",
    "network.semantic_groups=4",
    "network.box_channels=32",
    "network.mask_channels=16",
    "network.mask_convs=1",
    "network.train_proposals=50",
    "network.test_proposals=20",
    "network.rpn_samples=32",
    "network.roi_samples=32",
    "network.score_threshold=0.05",  # what has hardly been trained is unsure
    "data.size=[64, 96]",
    "data.workers=0",
)


@dataclass(frozen=True)
class Done:
    """A finished run: its folder, and what it labelled of each clip of val."""

    folder: Path
    labelled: list[list[PanopticFrame]]


def family(recipe: str) -> str:
    return "viper" if recipe.endswith("-viper") else "cityscapes-vps"


def settings(name: str) -> list[str]:
    """Of a family; `ablate` gives the last one to the rows of SiamTrack alone."""
    height, width = SIZES[name]
    return [
        *SMALL,
        "network.match_channels=16",
        f"data.fit=[{height}, {width}]",
        f"network.test_size=[{height}, {width}]",
        "siamese.projection=[16, 8]",
    ]


def small(recipe: str, root: Path) -> RunConfig:
    """The recipe as the commands below train it."""
    run = load_run(recipe)
    chosen = settings(family(recipe))
    if not run.loss.temporal:
        chosen.remove("siamese.projection=[16, 8]")
    if not run.network.match_channels:
        chosen.remove("network.match_channels=16")
    if recipe == "siamtrack-8gb":  # its crops are smaller
        chosen += ["data.size=[32, 64]", "train.accumulate=2"]
    return changed(run, [*chosen, "train.steps=2", "train.validate_every=0", f"data.root={root}"])


def elsewhere(
    weights: Mapping[str, Path], size: tuple[int, int], *_: object, **__: object
) -> dict[str, Speed]:
    """In the place of `measure_speeds`, which takes seconds per network."""
    return dict.fromkeys(weights, Speed(3.0, 500.0, size, "elsewhere"))


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Streets in both layouts, prepared: one clip to train on, two to score."""
    found = {}
    for name, frames in FRAMES.items():
        clips = [street_clip(40 + i, frames, SIZES[name]) for i in range(3)]
        if name in FROM_CITYSCAPES:
            clips = [with_classes(clip, *FROM_CITYSCAPES[name]) for clip in clips]
        splits = ("train", "val", "val")
        found[name] = write_dataset(name, zip(splits, clips), tmp_path_factory.mktemp(name) / "root")
        lines = prepare(name, found[name], workers=1, progress=False)
        assert [line.split(" clips")[0] for line in lines] == ["train: 1", "val: 2"]
    return found


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def done(roots: dict[str, Path], out: Path) -> dict[str, Done]:
    """All recipes, two steps each: those of the tables by `panoptube ablate`, the others by `train`."""
    start = out / "start.safetensors"
    torch.manual_seed(1)
    run = small("track", roots["cityscapes-vps"])
    save_weights(start, vpsnet(run.network, CITYSCAPES), run)
    predictors: list[list[PanopticFrame]] = []

    class Recorder(VideoPredictor):
        """Keeps what it answers."""

        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__(network)  # type: ignore[arg-type]
            predictors.append([])

        def step(self, image: np.ndarray) -> PanopticFrame:
            predictors[-1].append(super().step(image))
            return predictors[-1][-1]

    found: dict[str, Done] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablation, "VideoPredictor", Recorder)
        patch.setattr(ablation, "measure_speeds", elsewhere)  # tests/test_ablation.py measures
        patch.setattr(AblationReport, "chart", lambda report, file: file.write(b"drawn elsewhere"))
        for name, table in TABLES.items():
            command = (
                f"panoptube ablate {table} --family {name} --data {roots[name]} --out {out / name} --seeds 0 "
                f"--init {start} --steps 2 --accelerator cpu --only".split()
            )
            patch.setattr("sys.argv", [*command, *ROWS, "--set", *settings(name)])
            assert cli.main() == 0
            plan = ablation.planned(table, name, roots[name], settings(name), 2)
            clips = ablation.EvalClips(dataset=name, root=roots[name])
            for job in ablation.jobs(plan, (0,), out / name, start, clips):
                if job.row in ROWS:
                    recipe = ROWS[job.row] + ("-viper" if name == "viper" else "")
                    found[recipe] = Done(job.folder, [predictors.pop(0), predictors.pop(0)])
        for recipe in ALONE:
            folder, root = out / recipe, roots[family(recipe)]
            console = Console(quiet=True)
            assert train(small(recipe, root), folder, start, accelerator="cpu", console=console) == 2
            network, _ = load_weights(folder / "weights.safetensors")
            clips = read_dataset(family(recipe), root, "val")
            vpq, tc = ablation.score(network, clips, PROTOCOLS[family(recipe)], 1, progress=False)
            assert math.isfinite(vpq.all.pq)
            assert math.isfinite(tc.tc)
            found[recipe] = Done(folder, [predictors.pop(0), predictors.pop(0)])
    assert predictors == []
    return found


def test_the_clips_have_the_gaps_of_the_recipes(roots: dict[str, Path]) -> None:
    """In frames: Cityscapes-VPS has truth for every fifth; SiamTrack's gap is 10 (dossier 9.4, S1, S2)."""
    for recipe in EVERY:
        run, own = small(recipe, roots[family(recipe)]), load_run(recipe).data
        assert (run.data.gaps, run.data.gaps_in, run.data.scale) == (own.gaps, own.gaps_in, own.scale)
        wanted = 10 if "siamtrack" in recipe or recipe.endswith("viper") else 5
        pairs = PairDataset(run.data, 0)
        assert {abs(int(pairs[i].gaps)) for i in range(4)} == {wanted}, recipe


def test_every_recipe_takes_two_steps(done: dict[str, Done], roots: dict[str, Path]) -> None:
    assert set(done) == set(EVERY)
    for recipe, run in done.items():
        trained = RunConfig.from_yaml((run.folder / "config.yaml").read_text())
        wanted = small(recipe, roots[family(recipe)])
        assert trained == wanted.model_copy(update={"name": trained.name}), recipe
        with (run.folder / "losses.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["step"] for row in rows] == ["0", "1"]
        assert all(math.isfinite(float(value)) for row in rows for value in row.values())
        assert set(wanted.loss.temporal) <= set(rows[0])


def test_all_of_val_is_labelled_and_ids_begin_anew(done: dict[str, Done], roots: dict[str, Path]) -> None:
    for recipe, run in done.items():
        name = family(recipe)
        assert [len(frames) for frames in run.labelled] == [FRAMES[name]] * 2
        for frames in run.labelled:
            assert {frame.size for frame in frames} == {SIZES[name]}
            assert frames[0].instance.max() > 0
    # Or the test below would show nothing: one predictor for both clips gives other ids.
    run = done["siamtrack-viper"]
    network, _ = load_weights(run.folder / "weights.safetensors")
    predictor = VideoPredictor(network)
    clips = read_dataset("viper", roots["viper"], "val")
    kept = [[predictor.step(clip.image(t)) for t in range(len(clip))] for clip in clips]
    same = [all(map(equal, *both)) for both in zip(kept, run.labelled)]
    assert same == [True, False]


def equal(one: PanopticFrame, other: PanopticFrame) -> bool:
    return np.array_equal(one.semantic, other.semantic) and np.array_equal(one.instance, other.instance)


@pytest.mark.parametrize("recipe", EVERY)
def test_a_clip_alone_is_labelled_as_after_another(
    recipe: str, done: dict[str, Done], roots: dict[str, Path], tmp_path: Path
) -> None:
    """The second clip's images, as `panoptube predict` reads and writes them, by the plain network."""
    root, run = roots[family(recipe)], done[recipe]
    folders = {
        "cityscapes-vps": root / "leftImg8bit_sequence/val/city/city_000003_*.png",
        "viper": root / "val/img/003",
    }
    network, _ = load_weights(run.folder / "weights.safetensors")
    video = open_video(folders[family(recipe)])
    summary = write_predictions(video, VideoPredictor(network).step, network.taxonomy, tmp_path)
    assert summary.frames == FRAMES[family(recipe)]
    _, stored = read_panoptic_video(tmp_path / "panoptic.json", tmp_path / "panoptic")
    assert all(equal(frame.frame(), own) for frame, own in zip(stored, run.labelled[1], strict=True))


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_are_filled_in(name: str, done: dict[str, Done], out: Path) -> None:
    """Frames/s and memory are measured where all rows are done: those of table 2."""
    rows = json.loads((out / name / f"{TABLES[name]}.json").read_text())["rows"]
    ours = {row["name"]: row for row in rows if row["name"] in ROWS}
    assert list(ours) == list(ROWS)
    for row in ours.values():
        assert set(row["seeds"]["0"]) == set(score_names())
        assert all(math.isfinite(value) for value in row["seeds"]["0"].values())
        assert 0 < row["seeds"]["0"]["tc"] < 100
    text = (out / name / f"{TABLES[name]}.md").read_text().split("## Differences")[0]
    speed = ("frames/s", "peak MiB") if name == "cityscapes-vps" else ()
    head = ("k = 0", "k = 5", "k = 10", "k = 15", "VPQ / Th / St", "TC", *speed)
    assert f"|  | {' | '.join(head)} |" in text
    number = r"\d+(\.\d+)?"
    cells = [rf"{number} / {number} / {number}"] * 5 + [number] * (len(head) - 5)
    for row in ROWS:
        assert re.search(rf"^\| {row} \| {' [|] '.join(cells)} \|$", text, re.MULTILINE), text
    assert "other data" not in text


@pytest.mark.parametrize("name", TABLES)
def test_the_truth_scores_100(name: str, roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """In all windows of the dataset, or the tables' low numbers would mean nothing.

    On VIPER a small tube is surplus even where it is right; here nearly all are small.
    """
    clips = read_dataset(name, roots[name], "val")
    answers = (truth_or_void(clip, t) for clip in clips for t in range(len(clip)))

    class Truth:
        def __init__(self, network: object) -> None: ...

        def step(self, image: np.ndarray) -> PanopticFrame:
            return next(answers)

    monkeypatch.setattr(ablation, "VideoPredictor", Truth)
    network = vpsnet(small("track", roots[name]).network, clips[0].taxonomy)
    vpq, tc = ablation.score(network, clips, replace(PROTOCOLS[name], min_tube=0), 1, progress=False)
    scores = ablation.scores_of({"vpq": vpq.to_dict(), "tc": tc.to_dict()})
    for score in score_names()[:-1]:
        assert scores[score] == pytest.approx(100), score


def truth_or_void(clip: Clip, t: int) -> PanopticFrame:
    blank = PanopticFrame(np.full(clip.size, VOID, np.uint8), np.zeros(clip.size, np.int32))
    return clip.truth(t) or blank
