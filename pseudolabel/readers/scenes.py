"""Scenes drawn from a seed: textured creatures on textured grounds, with what tells them known.

Each creature has a head (the part, about a fifth of it) that tells its class at a glance, and a body that
hardly does: its hue and texture only lean towards the class. Which pixels are telling is thus known by
construction, and `PartClass/<id>.png` says so: 1 head, 2 body, 0 ground, 255 where the mask has it.
From mean and deviation of its colours alone (five nearest neighbours, 121 creatures), a head's class is
told in 99 of 100 cases; a body's in 23, 35, 41 and 60 at `tell` 0, 1, 2 and 4, chance being 17.

Written once in VOC layout under `root`; one to three creatures an image, partly over one another and
under leaves, 255 within a pixel of every outline. An image follows from (seed, split, number).
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from pseudolabel import masks
from pseudolabel.errors import DataError, MachineError
from pseudolabel.readers import _layout
from pseudolabel.readers._scenes_creature import CLASSES
from pseudolabel.readers._scenes_draw import Scene, draw
from pseudolabel.records import Dataset
from pseudolabel.registry import Parameters, component, parameter
from pseudolabel.runs import disk

DRAWING = 1  # raised when the same parameters come to give other images
NOTE = "scenes.json"
PARTS = "PartClass"
WRITERS = 4  # threads
QUALITY = 92  # of the JPEGs; colour at full resolution


class Scenes(Parameters):
    """How many scenes of which size, and where they are kept."""

    root: str = parameter("runs/scenes", help="folder they are written to on first use")
    split: Literal["train", "val"] = parameter("train", help="train or val")
    seed: int = parameter(0, ge=0, help="root of every draw")
    train: int = parameter(600, ge=1, le=99_999, unit="images", help="scenes of the split train")
    val: int = parameter(120, ge=1, le=99_999, unit="images", help="scenes of the split val")
    size: int = parameter(160, ge=64, le=1024, unit="pixels", help="long side; shapes are 4:5, 5:4 and 1:1")
    tell: float = parameter(
        1.0, ge=0, le=20, help="how much a body's hue tells the class (concentration); 0 says nothing"
    )


@component(Scenes)
def scenes(params: Scenes) -> Dataset:
    """The scenes of a split, drawn on first use.

    Raises:
        DataError: the folder holds scenes of other parameters, or something else.
        MachineError: the folder cannot be written to.
    """
    root = Path(params.root).expanduser()
    wanted: dict[str, Any] = {**params.as_dict(), "drawing": DRAWING}
    del wanted["root"], wanted["split"]
    if not _there(root, wanted):
        with _alone(root) as locked:
            if not _there(root, wanted):
                _write(root, params, wanted, sweep=locked)
    return _layout.read(root, params.split, labels="csv", parts=root / PARTS)


def _there(root: Path, wanted: dict[str, Any]) -> bool:
    """Whether the scenes of these parameters lie in the folder; False where it is missing or empty."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    if not (root / NOTE).is_file():
        raise DataError(f"{root}: holds something else than scenes; give `root` an empty or a new folder")
    written = disk.read_json(root / NOTE)
    if written != wanted:
        other = [
            f"{key} {written.get(key)} instead of {value}"
            for key, value in wanted.items()
            if not isinstance(written, dict) or written.get(key) != value
        ]
        raise DataError(
            f"{root / NOTE}: holds other scenes ({', '.join(other)}); give `root` a new folder or remove it"
        )
    return True


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[bool]:
    """One process at a time beside this folder; the lock dies with its process and leaves no file.

    Gives whether the lock is held: some file systems have none, and then the rename decides.
    """
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(root.parent, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _unwritable(root, error) from error
    try:
        locked = False
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
            locked = True
        yield locked
    finally:
        os.close(handle)


def _unwritable(root: Path, error: OSError) -> MachineError:
    return MachineError(f"{root}: cannot be written ({error.strerror}); give `root` another folder")


def _write(root: Path, params: Scenes, note: dict[str, Any], *, sweep: bool) -> None:
    """Draw everything into a folder beside `root`, then rename it: `root` is whole or not there."""
    partial = root.parent / f".{root.name}.partial-{os.getpid()}"
    for left in root.parent.glob(f".{root.name}.partial-*") if sweep else ():
        shutil.rmtree(left, ignore_errors=True)
    try:
        rows = ["id,labels"]
        with ThreadPoolExecutor(WRITERS) as pool:  # encoding and waiting for the disk beside the drawing
            for split, count in (("train", params.train), ("val", params.val)):
                names = [f"{split}_{index:05d}" for index in range(count)]
                waiting: deque[Future[None]] = deque()
                for index, name in enumerate(names):
                    scene = draw(params.seed, split, index, params.size, params.tell)
                    rows.append(f"{name},{';'.join(CLASSES[label - 1] for label in scene.labels)}")
                    waiting.append(pool.submit(_put, partial, name, scene))
                    if len(waiting) > 4 * WRITERS:
                        waiting.popleft().result()
                for write in waiting:
                    write.result()
                disk.write_text(partial / _layout.LISTS[0] / f"{split}.txt", "\n".join([*names, ""]))
        disk.write_text(partial / "classes.txt", "\n".join(["background", *CLASSES, ""]))
        disk.write_text(partial / "labels.csv", "\n".join([*rows, ""]))
        disk.write_json(partial / NOTE, note)
        with contextlib.suppress(OSError):
            root.rmdir()  # an empty folder gives way
        try:
            os.rename(partial, root)
        except OSError as error:
            if not _there(root, note):  # another process was first, where there are no locks
                raise _unwritable(root, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _put(folder: Path, name: str, scene: Scene) -> None:
    """Write the three images of a scene."""
    buffer = io.BytesIO()
    Image.fromarray(scene.image).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    disk.write_bytes(folder / _layout.IMAGES / f"{name}.jpg", buffer.getvalue())
    masks.write_mask(folder / _layout.MASKS[0] / f"{name}.png", scene.mask)
    masks.write_mask(folder / PARTS / f"{name}.png", scene.parts)
