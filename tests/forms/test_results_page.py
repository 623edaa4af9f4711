"""docs/results_in_other_tools.md, word by word."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from drawn_results import STREET, assert_same, draw, things, write_result

from panoptube import cli

PAGE = Path(__file__).parents[2] / "docs/results_in_other_tools.md"
NEEDS = {
    "COCO video instances": ["pycocotools"],
    "Tables of tracks": ["pandas", "pyarrow"],
    "supervision": ["supervision"],
    "FiftyOne": ["fiftyone"],
}
FRAMES = [draw("rrrrrrrrrrrrrrrr AAAAAAPPPPPPrrrr AAAAAAPPPPPPrrrr", {3: 0.5, 5: 0.75})] * 2


def sections() -> dict[str, str]:
    start, *parts = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    return {"": start} | {part.split("\n", 1)[0]: part for part in parts}


def snippets(section: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def commands(section: str) -> list[list[str]]:
    return [shlex.split(line) for line in re.findall(r"^    panoptube (.*)$", section, re.MULTILINE)]


def test_every_form_has_a_section_and_the_page_has_no_other_code() -> None:
    assert set(NEEDS) <= set(sections())
    assert all(snippets(text) or not name for name, text in sections().items())
    assert PAGE.read_text().count("```") == 2 * sum(len(snippets(text)) for text in sections().values())


@pytest.mark.parametrize("name", [name for name in sections() if name])
def test_a_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    for module in NEEDS.get(name, []):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    write_result(tmp_path / "result", FRAMES)
    for command in commands(sections()[name]):
        monkeypatch.setattr(sys, "argv", ["panoptube", *command])
        cli._run(command)
        assert Path(command[command.index("--out") + 1]).exists()
    space: dict[str, Any] = {}
    for snippet in (*snippets(sections()[""]), *snippets(sections()[name])):
        exec(snippet, space)
    frame, taxonomy = space["frame"], space["taxonomy"]
    assert_same(frame, FRAMES[0])
    assert taxonomy.names == STREET.names
    if name in ("COCO panoptic", "Hugging Face transformers"):
        assert_same(space["same"], frame)
    if name == "supervision":
        assert len(space["large"]) == 2
        assert_same(space["again"], frame)
    if name == "Tables of tracks":
        assert space["longest"]["length"].tolist() == [2, 2]
        assert space["share"].to_dict() == {"road": 0.5}
    if name == "COCO video instances":
        from panoptube.forms.result import read_result

        _, videos = read_result("things")
        assert [(f.frame().instance == things(FRAMES[0]).instance).all() for f in videos["things"]] == [
            True
        ] * 2
    if name == "FiftyOne":
        assert len(space["sample"].frames) == 2
        assert space["targets"] == {1: "road", 2: "sky & air", 3: "car", 4: "person"}
