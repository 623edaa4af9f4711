"""Tiny datasets as their downloads unpack, written by other code than what reads them.

A scene is the same in all: stuff above, two things that move, some void. Its things are known by class and
number; what that makes a track id is for each test to say.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from panoptube.data.cityscapes_vps import CITYSCAPES

SIZE = (10, 16)
VOID = 255
CITIES = {"frankfurt": "0005", "munster": "0015"}
# Cityscapes' own label ids (cityscapesScripts, helpers/labels.py), which instance ids begin with.
LABEL_IDS = {"person": 24, "rider": 25, "car": 26}


def scene(t: int, shift: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) class names by letter, and (H, W) object numbers; -1 = none."""
    kinds = np.full(SIZE, "s")
    kinds[6:] = "r"
    kinds[9] = "."
    numbers = np.full(SIZE, -1)
    x = (t + shift) % 8
    kinds[4:7, x : x + 4], numbers[4:7, x : x + 4] = "c", 0
    kinds[3:8, 12:14], numbers[3:8, 12:14] = "p", 7
    kinds[7:9, 14:16], numbers[7:9, 14:16] = "c", 21
    return kinds, numbers


def picture(t: int, shift: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng((t, shift)).integers(0, 256, (*size, 3), dtype=np.uint8)


def classes(kinds: np.ndarray, names: dict[str, int]) -> np.ndarray:
    """(H, W) uint8: the number of each letter."""
    out = np.full(kinds.shape, VOID, np.uint8)
    for letter, number in names.items():
        out[kinds == letter] = number
    return out


def save(path: Path, picture: np.ndarray) -> None:
    """Pictures in RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codes = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    data = cv2.cvtColor(picture, codes[picture.shape[2]]) if picture.ndim == 3 else picture
    assert cv2.imwrite(str(path), data)


def city_names(city: str) -> list[str]:
    start = 100 if city == "frankfurt" else 0
    return [f"{city}_000002_{start + t:06d}" for t in range(30)]


def city_frame(city: str, t: int) -> str:
    clip = CITIES[city]
    return f"{clip}_{6 * (int(clip) - 1) + (t + 1) // 5:04d}_{city_names(city)[t]}"


def city_maps(t: int, shift: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(H, W, 3) class colours, (H, W) instance ids, (H, W) train ids."""
    kinds, numbers = scene(t, shift)
    names = {"s": "sky", "r": "road", "c": "car", "p": "person"}
    colors = np.zeros((*SIZE, 3), np.uint8)
    inst = np.zeros(SIZE, np.uint16)
    ids = np.full(SIZE, VOID, np.uint8)
    for letter, name in names.items():
        category = CITYSCAPES.categories[CITYSCAPES.index(name)]
        colors[kinds == letter] = category.color
        ids[kinds == letter] = category.id
        inst[kinds == letter] = 23  # a class without instances has its label id alone
    for letter in "cp":
        inside = (kinds == letter) & (numbers >= 0)
        inst[inside] = LABEL_IDS[names[letter]] * 1000 + numbers[inside]
    return colors, inst, ids


def write_cityscapes_vps(root: Path, split: str = "val", labels: bool = True, images: bool = True) -> None:
    """The dataset's zip, gtFine and leftImg8bit_sequence, unpacked in one folder."""
    rows = []
    for shift, city in enumerate(CITIES):
        names = city_names(city)
        for t in range(30):
            if images:
                save(
                    root / "leftImg8bit_sequence/val" / city / f"{names[t]}_leftImg8bit.png",
                    picture(t, shift),
                )
            if t % 5 != 4:
                continue
            frame = city_frame(city, t)
            kind = "leftImg8bit" if t == 19 else "newImg8bit"
            rows.append(
                {"id": frame, "file_name": f"{frame}_{kind}.png", "width": SIZE[1], "height": SIZE[0]}
            )
            colors, inst, _ = city_maps(t, shift)
            if not labels:
                continue
            if t == 19:
                alpha = np.dstack([colors, np.full(SIZE, 255, np.uint8)])
                save(root / "gtFine/val" / city / f"{names[t]}_gtFine_color.png", alpha)
                save(root / "gtFine/val" / city / f"{names[t]}_gtFine_instanceIds.png", inst)
            else:
                save(root / split / "cls" / f"{frame}_final_mask.png", colors)
                save(root / split / "inst" / f"{frame}_original_image_instance_greyscale.png", inst)
    root.mkdir(parents=True, exist_ok=True)
    path = root / f"panoptic_im_{split}_city_vps.json"
    path.write_text(json.dumps({"images": rows, "categories": []}))


# Numbers of VIPER's classes.csv.
VIPER_CSV = {"s": 2, "r": 3, "c": 24, "p": 20, ".": 0}


def viper_maps(t: int, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """cls and inst of a frame."""
    kinds, numbers = scene(t, shift)
    cls = classes(kinds, VIPER_CSV)
    objects = np.where(numbers >= 0, 1000 + numbers, 0)
    return cls, np.dstack([cls, objects // 256, objects % 256]).astype(np.uint8)


def write_viper(
    root: Path, split: str = "val", sequences: int = 2, frames: int = 4, suffix: str = ".jpg"
) -> None:
    for shift in range(sequences):
        name = f"{shift + 3:03d}"
        for t in range(frames):
            stem = f"{name}/{name}_{t + 1:05d}"
            save(root / split / "img" / f"{stem}{suffix}", picture(t, shift))
            if split != "test":
                cls, inst = viper_maps(t, shift)
                save(root / split / "cls" / f"{stem}.png", cls)
                save(root / split / "inst" / f"{stem}.png", inst)


def kitti_map(t: int, shift: int) -> np.ndarray:
    kinds, numbers = scene(t, shift)
    cls = classes(kinds, {"s": 10, "r": 0, "c": 13, "p": 11})
    objects = np.where(numbers >= 0, 300 * numbers + 1, 0)
    return np.dstack([cls, objects // 256, objects % 256]).astype(np.uint8)


def write_kitti_step(root: Path) -> None:
    """Sequence 0000 is of train, 0002 of val, as in the download; the test set has a 0000, too."""
    for shift, (split, name) in enumerate((("train", "0000"), ("val", "0002"))):
        for t in range(3):
            save(root / f"training/image_02/{name}/{t:06d}.png", picture(t, shift))
            save(root / f"kitti-step/panoptic_maps/{split}/{name}/{t:06d}.png", kitti_map(t, shift))
    for t in range(3):
        save(root / f"testing/image_02/0000/{t:06d}.png", picture(t, 9))


def vipseg_map(t: int, shift: int) -> np.ndarray:
    kinds, numbers = scene(t, shift)
    values = np.zeros(SIZE, np.uint16)
    for letter, number in {"s": 28, "r": 18, "c": 48, "p": 60}.items():
        values[kinds == letter] = number + 1
    return np.where(numbers >= 0, values * 100 + np.maximum(numbers, 0), values).astype(np.uint16)


def write_vipseg(root: Path) -> None:
    videos = {"127_-hIVCYO4C90": "val", "6_qHIKRwYe3Cs": "val", "10_abc": "train", "11_abc": "test"}
    for shift, (video, split) in enumerate(videos.items()):
        for t in range(3):
            save(root / "imgs" / video / f"{15 * t:08d}.jpg", picture(t, shift))
            if split != "test":
                save(root / "panomasks" / video / f"{15 * t:08d}.png", vipseg_map(t, shift))
    for split in ("train", "val", "test"):
        lines = [video for video, of in videos.items() if of == split]
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n")
