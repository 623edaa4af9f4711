"""cli.py: what each command calls, what mistakes look like, and what is imported for it."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import panoptube
from panoptube import cli
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.labelled_video import read_labelled_videos
from panoptube.errors import UserError
from panoptube.panoptic.formats import PanopticVideoWriter
from panoptube.panoptic.frame import PanopticFrame
from panoptube.predict import GOOD_FOR, PredictSummary
from panoptube.recipes import load_run

Panoptube = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Panoptube:
    """Runs a command line in this process and returns its exit code."""

    def call(*args: object) -> int:
        monkeypatch.setattr(sys, "argv", ["panoptube", *map(str, args)])
        before = signal.getsignal(signal.SIGTERM)
        try:
            return cli.main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else -1
        finally:
            signal.signal(signal.SIGTERM, before)

    return call


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replaces `predict` and `train`; holds what they were given, by parameter."""
    given: dict[str, Any] = {}

    def replace(name: str, answer: Any) -> None:
        module = import_module(f"panoptube.{name}")
        signature = inspect.signature(getattr(module, name))

        def stand_in(*args: Any, **kwargs: Any) -> Any:
            given.update(signature.bind(*args, **kwargs).arguments)
            return answer

        monkeypatch.setattr(module, name, stand_in)

    replace("predict", PredictSummary(Path("out"), 20, 3, 4.0, ("film.mp4 breaks off",)))
    replace("train", 5)
    return given


MODULES = {
    "predict": "predict",
    "predict-many": "predict_many",
    "train": "train",
    "synthesize": "data.streets",
    "view": "view.mistakes",
    "convert": "convert",
    "prepare": "prepare",
    "check": "check.check",
    "submit": "submit",
    "import-cvat": "data.cvat",
    "serve": "serve",
}


@pytest.mark.parametrize("name", MODULES)
def test_commands_take_what_their_functions_take(name: str) -> None:
    """`evaluate` alone takes more: it names the protocol, and writes and sorts what the function returns.

    `train` needs no folder with --dry-run, which is a function of its own.
    """
    function = getattr(import_module(f"panoptube.{MODULES[name]}"), name.replace("-", "_"))
    public, flags = inspect.signature(function).parameters, inspect.signature(cli.COMMANDS[name]).parameters
    if name == "train":
        flags = {f: p for f, p in flags.items() if f not in ("out", "dry_run")}  # type: ignore[assignment]
    assert list(flags) == [p for p in public if p in flags]
    for flag in flags.values():
        assert flag.default == public[flag.name].default, flag.name


def test_predict_passes_everything_on(
    run: Panoptube, called: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        "--weights",
        "w.safetensors",
        "--fps",
        "5",
        "--max-frames",
        "20",
        "--device",
        "cpu",
        "--overwrite",
        "--flow",
        "f.safetensors",
        *("--precision", "float32", "--stride", "2", "--start", "1:30", "--end", "95.5"),
        *("--max-size", "640", "--no-cuts", "--batch", "4", "--compile"),
    ]
    assert run("predict", "film.mp4", "--out", "out", *options) == 0
    assert called == {
        "source": "film.mp4",
        "out": Path("out"),
        "weights": Path("w.safetensors"),
        "fps": 5.0,
        "max_frames": 20,
        "device": "cpu",
        "overwrite": True,
        "flow": Path("f.safetensors"),
        "precision": "float32",
        "stride": 2,
        "start": "1:30",
        "end": "95.5",
        "max_size": 640,
        "cuts": False,
        "batch": 4,
        "compile": True,
    }
    printed = capsys.readouterr()
    assert printed.out == "out: 20 frames, 3 tracks, 5.0 frames/s\n"
    assert printed.err == "panoptube: film.mp4 breaks off\n"


def test_predict_says_what_the_usual_weights_are_good_for(
    run: Panoptube, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for void, told in ((0.3, ""), (0.4, "panoptube: 40% of the pixels are void: the network knows little")):
        summary = PredictSummary(Path("out"), 20, 3, 4.0, (), void=void)
        monkeypatch.setattr("panoptube.predict.predict", lambda *_, summary=summary: summary)
        assert run("predict", "film.mp4", "--out", "out") == 0
        printed = capsys.readouterr()
        assert printed.out.splitlines() == [GOOD_FOR, "out: 20 frames, 3 tracks, 5.0 frames/s"]
        assert printed.err.startswith(told)
        assert bool(printed.err) == bool(told)


def test_train_takes_a_recipe_and_changes_to_it(
    run: Panoptube, called: dict[str, Any], tmp_path: Path
) -> None:
    assert run("train", "tiny-streets", "--out", "run", "--train.steps", "5", "--data.size", "64", "128") == 0
    expected = load_run("tiny-streets").model_dump()
    expected["train"]["steps"], expected["data"]["size"] = 5, (64, 128)
    assert called["run"].model_dump() == expected
    assert called["out"] == Path("run")

    file = tmp_path / "mine.yaml"
    file.write_text(called["run"].to_yaml())
    assert run("train", file, "--out", "again", "--devices", "auto") == 0
    assert called["run"].model_dump() == expected
    assert called["devices"] == "auto"


def test_train_without_recipe_lists_them(run: Panoptube, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--help") == 0
    assert "tiny-streets" in capsys.readouterr().out
    assert run("train") == 2
    printed = capsys.readouterr()
    assert "tiny-streets" in printed.out
    assert printed.err == "panoptube: train needs a recipe; name one of the above\n"
    assert run("train", "tinny", "--out", "run") == 2
    assert capsys.readouterr().err == "panoptube: no recipe 'tinny'; did you mean tiny?\n"


def test_impossible_settings_are_refused(run: Panoptube, called: dict[str, Any]) -> None:
    assert run("train", "tiny", "--out", "run", "--train.steps", "0") == 2
    assert called == {}


def test_mistakes_are_one_line_and_exit_code_2(
    run: Panoptube, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("predict", tmp_path / "no.mp4", "--out", tmp_path / "out") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"panoptube: {tmp_path / 'no.mp4'} does not exist; give ")
    assert printed.err.count("\n") == 1


def test_wrong_flags_get_a_suggestion(run: Panoptube, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("predict", "film.mp4", "--out", "out", "--fsp", "5") == 2
    error = capsys.readouterr().err
    assert "--fsp" in error
    assert "--fps" in error
    assert run("prdict", "film.mp4") == 2
    assert "predict" in capsys.readouterr().err


def test_synthesize_writes_clips(run: Panoptube, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "streets"
    assert run("synthesize", "--clips", 1, "--out", out, "--frames", 2, "--size", 64, 128) == 0
    assert capsys.readouterr().out.endswith(f"{out}\n")
    (clip,) = read_labelled_videos(out)
    assert (clip.size, clip.length) == ((64, 128), 2)


def test_no_command_prints_help(run: Panoptube, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ((), ("--help",)):
        assert run(*arguments) == 0
        printed = capsys.readouterr().out
        assert all(name in printed for name in cli.COMMANDS)


def test_version(run: Panoptube, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    name, number = capsys.readouterr().out.split()
    assert name == "panoptube"
    assert number[0].isdigit()


def test_interruption(
    run: Panoptube, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("panoptube.predict.predict", interrupt)
    assert run("predict", "film.mp4", "--out", "out") == 130
    assert capsys.readouterr().err == "panoptube: interrupted; nothing was written to out\n"


def test_defects_are_not_hidden(run: Panoptube, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("panoptube.predict.predict", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("predict", "film.mp4", "--out", "out")


def write_result(folder: Path) -> None:
    semantic = np.zeros((8, 8), np.uint8)
    semantic[2:6, 2:6] = CITYSCAPES.index("car")
    frame = PanopticFrame(semantic, (semantic > 0).astype(np.int32))
    with PanopticVideoWriter(folder, CITYSCAPES) as writer:
        for t in range(6):
            writer.write(f"{t:06d}", frame)


PROBE = "import sys; from panoptube.cli import main; assert main() == 0; assert 'torch' not in sys.modules"


def test_evaluate_scores_without_torch(tmp_path: Path) -> None:
    write_result(tmp_path / "a")
    command = [sys.executable, "-c", PROBE, "evaluate", "--truth", "a", "--pred", "a"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "100.0" in done.stdout
    assert "car" in done.stdout


def test_python_m_is_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "panoptube"]
    done = subprocess.run([*command, "--version"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[0]) == (0, "panoptube"), done.stderr
    words = ("evaluate", "--truth", "a", "--pred", "b")
    wrong = subprocess.run([*command, *words], cwd=tmp_path, capture_output=True)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith(b"panoptube: ")


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_a_reader_that_leaves_is_no_error(option: str) -> None:
    """As in `panoptube --help | true`."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", "import sys; from panoptube.cli import main; sys.exit(main())", option]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 130
    assert done.stderr == ""


def test_public_names_are_there_and_lazy() -> None:
    code = (
        "import sys, panoptube; assert not {'torch', 'numpy', 'av'} & set(sys.modules); "
        "panoptube.PanopticFrame, panoptube.overlay, panoptube.open_video; assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    for name in panoptube.__all__:
        assert getattr(panoptube, name) is not None
    assert set(panoptube.__all__) <= set(dir(panoptube))
    assert panoptube.UserError is UserError
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        panoptube.nothing  # noqa: B018
