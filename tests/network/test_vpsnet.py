"""The whole network, tiny: gradients by name, batch norm, batches against single frames."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_network import TINY, tiny
from torch import Tensor, nn

from panoptube.config import LossConfig
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.pairs import FramePair, FrameTargets
from panoptube.losses.supervised import match_loss, supervised
from panoptube.network.boxes import random_choice
from panoptube.network.rpn import propose
from panoptube.network.semantic import full_size
from panoptube.network.vpsnet import Detections, FrameTraining, VPSNet

HEIGHT, WIDTH = 64, 128


def targets(boxes: list[list[int]], labels: list[int], ids: list[int]) -> FrameTargets:
    """Things that fill their boxes, on class 0; a strip of void."""
    masks = torch.zeros(len(boxes), HEIGHT, WIDTH, dtype=torch.uint8)
    semantic = torch.zeros(HEIGHT, WIDTH, dtype=torch.int64)
    for mask, (x1, y1, x2, y2), label in zip(masks, boxes, labels):
        mask[y1 : y2 + 1, x1 : x2 + 1] = 1
        semantic[y1 : y2 + 1, x1 : x2 + 1] = CITYSCAPES.num_stuff + label - 1
    semantic[-4:] = 255
    return FrameTargets(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        masks,
        torch.tensor(ids, dtype=torch.int64),
        semantic,
    )


NOTHING = targets([], [], [])
TWO = targets([[16, 16, 47, 47], [60, 10, 100, 50]], [3, 1], [5, 9])
ONE = targets([[64, 12, 104, 52]], [1], [9])


def pair(*pairs: tuple[FrameTargets, FrameTargets]) -> FramePair:
    images = torch.randn(len(pairs), 2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    return FramePair(images, pairs, torch.ones(len(pairs), dtype=torch.int64))


def backward(network: VPSNet, batch: FramePair) -> dict[str, float]:
    """One training step's gradients; returns the terms."""
    network.train()
    outputs = network.training_outputs(batch, random_choice(torch.Generator().manual_seed(0)))
    terms = supervised(outputs, LossConfig())
    sum(terms.values()).backward()
    return {name: term.item() for name, term in terms.items()}


@pytest.mark.parametrize(
    "pairs",
    [[(TWO, ONE)], [(NOTHING, NOTHING)], [(TWO, NOTHING)], [(NOTHING, TWO)], [(TWO, ONE), (NOTHING, ONE)]],
    ids=["things", "none", "none before", "none now", "batch"],
)
def test_every_trained_parameter_gets_a_gradient(pairs: list[tuple[FrameTargets, FrameTargets]]) -> None:
    network = tiny()
    terms = backward(network, pair(*pairs))
    assert all(torch.tensor(list(terms.values())).isfinite())
    missing = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    unwanted = [n for n, p in network.named_parameters() if not p.requires_grad and p.grad is not None]
    assert unwanted == []
    bad = [n for n, p in network.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    assert bad == []


def test_things_move_every_trained_parameter() -> None:
    network = tiny()
    terms = backward(network, pair((TWO, ONE)))
    assert min(terms.values()) > 0
    still = [n for n, p in network.named_parameters() if p.grad is not None and not (p.grad != 0).any()]
    assert still == []


def test_terms_about_things_are_zero_without_things() -> None:
    terms = backward(tiny(), pair((NOTHING, TWO)))
    assert {name for name, value in terms.items() if value == 0} == {"rpn_boxes", "boxes", "masks", "match"}


def test_timm_backbone_gets_every_gradient() -> None:
    network = tiny(backbone="timm:tf_efficientnet_lite0", frozen_stages=0)
    backward(network, pair((TWO, ONE)))
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


def test_batch_norm_stays_as_it_was() -> None:
    network = tiny()
    before = {name: value.clone() for name, value in network.named_buffers()}
    assert before
    backward(network, pair((TWO, ONE)))
    assert not any(m.training for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    assert network.semantic.training
    changed = [n for n, value in network.named_buffers() if not torch.equal(value, before[n])]
    assert changed == []


def test_targets_of_a_training_step() -> None:
    network = tiny().train()
    choose = random_choice(torch.Generator().manual_seed(0))
    (f,) = network.training_outputs(pair((TWO, ONE)), choose)
    assert f.semantic.shape == (19, HEIGHT, WIDTH)
    assert f.panoptic.shape == (11 + 2, HEIGHT // 4, WIDTH // 4)
    assert f.match.shape == (len(f.roi.truth), 1 + 1)
    # Object 5 isn't in the reference; object 9 is its first.
    assert f.match_target.tolist() == [{0: 0, 1: 1}[g] for g in f.roi.truth.tolist()]
    assert sorted(set(f.roi.truth.tolist())) == [0, 1]
    assert len(f.roi.labels) <= TINY.roi_samples
    assert len(f.rpn.positive) + len(f.rpn.negative) <= TINY.rpn_samples


def train_frame(
    network: VPSNet,
    truth: FrameTargets,
    size: tuple[int, int] | None = None,
    proposals: Tensor | None = None,
) -> FrameTraining:
    """What is trained on in one frame, whose size without padding is `size`."""
    pyramid = network.pair_pyramid(pair((truth, ONE)).images, None)
    semantic, rpn = network.semantic([level[:1] for level in pyramid]), network.rpn(pyramid)
    full, truth = full_size(semantic)[0], replace(truth, size=size)
    choose = random_choice(torch.Generator().manual_seed(0))
    return network.train_frame(pyramid, semantic, full, rpn, 0, 1, truth, ONE, choose, proposals)


def test_training_on_a_frame_with_padding() -> None:
    network, size = tiny(rpn_samples=10**6, roi_samples=10**6), (52, 110)
    network.rpn.deltas.bias.data += 1  # large boxes
    whole, cut = train_frame(network, TWO), train_frame(network, TWO, size=size)
    limit = torch.tensor([size[1] - 1, size[0] - 1])
    for f, inside in ((whole, False), (cut, True)):
        chosen = f.rpn.anchors[torch.cat([f.rpn.positive, f.rpn.negative])]
        assert bool((chosen[:, 2:] <= limit).all()) == inside
        assert bool((f.roi.boxes[:, 2:] <= limit).all()) == inside, "proposals are clipped"
    assert torch.equal(cut.semantic_target, TWO.semantic)


def test_legacy_padding_is_labelled_class_0() -> None:
    void = replace(TWO, semantic=torch.full((HEIGHT, WIDTH), 255), masks=torch.zeros_like(TWO.masks))
    for legacy, padding in ((False, 255), (True, 0)):
        f = train_frame(tiny(legacy=legacy), void, size=(40, 120))
        assert (f.semantic_target[:40, :120] == 255).all()
        assert (f.panoptic_target[:10, :30] == 255).all()
        for target, (height, width) in ((f.semantic_target, (40, 120)), (f.panoptic_target, (10, 30))):
            assert (target[height:] == padding).all()
            assert (target[:, width:] == padding).all()
    assert (void.semantic == 255).all(), "the truth itself stays"


def test_boxes_on_void_or_crowd_are_no_negatives() -> None:
    """Everything right of column 64 is void above and crowd below; by default boxes there are background."""
    semantic = torch.zeros(HEIGHT, WIDTH, dtype=torch.int64)
    semantic[:, 64:] = 255
    semantic[32:, 64:] = CITYSCAPES.index("person")
    truth = replace(NOTHING, semantic=semantic)
    proposals = torch.tensor([[70.0, 4, 99, 28], [70, 36, 99, 60], [4, 4, 40, 40]])
    for share, negatives in ((1.0, 3), (0.5, 1)):
        f = train_frame(tiny(ignore_untrusted=share, rpn_samples=10**6), truth, proposals=proposals)
        assert f.roi.boxes.tolist() == proposals[-negatives:].tolist()
        centers = (f.rpn.anchors[f.rpn.negative][:, 0] + f.rpn.anchors[f.rpn.negative][:, 2]) / 2
        assert bool((centers > 70).any()) == (share == 1)
        assert (f.panoptic_target[:, 16:] == 255).all(), "crowd is void there, too"
        assert torch.equal(f.semantic_target, semantic), "but its class is known"


@pytest.mark.parametrize(
    ("truth", "legacy", "compared"), [(ONE, False, 1), (ONE, True, 0), (TWO, False, 2), (TWO, True, 2)]
)
def test_legacy_leaves_out_the_match_of_a_lone_positive(
    truth: FrameTargets, legacy: bool, compared: int
) -> None:
    """The only box offered besides the true ones, which are their own positives, is far from them."""
    network = tiny(legacy=legacy)
    f = train_frame(network, truth, proposals=torch.tensor([[0.0, 0, 7, 7]]))
    assert len(f.roi.truth) == len(truth.boxes)
    assert (len(f.match), len(f.match_target)) == (compared, compared)
    loss = match_loss(f)
    assert (loss.item() > 0) == (compared > 0)
    loss.backward()
    assert network.matching is not None
    assert network.matching.fc1.weight.grad is not None, "a missing gradient can hang distributed training"


def test_reference_gives_only_objects_to_match() -> None:
    def terms(change: float) -> dict[str, float]:
        batch = pair((TWO, ONE))
        batch.images[:, 1] += change
        return backward(tiny(), batch)

    a, b = terms(0), terms(1)
    assert {name for name in a if a[name] != b[name]} == {"match"}


def sure(seed: int = 0) -> VPSNet:
    """A network that finds something: its class logits are far apart."""
    network = tiny(seed, score_threshold=0.3).double().eval()
    network.boxes.classes.weight.data *= 10
    return network


def frames(*seeds: int) -> Tensor:
    return torch.stack(
        [torch.randn(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(s)).double() for s in seeds]
    )


def assert_same(a: Detections, b: Detections) -> None:
    assert a.labels.tolist() == b.labels.tolist()
    for name in ("semantic", "boxes", "scores", "masks", "embeddings"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-5, atol=1e-5)


def test_detections_are_as_documented() -> None:
    (d,) = sure()(frames(0))
    n = len(d.labels)
    assert n > 1
    assert d.semantic.shape == (19, HEIGHT // 4, WIDTH // 4)
    assert [t.shape for t in (d.boxes, d.scores, d.masks, d.embeddings)] == [
        (n, 4),
        (n,),
        (n, 28, 28),
        (n, 16),
    ]
    assert (d.labels >= 1).all()
    assert (d.labels <= CITYSCAPES.num_things).all()
    assert (d.scores.diff() < 0).all()
    assert (d.scores > 0.3).all()
    assert (d.boxes >= 0).all()
    assert (d.boxes <= torch.tensor([WIDTH - 1, HEIGHT - 1] * 2)).all()


def test_equal_frames_of_a_batch_are_seen_alike() -> None:
    a, other, b = sure()(frames(3, 4, 3))
    assert_same(a, b)
    assert not torch.equal(a.semantic, other.semantic)


def test_batch_equals_one_by_one() -> None:
    network, images = sure(), frames(0, 1, 2)
    for together, image in zip(network(images), images):
        (alone,) = network(image[None])
        assert len(alone.labels) > 0
        assert_same(together, alone)


def test_given_proposals_replace_the_own() -> None:
    network, images = sure(), frames(0)
    pyramid = network.backbone(images)
    semantic, rpn = network.semantic(pyramid), network.rpn(pyramid)
    none = network.detect(pyramid, semantic, rpn, 0, proposals=torch.zeros(0, 4))
    assert [len(t) for t in (none.boxes, none.labels, none.masks, none.embeddings)] == [0, 0, 0, 0]


def test_proposals_are_clipped_to_the_frame_without_its_padding() -> None:
    network, images, size = sure(), frames(0, 1), (40, 100)
    pyramid = network.backbone(images)
    semantic, rpn = network.semantic(pyramid), network.rpn(pyramid)
    whole, cut = network(images), network(images, size)
    for i in (0, 1):
        own = propose(rpn, i, size, network.config.test_proposals)[:, :4]
        assert (own[:, 2] <= size[1] - 1).all()
        assert (own[:, 3] <= size[0] - 1).all()
        expected = network.detect(pyramid, semantic, rpn, i, own)
        assert len(expected.labels) > 0
        assert_same(cut[i], expected)
        assert whole[i].boxes.tolist() != cut[i].boxes.tolist()


def test_frame_without_detections() -> None:
    (d,) = tiny(score_threshold=0.99).eval()(frames(0).float())
    assert (d.boxes.shape, d.masks.shape, d.embeddings.shape) == ((0, 4), (0, 28, 28), (0, 16))
    (dummy,) = tiny(score_threshold=0.99, legacy=True).eval()(frames(0).float())
    assert (dummy.labels.tolist(), dummy.boxes.tolist(), dummy.scores.tolist()) == ([0], [[0, 0, 0, 0]], [1])
