"""Named runs: functions that return a whole configuration; a variant calls another and changes fields."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from panoptube.config import DataConfig, LossConfig, NetworkConfig, RunConfig, SiameseConfig, TrainConfig
from panoptube.errors import UserError

TEMPORAL = {"contrast_classes": 1.0, "contrast_instances": 1.0, "warp": 1.0, "tube": 1.0}
"""Weights of SiamTrack's losses; the paper states none (dossier 9.4, S23)."""

FOR_ANYBODY = {"void_below": 0.55, "tracker": "motion", "weak_threshold": 0.3}
"""Of weights for anybody's video: what each costs on streets and gains elsewhere is in docs/weights.md."""


def track() -> RunConfig:
    """VPSNet-Track as published for Cityscapes-VPS (dossier 10.1 to 10.3): one pair on each of 8 GPUs.

    Set data.root to the folder of Cityscapes-VPS; its adjacent labelled frames are 5 frames apart.
    """
    return RunConfig(
        name="track",
        data=DataConfig(
            streets=0,
            videos=1,
            dataset="cityscapes-vps",
            size=(800, 1600),
            fit=(1024, 2048),
            gaps=(-5, 5),
            workers=4,
        ),
    )


def fusetrack() -> RunConfig:
    """VPSNet-FuseTrack as published for Cityscapes-VPS (dossier 10.3), but with DIS flow, not FlowNet2's.

    As `track`; give the weights of a run of `fuse` to start from.
    """
    run = track()
    return run.model_copy(
        update={"name": "fusetrack", "network": run.network.model_copy(update={"fuse": True})}
    )


def fuse() -> RunConfig:
    """FuseTrack without a match head, its start: as published for Cityscapes (dossier 10.3), 24 x 8 passes.

    It was trained on single labelled images and their neighbours; here on the pairs of `track`.
    """
    run = fusetrack()
    return run.model_copy(
        update={
            "name": "fuse",
            "network": run.network.model_copy(update={"match_channels": 0}),
            "train": run.train.model_copy(update={"steps": 57_600, "milestones": (16 / 24, 22 / 24)}),
        }
    )


def siamtrack_base() -> RunConfig:
    """SiamTrack-Base for Cityscapes-VPS: `track` with both frames supervised, and no loss between them.

    The gap is two labelled frames, ten of the video; the paper states it for VIPER alone (dossier 9.4, S2).
    """
    run = track()
    return run.model_copy(
        update={
            "name": "siamtrack-base",
            "data": run.data.model_copy(update={"gaps": (-2, 2), "gaps_in": "labels"}),
            "siamese": SiameseConfig(both_frames=True),
        }
    )


def siamtrack() -> RunConfig:
    """VPSNet-SiamTrack for Cityscapes-VPS: `siamtrack-base` with all losses between the frames.

    The paper states neither weights nor schedule: 1, and those of `track`. It takes flow from FlowNet2; set
    data.flownet2, or it is DIS.
    """
    run = siamtrack_base()
    return run.model_copy(update={"name": "siamtrack", "loss": run.loss.model_copy(update=TEMPORAL)})


def on_viper(run: RunConfig) -> RunConfig:
    """A recipe for VIPER at its own size, with the gap of 10 frames that the paper states (dossier 10.4)."""
    data = {"dataset": "viper", "fit": (1080, 1920), "gaps": (-10, 10), "gaps_in": "frames"}
    return run.model_copy(
        update={
            "name": f"{run.name}-viper",
            "network": run.network.model_copy(update={"test_size": (1080, 1920)}),
            "data": run.data.model_copy(update=data),
        }
    )


def track_viper() -> RunConfig:
    """`track` on VIPER, where published chains begin; set data.root and data.sequences."""
    return on_viper(track())


def fusetrack_viper() -> RunConfig:
    """`fusetrack` on VIPER; set data.root and data.sequences."""
    return on_viper(fusetrack())


def fuse_viper() -> RunConfig:
    """`fuse` on VIPER, the start of `fusetrack-viper` and of `fuse`; set data.root and data.sequences."""
    return on_viper(fuse())


def siamtrack_base_viper() -> RunConfig:
    """`siamtrack-base` on VIPER; set data.root and data.sequences."""
    return on_viper(siamtrack_base())


def siamtrack_viper() -> RunConfig:
    """`siamtrack` on VIPER, table 1 of the paper; set data.root and data.sequences."""
    return on_viper(siamtrack())


def siamtrack_8gb() -> RunConfig:
    """`siamtrack` on smaller crops in mixed precision, eight passes a step: for a GPU of 8 GB."""
    run = siamtrack()
    return run.model_copy(
        update={
            "name": "siamtrack-8gb",
            "network": run.network.model_copy(update={"train_proposals": 1000, "roi_samples": 256}),
            "data": run.data.model_copy(update={"size": (384, 768), "scale": (0.4, 0.75)}),
            "train": run.train.model_copy(update={"precision": "bf16-mixed", "accumulate": 8}),
        }
    )


def tiny_streets() -> RunConfig:
    """A small VPSNet-Track for the CPU, trained on synthetic streets alone: nothing to download."""
    return RunConfig(
        name="tiny-streets",
        network=NetworkConfig(
            backbone="timm:tf_efficientnet_lite0",
            channels=64,
            semantic_channels=(64, 64),
            semantic_groups=8,
            box_channels=256,
            mask_channels=64,
            mask_convs=2,
            match_channels=128,
            frozen_stages=0,
            train_proposals=500,
            test_proposals=200,
            rpn_samples=128,
            roi_samples=128,
            score_threshold=0.5,
            stuff_area=1 / 8192,
            test_size=(384, 512),
        ),
        data=DataConfig(gaps=(-5, -4, -3, -2, -1, 1, 2, 3, 4, 5), jitter=0.25, workers=0),
        loss=LossConfig(),
        train=TrainConfig(
            steps=3600,
            optimizer="adamw",
            lr=6e-4,
            lr_pairs=2,
            weight_decay=0.01,
            warmup=300,
            schedule="cosine",
        ),
    )


def tiny() -> RunConfig:
    """Two pairs of streets for each of a labelled video; `streets-real` goes on from its weights.

    Set data.root to the labelled videos.
    """
    streets = tiny_streets()
    data = streets.data.model_copy(update={"videos": 0.5})
    network = streets.network.model_copy(update=FOR_ANYBODY)
    return streets.model_copy(update={"name": "tiny", "data": data, "network": network})


def tiny_fusetrack_streets() -> RunConfig:
    """`tiny-streets` with the fuse neck; the streets' flow is exact."""
    run = tiny_streets()
    network = run.network.model_copy(update={"fuse": True})
    return run.model_copy(update={"name": "tiny-fusetrack-streets", "network": network})


def tiny_siamtrack_base_streets() -> RunConfig:
    """`tiny-streets` with both frames supervised, ten frames apart."""
    run = tiny_streets()
    return run.model_copy(
        update={
            "name": "tiny-siamtrack-base-streets",
            "data": run.data.model_copy(update={"gaps": (-10, 10)}),
            "siamese": SiameseConfig(both_frames=True, projection=(64, 64)),
        }
    )


def tiny_siamtrack_streets() -> RunConfig:
    """`tiny-siamtrack-base-streets` with all losses between the frames; the streets' flow is exact."""
    run = tiny_siamtrack_base_streets()
    return run.model_copy(
        update={"name": "tiny-siamtrack-streets", "loss": run.loss.model_copy(update=TEMPORAL)}
    )


def streets_real() -> RunConfig:
    """SiamTrack on streets and labelled real videos, ten to seven, for labels that aren't exact.

    Goes on from weights of `tiny`, and made the weights that come with panoptube. Set data.root to the
    labelled videos; their flow is computed by DIS.
    """
    run = tiny_siamtrack_streets()
    data = {
        "videos": 0.7,
        "size": (256, 448),
        "scale": (0.6, 1.6),
        "jitter": 0.35,
        "degrade": 0.15,
        "paste": 0.4,
    }
    network = {"ignore_untrusted": 0.5, "match_length": 3.0, **FOR_ANYBODY}
    train = {"steps": 1800, "lr": 3e-4, "lr_pairs": 2, "warmup": 50}
    return run.model_copy(
        update={
            "name": "streets-real",
            "network": run.network.model_copy(update=network),
            "data": run.data.model_copy(update={**data, "gaps": tiny_streets().data.gaps}),
            "loss": run.loss.model_copy(update={"warp": 0.1, "match": 1.0}),
            "train": run.train.model_copy(update=train),
        }
    )


RECIPES: dict[str, Callable[[], RunConfig]] = {
    "track": track,
    "fusetrack": fusetrack,
    "fuse": fuse,
    "siamtrack-base": siamtrack_base,
    "siamtrack": siamtrack,
    "siamtrack-8gb": siamtrack_8gb,
    "track-viper": track_viper,
    "fusetrack-viper": fusetrack_viper,
    "fuse-viper": fuse_viper,
    "siamtrack-base-viper": siamtrack_base_viper,
    "siamtrack-viper": siamtrack_viper,
    "tiny": tiny,
    "tiny-streets": tiny_streets,
    "tiny-fusetrack-streets": tiny_fusetrack_streets,
    "tiny-siamtrack-base-streets": tiny_siamtrack_base_streets,
    "tiny-siamtrack-streets": tiny_siamtrack_streets,
    "streets-real": streets_real,
}
"""By the name that the command line takes."""


def load_run(name: str | Path) -> RunConfig:
    """The recipe of that name, or the configuration in that YAML file (as a run's folder holds it).

    Raises:
        UserError: no such recipe or file, or the file is not a configuration.
    """
    if str(name) in RECIPES:
        return RECIPES[str(name)]()
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        try:
            return RunConfig.from_yaml(path.read_text(), str(path))
        except OSError as error:
            raise UserError(
                f"can't read {path}: {error.strerror}; give a recipe ({', '.join(RECIPES)}) or a YAML file"
            ) from error
    close = difflib.get_close_matches(str(name), RECIPES, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(RECIPES)}, or give a .yaml file"
    raise UserError(f"no recipe {str(name)!r}; {hint}")
