import json
import shutil
from pathlib import Path

import pytest

from check_metrics import check_folder, main
from panoptube.errors import UserError

DATA = Path(__file__).parents[1] / "data" / "metrics"
SHARED = Path(__file__).parents[2].parent / "shared" / "fixtures" / "metrics"


@pytest.fixture
def folder(tmp_path):
    """One short case of each kind that comes to a result, and one that stops."""
    cases = json.loads((DATA / "cases.json").read_text())["cases"]
    kept = [c for c in cases if c["case"] in ("edge_half", "error_only_things", "vc")]
    for case in kept:
        shutil.copytree(DATA / case["case"], tmp_path / case["case"])
    (tmp_path / "cases.json").write_text(json.dumps({"cases": kept}))
    return tmp_path


def edit(path: Path, change) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_stored_cases_agree(capsys):
    assert main([str(DATA)]) == 0
    assert "21 blocks of 7 cases: 21 agree" in capsys.readouterr().out


@pytest.mark.skipif(not SHARED.exists(), reason="the full set of reference cases is not beside the checkout")
def test_all_cases_agree(capsys):
    assert check_folder(SHARED) == 0
    out = capsys.readouterr().out
    assert "FAIL" not in out
    assert "tc " in out


def change_at(*path):
    def change(data):
        for name in path[:-1]:
            data = data[name]
        old = data[path[-1]]
        data[path[-1]] = old + (1 if isinstance(old, int) else 1e-9)

    return change


@pytest.mark.parametrize(
    ("case", "change", "reported"),
    [
        ("edge_half", change_at("vpq_cityscapes", "k", "10", "per_class", "11", "fp"), "got"),
        ("edge_half", change_at("vpq_cityscapes", "k", "0", "things", "sq"), "got"),
        ("edge_half", change_at("vpq_cityscapes", "final", "vpq_all"), "got"),
        ("edge_half", change_at("vpq_cityscapes", "per_video", "0", 0, "per_class", "0", "iou"), "got"),
        ("edge_half", change_at("pq_panopticapi", "stuff", "n"), "got"),
        ("edge_half", change_at("pq_hotcoco", "all", "rq"), "got"),
        ("edge_half", change_at("stq_deeplab2", "confusion", 0, 16), "got"),
        ("edge_half", change_at("tracking_kitti_mots", "pedestrian", "CLEAR", "IDSW"), "got"),
        ("edge_half", change_at("tracking_kitti_mots", "pedestrian", "HOTA_alpha", 4), "got"),
        (
            "error_only_things",
            change_at("vpq_cityscapes", "per_video", "0", 0, "per_class", "13", "fn"),
            "got",
        ),
        ("vc", change_at("vc", "script", "VC16"), "got"),
        ("vc", lambda d: d["vc"]["script"].update(VC32=1.0), "not computed"),
        ("vc", lambda d: d.update(vc2={"x": 1}), "no such block"),
        ("edge_half", lambda d: d.pop("stq_deeplab2"), "expected.json lacks this block"),
        ("edge_half", lambda d: d["vpq_cityscapes"]["k"].pop("15"), "not expected"),
        ("edge_half", lambda d: d.update(pq_hotcoco={"error": {"raises": "KeyError"}}), "ours doesn't"),
        ("error_only_things", lambda d: d["pq_panopticapi"].pop("error"), "error of ours"),
    ],
)
def test_a_changed_expectation_fails(folder, case, change, reported, capsys):
    edit(folder / case / "expected.json", change)
    assert main([str(folder)]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if " FAIL " in line]
    assert len(failed) == 1
    assert reported in failed[0]
    assert case in failed[0]


def test_a_case_that_cant_be_run_fails(folder, capsys):
    shutil.rmtree(folder / "vc")
    edit(folder / "cases.json", lambda d: d["cases"][0].update(layout="davis"))
    assert main([str(folder)]) == 1
    out = capsys.readouterr().out
    assert "expected.json" in out
    assert out.count("no such block in layout 'davis'") == 5


def test_a_case_that_isnt_listed_fails(folder):
    edit(folder / "cases.json", lambda d: d["cases"].pop())
    assert main([str(folder)]) == 1


def test_broken_input_is_a_failed_row_and_not_the_end(folder, capsys):
    (folder / "edge_half" / "pred" / "pred.json").write_text('{"annotations": 5}')
    assert main([str(folder)]) == 1
    out = capsys.readouterr().out
    assert out.count("FAIL") == 5
    assert "3 agree" in out


def test_folders_without_cases(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "cases.json" in capsys.readouterr().err
    (tmp_path / "cases.json").write_text('{"cases": []}')
    with pytest.raises(UserError, match="lists no cases"):
        check_folder(tmp_path)
    assert main([]) == 2
    assert main(["--help"]) == 0
