"""Weights as files: safetensors with the run configuration and the taxonomy inside."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from panoptube.config import RunConfig
from panoptube.errors import UserError
from panoptube.network.vpsnet import VPSNet, vpsnet
from panoptube.panoptic.frame import Taxonomy


def save_weights(path: Path, network: VPSNet, run: RunConfig) -> None:
    """Writes weights, run configuration and taxonomy; the file appears complete or not at all.

    Raises:
        UserError: the file can't be written.
    """
    metadata = {"run": run.to_yaml(), "taxonomy": json.dumps(network.taxonomy.to_dict())}
    write_safetensors(path, network.state_dict(), metadata)


def write_safetensors(
    path: Path, state: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Writes tensors by name; the file appears complete or not at all.

    Raises:
        UserError: the file can't be written.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    part = path.with_name(path.name + ".part")
    try:
        safetensors.torch.save_file(tensors, part, metadata)
        os.replace(part, path)
    except (safetensors.SafetensorError, OSError) as error:
        part.unlink(missing_ok=True)
        raise UserError(
            f"{path}: can't be written ({' '.join(str(error).split())}); give another place"
        ) from error


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise UserError(f"{path}: no such weights file; give a .safetensors file that panoptube train wrote")
    try:
        with safetensors.safe_open(path, "pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: not a complete safetensors file ({' '.join(str(error).split())}); "
            "give one that panoptube train wrote"
        ) from error
    for key, value in state.items():
        if not value.isfinite().all():
            raise UserError(f"{path}: {key} holds NaN or infinite values; give other weights")
    return state, metadata


def load_weights(path: Path) -> tuple[VPSNet, RunConfig]:
    """The network of a weights file, in evaluation mode, and the run that made it.

    Raises:
        UserError: the file is missing, damaged, not of panoptube, or its entries don't fit its configuration.
    """
    state, metadata = _read(path)
    if "run" not in metadata or "taxonomy" not in metadata:
        raise UserError(
            f"{path}: holds no panoptube run; give a .safetensors file that panoptube train wrote"
        )
    run = RunConfig.from_yaml(metadata["run"], source=f"{path}, its run configuration")
    try:
        taxonomy = Taxonomy.from_dict(json.loads(metadata["taxonomy"]))
    except (json.JSONDecodeError, UserError) as error:
        raise UserError(f"{path}, its taxonomy: {error}") from error
    with torch.device("meta"):  # no memory and no random numbers for what is replaced
        network = vpsnet(run.network, taxonomy)
    fit = compare(network, state)
    if fit.missing or fit.unexpected or fit.misshapen:
        raise UserError(f"{path}: doesn't fit its own configuration: {fit}")
    dtypes = {key: value.dtype for key, value in network.state_dict().items()}
    network.load_state_dict({key: value.to(dtypes[key]) for key, value in state.items()}, assign=True)
    return network.eval(), run


@dataclass(frozen=True)
class Fit:
    """How a file's entries compare with a network's."""

    fitting: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{len(self.fitting)} entries fit"]
        for what in ("missing", "unexpected", "misshapen"):
            names = getattr(self, what)
            if names:
                parts.append(f"{len(names)} {what}: {', '.join(names)}")
        return "; ".join(parts)


def compare(network: VPSNet, state: dict[str, Tensor]) -> Fit:
    """Which entries of `state` have the name and shape of the network's, and which don't."""
    own = network.state_dict()
    both = own.keys() & state.keys()
    fitting = sorted(k for k in both if own[k].shape == state[k].shape)
    misshapen = sorted(both - set(fitting))
    return Fit(
        tuple(fitting),
        tuple(sorted(own.keys() - state.keys())),
        tuple(sorted(state.keys() - own.keys())),
        tuple(misshapen),
    )


def load_fitting(network: VPSNet, path: Path) -> Fit:
    """Copies the entries of a weights file that fit into `network`, and says which those are and which not.

    Raises:
        UserError: the file is missing or damaged, or nothing in it fits.
    """
    state, _ = _read(path)
    fit = compare(network, state)
    if not fit.fitting:
        raise UserError(f"{path}: nothing in it fits this network; give weights of a similar network")
    network.load_state_dict({key: state[key] for key in fit.fitting}, strict=False)
    return fit
