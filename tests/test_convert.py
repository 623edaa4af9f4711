"""Names of the published checkpoint: one for each of our entries, and none left over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from panoptube.config import NetworkConfig
from panoptube.convert import published_name
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.network.vpsnet import vpsnet

PUBLISHED = {
    name: tuple(json.loads(shape))
    for name, shape in (
        line.split("\t")
        for line in (Path(__file__).parent / "data" / "state_dict_track.tsv").read_text().splitlines()
    )
}


def test_every_entry_has_its_own_name_and_shape() -> None:
    with torch.device("meta"):
        own = vpsnet(NetworkConfig(), CITYSCAPES).state_dict()
    names = {name: published_name(name) for name in own}
    assert len(set(names.values())) == len(names) == len(PUBLISHED) == 381
    assert set(names.values()) == set(PUBLISHED)
    wrong = {
        n: (tuple(own[n].shape), PUBLISHED[p])
        for n, p in names.items()
        if tuple(own[n].shape) != PUBLISHED[p]
    }
    assert wrong == {}


def test_number_of_values() -> None:
    """Dossier 1.1: 59 108 739 parameters and buffers."""
    with torch.device("meta"):
        own = vpsnet(NetworkConfig(), CITYSCAPES).state_dict()
    assert sum(value.numel() for value in own.values()) == 59_108_739


@pytest.mark.parametrize(
    "name", ["projection.fc1.weight", "net.backbone.body.conv1.weight", "backbone.conv1.weight"]
)
def test_names_that_are_not_ours(name: str) -> None:
    with pytest.raises(KeyError, match=name):
        published_name(name)
