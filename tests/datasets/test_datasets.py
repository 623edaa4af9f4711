"""The registry: every dataset by its name, with options where it has some."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from official_trees import write_cityscapes_vps, write_kitti_step, write_viper, write_vipseg

from panoptube.data.datasets import DATASETS, read_dataset
from panoptube.errors import UserError

WRITERS = {
    "cityscapes-vps": write_cityscapes_vps,
    "viper": write_viper,
    "kitti-step": write_kitti_step,
    "vipseg": write_vipseg,
}


@pytest.mark.parametrize("name", WRITERS)
def test_by_name(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path)
    clips = read_dataset(name, tmp_path, "val")
    assert clips
    assert len({clip.name for clip in clips}) == len(clips)
    for clip in clips:
        assert clip.taxonomy == DATASETS[name].taxonomy
        assert clip.truth(clip.labelled[0]) is not None
        assert clip.image(clip.labelled[0]).shape == (*clip.size, 3)


def test_sequences(tmp_path: Path) -> None:
    write_viper(tmp_path, frames=5)
    listed = tmp_path / "day.txt"
    listed.write_text("004")
    assert [(c.name, len(c)) for c in read_dataset("viper", tmp_path, "val", listed, 3)] == [("004", 3)]
    with pytest.raises(UserError, match="kitti-step takes no list of sequences"):
        read_dataset("kitti-step", tmp_path, "val", listed)


@pytest.mark.parametrize("name", DATASETS)
def test_an_empty_folder(tmp_path: Path, name: str) -> None:
    """One line, which names the folder or a file in it."""
    with pytest.raises(UserError) as caught:
        read_dataset(name, tmp_path, "val")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert DATASETS[name].tree.startswith("ROOT/")


def test_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no dataset is called 'kitti'; there are cityscapes-vps, viper,"):
        read_dataset("kitti", tmp_path, "val")


def test_reading_needs_no_torch() -> None:
    code = "import sys, panoptube.data.datasets, panoptube.prepare; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
