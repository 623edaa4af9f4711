"""The configuration of a run: typed, a sentence per field, which is also the help of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pydantic
import yaml

from panoptube.errors import UserError


class _Config(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


MOST = 2**14
"""Of channels, proposals, or pixels along an edge; a file's configuration may say anything."""


class NetworkConfig(_Config):
    """VPSNet; the defaults are the published Track (dossier 2 to 7). Classes are the taxonomy's."""

    backbone: str = "resnet50"
    """A torchvision ResNet (resnet18, resnet50, ...) or timm:NAME, a timm backbone with strides 4 to 32."""
    channels: int = pydantic.Field(default=256, ge=8, le=MOST)
    """Channels of the feature pyramid and of the region proposal head."""
    semantic_channels: tuple[int, ...] = (256, 128, 128)
    """Channels after each deformable convolution of the semantic head; multiples of semantic_groups."""
    semantic_groups: int = pydantic.Field(default=32, ge=1)
    """Groups of the semantic head's group normalisation."""
    box_channels: int = pydantic.Field(default=1024, ge=8, le=MOST)
    """Width of the two fully connected layers of the box head."""
    mask_channels: int = pydantic.Field(default=256, ge=8, le=MOST)
    """Channels of the mask head."""
    mask_convs: int = pydantic.Field(default=4, ge=1, le=64)
    """3x3 convolutions of the mask head before its upsampling."""
    match_channels: int = pydantic.Field(default=1024, ge=0, le=MOST)
    """Width of the match head and of its embeddings; 0 for no match head, as in Fuse."""
    match_length: float = pydantic.Field(default=0.0, ge=0)
    """L2 norm that embeddings are brought to, so that their angles alone count; 0: as they are, published."""
    fuse: bool = False
    """Join the features of the frame before, warped by optical flow, as FuseTrack and Fuse do (dossier 8)."""
    frozen_stages: int = pydantic.Field(default=1, ge=0, le=4)
    """Stages of the backbone, after the stem, that are not trained; 0 trains the stem too."""
    train_proposals: int = pydantic.Field(default=2000, ge=1, le=MOST)
    """Proposals kept per level and in total in training."""
    test_proposals: int = pydantic.Field(default=1000, ge=1, le=MOST)
    """Proposals kept per level and in total in prediction."""
    rpn_samples: int = pydantic.Field(default=256, ge=2, le=MOST)
    """Anchors sampled per image for the loss, at most half of them positive."""
    roi_samples: int = pydantic.Field(default=512, ge=4, le=MOST)
    """Boxes sampled per image for the second stage, at most a quarter of them positive."""
    ignore_untrusted: float = pydantic.Field(default=1.0, ge=0, le=1)
    """A box of which more than this share is void or crowd is no negative; 1 samples them all."""
    score_threshold: float = pydantic.Field(default=0.6, ge=0, lt=1)
    """Detections need a class probability above this."""
    weak_threshold: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """With tracker motion, what is above this, but not above score_threshold, continues objects and starts
    none; 0: there is no such thing."""
    max_detections: int = pydantic.Field(default=100, ge=1, le=MOST)
    """Detections kept per frame."""
    stuff_area: float = pydantic.Field(default=1 / 1024, ge=0, lt=1)
    """Stuff that covers less of a frame, under legacy of 1024x2048 pixels, becomes void (dossier 6.3)."""
    void_below: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """What becomes void: where the best class has a smaller probability, on average around it; 0: nothing."""
    tracker: Literal["published", "motion"] = "published"
    """Which detection continues which object: as published, or one to one, where objects are going."""
    match_score: bool = True
    """Let the learned match score decide in the published tracker, too; off in the published tables."""
    test_size: tuple[int, int] = (1024, 2048)
    """Short and long edge that frames are brought to in prediction, keeping their shape."""
    legacy: bool = False
    """Behave as the published code does, defects included."""

    @pydantic.model_validator(mode="after")
    def _sizes_fit(self) -> NetworkConfig:
        if not 1 <= len(self.semantic_channels) <= 64 or any(
            not 1 <= c <= MOST or c % self.semantic_groups for c in self.semantic_channels
        ):
            raise ValueError(
                f"semantic_channels must be multiples of semantic_groups, {self.semantic_groups}, "
                f"got {str(self.semantic_channels)[:100]}"
            )
        if any(not 1 <= edge <= MOST for edge in self.test_size):
            raise ValueError(f"test_size is {self.test_size}; its edges are 1 to {MOST} pixels")
        if self.legacy and self.tracker != "published":
            raise ValueError(f"tracker is {self.tracker}; with legacy it is published")
        if self.weak_threshold and self.tracker != "motion":
            raise ValueError(f"weak_threshold needs tracker motion; tracker is {self.tracker}")
        if self.weak_threshold and self.weak_threshold >= self.score_threshold:
            raise ValueError(
                f"weak_threshold must be below score_threshold, {self.score_threshold}, "
                f"got {self.weak_threshold}"
            )
        return self

    @property
    def least_score(self) -> float:
        """Detections have a probability above this."""
        return self.weak_threshold or self.score_threshold


class DataConfig(_Config):
    """What is trained on."""

    streets: float = pydantic.Field(default=1.0, ge=0)
    """Share of pairs drawn from freshly drawn synthetic streets."""
    videos: float = pydantic.Field(default=0.0, ge=0)
    """Share of pairs drawn from the split "train" of `dataset`."""
    dataset: str = "labelled-video"
    """Its form: cityscapes-vps, viper, kitti-step, vipseg, coco-video, or labelled-video."""
    root: Path | None = None
    """Folder of the dataset; `panoptube prepare NAME --root .` shows what lies there."""
    sequences: Path | None = None
    """File that names the sequences of VIPER, one a line; None for all that are there."""
    size: tuple[int, int] = (256, 512)
    """Height and width of the training crop; multiples of 32."""
    fit: tuple[int, int] | None = None
    """Height and width that frames are fitted into at scale 1, aspect kept; None leaves their own size."""
    scale: tuple[float, float] = (0.8, 1.5)
    """Range of the random resize before the crop."""
    jitter: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Largest change of brightness, contrast and saturation, as a share; the published recipe has none."""
    degrade: float = pydantic.Field(default=0.0, ge=0, le=1)
    """Chance of each: another hue, no colour, blur, noise, and JPEG compression; alike in both frames."""
    paste: float = pydantic.Field(default=0.0, ge=0, le=1)
    """Chance that a pair gets things of another pair pasted in."""
    gaps: tuple[int, ...] = (-5, 5)
    """From target to reference, drawn evenly; where a clip has no such frame, the other sign."""
    gaps_in: Literal["frames", "labels"] = "frames"
    """Whether gaps count frames, or frames with truth, as they must where only some have it."""
    joint_crop: bool = True
    """One resize, crop and flip for both frames; False draws the reference's own (dossier 9.4, S25)."""
    exact_flow: bool = True
    """Take the flow that comes with the data, as with streets; False computes it there, too."""
    flow_of: Literal["crop", "frame"] = "crop"
    """Whether DIS sees the crops or the whole frames, where a pair needs flow that isn't there (S26)."""
    flownet2: Path | None = None
    """FlowNet2's weights: flow of the crops is then its own, on the training device, and no other is used."""
    difficulty: tuple[float, float] = (0.2, 0.8)
    """Range of the difficulty of streets."""
    workers: int = pydantic.Field(default=1, ge=0)
    """Processes that prepare pairs; 0 prepares them in the training process."""

    @pydantic.model_validator(mode="after")
    def _can_be_drawn(self) -> DataConfig:
        if any(edge < 32 or edge % 32 for edge in self.size):
            raise ValueError(f"size must be multiples of 32, got {self.size}")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be two factors above 0, the smaller first, got {self.scale}")
        if not self.gaps or 0 in self.gaps:
            raise ValueError(f"gaps must be one or more numbers other than 0, got {self.gaps}")
        return self


class LossConfig(_Config):
    """Weights of the loss terms (dossier 10.1)."""

    semantic: float = 1.0
    """Per-pixel class."""
    rpn_objectness: float = 1.0
    """Object or not, per anchor."""
    rpn_boxes: float = 1.0
    """Boxes of the anchors."""
    classes: float = 1.0
    """Class of the sampled boxes."""
    boxes: float = 1.0
    """Position of the sampled boxes."""
    masks: float = 1.0
    """Masks of the sampled boxes."""
    match: float = 0.5
    """Which reference object a box is."""
    panoptic: float = 0.5
    """Panoptic logits."""
    contrast_classes: float = 0.0
    """SiamTrack's L_contra_sem: a class alike in both frames, unlike others. The paper states no weight."""
    contrast_instances: float = 0.0
    """SiamTrack's L_contra_inst: a thing alike in both frames, unlike others. The paper states no weight."""
    warp: float = 0.0
    """SiamTrack's L_warp: logits move with the image. The paper states no weight."""
    tube: float = 0.0
    """SiamTrack's L_tube: one Dice score over both frames of a segment. The paper states no weight."""

    @property
    def contrast(self) -> bool:
        """Whether a term needs segment embeddings."""
        return self.contrast_classes > 0 or self.contrast_instances > 0

    @property
    def temporal(self) -> tuple[str, ...]:
        """Names of the terms that compare the two frames and have a weight."""
        names = ("contrast_classes", "contrast_instances", "warp", "tube")
        return tuple(name for name in names if getattr(self, name) > 0)


class SiameseConfig(_Config):
    """What SiamTrack does with the two frames; where the paper is silent, dossier 9.4 lists the choices."""

    both_frames: bool = False
    """Supervise the reference frame as the target (S3). With no temporal loss that is SiamTrack-Base."""
    match_both_ways: bool = False
    """Match the reference's boxes with the target's objects, too, and average (S4)."""
    start: int = pydantic.Field(default=0, ge=0)
    """Step from which on the temporal losses count (S24)."""
    least_pixels: int = pydantic.Field(default=1, ge=1)
    """Pixels at a quarter of the size that a segment has in both frames to be compared (S9)."""

    levels: int = pydantic.Field(default=5, ge=1, le=5)
    """Pyramid levels that the embeddings are made of, from P2 on (S5)."""
    resize: Literal["nearest", "bilinear"] = "nearest"
    """How coarser levels are brought to the size of P2 (S5)."""
    gather: Literal["sum", "mean"] = "sum"
    """How levels are joined (S5)."""
    projection: tuple[int, int] = (256, 256)
    """Channels after each convolution of the projection head (S6); the paper states none."""
    renormalize: bool = True
    """Bring pooled embeddings to length 1 (S7); the contrastive loss does it in any case."""
    pooling: Literal["subsample", "area"] = "subsample"
    """Masks at a quarter of the size: every fourth pixel, or shares of 4x4 pixels (S8)."""
    instance_graph: Literal["things", "segments"] = "things"
    """Whether the instance graph has stuff segments, too (S10)."""
    temperature: float = pydantic.Field(default=0.5, gt=0)
    """Of the contrastive loss (9.1)."""
    denominator: Literal["ntxent", "neg_only", "printed"] = "ntxent"
    """Which embeddings the contrastive loss compares an anchor with (9.2)."""

    alpha: float = pydantic.Field(default=50.0, ge=0)
    """How strict the occlusion map is."""
    occlusion_range: Literal["unit", "bytes", "normalised"] = "unit"
    """Images of the occlusion map: RGB in 0..1, in 0..255, or as the network sees them (S11)."""
    occlusion_norm: Literal["l2", "squared", "summed"] = "l2"
    """Difference of colours in the occlusion map: its length, that squared, or the sum's square (S12)."""
    warp_directions: Literal["forward", "both"] = "forward"
    """Warp the reference to the target, or also the target to the reference, and average (S13)."""
    warp_norm: Literal["l2", "squared", "l1", "mse"] = "l2"
    """Difference of logits over the channels (S14)."""
    warp_mean: Literal["pixels", "visible", "sum"] = "pixels"
    """Mean over all pixels, over those that aren't hidden, or a sum (S15)."""
    warp_channels: Literal["logits", "probabilities", "stuff"] = "logits"
    """Logits of stuff and common things, their probabilities, or logits of stuff alone (S16)."""
    warp_stop: bool = False
    """No gradient through the warped frame (S17)."""
    warp_border: Literal["clamp", "exclude"] = "clamp"
    """Places outside the other frame: its border, or not compared (S18)."""

    tube_softmax: Literal["all", "common"] = "all"
    """Softmax over all channels of a frame, or over those that both have (S19)."""
    tube_segments: Literal["all", "things"] = "all"
    """Whether stuff makes tubes, too (S20)."""
    tube_void: bool = False
    """Count void pixels as background (S21)."""
    tube_epsilon: float = pydantic.Field(default=1e-5, ge=0)
    """Added to the denominator (S22)."""


class TrainConfig(_Config):
    """The optimisation (dossier 10.1)."""

    steps: int = pydantic.Field(default=28_800, ge=1)
    """Optimiser steps."""
    batch: int = pydantic.Field(default=1, ge=1)
    """Pairs per process and forward pass."""
    accumulate: int = pydantic.Field(default=1, ge=1)
    """Forward passes whose gradients are averaged before a step."""
    optimizer: str = pydantic.Field(default="sgd", pattern="^(sgd|adamw)$")
    """sgd (momentum 0.9) or adamw."""
    lr: float = pydantic.Field(default=0.005, gt=0)
    """Learning rate after the warm-up."""
    lr_pairs: int = pydantic.Field(default=8, ge=1)
    """Pairs a step that `lr` is meant for; --dry-run says what another number needs, nothing is scaled."""
    weight_decay: float = pydantic.Field(default=1e-4, ge=0)
    """On every trained parameter."""
    warmup: int = pydantic.Field(default=500, ge=0)
    """Steps of linear warm-up from a third of the rate."""
    schedule: str = pydantic.Field(default="steps", pattern="^(steps|cosine)$")
    """steps: times 0.1 at each milestone; cosine: down to a hundredth at the end."""
    milestones: tuple[float, ...] = (8 / 12, 11 / 12)
    """Where the rate falls, as shares of `steps`."""
    clip: float = pydantic.Field(default=35.0, gt=0)
    """Largest L2 norm of the whole gradient."""
    seed: int = 0
    """Of weights, data and sampling."""
    precision: str = pydantic.Field(default="32-true", pattern="^(32-true|bf16-mixed)$")
    """32-true or bf16-mixed."""
    save_every: int = pydantic.Field(default=200, ge=1)
    """Steps between checkpoints."""
    validate_every: int = pydantic.Field(default=1000, ge=0)
    """Steps between validations (VPQ and pictures of a few held-out clips); 0 for none."""
    validation_clips: int = pydantic.Field(default=2, ge=1)
    """Clips of a validation."""


class RunConfig(_Config):
    """Everything that a training run depends on."""

    name: str
    """Of the run and of its weights."""
    network: NetworkConfig = NetworkConfig()
    data: DataConfig = DataConfig()
    loss: LossConfig = LossConfig()
    siamese: SiameseConfig = SiameseConfig()
    train: TrainConfig = TrainConfig()

    @pydantic.model_validator(mode="after")
    def _terms_can_be_had(self) -> RunConfig:
        if self.loss.temporal and not self.siamese.both_frames:
            raise ValueError(f"loss.{self.loss.temporal[0]} compares both frames; set siamese.both_frames")
        if self.siamese.both_frames and self.network.fuse:
            raise ValueError("network.fuse joins a frame with the one before; siamese.both_frames doesn't")
        if self.flow_directions and not self.data.joint_crop:
            raise ValueError("flow needs one crop for both frames; set data.joint_crop")
        return self

    @property
    def flow_directions(self) -> int:
        """Flow that a pair needs: 0 none, 1 from target to reference, 2 also back."""
        if self.loss.warp > 0 and self.siamese.warp_directions == "both":
            return 2
        return int(self.network.fuse or self.loss.warp > 0)

    def to_yaml(self) -> str:
        """As text that `from_yaml` reads back to an equal configuration."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    @classmethod
    def from_yaml(cls, text: str, source: str = "the configuration") -> RunConfig:
        """From `to_yaml`'s form; `source` names it in messages.

        Raises:
            UserError: not YAML, or a field is unknown or out of range.
        """
        try:
            data: Any = yaml.safe_load(text)
            return cls.model_validate(data)
        except yaml.YAMLError as error:
            raise UserError(f"{source} is not YAML: {' '.join(str(error).split())}") from error
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "top level"
            raise UserError(f"{source}: {where}: {first['msg'].removeprefix('Value error, ')}") from error
