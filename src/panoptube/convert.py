"""Names of the published VPSNet checkpoints (dossier section 12)."""

from __future__ import annotations

import re

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
    (r"^matching\.fc1\.", "track_head.fcs.0."),
    (r"^matching\.fc2\.", "track_head.fcs.1."),
    (r"^masks\.convs\.(\d)\.", r"mask_head.convs.\1.conv."),
    (r"^masks\.upsample\.", "mask_head.upsample."),
    (r"^masks\.logits\.", "mask_head.conv_logits."),
)


def published_name(name: str) -> str:
    """The name that entry `name` of VPSNet-Track (ResNet) has in a published checkpoint.

    Raises:
        KeyError: there is no such entry there.
    """
    for pattern, replacement in _RULES:
        if re.search(pattern, name):
            return re.sub(pattern, replacement, name)
    raise KeyError(name)
