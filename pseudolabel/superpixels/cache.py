"""Superpixels kept on disk, a file for every image and setting.

The file's name is the sha256 of all that decides the labels: pixels, engine, parameters, versions. The file
is one line of JSON (key, size, sha256 of what follows) and the labels as little-endian int32, deflated. One
that is not what it says it is counts as missing and is written anew.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pseudolabel.runs import disk

FORMAT = 1  # raise it when an engine's own code changes its labels


def kept(
    folder: Path,
    image: NDArray[np.uint8],
    settings: Mapping[str, Any],
    packages: Sequence[str],
    make: Callable[[], NDArray[np.int32]],
) -> NDArray[np.int32]:
    """The labels of an image from the folder, or made and put there.

    Args:
        folder: made where it is missing; several processes may use it at once.
        image: (H, W, 3) uint8.
        settings: engine and parameters, JSON-able.
        packages: distributions whose version decides the labels.
        make: gives the (H, W) int32 labels.

    Returns:
        (H, W) int32.

    Raises:
        MachineError: the folder cannot be written.
    """
    about = {
        "format": FORMAT,
        "settings": dict(settings),
        "versions": {name: _version(name) for name in packages},
        "pixels": hashlib.sha256(np.ascontiguousarray(image).data).hexdigest(),
        "size": list(image.shape[:2]),
    }
    key = disk.digest(about)
    path = folder / key[:2] / f"{key}.superpixels"
    labels = _read(path, key, image.shape[:2])
    if labels is None:
        labels = make()
        disk.write_bytes(path, _encoded(labels, key))
    return labels


def _encoded(labels: NDArray[np.int32], key: str) -> bytes:
    body = zlib.compress(labels.astype("<i4").tobytes(), 1)
    head = {"key": key, "size": list(labels.shape), "sha256": disk.sha256_bytes(body)}
    return json.dumps(head).encode("ascii") + b"\n" + body


def _read(path: Path, key: str, size: tuple[int, ...]) -> NDArray[np.int32] | None:
    """The labels of a file, or None where it is missing or damaged."""
    try:
        line, _, body = path.read_bytes().partition(b"\n")
        head = json.loads(line)
        if head != {"key": key, "size": list(size), "sha256": disk.sha256_bytes(body)}:
            return None
        labels = np.frombuffer(zlib.decompress(body), "<i4").reshape(size)
    except (OSError, ValueError, zlib.error):
        return None
    return labels.astype(np.int32)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # another distribution of the same module
        return "unknown"
