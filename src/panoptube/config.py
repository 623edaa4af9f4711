"""The configuration of a run: typed, a sentence per field, which is also the help of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic
import yaml

from panoptube.errors import UserError


class _Config(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class NetworkConfig(_Config):
    """VPSNet; the defaults are the published Track (dossier 2 to 7). Classes are the taxonomy's."""

    backbone: str = "resnet50"
    """A torchvision ResNet (resnet18, resnet50, ...) or timm:NAME, a timm backbone with strides 4 to 32."""
    channels: int = pydantic.Field(default=256, ge=8)
    """Channels of the feature pyramid and of the region proposal head."""
    semantic_channels: tuple[int, ...] = (256, 128, 128)
    """Channels after each deformable convolution of the semantic head; multiples of semantic_groups."""
    semantic_groups: int = pydantic.Field(default=32, ge=1)
    """Groups of the semantic head's group normalisation."""
    box_channels: int = pydantic.Field(default=1024, ge=8)
    """Width of the two fully connected layers of the box head."""
    mask_channels: int = pydantic.Field(default=256, ge=8)
    """Channels of the mask head."""
    mask_convs: int = pydantic.Field(default=4, ge=1)
    """3x3 convolutions of the mask head before its upsampling."""
    match_channels: int = pydantic.Field(default=1024, ge=0)
    """Width of the match head and length of its embeddings; 0 for no match head, as in Fuse."""
    fuse: bool = False
    """Join the features of the frame before, warped by optical flow, as FuseTrack and Fuse do (dossier 8)."""
    frozen_stages: int = pydantic.Field(default=1, ge=0, le=4)
    """Stages of the backbone, after the stem, that are not trained; 0 trains the stem too."""
    train_proposals: int = pydantic.Field(default=2000, ge=1)
    """Proposals kept per level and in total in training."""
    test_proposals: int = pydantic.Field(default=1000, ge=1)
    """Proposals kept per level and in total in prediction."""
    rpn_samples: int = pydantic.Field(default=256, ge=2)
    """Anchors sampled per image for the loss, at most half of them positive."""
    roi_samples: int = pydantic.Field(default=512, ge=4)
    """Boxes sampled per image for the second stage, at most a quarter of them positive."""
    score_threshold: float = pydantic.Field(default=0.6, ge=0, lt=1)
    """Detections need a class probability above this."""
    max_detections: int = pydantic.Field(default=100, ge=1)
    """Detections kept per frame."""
    stuff_area: float = pydantic.Field(default=1 / 1024, ge=0, lt=1)
    """Stuff that covers less of a frame becomes void; 2048 pixels of 1024x2048 (dossier 6.3)."""
    test_size: tuple[int, int] = (1024, 2048)
    """Short and long edge that frames are brought to in prediction, keeping their shape."""
    legacy: bool = False
    """Behave as the published code does, defects included."""

    @pydantic.model_validator(mode="after")
    def _groups_fit(self) -> NetworkConfig:
        if not self.semantic_channels or any(
            c < 1 or c % self.semantic_groups for c in self.semantic_channels
        ):
            raise ValueError(
                f"semantic_channels must be multiples of semantic_groups, {self.semantic_groups}, "
                f"got {self.semantic_channels}"
            )
        return self


class DataConfig(_Config):
    """What is trained on."""

    streets: float = pydantic.Field(default=1.0, ge=0)
    """Share of pairs drawn from freshly drawn synthetic streets."""
    videos: float = pydantic.Field(default=0.0, ge=0)
    """Share of pairs drawn from the labelled videos in `root`."""
    root: Path | None = None
    """Folder of labelled videos: <clip>/img/*.jpg|png, <clip>/label/*.png; splits in index.json."""
    size: tuple[int, int] = (256, 512)
    """Height and width of the training crop; multiples of 32."""
    fit: tuple[int, int] | None = None
    """Height and width that frames are fitted into at scale 1, aspect kept; None leaves their own size."""
    scale: tuple[float, float] = (0.8, 1.5)
    """Range of the random resize before the crop."""
    jitter: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Largest change of brightness, contrast and saturation, as a share; the published recipe has none."""
    gaps: tuple[int, ...] = (-5, 5)
    """Frames from target to reference, drawn evenly."""
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
            raise ValueError(f"gaps must be one or more numbers of frames other than 0, got {self.gaps}")
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
    train: TrainConfig = TrainConfig()

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
