"""Compares panoptube's networks with stored results of the published code, array by array.

    python benchmarks/check_parity.py FOLDER

FOLDER holds weights_rule.json and any of these:

    vpsnet_track_small.npz, vpsnet_track_losses.npz: VPSNet-Track over a clip; a training step
    vpsnet_fusetrack_small.npz, vpsnet_fusetrack_losses.npz: FuseTrack; what goes in is in Track's files
    flownet2_small.npz: FlowNet2

Weights are made from their names by the rule. Everything runs with the published behaviour (`legacy`). Each
array gets a row with its largest difference, the tolerance and a verdict; the exit code is 1 if a row fails
or an array was not compared, 2 if the folder can't be used.

Inference runs twice: on the network's own proposals, and on the stored ones, so that near-tied proposals that
change place don't spread. The training step runs on the stored ones.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import parity_flownet2
import parity_fusetrack
import parity_track
from parity import Arrays, Row


class Check(NamedTuple):
    """What compares a file.

    Attributes:
        run: (rule, arrays) -> rows, and the names of the arrays that they cover or are computed from.
        source: another file that holds what they are computed from.
        inputs: the arrays to take from it.
    """

    run: Callable[[dict[str, Any], Arrays], tuple[list[Row], set[str]]]
    source: str | None = None
    inputs: tuple[str, ...] = ()


CHECKS = {
    "vpsnet_track_small.npz": Check(parity_track.check_inference),
    "vpsnet_track_losses.npz": Check(parity_track.check_training),
    "vpsnet_fusetrack_small.npz": Check(
        parity_fusetrack.check_inference, "vpsnet_track_small.npz", ("frames",)
    ),
    "vpsnet_fusetrack_losses.npz": Check(
        parity_fusetrack.check_training,
        "vpsnet_track_losses.npz",
        tuple(sorted(parity_track.TRAINING_INPUTS)),
    ),
    "flownet2_small.npz": Check(parity_flownet2.check_flownet2),
}


def read(path: Path) -> Arrays:
    """All arrays of a file."""
    with np.load(path) as data:
        return {name: data[name] for name in data.files}


def check_folder(folder: Path) -> tuple[list[Row], list[str]]:
    """All rows, and the arrays that were not compared.

    Raises:
        FileNotFoundError: a file lacks the one that holds its inputs.
    """
    rule = json.loads((folder / "weights_rule.json").read_text())
    rows: list[Row] = []
    left: list[str] = []
    for file in sorted(path.name for path in folder.glob("*.npz")):
        stored, seen = read(folder / file), set[str]()
        if file in CHECKS:
            check = CHECKS[file]
            source = read(folder / check.source) if check.source else {}
            found, seen = check.run(rule, stored | {name: source[name] for name in check.inputs})
            rows += [replace(row, name=f"{file.removesuffix('.npz')}: {row.name}") for row in found]
        left += [f"{file}: {name}" for name in sorted(set(stored) - seen)]
    return rows, left


def main() -> int:
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "weights_rule.json").is_file():
        print(
            f"usage: check_parity.py FOLDER, with weights_rule.json and any of {', '.join(CHECKS)} in it",
            file=sys.stderr,
        )
        return 2
    try:
        rows, left = check_folder(Path(sys.argv[1]))
    except FileNotFoundError as error:
        print(f"{error.filename} is missing: it holds what another file is computed from", file=sys.stderr)
        return 2
    if not rows:
        print(f"{sys.argv[1]}: holds none of {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    for row in rows:
        verdict = "ok  " if row.passed else "FAIL"
        print(f"{verdict} {row.name:<75} {row.difference:.3g} <= {row.tolerance:.3g} {row.note}")
    for name in left:
        print(f"FAIL {name:<75} not compared")
    failed = sum(not row.passed for row in rows)
    print(f"{len(rows)} rows, {failed} failed, {len(left)} arrays not compared")
    return 1 if failed or left else 0


if __name__ == "__main__":
    sys.exit(main())
