"""VIPER: its classes (dossier 11.5)."""

from __future__ import annotations

from panoptube.panoptic.frame import Category, Taxonomy

VIPER = Taxonomy(
    "viper",
    (
        Category("sky", False, (70, 130, 180), 0),
        Category("road", False, (128, 64, 128), 1),
        Category("sidewalk", False, (244, 35, 232), 2),
        Category("terrain", False, (152, 251, 152), 3),
        Category("tree", False, (87, 182, 35), 4),
        Category("vegetation", False, (35, 142, 35), 5),
        Category("building", False, (70, 70, 70), 6),
        Category("infrastructure", False, (153, 153, 153), 7),
        Category("fence", False, (190, 153, 153), 8),
        Category("billboard", False, (150, 20, 20), 9),
        Category("trafficsign", False, (220, 220, 0), 10),
        Category("mobilebarrier", False, (180, 180, 100), 11),
        Category("trash", False, (81, 0, 21), 12),
        Category("trafficlight", True, (250, 170, 30), 13),
        Category("firehydrant", True, (173, 153, 153), 14),
        Category("chair", True, (168, 153, 153), 15),
        Category("trashcan", True, (81, 0, 81), 16),
        Category("person", True, (220, 20, 60), 17),
        Category("motorcycle", True, (0, 0, 230), 18),
        Category("car", True, (0, 0, 142), 19),
        Category("van", True, (0, 80, 100), 20),
        Category("bus", True, (0, 60, 100), 21),
        Category("truck", True, (0, 0, 70), 22),
    ),
)
"""VPSNet's 23 classes in their order; VIPER's own files have other numbers (dossier 11.5)."""
