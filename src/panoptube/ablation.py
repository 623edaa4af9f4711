"""`panoptube ablate`: trains and scores every row of the paper's tables, and writes the tables.

Each row is trained once for every seed from the same start. What a run leaves lies in OUT/runs: a folder as
`panoptube train` makes it, and beside it a JSON with its scores, named by a hash of all that decides them. So
tables share runs, what is finished is never done again, and what was stopped goes on.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from panoptube.ablation_report import AblationReport, RowScores
from panoptube.ablation_speed import Speed, measure_speeds, processor
from panoptube.ablation_tables import TABLES, AblationTable, Row, changed, family_with, find_table
from panoptube.checkpoint import SAME_RESULT, write_atomically
from panoptube.config import RunConfig
from panoptube.data.clip import Clip
from panoptube.data.datasets import read_dataset
from panoptube.data.pairs import FIRST_TRAINING_SEED
from panoptube.data.streets import street_clip
from panoptube.dry_run import duration
from panoptube.errors import UserError
from panoptube.evaluate import scored_frames
from panoptube.flow.images import dis_image_flow
from panoptube.flow.source import DISFlow
from panoptube.metrics.protocol import PROTOCOLS, Protocol
from panoptube.metrics.tc import TC, TCResult
from panoptube.metrics.vpq import VPQ, VPQResult
from panoptube.network.vpsnet import VPSNet
from panoptube.network.weights import load_weights
from panoptube.predict import find_device
from panoptube.predictor import VideoPredictor
from panoptube.progress import progress_bar
from panoptube.train import train

EVERY = 5
"""Of streets each fifth frame counts, as on Cityscapes-VPS."""
STREETS = Protocol("streets", (1, 2, 3, 4), spacing=EVERY)
"""Window lengths in frames that count; videos without a protocol of their own have them, too."""
EXACT_FLOW = "exact (synthetic streets)"
LATER_FIELDS = (
    ("network", "ignore_untrusted"),
    ("network", "void_below"),
    ("network", "tracker"),
    ("data", "degrade"),
    ("data", "paste"),
)
"""Newer than the first results: not hashed at their default, so that old results keep their names."""


@dataclass(frozen=True)
class EvalClips:
    """What every run is scored on.

    Attributes:
        seeds: of streets, the first and the one after the last; None for the dataset in `root`.
        frames, size, difficulty: of the streets.
        dataset, root, split, sequences: as `read_dataset` takes them.
    """

    seeds: tuple[int, int] | None = None
    frames: int = 30
    size: tuple[int, int] = (256, 512)
    difficulty: float = 0.5
    dataset: str = "labelled-video"
    root: Path | None = None
    split: str = "val"
    sequences: Path | None = None

    @property
    def protocol(self) -> Protocol:
        """The dataset's own, if it has one."""
        return STREETS if self.seeds is not None else PROTOCOLS.get(self.dataset, STREETS)

    @property
    def every(self) -> int:
        """Stride of the frames that count, of those with truth."""
        return EVERY if self.protocol is STREETS else 1

    def read(self) -> list[Clip]:
        """Pixels are read when asked for.

        Raises:
            UserError: the dataset can't be read.
        """
        if self.seeds is not None:
            return [street_clip(s, self.frames, self.size, self.difficulty) for s in range(*self.seeds)]
        assert self.root is not None
        return read_dataset(self.dataset, self.root, self.split, self.sequences)

    def settings(self) -> dict[str, Any]:
        """All that decides a score, JSON-ready."""
        shared = {"every": self.every, "windows": list(self.protocol.windows)}
        if self.seeds is None:
            sequences = None if self.sequences is None else str(self.sequences)
            place = {"dataset": self.dataset, "root": str(self.root), "split": self.split}
            return {**place, "sequences": sequences, **shared}
        street = {"frames": self.frames, "size": list(self.size), "difficulty": self.difficulty}
        return {"streets": list(self.seeds), **street, **shared}

    def __str__(self) -> str:
        if self.seeds is None:
            return f"{self.dataset}, split {self.split}"
        return (
            f"streets of the seeds {self.seeds[0]} to {self.seeds[1] - 1}, {self.frames} frames of "
            f"{self.size[0]}x{self.size[1]}, difficulty {self.difficulty:g}, every {EVERY}th frame counts"
        )


@dataclass(frozen=True)
class Job:
    """One row with one seed.

    Attributes:
        row: its name.
        seed: of data and of what isn't in the starting weights.
        run: what is trained.
        folder: of the training.
        result: JSON with the scores.
    """

    row: str
    seed: int
    run: RunConfig
    folder: Path
    result: Path


def ablate(
    tables: Sequence[str],
    out: Path | str,
    init: Path | str | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    steps: int | None = None,
    family: str = "streets",
    data: Path | str | None = None,
    settings: Sequence[str] = (),
    only: Sequence[str] = (),
    shard: str = "1/1",
    eval_seeds: tuple[int, int] = (1000, 1020),
    eval_frames: int = 30,
    eval_difficulty: float = 0.5,
    speed: bool = True,
    accelerator: str = "auto",
    console: Console | None = None,
) -> list[AblationReport]:
    """Trains, scores and reports the rows of tables; OUT/TABLE.md, .csv, .json and .png for each.

    Seed by seed, so that an early stop leaves whole seeds to compare. Ctrl-C or SIGTERM ends it after the
    present step; the same call goes on. The report has what is finished, whoever finished it.

    Args:
        tables: one or more of `TABLES`; rows that they share are trained once.
        out: folder; may be shared by machines that do different shards of the same tables.
        init: weights that every row starts from; None: a backbone from ImageNet.
        seeds: of the runs of each row.
        steps: of a row; the row with twice the steps has twice as many. None: the recipe's.
        family: one of `FAMILIES`.
        data: folder of the dataset, for a family that trains on one; scored on its split "val".
        settings: changes to the recipes, as in `ablation_tables.changed`.
        only: names of the rows to do; none: all.
        shard: "i/n", i from 1 to n: every n-th of the runs, so that n processes do all of them. The first
            shard alone writes reports.
        eval_seeds: first seed of the streets that are scored, and the one after the last.
        eval_frames, eval_difficulty: of these streets.
        speed: measure frames per second and memory, for tables that have them, once all rows are done.
        accelerator: cpu, cuda, mps or auto; one device. Several GPUs take a shard each.
        console: where progress goes; standard error if None.

    Returns:
        A report of each table, also where rows are missing.

    Raises:
        UserError: a name or number is wrong, the data or a result can't be read, or training fails.
    """
    out, console = Path(out), console or Console(stderr=True)
    init = None if init is None else Path(init)
    if not tables:
        raise UserError(f"name one or more tables; there are {', '.join(TABLES)}")
    plans = [planned(table, family, data, settings, steps) for table in dict.fromkeys(tables)]
    clips = _eval_clips(plans[0], eval_seeds, eval_frames, eval_difficulty)
    planned_jobs = [jobs(plan, seeds, out, init, clips) for plan in plans]
    chosen, first = _shared_out(_only(plans, only, planned_jobs), shard)
    missing = [job for job in chosen if not job.result.exists()]
    console.print(f"{out}: {len(chosen) - len(missing)} of {len(chosen)} runs are done", soft_wrap=True)
    (out / "runs").mkdir(parents=True, exist_ok=True)

    def reports() -> list[AblationReport]:
        found = [report(plan, own, clips) for plan, own in zip(plans, planned_jobs)]
        if first:  # two shards that write one file at the same moment would meet
            for each in found:
                each.write(out)
        return found

    began, total = time.monotonic(), sum(_left(job) for job in missing)
    todo = total
    for number, job in enumerate(missing, 1):
        left = ""
        if todo < total:
            left = f", {duration((time.monotonic() - began) / (total - todo) * todo)} left for all"
        console.print(f"run {number} of {len(missing)}: {job.row}, seed {job.seed}{left}", soft_wrap=True)
        todo -= _left(job)
        if not _finish(job, init, clips, accelerator, console):
            console.print(f"stopped; {len(missing) - number + 1} runs left, the same command goes on")
            break
        if number < len(missing):
            reports()
    else:
        for plan, own in zip(plans, planned_jobs):
            if speed and first and plan.speed and all(job.result.exists() for job in own):
                _measure_speeds(plan, own, clips, find_device(accelerator), console)
    found = reports()
    if first:
        console.print(*(str(out / f"{plan.name}.md") for plan in plans), sep="\n", soft_wrap=True)
    return found


def planned(
    table: str,
    family: str = "streets",
    data: Path | str | None = None,
    settings: Sequence[str] = (),
    steps: int | None = None,
) -> AblationTable:
    """The table with its rows as they will be trained, but for the seed.

    Raises:
        UserError: as `ablate`.
    """
    if steps is not None and steps < 1:
        raise UserError(f"{steps} steps train nothing; give 1 or more")
    recipes = family_with(family, settings if steps is None else [*settings, f"train.steps={steps}"])
    found = find_table(table, recipes)
    videos = recipes.track.data.videos > 0
    if table == "table2" and family != "cityscapes-vps":
        raise UserError("table2 is about Cityscapes-VPS; give --family cityscapes-vps and --data")
    if videos and data is None and recipes.track.data.root is None:
        raise UserError(f"the family {family} trains on a dataset; give its folder with --data")
    if data is not None and not videos:
        raise UserError(f"the family {family} trains on streets alone; leave out --data")
    # No validation on the way: all runs are scored alike at their end.
    fixed = ["train.validate_every=0", *([] if data is None else [f"data.root={json.dumps(str(data))}"])]
    return replace(found, rows=tuple(replace(r, run=changed(r.run, fixed)) for r in found.rows))


def jobs(
    table: AblationTable, seeds: Sequence[int], out: Path, init: Path | None, clips: EvalClips
) -> list[Job]:
    """All rows with all seeds, seed by seed.

    Raises:
        UserError: no seeds, one twice, or the starting weights can't be read.
    """
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UserError(f"seeds are {list(seeds)}; give one or more different ones from 0 on")
    start = None if init is None else _digest_file(init)
    scored = _digest(clips.settings())
    found = []
    for seed in seeds:
        for row in table.rows:
            settings = row.run.train.model_copy(update={"seed": seed})
            run = row.run.model_copy(update={"train": settings})
            name = f"{run.name}-seed{seed}-{_digest([_what_counts(run), start])}"
            folder = out / "runs" / name
            found.append(Job(row.name, seed, run, folder, out / "runs" / f"{name}.{scored}.json"))
    return found


def _what_counts(run: RunConfig) -> dict[str, Any]:
    """The configuration without what doesn't change the result."""
    data = run.model_dump(mode="json")
    for *parents, last in SAME_RESULT:
        place = data
        for parent in parents:
            place = place[parent]
        del place[last]
    usual = RunConfig(name=run.name).model_dump(mode="json")
    for part, field in LATER_FIELDS:
        if data[part][field] == usual[part][field]:
            del data[part][field]
    return data | {"pairs_per_step": run.train.batch * run.train.accumulate}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def _digest_file(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}; give --init a weights file") from error


def _eval_clips(table: AblationTable, seeds: tuple[int, int], frames: int, difficulty: float) -> EvalClips:
    data = table.rows[0].run.data
    if data.streets <= 0:
        return EvalClips(dataset=data.dataset, root=data.root, sequences=data.sequences)
    first, end = seeds
    if not 0 <= first < end <= FIRST_TRAINING_SEED:
        raise UserError(
            f"eval seeds are {first} {end}; give the first and the one after the last, from 0 to "
            f"{FIRST_TRAINING_SEED}, where training begins"
        )
    longest = STREETS.windows[-1]
    if frames < EVERY * longest:
        raise UserError(
            f"streets of {frames} frames have no window of {longest}; give {EVERY * longest} or more"
        )
    if not 0 <= difficulty <= 1:
        raise UserError(f"eval difficulty is {difficulty}; it must lie between 0 and 1")
    return EvalClips((first, end), frames, data.size, difficulty)


def _only(plans: Sequence[AblationTable], only: Sequence[str], all_jobs: list[list[Job]]) -> list[Job]:
    """The jobs of all tables, or those of some rows, each once; seed by seed."""
    names = list(dict.fromkeys(row.name for plan in plans for row in plan.rows))
    for name in only:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}"
            raise UserError(f"no row is called {name!r}; {hint}")
    named = [job for own in all_jobs for job in own if not only or job.row in only]
    once = {job.result: job for job in reversed(named)}
    order = list(dict.fromkeys(job.seed for job in named))
    return sorted(reversed(once.values()), key=lambda job: order.index(job.seed))


def _shared_out(chosen: list[Job], shard: str) -> tuple[list[Job], bool]:
    """The jobs of this shard, and whether it is the first."""
    number, _, count = shard.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UserError(f"shard is {shard!r}; give i/n with i from 1 to n, such as 2/3")
    return chosen[int(number) - 1 :: int(count)], int(number) == 1


def _left(job: Job) -> int:
    """Steps to go."""
    log = job.folder / "losses.csv"
    done = max(log.read_text().count("\n") - 1, 0) if log.exists() else 0
    return max(job.run.train.steps - done, 1)


def _finish(job: Job, init: Path | None, clips: EvalClips, accelerator: str, console: Console) -> bool:
    """Trains and scores; False if it was asked to stop."""
    began = time.monotonic()
    if train(job.run, job.folder, init, accelerator=accelerator, console=console) < job.run.train.steps:
        return False
    trained = time.monotonic()
    network, _ = load_weights(job.folder / "weights.safetensors")
    device = find_device(accelerator)
    scored = clips.read()
    vpq, tc = score(network.to(device), scored, clips.protocol, clips.every, console.is_terminal)
    found = {
        "row": job.row,
        "seed": job.seed,
        "run": job.run.model_dump(mode="json"),
        "init": None if init is None else str(init),
        "clips": clips.settings(),
        "vpq": vpq.to_dict(),
        "tc": tc.to_dict(),
        "seconds": {"train": trained - began, "score": time.monotonic() - trained},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
    }
    text = json.dumps(found, indent=1, allow_nan=False) + "\n"
    write_atomically(job.result, lambda file: file.write(text.encode()))
    return True


def score(
    network: VPSNet,
    clips: Sequence[Clip],
    protocol: Protocol = STREETS,
    every: int = EVERY,
    progress: bool = True,
) -> tuple[VPQResult, TCResult]:
    """VPQ and TC in one go over the clips.

    TC compares all neighbouring frames, with the clips' own flow, or DIS where they have none.

    Args:
        network: in evaluation mode; a network that fuses gets DIS flow.
        clips: of the network's taxonomy; all with flow, or all without.
        protocol: windows, in frames that count.
        every: stride of the frames that count, as in `evaluate_clips`.
        progress: show a bar with the time left.

    Raises:
        UserError: no clip has a frame to score, or one has other classes than the network.
    """
    exact = bool(clips) and clips[0].read_flow is not None
    vpq = VPQ(network.taxonomy, protocol)
    tc = TC(network.taxonomy.names, EXACT_FLOW if exact else DISFlow.name)
    with progress_bar(progress, "frames") as bar:
        task = bar.add_task("score", total=sum(map(len, clips)))
        for clip in clips:
            if clip.taxonomy != network.taxonomy:
                raise UserError(f"clip {clip.name!r} has other classes than the network was trained on")
            predictor = VideoPredictor(network)
            scored = set(scored_frames(clip, every))
            before = None
            for t in range(len(clip)):
                image = clip.image(t)
                frame = predictor.step(image)
                truth = clip.truth(t) if t in scored else None
                if truth is not None:
                    vpq.update(frame, truth)
                if before is not None:
                    last, labels = before
                    given = clip.read_flow
                    flow = dis_image_flow(last, image) if given is None else given(t - 1, t)
                    tc.update(labels, frame.semantic, flow)
                before = image, frame.semantic
                bar.advance(task)
            vpq.end_clip(clip.name)
    result = vpq.compute()
    if not result.frames:
        raise UserError("there is no frame with truth to score")
    return result, tc.compute()


def report(table: AblationTable, everything: Sequence[Job], clips: EvalClips) -> AblationReport:
    """Of the results that are there.

    Raises:
        UserError: a result can't be read.
    """
    found = {job.result: _read_result(job.result) for job in everything if job.result.exists()}
    flows = sorted({result["tc"]["flow"] for result in found.values()})
    speeds = _read_speeds(table, everything)

    def scores(row: Row) -> RowScores:
        own = [job for job in everything if job.row == row.name and job.result in found]
        seeds = {job.seed: scores_of(found[job.result]) for job in own}
        return RowScores(row.name, row.paper, seeds, speeds.get(row.name))

    return AblationReport(
        name=table.name,
        title=table.title,
        source=table.source,
        same_data=clips.seeds is None and clips.dataset == table.dataset,
        rows=tuple(scores(row) for row in table.rows),
        reference=table.reference,
        ks=tuple(map(clips.protocol.k, clips.protocol.windows)),
        windows=table.windows,
        tc=table.tc,
        clips=str(clips),
        flow=" and ".join(flows) or "none yet",
    )


def scores_of(result: dict[str, Any]) -> dict[str, float]:
    """A result's scores in percent by name, as in `ablation_tables.score_names`; nan where there is none."""
    found: dict[str, float | None] = {}
    for window in result["vpq"]["windows"]:
        for part, name in (("all", "vpq"), ("things", "things"), ("stuff", "stuff")):
            found[f"{name}_k{window['k']}"] = window[part]["pq"]
    for name, key in (("vpq", "vpq"), ("things", "vpq_things"), ("stuff", "vpq_stuff")):
        found[name] = result["vpq"][key]
    found["tc"] = result["tc"]["tc"]
    return {name: float("nan") if value is None else 100 * value for name, value in found.items()}


def _read_result(path: Path) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads(path.read_text())
        scores_of(result)
        return result
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no result that can be read; remove it to score that run again") from error


def _speed_file(table: AblationTable, everything: Sequence[Job]) -> Path:
    return everything[0].result.parent.parent / f"{table.name}.speed.json"


def _measure_speeds(
    table: AblationTable,
    everything: Sequence[Job],
    clips: EvalClips,
    device: torch.device,
    console: Console,
) -> None:
    """Of every row's first run, all on this machine, unless that was done before."""
    path = _speed_file(table, everything)
    if len(_read_speeds(table, everything)) == len(table.rows):
        return
    size = clips.size if clips.seeds is not None else everything[0].run.network.test_size
    folders = {job.row: job.folder for job in reversed(everything)}
    weights = {row.name: folders[row.name] / "weights.safetensors" for row in table.rows}
    measured = measure_speeds(weights, size, str(device), console=console)
    rows = {name: {"run": folders[name].name, **asdict(each)} for name, each in measured.items()}
    text = json.dumps(rows, indent=1) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def _read_speeds(table: AblationTable, everything: Sequence[Job]) -> dict[str, Speed]:
    """By row; empty if they are of other runs, or were never measured."""
    path = _speed_file(table, everything)
    if not path.exists():
        return {}
    try:
        rows = json.loads(path.read_text())
        found = {}
        for row in table.rows:
            entry = dict(rows[row.name])
            folder = next(job.folder for job in everything if job.row == row.name)
            if entry.pop("run") != folder.name:
                return {}
            found[row.name] = Speed(**entry | {"size": tuple(entry["size"])})
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} can't be read; remove it to measure again") from error
