"""What one training step computes: network over one or both frames of the pairs, then every loss by name."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from panoptube.config import RunConfig
from panoptube.data.pairs import FramePair
from panoptube.losses.supervised import match_term, supervised
from panoptube.losses.temporal import denormalize, temporal
from panoptube.network.boxes import Choose, random_choice
from panoptube.network.projection import ProjectionHead
from panoptube.network.semantic import full_size
from panoptube.network.vpsnet import FrameTraining, VPSNet


class TrainingStep(nn.Module):
    """Network and losses as one module, so that gradients are averaged over processes when its terms are.

    The projection head is trained with the network and kept in checkpoints; weights files don't have it.

    Args:
        network: what is trained.
        run: its loss and siamese parts are used.
        flow: computes flow from image to reference, (B, 3, H, W) RGB 0..255 each, for pairs that come
            without; not trained.
    """

    def __init__(self, network: VPSNet, run: RunConfig, flow: nn.Module | None = None) -> None:
        super().__init__()
        self.network, self.run = network, run
        self.projection: ProjectionHead | None = None
        if run.loss.contrast:
            options = run.siamese
            self.projection = ProjectionHead(
                run.network.channels, options.projection, options.levels, options.resize, options.gather
            )
        # In a tuple, so that it is no part of the module: it has no gradient, and no place in a checkpoint.
        self._flow = (flow,)

    def forward(self, pair: FramePair, seed: int, step: int = 0) -> dict[str, Tensor]:
        """Weighted terms by name, each ().

        Args:
            pair: B pairs.
            seed: decides which anchors and boxes are sampled.
            step: counted from 0; temporal terms count from `siamese.start` on.
        """
        choose = random_choice(torch.Generator().manual_seed(seed))
        pair = self._with_flow(pair)
        if self.run.siamese.both_frames:
            return self._siamese(pair, choose, step)
        return supervised(self.network.training_outputs(pair, choose), self.run.loss)

    def _siamese(self, pair: FramePair, choose: Choose, step: int) -> dict[str, Tensor]:
        """Both frames supervised, then what compares them (dossier 9.5)."""
        run, count = self.run, len(pair.images)
        pyramid = self.network.pair_pyramid(pair.images, None)
        frames = self._both_frames(pair, pyramid, choose)
        terms = supervised(frames, run.loss)
        if not run.siamese.match_both_ways:
            terms["match"] = match_term(frames[:count], run.loss)
        if not run.loss.temporal:
            return terms
        embeddings = None if self.projection is None else self.projection(pyramid)
        for i in range(count):
            compared = temporal(
                (frames[i], frames[count + i]),
                pair.targets[i],
                None if embeddings is None else embeddings[[i, count + i]],
                pair.images[i],
                None if pair.flow is None else pair.flow[i],
                None if pair.backward_flow is None else pair.backward_flow[i],
                self.network.taxonomy.num_stuff,
                run.loss,
                run.siamese,
            )
            started = float(step >= run.siamese.start)
            for name, term in compared.items():
                terms[name] = terms.get(name, 0) + term * started / count
        return terms

    def _both_frames(self, pair: FramePair, pyramid: list[Tensor], choose: Choose) -> list[FrameTraining]:
        """Predictions and targets of all target frames, then of all reference frames."""
        count = len(pair.images)
        truths = [target for target, _ in pair.targets] + [reference for _, reference in pair.targets]
        semantic, rpn = self.network.semantic(pyramid), self.network.rpn(pyramid)
        return [
            self.network.train_frame(
                pyramid,
                semantic,
                full_size(semantic[i : i + 1])[0],
                rpn,
                i,
                (i + count) % (2 * count),
                truths[i],
                truths[(i + count) % (2 * count)],
                choose,
            )
            for i in range(2 * count)
        ]

    def _with_flow(self, pair: FramePair) -> FramePair:
        """The pair, with the flow that the run needs and the data didn't bring."""
        (network,) = self._flow
        if network is None or self.run.flow_directions == 0:
            return pair
        first, second = denormalize(pair.images).unbind(1)
        with torch.no_grad():
            flow = network(first, second)
            back = network(second, first) if self.run.flow_directions == 2 else None
        return FramePair(pair.images, pair.targets, pair.gaps, flow, back)
