"""README and docs/: commands are right, snippets run, links lead somewhere, and the site builds.

`tests/forms/test_results_page.py` runs results_in_other_tools.md, `tests/network/test_export.py` export.md.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial, wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tyro

from panoptube import cli
from panoptube.data.clip import Clip
from panoptube.data.labelled_video import write_labelled_video
from panoptube.data.streets import street_clip
from panoptube.data.write_layouts import write_dataset
from panoptube.recipes import load_run
from panoptube.video import write_video

ROOT = Path(__file__).parents[1]
SITE = [p for p in sorted((ROOT / "docs").rglob("*.md")) if "api" not in p.parts]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *SITE]
RUN_ELSEWHERE = {"results_in_other_tools.md", "export.md"}


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language and text of the code blocks; "" for indented ones."""
    text = page.read_text()
    yield from re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    # Four spaces after an empty line, or after another line of the block; in a list they are text.
    for block in re.findall(r"(?:^|\n)\n((?:(?: {4}.*)?\n)+)", plain):
        yield "", textwrap.dedent(block)


def commands(page: Path, program: str) -> list[str]:
    """What follows `program` on the lines of the page's code blocks, without comments."""
    lines = [
        line
        for language, text in blocks(page)
        if language in ("", "bash", "sh")
        for line in text.replace("\\\n", " ").splitlines()
    ]
    found = [line.split(" #")[0].strip() for line in lines]
    return [line[len(program) :].strip() for line in found if line.startswith(f"{program} ")]


COMMANDS = [
    pytest.param(line, id=f"{name(page)}: {line[:60]}")
    for page in PAGES
    for line in commands(page, "panoptube")
]


def nothing(f: Callable[..., None]) -> Callable[..., None]:
    """Takes the same arguments and does nothing."""

    @wraps(f)
    def stand_in(*args: Any, **kwargs: Any) -> None:
        pass

    return stand_in


def parse(words: list[str]) -> None:
    """Exits with 2 if the command line wouldn't take them."""
    if words[0] == "train":
        tyro.cli(partial(nothing(cli.train), run=load_run(words[1])), args=words[2:])
    else:
        stand_ins = {command: nothing(f) for command, f in cli.COMMANDS.items()}
        tyro.extras.subcommand_cli_from_dict(stand_ins, args=words)


@pytest.mark.parametrize("line", COMMANDS)
def test_command(line: str) -> None:
    assert "..." not in line, "a command that nobody can run"
    if line.endswith("--help"):
        with pytest.raises(SystemExit, match=r"^0$"):
            parse(shlex.split(line))
    else:
        parse(shlex.split(line))


@pytest.mark.parametrize(
    "line", ["predict a.mp4 --uot b", "train tiny-streets --out a --train.stebs 2", "predikt a"]
)
def test_a_wrong_command_would_be_found(line: str) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        parse(shlex.split(line))


def test_there_are_commands_to_test() -> None:
    assert len(COMMANDS) > 60
    shown = {param.values[0].split()[0] for param in COMMANDS}  # type: ignore[union-attr]
    assert shown == set(cli.COMMANDS), "every command is shown somewhere"


@cache
def options(command: str, recipe: str = "tiny-streets") -> str:
    """The command's help."""
    words = [command, *([recipe] if command == "train" else []), "--help"]
    done = subprocess.run(
        [sys.executable, "-m", "panoptube", *words], capture_output=True, text=True, check=True
    )
    return done.stdout


def inline(page: Path) -> list[str]:
    return re.findall(r"`panoptube ([a-z][^`]*)`", page.read_text())


def test_commands_within_the_text() -> None:
    """They may leave words out; the command and the options they name exist."""
    seen = 0
    for page in PAGES:
        for line in inline(page):
            command, *words = line.split()
            assert command in cli.COMMANDS, f"{name(page)}: {line}"
            for word in words:
                if word.startswith("--") and word != "--help":
                    assert re.search(rf"{re.escape(word)}\b", options(command)), f"{name(page)}: {line}"
                    seen += 1
    assert seen > 5


def test_scripts() -> None:
    """Benchmarks and examples that the pages run exist and have the options."""
    seen = 0
    for page in PAGES:
        lines = [*commands(page, "python"), *re.findall(r"`python ([^`]*)`", page.read_text())]
        for line in lines:
            script, *words = line.split()
            if script == "-m":
                continue
            source = (ROOT / script).read_text()
            for word in words:
                if word.startswith("--"):
                    known = f'"{word}"' in source or re.search(rf"\b{word[2:].replace('-', '_')}: ", source)
                    assert known, f"{name(page)}: {line}: no {word}"
            seen += 1
    assert seen > 10


# --- snippets -----------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that has what the snippets name."""
    clip = street_clip(0, frames=3, size=(64, 96))
    (tmp_path / "examples").mkdir()
    for path in ("drive.mp4", "examples/vtest.mp4"):
        with write_video(tmp_path / path, 10, (64, 96)) as write:
            for t in range(3):
                write(clip.image(t))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pieces(page: str) -> list[str]:
    return [text for language, text in blocks(ROOT / page) if language == "python"]


def run(page: str, names: dict[str, Any] | None = None) -> dict[str, Any]:
    """All snippets of a page, in order, in one module."""
    names = {} if names is None else names
    for piece in pieces(page):
        exec(compile(piece, page, "exec"), names)
    return names


def test_snippets_of_the_readme(place: Path) -> None:
    names = run("README.md")
    assert names["frame"].size == (64, 96)


def test_snippets_of_python(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = run("docs/python.md")
    assert names["summary"].frames == 3
    assert (place / "drawn.mp4").stat().st_size > 500
    out = capsys.readouterr().out
    assert "% road" in out
    assert "nothing.mp4 does not exist" in out


def test_snippets_of_video(place: Path) -> None:
    text = pieces("docs/video.md")
    assert len(text) == 1
    names: dict[str, Any] = {}
    exec(compile(text[0].replace("start=90", "start=0.1"), "docs/video.md", "exec"), names)
    assert names["image"].shape == (64, 96, 3)


def test_snippets_of_metrics() -> None:
    clip = street_clip(0, frames=3, size=(64, 96))
    frames = [(truth, truth) for truth in map(clip.truth, range(3)) if truth is not None]

    class Frames(list[Any]):
        name = "a"

    names = run("docs/metrics.md", {"taxonomy": clip.taxonomy, "clips": [Frames(frames)]})
    assert names["vpq"].compute().windows[0].all.pq == 1


def test_snippets_of_datasets(place: Path) -> None:
    clip = street_clip(0, frames=30, size=(64, 128))
    labelled = replace(clip, labelled=tuple(range(4, 30, 5)))
    write_dataset("cityscapes-vps", [("val", labelled)], place / "data/cityscapes_vps")
    write_labelled_video(clip, place / "data/mine")
    names = run("docs/datasets.md")
    assert names["image"].shape == (64, 128, 3)
    assert isinstance(names["clip"], Clip)
    assert (place / "data/mine_as_coco").is_dir()


def test_every_snippet_is_run() -> None:
    run_here = {"README.md", *(f"docs/{p}.md" for p in ("python", "video", "metrics", "datasets"))}
    there = {name(page) for page in PAGES if pieces(name(page))}
    assert there == run_here | {f"docs/{p}" for p in RUN_ELSEWHERE}
    for page in PAGES:
        for language, text in blocks(page):
            assert language or not re.search(r"^(from \w|import )", text, re.M), f"{name(page)}: fence it"


# --- links --------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links(page: Path) -> None:
    """As a reader of the repository follows them; mkdocs tries them on the site."""
    for target in re.findall(
        r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    ):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{name(page)}: {target}"
        assert not anchor or anchor in anchors(there), f"{name(page)}: {target}"


def test_files_named_in_the_text() -> None:
    for page in PAGES:
        for path in re.findall(
            r"\b(?:docs|benchmarks|examples)/[\w./-]+\.(?:md|py|json)\b", page.read_text()
        ):
            assert (ROOT / path).exists(), f"{name(page)}: {path}"


# --- the site -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`mkdocs build`, which ends with an error on a dead link, a page without a place, or an unknown name."""
    pytest.importorskip("mkdocs")
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return out


def test_site(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file()
    assert not list(site.rglob("*.py"))
    html = {p.relative_to(site).as_posix(): p.read_text() for p in site.rglob("*.html")}
    for path, text in html.items():
        loaded = re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"?([^\" >]+)", text)
        assert not [u for u in loaded if u.startswith(("http", "//"))], f"{path} loads from elsewhere"
    assert "Raises" in html["api/video.html"]
    assert 'id="panoptube.predict.predict"' in html["api/video.html"]


def test_links_outside_the_site() -> None:
    spec = importlib.util.spec_from_file_location("outside_links", ROOT / "docs/outside_links.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    files = SimpleNamespace(get_file_from_path={"a.md": 1, "b/c.md": 2}.get)

    def page(text: str, path: str = "x.md") -> str:
        return module.on_page_markdown(text, SimpleNamespace(file=SimpleNamespace(src_uri=path)), None, files)

    assert page("[a](a.md) [c](b/c.md#d) [e](#f) [g](https://h.org)") == (
        "[a](a.md) [c](b/c.md#d) [e](#f) [g](https://h.org)"
    )
    assert page("[up](../a.md)", "b/c.md") == "[up](../a.md)"
    assert page("as in [NOTICE](../NOTICE)") == "as in `NOTICE`"
    assert page("[all figures](../benchmarks/x.json)") == "all figures (`benchmarks/x.json`)"
    assert page("![seen](picture.png)") == "![seen](picture.png)"
