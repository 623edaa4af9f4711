"""Cityscapes-VPS: its classes (dossier 11.4)."""

from __future__ import annotations

from panoptube.panoptic.frame import Category, Taxonomy

CITYSCAPES = Taxonomy(
    "cityscapes",
    (
        Category("road", False, (128, 64, 128), 0),
        Category("sidewalk", False, (244, 35, 232), 1),
        Category("building", False, (70, 70, 70), 2),
        Category("wall", False, (102, 102, 156), 3),
        Category("fence", False, (190, 153, 153), 4),
        Category("pole", False, (153, 153, 153), 5),
        Category("traffic light", False, (250, 170, 30), 6),
        Category("traffic sign", False, (220, 220, 0), 7),
        Category("vegetation", False, (107, 142, 35), 8),
        Category("terrain", False, (152, 251, 152), 9),
        Category("sky", False, (70, 130, 180), 10),
        Category("person", True, (220, 20, 60), 11),
        Category("rider", True, (255, 0, 0), 12),
        Category("car", True, (0, 0, 142), 13),
        Category("truck", True, (0, 0, 70), 14),
        Category("bus", True, (0, 60, 100), 15),
        Category("train", True, (0, 80, 100), 16),
        Category("motorcycle", True, (0, 0, 230), 17),
        Category("bicycle", True, (119, 11, 32), 18),
    ),
)
"""Cityscapes' 19 train ids, in their order."""
