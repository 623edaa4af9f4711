"""Other projects' checkpoints -> panoptube's weights files (dossier section 12).

Read are checkpoints of the published VPSNet code (Track, FuseTrack, Fuse; Cityscapes or VIPER), FlowNet2, and
torchvision's Mask R-CNN of COCO as a start for training. This is the one place that knows their names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

from panoptube.config import NetworkConfig, RunConfig
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.viper import VIPER
from panoptube.errors import UserError
from panoptube.flow.flownet2 import FlowNet2
from panoptube.network.rpn import RATIOS, SCALE
from panoptube.network.vpsnet import VPSNet, vpsnet
from panoptube.network.weights import save_weights, write_safetensors
from panoptube.panoptic.frame import Taxonomy

State = dict[str, Tensor]

VIPER_SIZE = (1080, 1920)
"""Its frames are labelled at their own size (dossier 2.1)."""

MAX_LINES = 20
"""Entries that don't fit are listed up to this many."""

_RULES: tuple[tuple[str, str], ...] = (
    (r"^backbone\.body\.", "backbone."),
    (r"^backbone\.lateral\.(\d)\.", r"neck.lateral_convs.\1.conv."),
    (r"^backbone\.output\.(\d)\.", r"neck.fpn_convs.\1.conv."),
    (r"^semantic\.blocks\.0\.conv\.offset\.", "panopticFPN.deform_convs.0.0.conv_offset."),
    (r"^semantic\.blocks\.1\.conv\.offset\.", "panopticFPN.deform_convs.0.3.conv_offset."),
    (r"^semantic\.blocks\.2\.conv\.offset\.", "panopticFPN.deform_convs.0.6.conv_offset."),
    (r"^semantic\.blocks\.0\.conv\.weight", "panopticFPN.deform_convs.0.0.conv.weight"),
    (r"^semantic\.blocks\.1\.conv\.weight", "panopticFPN.deform_convs.0.3.conv.weight"),
    (r"^semantic\.blocks\.2\.conv\.weight", "panopticFPN.deform_convs.0.6.conv.weight"),
    (r"^semantic\.blocks\.0\.norm\.", "panopticFPN.deform_convs.0.1."),
    (r"^semantic\.blocks\.1\.norm\.", "panopticFPN.deform_convs.0.4."),
    (r"^semantic\.blocks\.2\.norm\.", "panopticFPN.deform_convs.0.7."),
    (r"^semantic\.logits\.", "panopticFPN.conv_pred.conv."),
    (r"^rpn\.conv\.", "rpn_head.rpn_conv."),
    (r"^rpn\.objectness\.", "rpn_head.rpn_cls."),
    (r"^rpn\.deltas\.", "rpn_head.rpn_reg."),
    (r"^boxes\.fc1\.", "bbox_head.shared_fcs.0."),
    (r"^boxes\.fc2\.", "bbox_head.shared_fcs.1."),
    (r"^boxes\.classes\.", "bbox_head.fc_cls."),
    (r"^boxes\.deltas\.", "bbox_head.fc_reg."),
    (r"^fuse\.residual\.convs\.([012])\.", r"extra_neck.liteflownet.flow_estimator.convs.\1.0."),
    (r"^fuse\.residual\.convs\.3\.", "extra_neck.liteflownet.flow_estimator.convs.3."),
    (r"^fuse\.attention\.embed\.", "extra_neck.tcea_fusion.tAtt_1."),
    (r"^fuse\.attention\.embed_target\.", "extra_neck.tcea_fusion.tAtt_2."),
    (r"^fuse\.attention\.join\.", "extra_neck.tcea_fusion.fea_fusion."),
    (r"^fuse\.attention\.spatial(\d)\.", r"extra_neck.tcea_fusion.sAtt_\1."),
    (r"^fuse\.attention\.add(\d)\.", r"extra_neck.tcea_fusion.sAtt_add_\1."),
    (r"^fuse\.refine\.", "extra_neck.refine.conv."),
    (r"^matching\.fc1\.", "track_head.fcs.0."),
    (r"^matching\.fc2\.", "track_head.fcs.1."),
    (r"^masks\.convs\.(\d)\.", r"mask_head.convs.\1.conv."),
    (r"^masks\.upsample\.", "mask_head.upsample."),
    (r"^masks\.logits\.", "mask_head.conv_logits."),
)
FLOW_PREFIX = "flownet2."
"""Before FlowNet2's entries in a checkpoint of FuseTrack."""

_COCO_RULES: tuple[tuple[str, str], ...] = (
    (r"^backbone\.body\.", "backbone.body."),
    (r"^backbone\.lateral\.(\d)\.", r"backbone.fpn.inner_blocks.\1.0."),
    (r"^backbone\.output\.(\d)\.", r"backbone.fpn.layer_blocks.\1.0."),
    (r"^rpn\.conv\.", "rpn.head.conv.0.0."),
    (r"^rpn\.objectness\.", "rpn.head.cls_logits."),
    (r"^rpn\.deltas\.", "rpn.head.bbox_pred."),
    (r"^boxes\.fc1\.", "roi_heads.box_head.fc6."),
    (r"^boxes\.fc2\.", "roi_heads.box_head.fc7."),
    (r"^boxes\.classes\.", "roi_heads.box_predictor.cls_score."),
    (r"^boxes\.deltas\.", "roi_heads.box_predictor.bbox_pred."),
    (r"^masks\.convs\.(\d)\.", r"roi_heads.mask_head.\1.0."),
    (r"^masks\.upsample\.", "roi_heads.mask_predictor.conv5_mask."),
    (r"^masks\.logits\.", "roi_heads.mask_predictor.mask_fcn_logits."),
)
_COCO_FRESH = ("semantic.", "matching.")
"""Beginnings of our names that Mask R-CNN has nothing for."""
_COCO_BY_CLASS = frozenset(
    f"roi_heads.{layer}.{kind}"
    for layer in ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits")
    for kind in ("weight", "bias")
)
"""Entries with rows for each class."""
_OLD_COCO_RULES: tuple[tuple[str, str], ...] = (
    (r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)$", r"\1.0.\2"),
    (r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1"),
    *((rf"^roi_heads\.mask_head\.mask_fcn{i + 1}\.", f"roi_heads.mask_head.{i}.0.") for i in range(4)),
)
"""torchvision's published file has the names that its modules had when it was made."""


class Misfit(UserError):
    """A checkpoint's entries aren't those of the network that it seems to hold.

    Attributes:
        lines: what is missing, unexpected or misshapen, a line each, cut off after MAX_LINES.
    """

    def __init__(self, message: str, lines: tuple[str, ...]) -> None:
        super().__init__(message)
        self.lines = lines


def convert(
    checkpoint: Path,
    out: Path,
    flow_out: Path | None = None,
    legacy: bool = False,
    match_score: bool = True,
) -> tuple[str, ...]:
    """Write another project's checkpoint as weights files of panoptube, or nothing if an entry doesn't fit.

    Args:
        checkpoint: of the published VPSNet code, FlowNet2, or torchvision's Mask R-CNN (ResNet-50, COCO).
        out: the weights file, which must not exist yet.
        flow_out: a file for the FlowNet2 that lies in checkpoints of FuseTrack; None leaves it out.
        legacy: the network shall behave as the published code does, defects included.
        match_score: the learned match score shall decide, too, which object a detection is; it didn't when
            the published tables were made.

    Returns:
        What was carried over and what not, a line each.

    Raises:
        Misfit: entries are missing, unexpected or misshapen.
        UserError: the checkpoint can't be read, holds no known network or no FlowNet2 for `flow_out`, or a
            file exists or can't be written.
    """
    for path in (out, flow_out):
        if path is not None:
            _check_free(path)
    if flow_out is not None and flow_out == out:
        raise UserError(f"{out} is named twice; give the flow network a file of its own")
    state = read_checkpoint(checkpoint)
    flow = {
        name.removeprefix(FLOW_PREFIX): state.pop(name) for name in [*state] if name.startswith(FLOW_PREFIX)
    }
    if not state:
        state, flow = flow, {}
    if flow_out is not None and not flow:
        raise UserError(f"{checkpoint} holds no FlowNet2 within another network; leave out the file for it")
    if flow:
        _check_flownet2(flow, f"{checkpoint}, its FlowNet2,")
    if any(name.startswith("flownetfusion.") for name in state):
        _check_flownet2(state, f"{checkpoint} as FlowNet2")
        _save_flownet2(out, state)
        return (f"FlowNet2, {len(state)} entries",)

    convert_state = _from_coco if any(name.startswith("roi_heads.") for name in state) else _from_vpsnet
    network, lines = convert_state(state, checkpoint, NetworkConfig(legacy=legacy, match_score=match_score))
    if flow_out is not None:
        _save_flownet2(flow_out, flow)
        lines += (f"{flow_out}: FlowNet2, {len(flow)} entries",)
    elif flow:
        lines += (f"left out: FlowNet2, {len(flow)} entries; --flow-out FILE writes them",)
    save_weights(out, network, RunConfig(name=f"converted from {checkpoint.name}", network=network.config))
    return lines


def published_name(name: str) -> str:
    """The name that entry `name` of a VPSNet (ResNet) has in a published checkpoint.

    Raises:
        KeyError: there is no such entry there.
    """
    return _translate(name, _RULES)


def coco_name(name: str) -> str:
    """The name that entry `name` of a VPSNet (ResNet) has in torchvision's Mask R-CNN.

    Raises:
        KeyError: there is no such entry there.
    """
    return _translate(name, _COCO_RULES)


def _translate(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        if re.search(pattern, name):
            return re.sub(pattern, replacement, name)
    raise KeyError(name)


def _check_free(path: Path) -> None:
    if path.exists():
        raise UserError(f"{path} exists; name another file, or remove it")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent} to put {path.name} into; make it, or name another")


# --- reading ------------------------------------------------------------------------------------------------


def read_checkpoint(path: Path) -> State:
    """The weights in a PyTorch checkpoint: a state dict, or a dict that holds one as "state_dict".

    The file can't run code: it may hold tensors, numbers, strings and containers of these, which is all that
    mmcv 0.2 writes. The prefix that nn.DataParallel gives to all names is taken off.

    Raises:
        UserError: no such file, it is damaged, needs code, or holds no state dict.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the checkpoint file in it")
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; give a checkpoint such as cityscapes_vps_fusetrack_latest.pth"
        )
    try:
        loaded: object = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail in any way
        text = " ".join(str(error).split())
        code = re.search(r"GLOBAL (\S+)", text)
        if code:
            raise UserError(
                f"{path} needs the Python object {code[1]} to be read, and so could run any code; "
                "have its maker save the state_dict alone"
            ) from error
        reason = re.split(r"\. | Check the ", text.split("WeightsUnpickler error: ")[-1])[0]
        raise UserError(
            f"{path} can't be read as a PyTorch checkpoint ({reason or type(error).__name__}); "
            "give a complete one"
        ) from error
    inner = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if (
        not isinstance(inner, Mapping)
        or not inner
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in inner.items())
    ):
        raise UserError(f"{path} holds no state_dict: names with a tensor each; give a checkpoint that does")
    prefix = "module." if all(name.startswith("module.") for name in inner) else ""
    return {name.removeprefix(prefix): value for name, value in inner.items()}


# --- VPSNet -------------------------------------------------------------------------------------------------


def _from_vpsnet(state: State, source: Path, config: NetworkConfig) -> tuple[VPSNet, tuple[str, ...]]:
    """The network of a published checkpoint, and what there is to say; it decides the rest of `config`."""
    if not any(name.startswith("panopticFPN.") for name in state):
        raise UserError(
            f"{source} holds none of VPSNet, FlowNet2, torchvision's Mask R-CNN, but {next(iter(state))}; "
            "give a checkpoint of one of these"
        )
    fuses = any(name.startswith("extra_neck.") for name in state)
    matches = not fuses or any(name.startswith("track_head.") for name in state)
    kind = "VPSNet-Track" if not fuses else "VPSNet-FuseTrack" if matches else "VPSNet-Fuse"
    taxonomy = _taxonomy(state, source)
    config = config.model_copy(update={"fuse": fuses})
    if not matches:
        config = config.model_copy(update={"match_channels": 0})
    if taxonomy is VIPER:
        config = config.model_copy(update={"test_size": VIPER_SIZE})
    network = _random_network(config, taxonomy)
    own = network.state_dict()
    name_of = {published_name(key): key for key in own}
    _check({name: own[key].shape for name, key in name_of.items()}, state, f"{source} as {kind}")
    network.load_state_dict({name_of[name]: value for name, value in state.items()}, strict=False)
    lines = [f"{kind}, {len(taxonomy)} classes of {taxonomy.name}, {len(state)} entries"]
    if not matches:
        lines.append("it has no match head: objects are followed by class and overlap alone")
    return network.eval(), tuple(lines)


def _taxonomy(state: State, source: Path) -> Taxonomy:
    """Whose classes a published checkpoint has, by the rows of its semantic and class predictors."""
    rows = {
        name: state[name].numel()
        for name in ("panopticFPN.conv_pred.conv.bias", "bbox_head.fc_cls.bias")
        if name in state
    }
    for taxonomy in (CITYSCAPES, VIPER):
        if set(rows.values()) & {len(taxonomy), taxonomy.num_things + 1}:
            return taxonomy
    raise UserError(
        f"{source} has the classes of another dataset ({rows}); "
        "those of Cityscapes (19 and 9) and VIPER (23 and 11) are known"
    )


# --- FlowNet2 -----------------------------------------------------------------------------------------------


def _check_flownet2(state: State, what: str) -> None:
    with torch.device("meta"):
        own = FlowNet2().state_dict()
    _check({name: value.shape for name, value in own.items()}, state, what)


def _save_flownet2(path: Path, state: State) -> None:
    write_safetensors(path, {name: value.float() for name, value in state.items()})


# --- torchvision's Mask R-CNN -------------------------------------------------------------------------------


def _from_coco(state: State, source: Path, config: NetworkConfig) -> tuple[VPSNet, tuple[str, ...]]:
    """VPSNet-Track for Cityscapes that starts from Mask R-CNN, and what there is to say.

    Batch norm, anchors and classes differ; `_scale_norms`, `_shift_deltas` and `_choose_rows` see to them, so
    that features, proposals and boxes stay what they were. The same in both: RGB normalised by ImageNet's
    mean and deviation; P6 as every second pixel of P5; one 3x3 convolution in the RPN; order of anchors;
    RoIAlign, levels and deltas divided by (0.1, 0.1, 0.2, 0.2), for boxes whose far end is exclusive there
    and inclusive here; RoI features flattened as (C, 7, 7).
    """
    state = {_modern(name): value for name, value in state.items()}
    network = _random_network(config, CITYSCAPES)
    own = network.state_dict()
    name_of = {coco_name(key): key for key in own if not key.startswith(_COCO_FRESH)}
    expected = {name: own[key].shape for name, key in name_of.items()}
    coco: list[str] = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    things = [c.name for c in CITYSCAPES.categories[CITYSCAPES.num_stuff :]]
    for name in expected.keys() & _COCO_BY_CLASS:
        expected[name] = torch.Size([expected[name][0] // (len(things) + 1) * len(coco), *expected[name][1:]])
    _check(expected, state, f"{source} as torchvision's Mask R-CNN of COCO (ResNet-50 FPN)")

    shared = [name for name in things if name in coco]
    rows = {0: 0} | {1 + things.index(name): coco.index(name) for name in shared}  # background is 0 in both
    for name in _COCO_BY_CLASS:
        state[name] = _choose_rows(state[name], len(coco), own[name_of[name]], len(things) + 1, rows)
    state["rpn.head.bbox_pred.bias"] = _shift_deltas(state["rpn.head.bbox_pred.bias"])
    frozen = not any(_is_counter(name) for name in state)
    if frozen:
        state = _scale_norms(state)
    network.load_state_dict({name_of[name]: value for name, value in state.items()}, strict=False)
    return network.eval(), (
        "torchvision's Mask R-CNN of COCO as a start for training VPSNet-Track on Cityscapes' classes",
        "carried over: ResNet-50, feature pyramid, RPN, box layers, mask convolutions",
        f"carried over: class, box and mask predictors of background, {', '.join(shared)}",
        f"random: predictors of {', '.join(n for n in things if n not in shared)}; semantic head; match head",
        f"left out: predictors of COCO's other {len(coco) - len(rows)} classes",
        "changed: biases of the RPN's deltas, since anchors are centred on cells here, on corners there",
        "changed: scales of batch norm, since its eps is 1e-5 here, 0 there"
        if frozen
        else "batch norm as it is: the file counts batches, so it is of a network with eps 1e-5, as here",
    )


def _choose_rows(theirs: Tensor, their_rows: int, mine: Tensor, my_rows: int, rows: dict[int, int]) -> Tensor:
    """`mine`, with the rows (keys) replaced by rows of `theirs` (values); a class has one row or several."""
    result = mine.reshape(my_rows, -1).clone()
    result[list(rows)] = theirs.reshape(their_rows, -1)[list(rows.values())].to(result.dtype)
    return result.view(mine.shape)


def _shift_deltas(bias: Tensor) -> Tensor:
    """(12,), bias of the RPN's deltas, for anchors whose centre lies half a stride further right and down.

    Half a stride is the same share of an anchor's side on each level.
    """
    result, ratio = bias.clone().view(len(RATIOS), 4), torch.tensor(RATIOS).sqrt()
    result[:, 0] -= ratio / (2 * SCALE)
    result[:, 1] -= 1 / (2 * SCALE * ratio)
    return result.flatten()


def _scale_norms(state: State) -> State:
    """Batch norm with eps 0 -> with 1e-5.

    torchvision's published file belongs to FrozenBatchNorm2d with eps 0, which doesn't count batches.
    """
    result = dict(state)
    for name, variance in state.items():
        if name.endswith(".running_var"):
            weight = name.replace("running_var", "weight")
            scale = ((variance.double() + 1e-5) / variance.double()).sqrt()
            result[weight] = (state[weight].double() * scale).to(state[weight].dtype)
    return result


def _modern(name: str) -> str:
    """torchvision's present name of an entry."""
    for pattern, replacement in _OLD_COCO_RULES:
        name = re.sub(pattern, replacement, name)
    return name


# --- all ----------------------------------------------------------------------------------------------------


def _is_counter(name: str) -> bool:
    """Whether an entry counts batches; batch norm with fixed statistics never reads it."""
    return name.endswith(".num_batches_tracked")


def _random_network(config: NetworkConfig, taxonomy: Taxonomy) -> VPSNet:
    """The same one each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return vpsnet(config, taxonomy)


def _check(expected: Mapping[str, torch.Size], state: State, what: str) -> None:
    """Every expected entry must be there in its shape, but counters of batches, and no other."""
    missing = [name for name in expected if name not in state and not _is_counter(name)]
    unexpected = [name for name in state if name not in expected]
    misshapen = [name for name in expected if name in state and state[name].shape != expected[name]]
    if not missing and not unexpected and not misshapen:
        return
    lines = [
        *(f"misshapen: {n} is {_shape(state[n].shape)}, should be {_shape(expected[n])}" for n in misshapen),
        *(f"missing: {n}, {_shape(expected[n])}" for n in missing),
        *(f"unexpected: {n}, {_shape(state[n].shape)}" for n in unexpected),
    ]
    if len(lines) > MAX_LINES:
        lines[MAX_LINES:] = [f"and {len(lines) - MAX_LINES} more"]
    raise Misfit(
        f"{what}: {len(missing)} entries missing, {len(unexpected)} unexpected, {len(misshapen)} misshapen; "
        "nothing was written; give an unchanged checkpoint",
        tuple(lines),
    )


def _shape(size: torch.Size) -> str:
    return "x".join(map(str, size)) or "one number"
