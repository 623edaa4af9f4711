"""export.py and network/exported.py: the file gives what the network gives, whatever runs it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny_network import tiny
from torch import Tensor

import panoptube.export
from panoptube.cli import main
from panoptube.config import RunConfig
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.streets import street_clip
from panoptube.data.transforms import normalize
from panoptube.errors import UserError
from panoptube.export import Format, FrameGraph, _GridDeform, export
from panoptube.network.deform import DeformConv2d
from panoptube.network.exported import OUTPUTS, load_exported
from panoptube.network.vpsnet import Detections, VPSNet
from panoptube.network.weights import load_weights, save_weights
from panoptube.panoptic.formats import read_panoptic_video
from panoptube.predict import predict, shipped_weights
from panoptube.predictor import VideoPredictor
from panoptube.video import write_video

DOCS = Path(__file__).parents[2] / "docs"

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
FORMATS = [
    pytest.param("onnx", id="onnx"),
    pytest.param(
        "openvino",
        marks=pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs openvino"),
        id="openvino",
    ),
]


def saved(network: VPSNet, path: Path) -> Path:
    save_weights(path, network, RunConfig(name="tiny", network=network.config))
    return path


def detecting(**changes: object) -> VPSNet:
    """With random weights that find some 20 things, far from equal ones."""
    network = tiny(score_threshold=0.14, **changes).eval()
    with torch.no_grad():
        network.boxes.classes.weight *= 40
        network.rpn.objectness.weight *= 30
        network.rpn.deltas.weight *= 10
        for block in network.semantic.blocks:
            block.conv.offset.weight *= 5
    return network


def image(height: int, width: int, seed: int = 0) -> Tensor:
    """A noisy street, so that no two places are alike; (1, 3, H, W), padded to multiples of 32."""
    rng = np.random.default_rng(seed)
    street = street_clip(seed, frames=1, size=(height, width)).image(0).astype(int)
    noisy = np.clip(street + rng.integers(-40, 40, street.shape), 0, 255).astype(np.uint8)
    padded = (-(-height // 32) * 32, -(-width // 32) * 32)
    return torch.from_numpy(normalize(noisy, padded))[None]


def same(found: Detections, expected: Detections) -> None:
    for name in OUTPUTS:
        a, b = getattr(found, name), getattr(expected, name)
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-3, msg=lambda m, name=name: f"{name}: {m}")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The weights that come with panoptube, in every format there is."""
    folder = tmp_path_factory.mktemp("shipped")
    files = {"onnx": export(folder / "tiny.onnx")}
    if importlib.util.find_spec("openvino") is not None:
        files["openvino"] = export(folder / "tiny.xml", format="openvino")
    return files


@pytest.mark.parametrize(("size", "kernel"), [((5, 7), 3), ((9, 4), 1)])
@torch.no_grad()
def test_deformable_convolution_by_grid(size: tuple[int, int], kernel: int) -> None:
    torch.manual_seed(0)
    conv = DeformConv2d(3, 4, kernel)
    conv.offset.weight.normal_(std=2)  # far outside the map, too
    x = torch.randn(1, 3, *size)
    torch.testing.assert_close(_GridDeform(conv)(x), conv(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [{}, {"match_length": 3.0, "tracker": "motion", "weak_threshold": 0.12}],
    ids=["as published", "ours"],
)
@torch.no_grad()
def test_the_graph_is_the_network(changes: dict[str, object]) -> None:
    network = detecting(**changes)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    frame = image(96, 160)
    expected = network(frame, (90, 150))[0]
    assert 5 < len(expected.boxes) < 100
    same(Detections(**dict(zip(OUTPUTS, FrameGraph(network)(frame, torch.tensor((90, 150)))))), expected)
    assert network.state_dict().keys() == before.keys(), "it stays as it was"
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("most", [100, 5, 1])
@torch.no_grad()
def test_no_more_detections_than_there_may_be(most: int) -> None:
    network = detecting(max_detections=most)
    frame = image(96, 160)
    expected = network(frame)[0]
    assert len(expected.boxes) == min(most, len(detecting()(frame)[0].boxes))
    same(Detections(**dict(zip(OUTPUTS, FrameGraph(network)(frame, torch.tensor((96, 160)))))), expected)


@pytest.mark.parametrize("format", FORMATS)
def test_one_file_for_all_sizes(format: Format, tmp_path: Path) -> None:
    network = detecting()
    weights = saved(network, tmp_path / "w.safetensors")
    file = export(tmp_path / f"net{'.onnx' if format == 'onnx' else '.xml'}", weights, format)
    found = load_exported(file, "float32")
    assert (found.config, found.taxonomy) == (network.config, CITYSCAPES)
    for size in ((90, 150), (128, 64), (192, 256)):
        expected = network(image(*size), size)[0]
        assert len(expected.boxes) > 2
        same(found(image(*size), size)[0], expected)
    both = torch.cat([image(64, 96, 1), image(64, 96, 2)])
    for one, other in zip(found(both), network(both)):
        same(one, other)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        {"w.safetensors", file.name, file.with_suffix(".bin").name if format == "openvino" else file.name}
    )


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_one_size(format: Format, tmp_path: Path) -> None:
    network = detecting(test_size=(96, 192))
    weights = saved(network, tmp_path / "w.safetensors")
    suffix = ".onnx" if format == "onnx" else ".xml"
    found = load_exported(export(tmp_path / f"net{suffix}", weights, format, (96, 192)))
    whole = image(96, 192)
    same(found(whole)[0], network(whole)[0])
    # A narrower frame gets more padding, and its result is cut.
    narrow = found(image(96, 100), (96, 100))[0]
    assert narrow.semantic.shape == (len(CITYSCAPES), 24, 32)
    assert narrow.boxes[:, 2].max() < 192
    rng = np.random.default_rng(0)
    assert VideoPredictor(found).step(rng.integers(0, 255, (50, 60, 3), np.uint8)).semantic.shape == (50, 60)


def test_no_match_head(tmp_path: Path) -> None:
    network = detecting(match_channels=0)
    found = load_exported(export(tmp_path / "a.onnx", saved(network, tmp_path / "a.safetensors")))
    same(found(image(96, 160))[0], network(image(96, 160))[0])


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_found(format: Format, tmp_path: Path) -> None:
    weights = saved(tiny(score_threshold=0.99).eval(), tmp_path / "a.safetensors")
    found = load_exported(export(tmp_path / f"a{'.onnx' if format == 'onnx' else '.xml'}", weights, format))
    nothing = found(image(96, 160))[0]
    assert [tuple(getattr(nothing, name).shape) for name in OUTPUTS] == [
        (0, 4), (0,), (0,), (0, 28, 28), (0, 16), (19, 24, 40),
    ]  # fmt: skip


@pytest.mark.parametrize("format", FORMATS)
def test_a_video_has_the_same_ids(format: str, shipped: dict[str, Path]) -> None:
    network, _ = load_weights(shipped_weights())
    one, other = VideoPredictor(network), VideoPredictor(load_exported(shipped[format], "float32"))
    clip, ids = street_clip(5, frames=6, size=(128, 256)), set()
    for t in range(6):
        a, b = one.step(clip.image(t)), other.step(clip.image(t))
        assert a.scores.keys() == b.scores.keys()
        ids |= a.scores.keys()
        assert (a.semantic != b.semantic).mean() < 0.01
        assert (a.instance != b.instance).mean() < 0.01
    assert ids


def test_predict_with_the_file(shipped: dict[str, Path], tmp_path: Path) -> None:
    # Not street 7: two of its overlapping proposals have one and the same score, and either may come first.
    film, clip = tmp_path / "film.mp4", street_clip(5, frames=4, size=(128, 256))
    with write_video(film, 10, (128, 256)) as write:
        for t in range(4):
            write(clip.image(t))
    predict(film, tmp_path / "a", precision="float32")
    assert main_of("predict", film, "--out", tmp_path / "b", "--weights", shipped["onnx"]) == 0
    a, b = (read_panoptic_video(tmp_path / n / "panoptic.json", tmp_path / n / "panoptic")[1] for n in "ab")
    assert len(a) == len(b) == 4
    for x, y in zip(a, b):
        assert x.frame().scores.keys() == y.frame().scores.keys()
        assert (x.frame().semantic != y.frame().semantic).mean() < 1e-3
    for option, said in (
        (("--flow", tmp_path / "x"), "leave out"),
        (("--device", "cuda"), "runs on the CPU"),
        (("--precision", "bf16"), "is computed in float32"),
    ):
        with pytest.raises(UserError, match=said):
            predict(film, tmp_path / "c", shipped["onnx"], **{option[0][2:]: str(option[1])})
    assert not (tmp_path / "c").exists()


def main_of(*words: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["panoptube", *map(str, words)])
        return main()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = saved(detecting(), tmp_path / "w.safetensors")
    out = tmp_path / "net.onnx"
    assert main_of("export", "--weights", weights, "--out", out, "--size", 64, 96) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert load_exported(out).config.test_size == (64, 96)
    assert main_of("export", "--weights", weights, "--out", out, "--format", "openvino") == 2
    assert "named *.xml" in capsys.readouterr().err


def test_what_cannot_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "net.onnx"
    for changes, said in (({"fuse": True}, "fuses two frames"), ({"legacy": True}, "as published")):
        weights = saved(tiny(**changes), tmp_path / "w.safetensors")
        with pytest.raises(UserError, match=said):
            export(out, weights)
    weights = saved(tiny(), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="multiples of 32"):
        export(out, weights, size=(64, 100))
    with pytest.raises(UserError, match="can't write"):
        export(tmp_path / "none" / "net.onnx", weights)
    monkeypatch.setattr(panoptube.export, "_add_metadata", lambda path, about: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(out, weights)
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"], "nothing half-written"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'export needs onnx; pip install "panoptube\[onnx\]"'):
        export(out, weights)
    out.touch()
    with pytest.raises(UserError, match=r'needs onnxruntime; pip install "panoptube\[onnx\]"'):
        load_exported(out)


def test_files_that_are_not_ours(tmp_path: Path, shipped: dict[str, Path]) -> None:
    import onnx

    with pytest.raises(UserError, match="there is no file"):
        load_exported(tmp_path / "none.onnx")
    whole = shipped["onnx"].read_bytes()
    path = tmp_path / "a.onnx"
    for content in (b"", b"no model", whole[: len(whole) // 2], whole[:1000]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a\.onnx"):
            load_exported(path)
    model = onnx.load(str(shipped["onnx"]))
    del model.metadata_props[:]
    onnx.save(model, str(path))
    with pytest.raises(UserError, match="holds no panoptube run"):
        load_exported(path)
    for about in ({"taxonomy": "{"}, {"taxonomy": "[]"}, {"size": "3 x"}, {"size": "33 64"}, {"run": "a: ["}):
        model = onnx.load(str(shipped["onnx"]))
        known = {p.key: p.value for p in model.metadata_props}
        onnx.helper.set_model_props(model, known | about)
        onnx.save(model, str(path))
        with pytest.raises(UserError, match=r"a\.onnx"):
            load_exported(path)


def test_openvino_files_that_are_not_ours(tmp_path: Path, shipped: dict[str, Path]) -> None:
    if "openvino" not in shipped:
        pytest.skip("needs openvino")
    path = tmp_path / "a.xml"
    path.write_bytes(shipped["openvino"].read_bytes())
    with pytest.raises(UserError, match=r"a\.xml"):
        load_exported(path)  # without its .bin
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"a\.xml"):
        load_exported(path)


def test_the_snippet_of_the_docs(
    shipped: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs no panoptube, and finds what the network finds."""
    snippet = re.findall(r"```python\n(.*?)```", (DOCS / "export.md").read_text(), re.S)[0]
    assert "panoptube" not in snippet
    monkeypatch.chdir(tmp_path)
    frame = street_clip(3, frames=1, size=(120, 250)).image(0)
    cv2.imwrite("frame.png", frame[..., ::-1])
    (tmp_path / "model.onnx").write_bytes(shipped["onnx"].read_bytes())
    names: dict[str, object] = {}
    exec(compile(snippet, "docs/export.md", "exec"), names)
    network, _ = load_weights(shipped_weights())
    expected = network(torch.from_numpy(normalize(frame, (128, 256)))[None], (120, 250))[0]
    np.testing.assert_allclose(names["boxes"], expected.boxes, atol=1e-2)
    np.testing.assert_array_equal(names["labels"], expected.labels)
    classes = torch.nn.functional.interpolate(expected.semantic[None], scale_factor=4, mode="bilinear")[0]
    assert (names["classes"] != classes.argmax(0)[:120, :250].numpy()).mean() < 1e-3
    assert names["names"] == list(CITYSCAPES.names)
