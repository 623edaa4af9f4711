"""Folders that appear once they are complete."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock

from panoptube.data.new_folder import LOCK, new_folder, part_of
from panoptube.errors import UserError


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


def test_it_appears_at_the_end_and_holds_what_was_written(tmp_path: Path) -> None:
    with new_folder(tmp_path / "a") as part:
        (part / "x").write_text("1")
        assert not (tmp_path / "a").exists()
    assert names(tmp_path) == {"a", "x"}
    with pytest.raises(UserError, match="a is not empty"), new_folder(tmp_path / "a"):
        pass
    with new_folder(tmp_path / "a", overwrite=True) as part:
        (part / "y").write_text("2")
        assert (tmp_path / "a/x").read_text() == "1"
    assert names(tmp_path) == {"a", "y"}


def test_errors_that_are_not_the_disks_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "a"):
        (tmp_path / "none").read_bytes()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_and_what_another_one_fills_stays(tmp_path: Path) -> None:
    out = tmp_path / "a[1]"
    left, busy, other = (tmp_path / name for name in (".a[1].7.part", ".a[1].8.part", ".a1.7.part"))
    for folder in (left, busy, other):
        (folder / "panoptic").mkdir(parents=True)
    with FileLock(busy / LOCK), part_of(out):
        assert not left.exists()
        assert busy.exists()
    assert names(tmp_path) >= {out.name, busy.name, other.name}
