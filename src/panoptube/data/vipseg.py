"""VIPSeg: its classes and its clips.

3,536 videos of all kinds of scenes, 124 classes, 58 of them things. Facts from
github.com/VIPSeg-Dataset/VIPSeg-Dataset: classes and colours from panoVIPSeg_categories.json, the encoding
from README.md and create_panoptic_video_labels.py, the layout from change2_720p.py and splitjson.py. A label
is a 16-bit PNG: 0 = void; below 125 class + 1, stuff or a thing without number; else (class + 1) * 100 +
object number. 5 frames per second: VSPW, the same videos, has 15 and three times the labelled frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from panoptube.data.clip import Clip
from panoptube.data.files import (
    MissingData,
    list_files,
    list_folders,
    picture_size,
    raise_for,
    read_frame,
    read_gray,
    read_list,
)
from panoptube.errors import UserError
from panoptube.panoptic.frame import VOID, Category, PanopticFrame, Taxonomy

SPLITS = ("train", "val", "test")
FPS = 5.0
PAGE = "https://github.com/VIPSeg-Dataset/VIPSeg-Dataset"
TREE = """\
ROOT/
  imgs/VIDEO/00000000.jpg          the download linked on the page
  panomasks/VIDEO/00000000.png     the same
  train.txt  val.txt  test.txt     from the page: the videos of each split
VIPSeg_720P, as the published script makes it, is a ROOT as well: images/, panomasks/, and the lists in it or
beside it."""


def _categories(isthing: bool, rows: str) -> tuple[Category, ...]:
    """Of rows of id, name and colour."""
    found: list[Category] = []
    for row in rows.split("\n")[1:-1]:
        number, name, color = row.split()
        r, g, b = map(int, color.split(","))
        found.append(Category(name, isthing, (r, g, b), int(number)))
    return tuple(found)


_STUFF = _categories(
    False,
    """
0 wall 120,120,120
1 ceiling 180,120,120
3 stair 80,50,50
5 escalator 120,120,80
6 Playground_slide 140,140,140
7 handrail_or_fence 204,5,255
9 rail 4,250,7
11 pillar 235,255,7
12 pole 150,5,61
13 floor 120,120,70
14 ground 8,255,51
15 grass 255,6,82
16 sand 143,255,140
17 athletic_field 204,255,4
18 road 255,51,7
19 path 204,70,3
20 crosswalk 0,102,200
21 building 61,230,250
22 house 255,6,51
23 bridge 11,102,255
24 tower 255,7,71
25 windmill 255,9,224
26 well_or_well_lid 9,7,230
27 other_construction 220,220,220
28 sky 255,9,92
29 mountain 112,9,255
30 stone 8,255,214
31 wood 7,255,224
32 ice 255,184,6
33 snowfield 10,255,71
34 grandstand 255,41,10
35 sea 7,255,255
36 river 224,255,8
37 lake 102,8,255
38 waterfall 255,61,6
39 water 255,194,7
40 billboard_or_Bulletin_Board 255,122,8
42 pipeline 255,8,41
45 cushion_or_carpet 235,12,255
53 wheeled_machine 255,224,0
57 tyre 0,235,255
58 traffic_light 0,173,255
59 lamp 31,0,255
66 tree 255,0,0
67 flower 255,163,0
68 other_plant 255,102,0
69 toy 194,255,0
70 ball_net 0,143,255
71 backboard 51,255,0
73 bat 0,255,41
75 cupboard_or_showcase_or_storage_rack 10,0,255
80 trash_can 255,0,245
81 cage 255,0,102
93 shelf 51,0,255
94 bathtub 0,194,255
98 other_machine 0,255,10
103 curtain 255,235,0
104 textiles 8,184,170
105 clothes 133,0,255
110 book 0,214,255
111 tool 255,0,112
112 blackboard 92,255,0
113 tissue 0,224,255
119 other_electronic_product 255,0,163
120 fruit 255,204,0
121 food 255,0,143
""",
)
_THINGS = _categories(
    True,
    """
2 door 6,230,230
4 ladder 4,200,3
8 window 230,230,230
10 goal 224,5,255
41 sculpture 0,255,20
43 flag 255,5,153
44 parasol_or_umbrella 6,51,255
46 tent 160,150,20
47 roadblock 0,163,255
48 car 140,140,140
49 bus 250,10,15
50 truck 20,255,0
51 bicycle 31,255,0
52 motorcycle 255,31,0
54 ship_or_boat 153,255,0
55 raft 0,0,255
56 airplane 255,71,0
60 person 11,200,200
61 cat 255,82,0
62 dog 0,255,245
63 horse 0,61,255
64 cattle 0,255,112
65 other_animal 0,255,133
72 skateboard 0,82,255
74 ball 0,255,173
76 box 173,255,0
77 traveling_case_or_trolley_case 0,255,153
78 basket 255,92,0
79 bag_or_package 255,0,255
82 plate 255,173,0
83 tub_or_bowl_or_pot 255,0,20
84 bottle_or_cup 255,184,184
85 barrel 0,31,255
86 fishbowl 0,255,61
87 bed 0,71,255
88 pillow 255,0,204
89 table_or_desk 0,255,194
90 chair_or_seat 0,255,82
91 bench 0,10,255
92 sofa 0,112,255
95 gun 0,122,255
96 commode 0,255,163
97 roaster 255,153,0
99 refrigerator 255,112,0
100 washing_machine 143,255,0
101 Microwave_oven 82,0,255
102 fan 163,255,0
106 painting_or_poster 0,255,92
107 mirror 184,0,255
108 flower_pot_or_vase 255,0,31
109 clock 0,184,255
114 screen_or_television 112,224,255
115 computer 70,184,160
116 printer 163,0,255
117 Mobile_phone 153,0,255
118 keyboard 71,255,0
122 instrument 0,255,235
123 train 133,255,0
""",
)
VIPSEG = Taxonomy("vipseg", _STUFF + _THINGS)
"""124 classes with the ids of panoVIPSeg_categories.json, 0 to 123; stuff first."""

NUMBERED = 125
"""Values from here on are (class + 1) * 100 + object number."""


@dataclass(frozen=True)
class VideoFiles:
    """What a clip is made of.

    Attributes:
        name: of the video.
        size: (height, width).
        images: in order.
        labels: by index in `images`; empty where the split has none.
    """

    name: str
    size: tuple[int, int]
    images: list[Path]
    labels: dict[int, Path]


def read_vipseg(root: Path | str, split: str) -> list[Clip]:
    """The videos of a split as clips, by name; frames and labels are read when asked for.

    As in the published conversion to COCO panoptic, each value of a thing class is an object, also the one
    without a number. A track id is the file's own value.

    Args:
        root: the folder of the download, as in `TREE`.
        split: "train", "val" or "test", which has no labels.

    Returns:
        Clips that can be pickled. Reading a frame or its truth raises UserError, naming the file, where it is
        damaged, of another size, or holds an unknown class or an object of a stuff class.

    Raises:
        MissingData: the list, images or labels aren't there.
        UserError: there is no such split.
    """
    return [
        Clip(
            name=found.name,
            taxonomy=VIPSEG,
            size=found.size,
            fps=FPS,
            length=len(found.images),
            labelled=tuple(sorted(found.labels)),
            read_image=partial(read_frame, found.images, found.size),
            read_truth=partial(read_label, found.labels, found.size),
        )
        for found in find_videos(Path(root), split)
    ]


def find_videos(root: Path, split: str) -> list[VideoFiles]:
    """The files of a split's videos, by name. Raises: as `read_vipseg`."""
    if split not in SPLITS:
        raise UserError(f"VIPSeg has no split {split!r}; it has {', '.join(SPLITS)}")
    image_root = root / "imgs" if (root / "imgs").is_dir() else root / "images"
    images = {p.name: p for p in list_folders(image_root)}
    if not images:
        raise MissingData(f"no videos in {root / 'imgs'}; unpack the download linked on {PAGE} in {root}")
    path = root / f"{split}.txt"
    if not path.is_file():
        path = root.resolve().parent / path.name
    if not path.is_file():
        raise MissingData(f"no {root / path.name}; take it from {PAGE}")
    names = sorted(set(read_list(path)))
    missing = next((name for name in names if name not in images), None)
    if missing is not None:
        raise MissingData(f"no {image_root / missing}, which {path} names; unpack the download of {PAGE}")
    return [_find_video(images[name], root / "panomasks" / name, split != "test") for name in names]


def _find_video(folder: Path, masks: Path, labelled: bool) -> VideoFiles:
    images = list_files(folder)
    if not images:
        raise MissingData(f"no .jpg in {folder}; unpack the download of {PAGE} again")
    index = {path.stem: t for t, path in enumerate(images)}
    if len(index) < len(images):
        raise UserError(f"{folder} holds two pictures of one name; keep one of .jpg and .png")
    labels: dict[int, Path] = {}
    for path in list_files(masks, (".png",)) if labelled else []:
        if path.stem not in index:
            raise MissingData(f"{path} has no image in {folder}; unpack the download of {PAGE} again")
        labels[index[path.stem]] = path
    if labelled and not labels:
        raise MissingData(f"no labels in {masks}; unpack the download of {PAGE} again")
    return VideoFiles(folder.name, picture_size(images[0]), images, labels)


def read_label(labels: dict[int, Path], size: tuple[int, int], t: int) -> PanopticFrame:
    """Truth of frame `t`. Raises: UserError, as `read_vipseg` says of reading."""
    path = labels[t]
    values = read_gray(path, size)
    classes = np.where(values < NUMBERED, values, values // 100).astype(np.int64) - 1
    raise_for(classes >= len(VIPSEG), values, path, "VIPSeg's classes end at 124; unpack it again")
    # Place -1, void, is the last one.
    table = np.full(len(VIPSEG) + 1, VOID, np.uint8)
    table[[c.id for c in VIPSEG.categories]] = np.arange(len(VIPSEG))
    semantic: NDArray[np.uint8] = table[classes]
    thing = (semantic >= VIPSEG.num_stuff) & (semantic != VOID)
    raise_for(
        (values >= NUMBERED) & ~thing, values, path, "an object of a stuff class; only things are numbered"
    )
    return PanopticFrame(semantic, np.where(thing, values, 0).astype(np.int32))
