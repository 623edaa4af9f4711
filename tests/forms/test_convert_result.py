"""The command: what it refuses, and that it never leaves half of anything."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from drawn_results import FRAMES, write_result

from panoptube import cli
from panoptube.convert_result import convert_result
from panoptube.errors import UserError
from panoptube.forms import coco_panoptic
from panoptube.forms.coco_instances import read_coco_instances
from panoptube.forms.tracks import track_tables

FORMS = ["coco-panoptic", "coco-instances", "two-channel", "csv", "parquet", "cvat"]
MODULE = {"csv": "pandas", "parquet": "pyarrow", "coco-instances": "pycocotools"}


@pytest.fixture
def result(tmp_path: Path) -> Path:
    return write_result(tmp_path / "result")


def convert(result: Path, form: Any, out: Path, overwrite: bool = False) -> str:
    return convert_result(result, form, out, overwrite=overwrite, progress=False)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_the_command_takes_what_the_function_takes() -> None:
    flags = inspect.signature(cli.convert_result).parameters
    public = inspect.signature(convert_result).parameters
    assert [*flags, "progress"] == list(public)
    assert all(flag.default == public[name].default for name, flag in flags.items())


@pytest.mark.parametrize("form", FORMS)
def test_an_earlier_conversion_goes_only_when_told_to(tmp_path: Path, result: Path, form: str) -> None:
    if form in MODULE:
        pytest.importorskip(MODULE[form])
    if form == "parquet":
        pytest.importorskip("pandas")
    out = tmp_path / "out"
    convert(result, form, out)
    before = {p: p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()} or {out: out.read_bytes()}
    with pytest.raises(UserError, match="--overwrite"):
        convert(result, form, out)
    assert all(p.read_bytes() == content for p, content in before.items())
    write_result(tmp_path / "other/result", FRAMES[:1])
    assert "1 frames" in convert(tmp_path / "other/result", form, out, overwrite=True)
    assert any(not p.exists() or p.read_bytes() != content for p, content in before.items())
    assert names(tmp_path) == ["other", "out", "result"]


@pytest.mark.parametrize("form", ["coco-panoptic", "two-channel", "csv", "cvat"])
def test_other_files_are_never_replaced(tmp_path: Path, result: Path, form: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("years")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        convert(result, form, tmp_path / "out", overwrite=True)
    assert names(tmp_path / "out") == ["thesis.tex"]


@pytest.mark.parametrize("form", FORMS)
def test_the_result_itself_is_safe(tmp_path: Path, result: Path, form: str) -> None:
    for out in (result, tmp_path):
        with pytest.raises(UserError, match="where the result is"):
            convert(result, form, out, overwrite=True)


def test_a_folder_where_a_file_should_be_and_the_other_way_round(tmp_path: Path, result: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="name a file"):
        convert(result, "coco-instances", tmp_path / "folder")
    with pytest.raises(UserError, match="is a file"):
        convert(result, "cvat", tmp_path / "file", overwrite=True)


@pytest.mark.parametrize("form", ["coco-panoptic", "coco-instances", "two-channel", "cvat"])
@pytest.mark.parametrize("fault", ["missing", "cut"])
def test_a_broken_frame_leaves_nothing(tmp_path: Path, result: Path, form: str, fault: str) -> None:
    if form in MODULE:
        pytest.importorskip(MODULE[form])
    png = result / "panoptic/000001.png"
    content = png.read_bytes()
    png.unlink()
    if fault == "cut":
        png.write_bytes(content[: 20 if form == "coco-panoptic" else 60])
    with pytest.raises(UserError, match=r"000001\.png"):
        convert(result, form, tmp_path / "out")
    assert names(tmp_path) == ["result"]


def test_links_don_t_change_the_result(tmp_path: Path, result: Path) -> None:
    before = {p: p.read_bytes() for p in result.rglob("*.*")}
    convert(result, "coco-panoptic", tmp_path / "out")
    convert(result, "coco-panoptic", tmp_path / "out", overwrite=True)
    assert {p: p.read_bytes() for p in result.rglob("*.*")} == before


def test_a_full_disk(tmp_path: Path, result: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(coco_panoptic, "link_or_copy", full)
    with pytest.raises(UserError, match="No space left"):
        convert(result, "coco-panoptic", tmp_path / "out")
    assert names(tmp_path) == ["result"]


def test_no_result(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder"):
        convert(tmp_path / "none", "csv", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no panoptic result"):
        convert(tmp_path / "empty", "csv", tmp_path / "out")


def test_clips_in_one_list_are_refused(tmp_path: Path, result: Path) -> None:
    (result / "panoptic.json").rename(result / "pred.json")
    (result / "panoptic").rename(result / "pan_pred")
    with pytest.raises(UserError, match="several clips as one"):
        convert(result, "cvat", tmp_path / "out")


def test_a_frame_twice(tmp_path: Path, result: Path) -> None:
    data = json.loads((result / "panoptic.json").read_text())
    data["annotations"].append(data["annotations"][0])
    (result / "panoptic.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=r"000000\.png twice"):
        convert(result, "coco-panoptic", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../evil", r"'\.\./evil/000000\.png' is no PNG in"),
        ("a/../b", "is no PNG in"),
        ("a/b", "give it a plain name"),
    ],
)
def test_a_video_can_t_leave_the_folder(tmp_path: Path, name: str, said: str) -> None:
    """A result in VIPSeg's form names its videos itself."""
    folder = tmp_path / "result"
    write_result(tmp_path / "x")
    data = json.loads((tmp_path / "x/panoptic.json").read_text())
    folder.mkdir()
    (tmp_path / "x/panoptic").rename(folder / "evil")
    (folder / "pan_pred/a").mkdir(parents=True)
    data["annotations"] = [{"video_id": name, "annotations": data["annotations"]}]
    (folder / "pred.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=said):
        convert(folder, "cvat", tmp_path / "out")


def test_unknown_form_and_fps_without_a_place(tmp_path: Path, result: Path) -> None:
    with pytest.raises(UserError, match="there are coco-panoptic"):
        convert(result, "excel", tmp_path / "out")
    with pytest.raises(UserError, match="--fps"):
        convert_result(result, "cvat", tmp_path / "out", fps=25, progress=False)


@pytest.mark.parametrize(
    ("module", "form"),
    [("pandas", "csv"), ("pyarrow", "parquet"), ("pycocotools.mask", "coco-instances")],
)
def test_a_missing_library_is_named(
    tmp_path: Path, result: Path, monkeypatch: pytest.MonkeyPatch, module: str, form: str
) -> None:
    if form == "parquet":
        pytest.importorskip("pandas")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"needs {module} .*pip install 'panoptube\[results\]'"):
        convert(result, form, tmp_path / "out")
    assert names(tmp_path) == ["result"]


@pytest.mark.parametrize(
    ("name", "remedy"), [("supervision", r"panoptube\[results\]"), ("fiftyone", "fiftyone")]
)
def test_a_missing_library_of_a_function(monkeypatch: pytest.MonkeyPatch, name: str, remedy: str) -> None:
    from drawn_results import STREET

    monkeypatch.setitem(sys.modules, name, None)
    function = getattr(importlib.import_module(f"panoptube.forms.{name}"), f"to_{name}")
    with pytest.raises(UserError, match=f"pip install '{remedy}'"):
        function(FRAMES[0], STREET)


def test_frames_are_read_one_at_a_time(tmp_path: Path, result: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing keeps a frame once the next is there; tables read none at all."""
    import weakref

    from panoptube.forms.result import read_result
    from panoptube.panoptic.formats import StoredFrame

    seen: list[weakref.ref[Any]] = []
    read = StoredFrame.frame

    def watched(self: StoredFrame, id_map: Any = None) -> Any:
        frame = read(self, id_map)
        assert sum(ref() is not None for ref in seen) <= 1
        seen.append(weakref.ref(frame))
        return frame

    monkeypatch.setattr(StoredFrame, "frame", watched)
    taxonomy, videos = read_result(result)
    if importlib.util.find_spec("pandas"):
        track_tables(videos, taxonomy, progress=False)
    assert not seen
    convert(result, "cvat", tmp_path / "exports")
    assert len(seen) == 3
    if importlib.util.find_spec("pycocotools"):
        convert(result, "coco-instances", tmp_path / "i.json")
        assert len(seen) == 6
        assert set(read_coco_instances(tmp_path / "i.json")[1]) == {"result"}
