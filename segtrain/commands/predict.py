"""`seg predict`: images to palette PNGs of exactly their size."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pseudolabel import console, masks
from pseudolabel.errors import DataError, PseudolabelError, UsageError
from pseudolabel.runs import disk, writing
from segtrain.pairs import Pair
from segtrain.results import PredictionSummary

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def predict(  # a third of it is its arguments and what they mean
    run: Path | str,
    images: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    checkpoint: str = "last",
    device: str = "auto",
    workers: int = 2,
    on_bad: str = "skip",
    overwrite: bool = False,
    new: bool = False,
    wait: bool = False,
    quiet: bool = False,
) -> PredictionSummary:
    """Segment images with a trained network.

    Args:
        run: a run of `seg train`, or a checkpoint file.
        images: a folder of images, a text file with a path a line, or a list of paths.
        out: folder of `<id>.png`, `manifest.jsonl` and `problems.jsonl`. Finished images are not done
            again.
        checkpoint: last, best or previous.
        device, workers, overwrite, new, wait, quiet: as for `train`.
        on_bad: an image that cannot be read: skip (it is listed, `failed` counts it) or stop.

    Returns:
        How many were done, and what stood in the way of the others.

    Raises:
        DataError: no image, or two of one name; with `stop` the first broken one.
    """
    from pseudolabel.training.device import place
    from segtrain.checkpoint import load_network
    from segtrain.dataset import whole_images
    from segtrain.scoring import predict as predict_one

    if on_bad not in ("stop", "skip"):
        raise UsageError(f"--on-bad {on_bad}: not known; choose stop or skip")
    pairs = _images(images)
    loaded = load_network(Path(run), checkpoint)
    where = place(device)
    network, space = loaded.network.to(where), loaded.header.space
    fingerprint = {"checkpoint": loaded.sha256, "classes": list(space.names)}
    start = time.monotonic()
    with (
        console.interruptible() as stop,
        writing.open_run(
            out, "seg predict", fingerprint, overwrite=overwrite, new=new, wait=wait, items="."
        ) as folder,
    ):
        before = folder.finished()
        todo = [
            pair for pair in pairs if pair.id not in before or before[pair.id].get("input") != _input(pair)
        ]
        bad = 0
        with console.progress(len(pairs), "predict", quiet, done=len(pairs) - len(todo)) as bar:
            for pair, item in whole_images(todo, workers):
                if stop.requested:
                    raise stop.fault(f"{bar.done} of {len(pairs)} images are done")
                if isinstance(item, PseudolabelError):
                    if on_bad == "stop":
                        raise item
                    what, _, remedy = str(item).removeprefix(f"{pair.image}: ").partition("; ")
                    folder.problem(pair.image.name, "image", what, remedy or "replace the image")
                    bad += 1
                else:
                    _write(folder, pair, predict_one(network, item, where))
                bar.advance()
        folder.complete([pair.id for pair in pairs])
        problems = [dict(row) for row in folder.problems]
    seconds = time.monotonic() - start
    return PredictionSummary(
        images=len(pairs),
        done=len(pairs) - bad,
        failed=bad,
        problems=problems,
        seconds=round(seconds, 2),
        images_per_second=round(len(todo) / seconds, 2),
        device=str(where),
    )


def _write(folder: writing.RunFolder, pair: Pair, mask: NDArray[np.uint8]) -> None:
    """Write the mask of an image, then its line of the manifest."""
    data = masks.encode_mask(mask)
    disk.write_bytes(folder.path / f"{pair.id}.png", data)
    line = {"id": pair.id, "height": mask.shape[0], "width": mask.shape[1], "size": len(data)}
    folder.record({**line, "sha256": disk.sha256_bytes(data), "input": _input(pair)})


def _input(pair: Pair) -> str | None:
    """sha256 of the image, or None where it cannot be read: the reader will say so."""
    try:
        return disk.sha256_file(pair.image)
    except (OSError, DataError):
        return None


def _images(images: Path | str | Sequence[Path | str]) -> list[Pair]:
    """The images in a folder, of a list file, or of a list; by name, each name once."""
    if not isinstance(images, Path | str):
        paths = [Path(path) for path in images]
    elif Path(images).is_dir():
        paths = sorted(path for path in Path(images).iterdir() if path.suffix.lower() in SUFFIXES)
    elif Path(images).suffix.lower() in SUFFIXES:
        paths = [Path(images)]
    elif Path(images).is_file():
        base = Path(images).parent
        lines = Path(images).read_text(encoding="utf-8-sig").splitlines()
        paths = [base / line.strip() for line in lines if line.strip()]
    else:
        raise DataError(f"{images}: no such folder or list; give a folder, a list file or an image")
    if not paths:
        raise DataError(f"{images}: holds no image ({', '.join(SUFFIXES)}); give the folder of the images")
    by_stem: dict[str, Path] = {}
    for path in paths:
        # names that differ only in case meet in one file on some systems
        other = by_stem.setdefault(path.stem.casefold(), path)
        if other is not path:
            raise DataError(f"{path} and {other} would share the mask {path.stem}.png; rename one")
    return [Pair(path.stem, path, None) for path in paths]
