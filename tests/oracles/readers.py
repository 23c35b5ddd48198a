"""Small data sets written and read without the readers: what goes in, and what must come out.

Each function writes its data set into an empty folder and returns the reader's settings and a function
that gives (class names, rows), a row being (id, labels, mask or None) in the order of the list.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def image(path: Path, height: int, width: int) -> None:
    """An image with a ramp."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(0, 255, height * width * 3).reshape(height, width, 3)
    Image.fromarray(ramp.astype(np.uint8)).save(path)


def indexed(path: Path, mask: np.ndarray) -> None:
    """An indexed PNG of some palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.frombytes("P", mask.shape[::-1], mask.astype(np.uint8).tobytes())
    image.putpalette([value for index in range(256) for value in (index, 255 - index, index // 2)])
    image.save(path)


def regions(height: int, width: int, *ids: int) -> np.ndarray:
    """A mask with a band of 0, a line of 255 and a band of each id."""
    mask = np.zeros((height, width), np.uint8)
    for place, value in enumerate(ids):
        mask[:, 2 + 3 * place] = 255
        mask[:, 3 + 3 * place : 5 + 3 * place] = value
    return mask


VOC = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor"
)


def voc(folder):
    rows = [
        ("2007_000032", (1, 15), regions(9, 14, 15, 1)),
        ("007", (8,), regions(12, 8, 8)),
        ("7", (12,), regions(7, 7, 12)),
        ("1e5 ü", (8, 12, 20), None),
    ]
    for number, (name, _, mask) in enumerate(rows):
        image(folder / "JPEGImages" / f"{name}.jpg", *((10, 11) if mask is None else mask.shape))
        if mask is not None:
            place = "SegmentationClassAug" if number == 1 else "SegmentationClass"
            indexed(folder / place / f"{name}.png", mask)
    lists = folder / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "mine.txt").write_bytes("\ufeff2007_000032\r\n007\r\n\r\n7 \r\n1e5 ü".encode())
    table = [
        "id,labels",
        "7,dog",
        "other,cat",
        "1e5 ü,tvmonitor;cat;dog",
        "2007_000032,person;aeroplane",
        "007,cat",
    ]
    (folder / "labels.csv").write_text("\n".join(table))
    return {"root": str(folder), "split": "mine"}, lambda: (tuple(VOC.split()), rows)


def table(folder):
    rows = [
        ("zoo", (1, 3), regions(9, 12, 1, 3)),
        ("007", (2,), None),
        ("photo.v2", (1,), regions(8, 8, 1)),
    ]
    for (name, _, mask), suffix in zip(rows, (".JPG", ".png", ".webp"), strict=True):
        image(folder / "images" / (name + suffix), *((10, 11) if mask is None else mask.shape))
        if mask is not None:
            indexed(folder / "truth" / f"{name}.png", mask)
    text = "image;labels;split\nzoo.JPG;owl, ant;a\n007;bee;a\nphoto.v2;ant;a\nother;ant;b\n"
    image(folder / "images/other.bmp", 5, 5)
    (folder / "tags.csv").write_text("\ufeff" + text)
    settings = {
        "root": str(folder),
        "images": "images",
        "labels": "tags.csv",
        "masks": "truth",
        "split": "a",
    }
    return settings, lambda: (("background", "ant", "bee", "owl"), rows)


def scenes(folder):
    settings = {"root": str(folder / "drawn"), "split": "val", "seed": 5, "train": 1, "val": 5, "size": 64}

    def expected():
        names = tuple((folder / "drawn/classes.txt").read_text().split("\n")[:-1])
        rows = []
        for index in range(5):
            name = f"val_{index:05d}"
            mask = np.array(Image.open(folder / f"drawn/SegmentationClass/{name}.png"))
            rows.append((name, tuple(sorted(set(mask.ravel().tolist()) - {0, 255})), mask))
        return names, rows

    return settings, expected


def folder(folder):
    names = ("b.JPG", "a.b.png", "zoo/007.webp", "zoo/ape/7.jpg", "a/1.bmp")
    for name in names:
        image(folder / name, 5, 7)
    image(folder / ".hidden/x.jpg", 5, 7)
    image(folder / "zoo/.x.jpg", 5, 7)
    (folder / "zoo/notes.txt").write_text("x")
    # a file stands where its name would among the folders
    rows = [(name, None, None) for name in ("a/1", "a.b", "b", "zoo/007", "zoo/ape/7")]
    return {"root": str(folder)}, lambda: (("background",), rows)
