"""SiamTrack's three losses on a network that isn't ours: torchvision's LR-ASPP, on a CPU, within a minute.

Trains it on pairs of street frames, with the losses and without, and prints all of them on other streets.

python examples/own_network.py [steps]
"""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from panoptube.data.streets import Street
from panoptube.losses.segment import contrastive_loss
from panoptube.losses.tube import tube_matching_loss
from panoptube.losses.warp import occlusion_map, warp_bilinear, warping_loss
from panoptube.panoptic.frame import VOID

Pair = tuple[Tensor, Tensor, Tensor, Tensor]


def street_pair(seed: int, gap: int, size: tuple[int, int]) -> Pair:
    """Images (2, 3, H, W) in [0, 1], classes and ids (2, H, W), and the flow (2, H, W) between the frames."""
    street = Street(seed, 1 + gap, size)
    images, frames = zip(*(street.render(t) for t in (0, gap)))
    return (
        torch.stack([torch.from_numpy(image).permute(2, 0, 1) / 255 for image in images]),
        torch.stack([torch.from_numpy(frame.semantic).long() for frame in frames]),
        torch.stack([torch.from_numpy(frame.instance).long() for frame in frames]),
        torch.from_numpy(street.flow(0, gap)).permute(2, 0, 1),
    )


def common_masks(labels: Tensor, background: int) -> tuple[Tensor, Tensor]:
    """(2, H, W) -> the N labels that both frames show, less the background, and their masks (2, N, H, W)."""
    first, second = (frame.unique() for frame in labels)
    common = first[torch.isin(first, second) & (first != background)]
    return common, (labels[:, None] == common[:, None, None]).float()


class Siamese(nn.Module):
    """Any network with features and logits. The head makes embeddings, which only training needs."""

    def __init__(self) -> None:
        super().__init__()
        self.network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=19)
        self.head = nn.Sequential(nn.Conv2d(40, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1))

    def losses(self, images: Tensor, classes: Tensor, ids: Tensor, flow: Tensor) -> dict[str, Tensor]:
        features = self.network.backbone(images)
        logits = F.interpolate(self.network.classifier(features), size=images.shape[2:], mode="bilinear")
        embeddings = self.head(features["low"])
        shown, class_masks = common_masks(classes, background=VOID)
        _, thing_masks = common_masks(ids, background=0)

        contrast = torch.zeros(())
        for masks in (class_masks, thing_masks):  # a segment's embedding: the sum over its mask
            masks = F.interpolate(masks, size=embeddings.shape[2:], mode="area")
            target, reference = torch.einsum("fdhw,fnhw->fnd", embeddings, masks)
            contrast = contrast + contrastive_loss(target, reference)
        visible = occlusion_map(images[0], warp_bilinear(images[1], flow))
        warp = warping_loss(logits[0], logits[1], flow, visible)
        tube = tube_matching_loss(logits.softmax(1)[:, shown], class_masks, classes != VOID)
        supervised = F.cross_entropy(logits, classes, ignore_index=VOID)
        return {"cross-entropy": supervised, "contrast": contrast, "warp": warp, "tube": tube}


def main(steps: int = 40, size: tuple[int, int] = (96, 192), streets: int = 8) -> None:
    pairs = [street_pair(seed, gap, size) for seed in range(streets) for gap in (3, 6)]
    others = [street_pair(seed, 4, size) for seed in range(1000, 1000 + streets // 2)]
    for title, weight in (("with the three losses", 1.0), ("without them", 0.0)):
        torch.manual_seed(0)
        model = Siamese()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        print(f"{title}, on {len(others)} pairs of other streets:")
        for step in range(steps + 1):
            if step % max(steps // 4, 1) == 0:
                with torch.no_grad():  # batch norm still trains: its averages are too young
                    found = [model.losses(*pair) for pair in others]
                means = {name: sum(f[name].item() for f in found) / len(found) for name in found[0]}
                print(f"  step {step:3}", *(f"  {name} {mean:.3f}" for name, mean in means.items()))
            terms = model.losses(*pairs[step % len(pairs)])
            loss = terms["cross-entropy"] + weight * (terms["contrast"] + terms["warp"] + terms["tube"])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
