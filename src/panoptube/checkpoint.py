"""Checkpoints of a training run: written so that a kill at any moment loses nothing that was saved."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from torch import nn

from panoptube.config import RunConfig
from panoptube.errors import UserError

SAME_RESULT = {
    ("name",),
    ("data", "workers"),
    ("train", "batch"),
    ("train", "accumulate"),
    ("train", "save_every"),
    ("train", "validate_every"),
    ("train", "validation_clips"),
}
"""Fields that may change when a run goes on; what a step sees is checked by pairs per step."""


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Lets `write` fill a file beside `path`, forces it to disk and renames it: `path` is never half written.

    Raises:
        UserError: the disk is full or the folder can't be written to.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        if os.name == "posix":  # the rename itself must survive a power cut, too
            folder = os.open(path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
    except (OSError, RuntimeError) as error:  # torch.save wraps a full disk in a RuntimeError
        partial.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(
            f"can't write {path}: {reason}; free space there, then run the same command to go on"
        ) from error


def save_checkpoint(
    path: Path,
    run: RunConfig,
    step: int,
    pairs_per_step: int,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    """All that later steps depend on; learning rate and random numbers are functions of the step alone."""
    state = {
        "config": run.to_yaml(),
        "step": step,
        "pairs_per_step": pairs_per_step,
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    write_atomically(path, lambda file: torch.save(state, file))


def load_checkpoint(
    path: Path, run: RunConfig, pairs_per_step: int, module: nn.Module, optimizer: torch.optim.Optimizer
) -> int:
    """Restores module and optimiser, and returns the number of steps done; 0 if there is no checkpoint.

    Raises:
        UserError: the file is damaged, or it belongs to a run with another configuration.
    """
    if not path.exists():
        return 0
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        saved = RunConfig.from_yaml(state["config"], str(path))
        step, saved_pairs = int(state["step"]), int(state["pairs_per_step"])
    except (
        OSError,
        RuntimeError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
        pickle.UnpicklingError,
    ) as error:
        raise UserError(f"{path} is not a readable checkpoint; remove it to start over") from error
    remedy = f"train into another folder, or remove {path} to start over"
    different = _first_difference(saved.model_dump(), run.model_dump())
    if different:
        raise UserError(f"{path} belongs to a run with {different}; {remedy}")
    if saved_pairs != pairs_per_step:
        raise UserError(
            f"{path} belongs to a run of {saved_pairs} pairs a step, this one has {pairs_per_step} "
            f"(processes x train.batch x train.accumulate); set train.accumulate to match, or {remedy}"
        )
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    return step


def _first_difference(saved: dict[str, Any], now: dict[str, Any], at: tuple[str, ...] = ()) -> str:
    """'train.lr 0.1 instead of 0.2', or '' where only fields that don't change the result differ."""
    for name, value in saved.items():
        path = (*at, name)
        if isinstance(value, dict):
            deeper = _first_difference(value, now[name], path)
            if deeper:
                return deeper
        elif value != now[name] and path not in SAME_RESULT:
            return f"{'.'.join(path)} {value} instead of {now[name]}"
    return ""
