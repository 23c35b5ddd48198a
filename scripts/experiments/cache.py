"""Arrays that are kept in a file between two calls of an experiment."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pseudolabel.runs import disk

Arrays = dict[str, Any]  # NumPy arrays by name


def is_cached(path: Path, key: str) -> bool:
    """Whether the file was written under this key."""
    if not path.is_file():
        return False
    with np.load(path, allow_pickle=False) as arrays:
        return "key" in arrays.files and str(arrays["key"]) == key


def cached(path: Path, key: str, compute: Callable[[], Arrays]) -> Arrays:
    """Arrays of the file where it was written under this key; otherwise they are computed and written.

    Args:
        path: an npz file.
        key: text of everything that decides the arrays.
        compute: gives the arrays.

    Returns:
        The arrays as they stand in the file.
    """
    if not is_cached(path, key):
        buffer = io.BytesIO()
        np.savez_compressed(buffer, key=np.asarray(key), **compute())
        path.parent.mkdir(parents=True, exist_ok=True)
        disk.write_bytes(path, buffer.getvalue())
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files if name != "key"}
