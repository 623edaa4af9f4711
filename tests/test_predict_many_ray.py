"""many/cluster.py: Ray on this machine does what the processes do; its workers are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from panoptube.errors import UserError
from panoptube.many import cluster
from panoptube.predict import predict
from test_predict import narrow
from test_predict_many import COMMAND, files, films, interrupted, killing, listed, run, shown, states, table

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="kills by POSIX's signals"),
    pytest.mark.xdist_group("ray"),  # "auto" would find the cluster of another test
]


def test_killed_workers_and_a_broken_video_stop_no_other(tmp_path: Path) -> None:
    _, weights = narrow(tmp_path)
    films(tmp_path, doomed=1500, lucky=40, last=3)
    (tmp_path / "broken.mp4").write_text("not a film")
    videos = listed(tmp_path, "doomed.mp4", "lucky.mp4", "broken.mp4", "last.mp4")
    out = tmp_path / "out"
    with killing(out, {"doomed": 2, "lucky": 1}) as killed:
        done = run(videos, out, weights, workers=2, ray="local")
    assert {name: len(pids) for name, pids in killed.items()} == {"doomed": 2, "lucky": 1}
    assert states(out) == {"doomed": "failed", "lucky": "done", "broken": "failed", "last": "done"}
    assert table(out)["doomed"]["note"].startswith("its worker died, twice, perhaps for lack of memory (")
    assert "is not a video that can be read" in table(out)["broken"]["note"]
    assert [row.frames for row in done.videos] == [None, 40, None, 3]
    assert shown(out) == ["last", "lucky", "videos.csv"]
    predict(tmp_path / "last.mp4", tmp_path / "alone", weights, device="cpu", precision="float32")
    assert files(out / "last") == files(tmp_path / "alone")

    # Once more: only what failed. Then nothing is left to do, and no cluster is asked.
    films(tmp_path, doomed=2, broken=2)
    listed(tmp_path, "doomed.mp4", "lucky.mp4", "broken.mp4", "last.mp4")
    before = files(out / "lucky")
    again = run(videos, out, weights, workers=2, ray="local")
    assert [row.frames for row in again.videos] == [2, 40, 2, 3]
    assert files(out / "lucky") == before
    assert run(videos, out, weights, ray="nowhere:1").failed == 0


def test_what_is_wrong_with_the_cluster_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos, out = films(tmp_path, a=2), tmp_path / "out"
    with pytest.raises(UserError, match=r"no\.safetensors: no such weights file"):
        run(videos, out, tmp_path / "no.safetensors", ray="local")
    _, weights = narrow(tmp_path)
    monkeypatch.setattr(cluster, "JSON_NAME", "elsewhere.json")  # as if a's folder were on another disk
    with pytest.raises(UserError, match=r"wrote .*a, which isn't here; name a folder on a disk that all"):
        run(videos, out, weights, ray="local")
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'a cluster needs ray; pip install "panoptube\[ray\]"'):
        run(videos, tmp_path / "other", weights, ray="local")
    assert shown(tmp_path / "other") == []


def test_no_cluster_answers(tmp_path: Path) -> None:
    command = ["predict-many", films(tmp_path, a=2), "--out", tmp_path / "out", "--ray", "auto"]
    done = subprocess.run([sys.executable, "-c", COMMAND, *map(str, command)], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("panoptube: Ray does not answer at auto (")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_stopped_from_outside(tmp_path: Path, how: signal.Signals) -> None:
    with interrupted(tmp_path, "--ray", "local") as process:
        process.send_signal(how)
