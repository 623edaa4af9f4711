"""What SiamTrack compares of two frames: which segments, which channels, and each choice of dossier 9.4."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from panoptube.config import LossConfig, SiameseConfig
from panoptube.data.pairs import FrameTargets
from panoptube.data.transforms import MEAN, STD
from panoptube.losses.segment import contrastive_loss
from panoptube.losses.temporal import Common, common_segments, denormalize, images_of, temporal
from panoptube.losses.tube import tube_matching_loss
from panoptube.losses.warp import occlusion_map, warping_loss
from panoptube.network.panoptic import OUTSIDE, panoptic_target
from panoptube.network.vpsnet import FrameTraining

STUFF, CLASSES = 2, 4
SIZE = (16, 24)
ALL = LossConfig(contrast_classes=1, contrast_instances=1, warp=1, tube=1)


def frame(things: dict[int, tuple[int, int, int]], seed: int = 0, void: int = 0) -> tuple[Any, FrameTargets]:
    """Stuff 0 over stuff 1; things by track id: label, left, width. `void` columns at the right."""
    semantic = torch.zeros(SIZE, dtype=torch.int64)
    semantic[8:] = 1
    masks = torch.zeros(len(things), *SIZE, dtype=torch.uint8)
    for mask, (label, left, width) in zip(masks, things.values()):
        mask[4:12, left : left + width] = 1
        semantic[mask.bool()] = STUFF - 1 + label
    if void:
        semantic[:, -void:] = 255
    truth = FrameTargets(
        boxes=torch.tensor([[x, 4.0, x + w - 1, 11.0] for _, x, w in things.values()]).reshape(-1, 4),
        labels=torch.tensor([label for label, _, _ in things.values()], dtype=torch.int64),
        masks=masks,
        track_ids=torch.tensor(list(things), dtype=torch.int64),
        semantic=semantic,
    )
    target = panoptic_target(semantic, masks, STUFF)
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(STUFF + len(things), 4, 6, generator=generator, dtype=torch.float32)
    training: Any = FrameTraining.__new__(FrameTraining)
    object.__setattr__(training, "panoptic", logits.requires_grad_())
    object.__setattr__(training, "panoptic_target", target)
    return training, truth


def pair(void: int = 0) -> tuple[tuple[Any, Any], tuple[FrameTargets, FrameTargets]]:
    """Things 7 and 9 are in both frames, in another order; 3 and 5 in one; 8 changes its class."""
    a = frame({7: (1, 0, 4), 3: (1, 4, 4), 9: (2, 8, 8), 8: (1, 16, 4)}, 1, void)
    b = frame({9: (2, 12, 4), 8: (2, 16, 4), 7: (1, 4, 4), 5: (2, 8, 4)}, 2, void)
    return (a[0], b[0]), (a[1], b[1])


def images(seed: int = 0) -> Tensor:
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def embeddings(seed: int = 0) -> Tensor:
    found = torch.randn(2, 8, 4, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(found, dim=1).requires_grad_()


def terms(options: SiameseConfig | None = None, weights: LossConfig = ALL, **given: Any) -> dict[str, Tensor]:
    frames, truths = given.pop("pair", None) or pair()
    inputs = {
        "embeddings": embeddings(),
        "images": images(),
        "flow": torch.zeros(2, *SIZE),
        "backward_flow": None,
    } | given
    return temporal(
        frames, truths, num_stuff=STUFF, weights=weights, options=options or SiameseConfig(), **inputs
    )


# --- which segments ---------------------------------------------------------------------------------------


def test_common_segments_by_hand() -> None:
    common = common_segments(*pair(), STUFF)
    assert common.stuff.tolist() == [0, 1]
    assert common.classes.tolist() == [0, 1, 2, 3]
    assert common.things.tolist() == [[0, 2], [2, 0]]  # 7 and 9; 8 has another class


def test_too_few_pixels_are_no_segment() -> None:
    """Thing 7 has 2 x 1 pixels at a quarter of the size, thing 9 has 2 x 2 and 2 x 1."""
    assert common_segments(*pair(), STUFF, least=2).things.tolist() == [[0, 2], [2, 0]]
    assert common_segments(*pair(), STUFF, least=3).things.tolist() == [[], []]


def test_a_thing_that_another_covers_is_not_seen() -> None:
    frames, truths = pair()
    covered = replace(truths[0], masks=truths[0].masks.clone())
    covered.masks[3] = covered.masks[0]  # drawn later, it takes all pixels of the first
    target = panoptic_target(covered.semantic, covered.masks, STUFF)
    object.__setattr__(frames[0], "panoptic_target", target)
    assert common_segments(frames, (covered, truths[1]), STUFF).things.tolist() == [[2], [0]]


def test_nothing_in_common() -> None:
    a, b = frame({7: (1, 0, 4)}, 1), frame({8: (1, 0, 4)}, 2)
    all_void = replace(b[1], semantic=torch.full(SIZE, 255), masks=torch.zeros_like(b[1].masks))
    object.__setattr__(b[0], "panoptic_target", torch.full((4, 6), 255))
    given = embeddings()
    found = terms(pair=((a[0], b[0]), (a[1], all_void)), embeddings=given)
    assert set(found) == {"contrast_classes", "contrast_instances", "warp", "tube"}
    assert found["contrast_classes"] == found["contrast_instances"] == found["tube"] == 0
    sum(found.values()).backward()
    assert given.grad is not None
    assert a[0].panoptic.grad is not None


# --- what is compared ---------------------------------------------------------------------------------------


def test_terms_are_the_losses_of_gathered_channels() -> None:
    frames, _ = pair()
    found = terms()
    logits = [frames[0].panoptic[[0, 1, 2, 4]], frames[1].panoptic[[0, 1, 4, 2]]]
    other = images()
    pictures = images_of(other, "unit")
    seen = occlusion_map(pictures[0], pictures[1]).reshape(4, 4, 6, 4)
    quarter = seen[:, 1:3, :, 1:3].mean((1, 3))  # bilinear at a quarter: the mean of the inner 2 x 2 pixels
    expected = warping_loss(logits[0], logits[1], torch.zeros(2, 4, 6), quarter)
    assert torch.allclose(found["warp"], expected, atol=1e-6)
    p = torch.stack(
        [frames[0].panoptic.softmax(0)[[0, 1, 2, 4]], frames[1].panoptic.softmax(0)[[0, 1, 4, 2]]]
    )
    g = torch.stack(
        [
            torch.stack([frames[0].panoptic_target == c for c in (0, 1, 2, 4)]),
            torch.stack([frames[1].panoptic_target == c for c in (0, 1, 4, 2)]),
        ]
    )
    assert torch.allclose(found["tube"], tube_matching_loss(p, g))


def test_contrast_pools_each_graph() -> None:
    frames, truths = pair()
    given = embeddings()
    found = terms(embeddings=given)

    def pooled(e: Tensor, mask: Tensor) -> Tensor:
        return torch.nn.functional.normalize(e[:, mask].mean(1), dim=0)

    classes = [
        torch.stack([pooled(given[i], truths[i].semantic[::4, ::4] == c) for c in range(CLASSES)])
        for i in (0, 1)
    ]
    assert torch.allclose(found["contrast_classes"], contrastive_loss(*classes), atol=1e-6)
    things = [
        torch.stack([pooled(given[i], frames[i].panoptic_target == STUFF + t) for t in ids])
        for i, ids in enumerate(([0, 2], [2, 0]))
    ]
    assert torch.allclose(found["contrast_instances"], contrastive_loss(*things), atol=1e-6)


def test_weights_scale_and_choose() -> None:
    half = terms(weights=LossConfig(warp=0.5, tube=2))
    whole = terms()
    assert list(half) == ["warp", "tube"]
    assert torch.allclose(half["warp"], whole["warp"] / 2)
    assert torch.allclose(half["tube"], whole["tube"] * 2)


def test_never_is_not_compared() -> None:
    """Outside its box a thing's logit counts as 0, however far from 0 it is."""
    frames, truths = pair()
    with torch.no_grad():
        frames[0].panoptic[2, :, 3:] = OUTSIDE
    changed = terms(pair=(frames, truths))["warp"]
    with torch.no_grad():
        frames[0].panoptic[2, :, 3:] = 0
    assert torch.allclose(terms(pair=(frames, truths))["warp"], changed)
    assert changed < 10


def test_unknown_flow_is_not_compared() -> None:
    flow = torch.full((2, *SIZE), torch.nan)
    assert terms(flow=flow)["warp"] == 0
    flow[:, :, :12] = 0
    assert 0 < terms(flow=flow)["warp"] < terms()["warp"]


def test_same_frame_is_the_best() -> None:
    (a, _), (truth, _) = pair()
    with torch.no_grad():
        a.panoptic.copy_(200.0 * (a.panoptic_target == torch.arange(len(a.panoptic))[:, None, None]))
    still = images()[:1].repeat(2, 1, 1, 1)
    found = terms(pair=((a, a), (truth, truth)), images=still)
    assert found["warp"].item() == pytest.approx(1e-3, rel=1e-3)  # the epsilon in the root
    assert found["tube"].item() == pytest.approx(0, abs=1e-5)


def test_back_and_forth_are_averaged() -> None:
    still = torch.zeros(2, *SIZE)
    forward = terms()["warp"]
    frames, truths = pair()
    turned = terms(pair=(frames[::-1], truths[::-1]), images=images().flip(0))["warp"]
    both = terms(SiameseConfig(warp_directions="both"), backward_flow=still)["warp"]
    assert torch.allclose(both, (forward + turned) / 2)


def test_stop_gradient() -> None:
    frames, truths = pair()
    terms(SiameseConfig(warp_stop=True), LossConfig(warp=1), pair=(frames, truths))["warp"].backward()
    assert frames[0].panoptic.grad is not None
    assert frames[1].panoptic.grad is None


@pytest.mark.parametrize(
    ("field", "value", "changing"),
    [
        ("renormalize", False, ""),  # the loss normalises in any case
        ("pooling", "area", "contrast_classes"),  # the things here lie on whole squares of 4 x 4
        ("instance_graph", "segments", "contrast_instances"),
        ("temperature", 0.1, "contrast_classes contrast_instances"),
        ("denominator", "printed", "contrast_classes contrast_instances"),
        ("alpha", 1.0, "warp"),
        ("occlusion_range", "normalised", "warp"),
        ("occlusion_norm", "squared", "warp"),
        ("occlusion_norm", "summed", "warp"),
        ("warp_norm", "squared", "warp"),
        ("warp_norm", "l1", "warp"),
        ("warp_norm", "mse", "warp"),
        ("warp_mean", "visible", "warp"),
        ("warp_mean", "sum", "warp"),
        ("warp_channels", "probabilities", "warp"),
        ("warp_channels", "stuff", "warp"),
        ("warp_border", "exclude", "warp"),
        ("tube_softmax", "common", "tube"),
        ("tube_segments", "things", "tube"),
        ("tube_void", True, "tube"),
        ("tube_epsilon", 5.0, "tube"),
    ],
)
def test_every_choice_changes_its_term_alone(field: str, value: Any, changing: str) -> None:
    flow = torch.full((2, *SIZE), 6.0)
    usual, other = (
        terms(SiameseConfig.model_validate(options), pair=pair(void=5), flow=flow)
        for options in ({"alpha": 0.1}, {"alpha": 0.1, field: value})
    )
    changed = {name for name in usual if not torch.allclose(usual[name], other[name], rtol=1e-5)}
    assert changed == set(changing.split())


def test_denormalised_images_are_the_originals() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (3, *SIZE)).astype(np.float32)
    normalised = (rgb - MEAN[:, None, None]) / STD[:, None, None]
    assert np.allclose(denormalize(torch.from_numpy(normalised)[None]).numpy()[0], rgb, atol=1e-3)
    assert np.allclose(images_of(torch.from_numpy(normalised), "unit").numpy(), rgb / 255, atol=1e-5)


def test_common_is_what_its_name_says() -> None:
    common = common_segments(*pair(), STUFF)
    assert isinstance(common, Common)
    assert common.things.dtype == common.stuff.dtype == torch.int64
