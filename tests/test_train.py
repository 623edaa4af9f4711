"""Training: the same numbers whatever stops and restarts it, and a clear word when it goes wrong.

Most tests train a stand-in of a few weights, which samples and drops out at random as the network does; the
last ones train a narrow VPSNet.
"""

from __future__ import annotations

import csv
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn

from panoptube.checkpoint import write_atomically
from panoptube.config import DataConfig, RunConfig, TrainConfig
from panoptube.data.pairs import FramePair, FrameTargets, load_batches
from panoptube.errors import UserError
from panoptube.train import StopRequest, build_optimizer, check_finite, fit, learning_rate


class RandomPairs(torch.utils.data.Dataset[FramePair]):
    """Pair i is noise of its own, with one thing."""

    def __getitem__(self, index: int) -> FramePair:
        generator = torch.Generator().manual_seed(index)
        frame = FrameTargets(
            boxes=torch.tensor([[0.0, 0.0, 3.0, 3.0]]),
            labels=torch.tensor([1]),
            masks=torch.ones(1, 8, 8, dtype=torch.uint8),
            track_ids=torch.tensor([index + 1]),
            semantic=torch.zeros(8, 8, dtype=torch.int64),
        )
        images = torch.randn(1, 2, 3, 8, 8, generator=generator)
        return FramePair(images, ((frame, frame),), torch.tensor([1]))


class StandIn(nn.Module):
    """Two terms: one over pixels chosen by the seed, one behind dropout, with the global random numbers."""

    def __init__(self, at_step: dict[int, Callable[[], Any]] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 1)
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.at_step = at_step or {}
        self.calls = 0
        self.ids: list[list[int]] = []

    def forward(self, pair: FramePair, seed: int, step: int) -> dict[str, Tensor]:
        self.calls += 1
        self.ids.append([int(target.track_ids[0]) - 1 for target, _ in pair.targets])
        spoil = self.at_step.get(self.calls, lambda: None)()
        features = self.conv(pair.images[:, 0]).relu()
        chosen = torch.randperm(36, generator=torch.Generator().manual_seed(seed))[:9]
        colour = features.flatten(2)[:, :, chosen].square().mean() - features.mean()
        edge = self.head(torch.dropout(features.mean((2, 3)), 0.5, self.training)).square().mean()
        return {"colour": colour, "edge": edge if spoil is None else edge * spoil}


def run_config(**fields: Any) -> RunConfig:
    settings = {
        "steps": 4,
        "lr": 0.1,
        "warmup": 2,
        "save_every": 2,
        "optimizer": "adamw",
        "validate_every": 0,
    }
    return RunConfig(name="test", data=DataConfig(workers=0), train=TrainConfig(**{**settings, **fields}))


def one_process() -> Fabric:
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    return fabric


def fit_stand_in(
    out: Path, run: RunConfig, module: StandIn | None = None, fabric: Fabric | None = None, **arguments: Any
) -> tuple[int, StandIn]:
    module = module or StandIn()
    settings: dict[str, Any] = {
        "save_weights": lambda path: path.touch(),
        "validate": None,
        "console": Console(quiet=True),
    }
    return fit(fabric or one_process(), module, run, RandomPairs(), out, **{**settings, **arguments}), module


def rows(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "losses.csv").open()))


def assert_equal_to_the_bit(a: nn.Module, b: nn.Module) -> None:
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values()):
        assert torch.equal(x, y), name


def stop_at(number: int, call: int) -> StandIn:
    return StandIn({call: lambda: os.kill(os.getpid(), number)})


# -- the schedule ----------------------------------------------------------------------------------------


def test_published_schedule_by_hand() -> None:
    config = TrainConfig(steps=28_800, lr=0.005, warmup=500)
    assert learning_rate(0, config) == pytest.approx(0.005 / 3)
    assert learning_rate(250, config) == pytest.approx(0.005 * (1 - 0.5 * 2 / 3))
    assert learning_rate(500, config) == pytest.approx(0.005)
    assert learning_rate(19_199, config) == pytest.approx(0.005)  # 28 800 * 8 / 12 = 19 200
    assert learning_rate(19_200, config) == pytest.approx(0.0005)
    assert learning_rate(26_399, config) == pytest.approx(0.0005)  # 28 800 * 11 / 12 = 26 400
    assert learning_rate(26_400, config) == pytest.approx(0.00005)


def test_cosine_by_hand() -> None:
    config = TrainConfig(steps=101, lr=1.0, warmup=0, schedule="cosine")
    assert learning_rate(0, config) == pytest.approx(1.0)
    assert learning_rate(50, config) == pytest.approx(0.01 + 0.99 / 2)
    assert learning_rate(100, config) == pytest.approx(0.01)
    assert learning_rate(0, TrainConfig(steps=1, lr=1.0, warmup=0, schedule="cosine")) == 1.0


def test_first_step_has_the_warm_rate_and_plain_sgd_arithmetic(tmp_path: Path) -> None:
    """One step by hand: w - lr / 3 * (gradient * clip / norm + decay * w)."""
    run = run_config(steps=1, optimizer="sgd", lr=0.3, warmup=500, clip=0.01, weight_decay=0.1)
    _, trained = fit_stand_in(tmp_path, run)
    module = StandIn()
    pair, seed = next(load_batches(RandomPairs(), run, 0, 1, 0))
    torch.manual_seed(seed)
    torch.stack(list(module(pair, seed, 0).values())).sum().backward()
    before = {name: p for name, p in module.named_parameters() if p.grad is not None}
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in before.values() if p.grad is not None))
    assert norm > 0.01
    assert len(before) == 4
    for name, parameter in before.items():
        assert parameter.grad is not None
        expected = parameter - 0.1 * (parameter.grad * 0.01 / norm + 0.1 * parameter)
        torch.testing.assert_close(trained.get_parameter(name), expected)
    assert float(rows(tmp_path)[0]["gradient"]) == pytest.approx(norm, rel=1e-4)


def test_weight_decay_is_on_every_trained_parameter_and_no_other() -> None:
    module = StandIn()
    for name in ("sgd", "adamw"):
        (group,) = build_optimizer(module, TrainConfig(optimizer=name, weight_decay=0.2)).param_groups
        assert group["weight_decay"] == 0.2
        assert {id(p) for p in group["params"]} == {id(p) for p in module.parameters() if p.requires_grad}


# -- going on after a stop -------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_four_steps_are_two_and_two(tmp_path: Path, optimizer: str, number: int) -> None:
    run = run_config(optimizer=optimizer, save_every=3)
    done, whole = fit_stand_in(tmp_path / "whole", run)
    assert done == 4
    before = signal.getsignal(number)
    assert fit_stand_in(tmp_path / "halves", run, stop_at(number, call=2))[0] == 2
    assert signal.getsignal(number) == before
    assert len(rows(tmp_path / "halves")) == 2
    done, halves = fit_stand_in(tmp_path / "halves", run)
    assert (done, halves.calls) == (4, 2)
    assert_equal_to_the_bit(whole, halves)
    assert (tmp_path / "whole/losses.csv").read_bytes() == (tmp_path / "halves/losses.csv").read_bytes()


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    fit_stand_in(tmp_path, run_config())
    before = (tmp_path / "losses.csv").read_bytes()
    done, module = fit_stand_in(tmp_path, run_config())
    assert (done, module.calls) == (4, 0)
    assert (tmp_path / "losses.csv").read_bytes() == before


def test_a_second_signal_stops_at_once() -> None:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def _train_for_ever(out: Path) -> None:
    torch.set_num_threads(1)
    fit_stand_in(out, run_config(steps=1_000_000, save_every=1, schedule="steps"))


def forked(target: Callable[..., None], *arguments: Any) -> Any:
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    return process


def saved_step(out: Path) -> int:
    path = out / "checkpoint.pt"
    return int(torch.load(path, weights_only=True)["step"]) if path.exists() else 0


def test_kill_at_any_moment_loses_nothing_that_was_saved(tmp_path: Path) -> None:
    """A run that saves after every step is killed again and again; it always goes on from its last step."""
    for life in range(4):
        process = forked(_train_for_ever, tmp_path)
        known = saved_step(tmp_path)
        deadline = time.monotonic() + 20
        while saved_step(tmp_path) < known + 2 and time.monotonic() < deadline:
            time.sleep(0.003 * (life + 1))
        seen = saved_step(tmp_path)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert saved_step(tmp_path) >= seen >= known + 2
    last = saved_step(tmp_path)
    # Ends with one more step, and the log reads as if nothing had happened.
    run = run_config(steps=1_000_000, save_every=1, schedule="steps")
    done, module = fit_stand_in(tmp_path, run, stop_at(signal.SIGTERM, call=1))
    assert done == last + 1
    assert [int(row["step"]) for row in rows(tmp_path)] == list(range(done))
    whole = tmp_path / "whole"
    _, straight = fit_stand_in(whole, run, stop_at(signal.SIGTERM, call=done))
    assert_equal_to_the_bit(module, straight)
    assert (whole / "losses.csv").read_bytes() == (tmp_path / "losses.csv").read_bytes()


def _die_while_writing(path: Path) -> None:
    def write(file: Any) -> None:
        file.write(b"half of the n")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    write_atomically(path, write)


def test_kill_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"the old one")
    process = forked(_die_while_writing, path)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert path.read_bytes() == b"the old one"
    write_atomically(path, lambda file: file.write(b"the new one"))
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert path.read_bytes() == b"the new one"


def test_full_disk_names_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    def write(file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(UserError, match=r"a: No space left on device; free space"):
        write_atomically(tmp_path / "a", write)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"old")]


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    fit_stand_in(tmp_path, run_config())
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(UserError, match=r"train\.lr 0\.1 instead of 0\.2; train into another folder"):
        fit_stand_in(tmp_path, run_config(lr=0.2))
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert "lr: 0.1" in (tmp_path / "config.yaml").read_text()


def test_what_does_not_change_the_result_may_change(tmp_path: Path) -> None:
    fit_stand_in(tmp_path, run_config(steps=3), stop_at(signal.SIGTERM, call=1))
    changed = run_config(steps=3, save_every=7, validate_every=9)
    assert fit_stand_in(tmp_path, changed)[0] == 3


def test_another_number_of_pairs_a_step_is_refused(tmp_path: Path) -> None:
    fit_stand_in(tmp_path, run_config(batch=2))
    with pytest.raises(UserError, match=r"2 pairs a step, this one has 4"):
        fit_stand_in(tmp_path, run_config(batch=2, accumulate=2))


def test_damaged_checkpoint_is_reported(tmp_path: Path) -> None:
    fit_stand_in(tmp_path, run_config())
    path = tmp_path / "checkpoint.pt"
    for content in (path.read_bytes()[:2000], b"", b"nonsense"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"checkpoint\.pt is not a readable checkpoint"):
            fit_stand_in(tmp_path, run_config())


def test_checkpoint_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"config": Evil()}, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        fit_stand_in(tmp_path, run_config())
    assert not (tmp_path / "ran").exists()


# -- losses that aren't finite ---------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_and_names_it(tmp_path: Path, value: float) -> None:
    module = StandIn({4: lambda: value})
    with pytest.raises(UserError, match=rf"step 4: not finite: edge {value}") as caught:
        fit_stand_in(tmp_path, run_config(), module)
    assert "colour" not in str(caught.value)
    assert saved_step(tmp_path) == 2
    assert len(rows(tmp_path)) == 3
    assert all(p.isfinite().all() for p in module.parameters())


def test_a_gradient_that_is_not_finite_stops_too() -> None:
    with pytest.raises(UserError, match=r"step 8: not finite: gradient inf"):
        check_finite({"edge": 1.0, "gradient": math.inf}, 7, Path("runs/a"))
    check_finite({"edge": 1.0, "gradient": 1e30}, 7, Path("runs/a"))


# -- which pairs, and several processes ------------------------------------------------------------------


def test_every_pair_once_and_in_order(tmp_path: Path) -> None:
    _, module = fit_stand_in(tmp_path, run_config(steps=2, batch=2, accumulate=2))
    assert module.ids == [[0, 1], [2, 3], [4, 5], [6, 7]]


def _fit_in_two(fabric: Fabric, out: Path, run: RunConfig) -> None:
    torch.set_num_threads(1)
    _, module = fit_stand_in(out, run, fabric=fabric)
    torch.save(module.state_dict(), out / f"process{fabric.global_rank}.pt")


def test_two_processes_equal_two_accumulated_passes(tmp_path: Path) -> None:
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp_fork")
    fabric.launch(_fit_in_two, tmp_path / "two", run_config(optimizer="sgd"))
    accumulated = run_config(optimizer="sgd", accumulate=2)
    _, alone = fit_stand_in(tmp_path / "one", accumulated)
    for process in (0, 1):
        state = torch.load(tmp_path / f"two/process{process}.pt", weights_only=True)
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        assert {k: float(v) for k, v in mine.items()} == pytest.approx(
            {k: float(v) for k, v in theirs.items()}, rel=1e-4
        )
    # and one process can go on with what two have begun
    assert fit_stand_in(tmp_path / "two", accumulated)[0] == 4


# -- what is written and shown ---------------------------------------------------------------------------


def test_losses_are_written_by_name_and_add_up(tmp_path: Path) -> None:
    run = run_config()
    fit_stand_in(tmp_path, run)
    written = rows(tmp_path)
    assert list(written[0]) == ["step", "total", "colour", "edge", "gradient", "lr"]
    for step, row in enumerate(written):
        assert int(row["step"]) == step
        assert float(row["total"]) == pytest.approx(float(row["colour"]) + float(row["edge"]), abs=1e-5)
        assert float(row["lr"]) == pytest.approx(learning_rate(step, run.train), rel=1e-5)
    assert RunConfig.from_yaml((tmp_path / "config.yaml").read_text()) == run


def test_weights_are_written_with_each_checkpoint_and_validation_runs_when_due(tmp_path: Path) -> None:
    module = StandIn()
    written: list[int] = []
    validated: list[int] = []

    def validate(done: int) -> tuple[dict[str, float], dict[str, Any]]:
        validated.append(done)
        module.eval()
        return {"vpq": 12.5}, {"street": np.zeros((4, 6, 3), np.uint8)}

    console = Console(file=(tmp_path / "screen.txt").open("w"))
    run = run_config(steps=7, save_every=3, validate_every=2)
    fit_stand_in(
        tmp_path,
        run,
        module,
        save_weights=lambda path: written.append(module.calls),
        validate=validate,
        console=console,
    )
    assert written == [3, 6, 7]
    assert validated == [2, 4, 6, 7]
    assert module.training
    console.file.close()
    screen = (tmp_path / "screen.txt").read_text()
    assert "step 7/7" in screen
    assert "left 0:00:00" in screen
    assert "colour" in screen
    assert "validation after 6 steps: vpq 12.5" in screen


def test_bf16_trains(tmp_path: Path) -> None:
    done, module = fit_stand_in(tmp_path / "bf16", run_config(precision="bf16-mixed"))
    assert done == 4
    assert module.conv.weight.dtype == torch.float32
    _, full = fit_stand_in(tmp_path / "full", run_config())
    assert not torch.equal(module.conv.weight, full.conv.weight)
    torch.testing.assert_close(module.conv.weight, full.conv.weight, rtol=0.1, atol=0.05)
