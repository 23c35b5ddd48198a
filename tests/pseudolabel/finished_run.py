"""Files laid out by a test made a finished run: class list, fingerprint and a manifest that knows them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pseudolabel.records import LabelSpace
from pseudolabel.runs import disk, layout


def seal(run: Path, ids: Iterable[str], names: Sequence[str], kind: str = "generate") -> Path:
    """Write what makes a folder a run of these images, from the masks and maps that stand in it."""
    disk.write_json(run / layout.FINGERPRINT, {"kind": kind, "format": 1})
    disk.write_text(run / layout.CLASSES, LabelSpace(tuple(names)).text())
    disk.write_json_lines(run / layout.MANIFEST, [_line(run, item) for item in ids])
    return run


def _line(run: Path, item: str) -> dict[str, Any]:
    line: dict[str, Any] = {"id": item, **_about(run / layout.mask_file(item))}
    maps = layout.maps_file(item)
    if (run / maps).exists():
        line["files"] = {maps: _about(run / maps)}
    return line


def _about(path: Path) -> dict[str, Any]:
    data = path.read_bytes() if path.exists() else b""
    return {"size": len(data), "sha256": disk.sha256_bytes(data)}
