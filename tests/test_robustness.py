"""benchmarks/robustness.py: what it says of commands that go well, badly, or wrong."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

if os.name != "posix":
    pytest.skip("signals and limits are POSIX's", allow_module_level=True)

import robustness
from robustness import GOOD, Inputs, Try, outcome


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    multiprocessing.set_forkserver_preload(["robustness", "panoptube.predict"])  # saves seconds per try
    return Inputs(tmp_path_factory.mktemp("inputs"))


def test_what_is_right_and_what_is_refused(inputs: Inputs) -> None:
    assert outcome(inputs.predict("", inputs.films["mkv"])) == GOOD[0]
    assert outcome(inputs.predict("", inputs.write("a.mp4", b"none"))) == GOOD[1]
    assert outcome(inputs.predict("", inputs.films["mp4"], largest=100)) == GOOD[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_while_it_writes(inputs: Inputs, number: signal.Signals) -> None:
    assert outcome(inputs.predict("", inputs.film("mp4", frames=2400), stop=(number, 0))) == GOOD[2]


FAULTS = {
    "raise ValueError": "traceback: ValueError",
    "sys.exit(1)": "exit code 1",
    "sys.exit(0)": "no result",
    "sys.exit(2)": "not one line: []",
    "print('a\\nb', file=sys.stderr); sys.exit(2)": "not one line: ['a', 'b']",
    "out.mkdir(); (out / 'panoptic.json').write_text('{'); sys.exit(2)": "half-written",
    "shutil.copytree(good, out); sys.exit(2)": "a result, and exit code 2",
    "shutil.copytree(good, out); next(out.glob('panoptic/*')).unlink()": "half-written",
    "shutil.copytree(good, out.with_name('.out.1.part')); sys.exit(2)": "left behind: ['.out.1.part']",
    "import time; time.sleep(60)": "hangs",
}


@pytest.mark.parametrize("text", FAULTS)
def test_every_fault_is_found(text: str, inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    out = inputs.place() / "out"
    monkeypatch.setattr(robustness, "command", run)
    monkeypatch.setattr(robustness, "HANGS", 20 if FAULTS[text] != "hangs" else 3)
    assert outcome(Try("", (text, str(inputs.result), str(out)), out)).startswith(FAULTS[text])


def run(words: tuple[str, ...], said: Connection, largest: int | None, user: int | None) -> None:
    """In the place of `robustness.command`: does what the first word says."""
    os.dup2(said.fileno(), 2)
    names = {"sys": sys, "shutil": shutil, "good": Path(words[1]), "out": Path(words[2])}
    exec(words[0], names)
