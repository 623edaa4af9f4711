"""Pairs of frames: what a training step gets, and how they are drawn from clips."""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from panoptube.config import DataConfig, RunConfig
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.clip import Clip, Image
from panoptube.data.copy_paste import Window, paste
from panoptube.data.datasets import read_dataset
from panoptube.data.transforms import Degradation, Geometry, Photometric, normalize
from panoptube.errors import UserError
from panoptube.flow.files import FlowField
from panoptube.flow.images import dis_image_flow
from panoptube.panoptic.frame import VOID, PanopticFrame, Taxonomy
from panoptube.panoptic.runs import find_runs

FIRST_TRAINING_SEED = 1_000_000
"""Streets with seeds below this are never trained on: they are for validation and tests."""
STREETS_AT_ONCE = 8
"""Streets that a stretch of consecutive pairs draws from; to set one up costs more than a frame of it."""
PAIRS_PER_STREET = 4
"""Pairs drawn from a street, on average, before it is replaced."""
STREET_FRAMES = 30
"""Length of a training street."""
MIN_PIXELS = 4
"""A thing with fewer pixels left in the crop has no box."""
MAX_DRAWS = 100
"""Draws in a row without things in both frames after which the data is called wrong."""


@dataclass(frozen=True)
class FrameTargets:
    """Truth of one frame as the network's losses want it.

    N: things with at least one pixel, in a fixed order. H, W: size of the frame.

    Attributes:
        boxes: (N, 4) float32, x1 y1 x2 y2 in pixels, inclusive ends (dossier 0.4).
        labels: (N,) int64, 1 .. number of thing classes; 0 is background.
        masks: (N, H, W) uint8, 0 or 1.
        track_ids: (N,) int64, > 0, the same object has the same id in both frames of a pair.
        semantic: (H, W) int64, class or 255.
        size: height, width without padding, which is at the bottom and on the right; None: there is none.

    Raises:
        ValueError: shapes don't agree.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor
    track_ids: Tensor
    semantic: Tensor
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        n, size = len(self.boxes), tuple(self.semantic.shape)
        wanted = {"boxes": (n, 4), "labels": (n,), "masks": (n, *size), "track_ids": (n,)}
        for name, shape in wanted.items():
            got = tuple(getattr(self, name).shape)
            if got != shape:
                raise ValueError(f"{name} must be {shape}, got {got}")

    def untrusted(self, num_stuff: int) -> Tensor:
        """(H, W) bool: void, and things without a mask (crowd): objects may be there that have no box."""
        nobody = (self.semantic >= num_stuff) & (self.semantic != VOID)
        if len(self.masks):
            nobody &= self.masks.amax(0) == 0
        return nobody | (self.semantic == VOID)

    def to(self, device: torch.device) -> FrameTargets:
        """The same on `device`."""
        return FrameTargets(
            self.boxes.to(device),
            self.labels.to(device),
            self.masks.to(device),
            self.track_ids.to(device),
            self.semantic.to(device),
            self.size,
        )


@dataclass(frozen=True)
class FramePair:
    """B pairs of frames (target, reference) of equal size.

    Attributes:
        images: (B, 2, 3, H, W) float32, RGB, normalised (dossier 2.1); [:, 0] target, [:, 1] reference.
        targets: per pair, truth of the target and of the reference frame.
        gaps: (B,) int64, frames from target to reference.
        flow: (B, 2, H, W) float32 pixels from target to reference, x first, nan where unknown; or None.
        backward_flow: the same from reference to target.

    Raises:
        ValueError: shapes don't agree.
    """

    images: Tensor
    targets: tuple[tuple[FrameTargets, FrameTargets], ...]
    gaps: Tensor
    flow: Tensor | None = None
    backward_flow: Tensor | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 5 or self.images.shape[1:3] != (2, 3):
            raise ValueError(f"images must be (B, 2, 3, H, W), got {tuple(self.images.shape)}")
        batch, size = len(self.images), tuple(self.images.shape[-2:])
        if len(self.targets) != batch or tuple(self.gaps.shape) != (batch,):
            raise ValueError(
                f"{batch} pairs of images, {len(self.targets)} of targets, gaps {tuple(self.gaps.shape)}"
            )
        for pair in self.targets:
            for frame in pair:
                if tuple(frame.semantic.shape) != size:
                    raise ValueError(f"images are {size}, a semantic map is {tuple(frame.semantic.shape)}")
        for flow in (self.flow, self.backward_flow):
            if flow is not None and tuple(flow.shape) != (batch, 2, *size):
                raise ValueError(f"flow must be {(batch, 2, *size)}, got {tuple(flow.shape)}")

    def to(self, device: torch.device) -> FramePair:
        """The same on `device`."""
        targets = tuple((a.to(device), b.to(device)) for a, b in self.targets)
        flows = (None if flow is None else flow.to(device) for flow in (self.flow, self.backward_flow))
        return FramePair(self.images.to(device), targets, self.gaps.to(device), *flows)


def frame_targets(
    truth: PanopticFrame, taxonomy: Taxonomy, size: tuple[int, int] | None = None
) -> FrameTargets:
    """A frame's truth as targets: one box, label, mask and track id per thing segment, by class, then id.

    Crowd (a thing class with id 0) and things of fewer than `MIN_PIXELS` pixels keep their class in the
    semantic map, which is true, and have no box; in the panoptic target such pixels are void (dossier 6.1).

    Args:
        truth: of the frame.
        taxonomy: of its classes.
        size: height, width without padding; None: there is none.
    """
    starts, lengths = find_runs(truth.semantic, truth.instance)
    semantic, instance = truth.semantic.reshape(-1)[starts], truth.instance.reshape(-1)[starts]
    thing = (instance > 0) & (semantic >= taxonomy.num_stuff) & (semantic != VOID)
    keys = semantic[thing].astype(np.int64) << 32 | instance[thing]
    top, left = np.divmod(starts[thing], truth.size[1])
    right = left + lengths[thing] - 1
    found, of = np.unique(keys, return_inverse=True)
    found = found[np.bincount(of, lengths[thing], len(found)) >= MIN_PIXELS]
    classes, ids = found >> 32, found & 0xFFFFFFFF
    masks = np.zeros((len(found), *truth.size), np.uint8)
    boxes = np.zeros((len(found), 4), np.float32)
    for mask, box, key, label, track in zip(masks, boxes, found, classes, ids):
        runs = keys == key
        box[:] = left[runs].min(), top[runs].min(), right[runs].max(), top[runs].max()
        x, y, x_end, y_end = box.astype(int)
        inside = np.s_[y : y_end + 1, x : x_end + 1]
        mask[inside] = (truth.instance[inside] == track) & (truth.semantic[inside] == label)
    return FrameTargets(
        boxes=torch.from_numpy(boxes),
        labels=torch.from_numpy(classes - taxonomy.num_stuff + 1),
        masks=torch.from_numpy(masks),
        track_ids=torch.from_numpy(ids),
        semantic=torch.from_numpy(truth.semantic.astype(np.int64)),
        size=size,
    )


def draw_pair(
    clip: Clip,
    t: int,
    gap: int,
    rng: np.random.Generator,
    config: DataConfig,
    flow_directions: int = 0,
    donor: tuple[Clip, int, int] | None = None,
) -> FramePair:
    """Frames t and t + gap with one random resize, crop and flip for both (dossier 10.1, 10.2).

    Colours change alike in both frames but for a tenth of `config.jitter` and for noise. Boxes are those of
    the masks that are left in the crop.

    Args:
        clip: has truth for both frames.
        t: target frame.
        gap: frames from target to reference.
        rng: where all draws come from.
        config: its size, fit, scale, jitter, degrade, joint_crop, exact_flow and flow_of are used.
        flow_directions: 0 for no flow, 1 for that from target to reference, 2 for that back as well: the
            clip's own, or that of DIS before the colours change. It changes nothing else.
        donor: another clip, target and gap, whose things are pasted in after a crop of their own.

    Returns:
        A batch of one.

    Raises:
        ValueError: a frame has no truth.
    """

    def geometry(of: Clip) -> Geometry:
        return Geometry.draw(rng, of.size, config.size, config.scale, config.fit)

    first = geometry(clip)
    colors = Photometric.draw(rng, config.jitter)
    shades = [colors.then(rng, config.jitter / 10)]
    second = first if config.joint_crop else geometry(clip)
    shades.append(colors.then(rng, config.jitter / 10))
    degradation = Degradation.draw(rng, config.degrade)
    window = cut_window(clip, (t, t + gap), (first, second), config, flow_directions)
    if donor is not None:
        other, other_t, other_gap = donor
        both = geometry(other)
        pasted = cut_window(other, (other_t, other_t + other_gap), (both, both), config, flow_directions)
        window = paste(window, pasted, clip.taxonomy, rng)
    images = [
        normalize(degradation(shade(crop), rng), config.size) for shade, crop in zip(shades, window.crops)
    ]
    targets = [
        frame_targets(truth, clip.taxonomy, (crop.shape[0], crop.shape[1]))
        for truth, crop in zip(window.truths, window.crops)
    ]
    return FramePair(
        torch.from_numpy(np.stack(images))[None],
        ((targets[0], targets[1]),),
        torch.tensor([gap]),
        *(torch.from_numpy(flow)[None] for flow in window.flows),
    )


def cut_window(
    clip: Clip,
    frames: tuple[int, int],
    geometries: tuple[Geometry, Geometry],
    config: DataConfig,
    flow_directions: int,
) -> Window:
    """Images, truth and flow of two frames, each cut by its geometry; flow needs one for both.

    Raises:
        ValueError: a frame has no truth.
    """
    crops: list[Image] = []
    truths: list[PanopticFrame] = []
    for frame, geometry in zip(frames, geometries):
        truth = clip.truth(frame)
        if truth is None:
            raise ValueError(f"clip {clip.name!r} has no truth for frame {frame}")
        crops.append(geometry.image(clip.image(frame)))
        truths.append(
            PanopticFrame(geometry.labels(truth.semantic, VOID), geometry.labels(truth.instance, 0))
        )
    orders = ((frames, crops), (frames[::-1], crops[::-1]))[:flow_directions]
    flows = tuple(pair_flow(clip, *order, geometries[0], images, config) for order, images in orders)
    return Window((crops[0], crops[1]), (truths[0], truths[1]), flows)


def pair_flow(
    clip: Clip, t: int, u: int, geometry: Geometry, crops: Sequence[Image], config: DataConfig
) -> NDArray[np.float32]:
    """Flow from the window of frame t to that of frame u, (2, h, w) float32, 0 in the padding.

    Args:
        crops: the two windows, which DIS sees if `config.flow_of` is "crop", where the clip has no flow or
            `config.exact_flow` is off.
    """
    if clip.read_flow is not None and config.exact_flow:
        return crop_flow(clip.read_flow(t, u), geometry)
    if config.flow_of == "frame":
        return crop_flow(dis_image_flow(clip.image(t), clip.image(u)), geometry)
    padded = np.zeros((2, *config.size), np.float32)
    padded[:, : crops[0].shape[0], : crops[0].shape[1]] = dis_image_flow(*crops).transpose(2, 0, 1)
    return padded


def crop_flow(flow: FlowField, geometry: Geometry) -> NDArray[np.float32]:
    """Flow between two frames -> between their windows.

    It grows with the frames and turns round with a flip. Each pixel has that of the nearest source pixel:
    between two motions lies no third one.

    Args:
        flow: (H, W, 2) float32 in pixels of the source.
        geometry: of both frames.

    Returns:
        (2, h, w) float32 in pixels of the window; 0 in the padding.
    """
    stretch = [scaled / source for scaled, source in zip(geometry.scaled[::-1], geometry.source[::-1])]
    if geometry.flip:
        stretch[0] = -stretch[0]
    axes = [geometry.labels(flow[..., i], 0) * np.float32(stretch[i]) for i in (0, 1)]
    return np.stack(axes).astype(np.float32)


def collate(pairs: Sequence[FramePair]) -> FramePair:
    """Batches of equal image size as one batch; flow only where all have it."""
    if len(pairs) == 1:
        return pairs[0]

    def joined(flows: Sequence[Tensor | None]) -> Tensor | None:
        known = [flow for flow in flows if flow is not None]
        return torch.cat(known) if len(known) == len(flows) else None

    return FramePair(
        images=torch.cat([pair.images for pair in pairs]),
        targets=tuple(targets for pair in pairs for targets in pair.targets),
        gaps=torch.cat([pair.gaps for pair in pairs]),
        flow=joined([pair.flow for pair in pairs]),
        backward_flow=joined([pair.backward_flow for pair in pairs]),
    )


class PairDataset(torch.utils.data.Dataset[FramePair]):
    """An endless sequence of training pairs; pair i depends on the configuration, the seed and i alone.

    So a run that goes on after a stop needs to know only how many pairs it has had, and processes can share
    the sequence out. A pair without things in one of its frames is drawn again (dossier 10.1).

    Streets: 32 consecutive pairs draw from the same 8 streets, then come 8 new ones. Videos: a clip is
    drawn in proportion to the square root of its labelled frames, so that long clips don't drown the
    others. What is pasted into a pair is drawn like a pair.

    Args:
        config: what is drawn.
        seed: of the run.
        flow_directions: which flow pairs have, as in `draw_pair`.

    Attributes:
        taxonomy: of all its clips.

    Raises:
        UserError: nothing to draw from, the dataset can't be read, or it has other classes than streets where
            both are drawn from.
    """

    def __init__(self, config: DataConfig, seed: int, flow_directions: int = 0) -> None:
        if config.streets + config.videos == 0:
            raise UserError("data.streets and data.videos are both 0; one must be above 0")
        if config.videos > 0 and config.root is None:
            raise UserError(
                f"data.videos is above 0 but data.root is not set; give the folder of {config.dataset}"
            )
        self.config, self.seed, self.flow_directions = config, seed, flow_directions
        self.clips: list[Clip] = []
        if config.videos > 0 and config.root is not None:
            self.clips = read_dataset(config.dataset, config.root, "train", config.sequences)
        self.taxonomy = self.clips[0].taxonomy if self.clips else CITYSCAPES
        if config.streets > 0 and self.taxonomy != CITYSCAPES:
            raise UserError(
                f"{config.dataset} has other classes than streets; set data.streets to 0, or data.videos"
            )

    def __getitem__(self, index: int) -> FramePair:
        rng = np.random.default_rng((self.seed, index))
        for _ in range(MAX_DRAWS):
            drawn = self._draw_frames(index, rng)
            if drawn is None:
                continue
            donor = None
            if self.config.paste and rng.random() < self.config.paste:
                donor = self._draw_frames(index, rng)
            pair = draw_pair(*drawn, rng, self.config, self.flow_directions, donor)
            if all(len(frame.labels) for frame in pair.targets[0]):
                return pair
        raise UserError(
            f"{MAX_DRAWS} pairs in a row had no things in a frame, or no labels; "
            f"check data.gaps {self.config.gaps} and the labels"
        )

    def _draw_frames(self, index: int, rng: np.random.Generator) -> tuple[Clip, int, int] | None:
        """A clip, a frame of it and the gap to its reference; None if that frame has none."""
        clip = self._draw_clip(index, rng)
        t, gap = int(rng.choice(clip.labelled)), int(rng.choice(self.config.gaps))
        u = reference_frame(clip, t, gap, self.config.gaps_in)
        return None if u is None else (clip, t, u - t)

    def _draw_clip(self, index: int, rng: np.random.Generator) -> Clip:
        videos = self.config.videos / (self.config.streets + self.config.videos)
        if rng.random() < videos:
            weights = np.sqrt([len(clip.labelled) for clip in self.clips])
            return self.clips[int(rng.choice(len(self.clips), p=weights / weights.sum()))]
        stretch = index // (STREETS_AT_ONCE * PAIRS_PER_STREET)
        number = stretch * STREETS_AT_ONCE + int(rng.integers(STREETS_AT_ONCE))
        return _training_street(self.seed, number, self.config.size, self.config.difficulty)


def reference_frame(clip: Clip, t: int, gap: int, gaps_in: str) -> int | None:
    """The frame with truth that is `gap` from labelled frame t, or else `-gap` (dossier 9.4, S1 and S2).

    Args:
        gaps_in: "frames", or "labels", which counts frames with truth.

    Returns:
        Its index, or None if the clip has neither.
    """
    for step in (gap, -gap):
        if gaps_in == "frames":
            if t + step in clip.labelled:
                return t + step
        else:
            place = clip.labelled.index(t) + step
            if 0 <= place < len(clip.labelled):
                return clip.labelled[place]
    return None


@lru_cache(maxsize=STREETS_AT_ONCE)
def _training_street(seed: int, number: int, size: tuple[int, int], difficulty: tuple[float, float]) -> Clip:
    from panoptube.data.streets import street_clip  # not needed where FramePair is all that is wanted

    rng = np.random.default_rng((seed, number))
    street = FIRST_TRAINING_SEED + int(rng.integers(2**31))
    return street_clip(street, frames=STREET_FRAMES, size=size, difficulty=float(rng.uniform(*difficulty)))


def load_batches(
    pairs: torch.utils.data.Dataset[FramePair], run: RunConfig, start: int, processes: int, rank: int
) -> Generator[tuple[FramePair, int], None, None]:
    """The batches of one process, without end, each with a seed for the samplers; close it when done.

    Batch number n holds the pairs n * batch, ..., n * batch + batch - 1; of R processes the one of rank r
    gets the batches r, R + r, 2 R + r, ... Pairs and seeds are the same whichever process has them, and
    whatever the number of workers.

    Args:
        pairs: by index.
        run: its `data.workers`, `train.batch` and `train.seed` are used.
        start: batches that this process has had already.
        processes: R.
        rank: r.

    Raises:
        UserError: as `pairs` does, also where a worker did.
    """
    size, seed = run.train.batch, run.train.seed
    numbers = range(start * processes + rank, 2**62, processes)
    loader = torch.utils.data.DataLoader(
        pairs,
        batch_sampler=(range(number * size, (number + 1) * size) for number in numbers),  # type: ignore[misc]
        num_workers=run.data.workers,
        collate_fn=collate,
        worker_init_fn=_start_worker,
        # Forked workers can't use the threads that the parent's OpenMP has started.
        multiprocessing_context="spawn" if run.data.workers else None,
        prefetch_factor=4 if run.data.workers else None,
    )
    try:
        for number, pair in zip(numbers, loader):
            yield pair, _sampling_seed(seed, number * size)
    except UserError as error:
        # A worker's error arrives with its traceback as text. Without its traceback here, the workers can go.
        message = str(error).strip().splitlines()[-1].split("UserError: ")[-1]
        raise UserError(message) from error.with_traceback(None)


def _sampling_seed(seed: int, index: int) -> int:
    """Of the samplers for the batch that begins with pair `index`: the same whichever process has it."""
    return int(np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0] >> 1)


def _start_worker(worker: int) -> None:
    # Ctrl-C reaches the workers, too; it is for the main process to stop them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    # A worker's last pair may still be on its way in a thread, which aborts if the interpreter ends under it.
    atexit.register(os._exit, 0)
