"""`--set a.b.0.c=value`: one key of the plain data replaced; the value is read as YAML.

In Python overrides may also be a mapping, `{"a.b.0.c": value}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pseudolabel.errors import UsageError
from pseudolabel.recipes.yaml import Source, check_nodes

Overrides = Sequence[str] | Mapping[str, Any]


def as_texts(overrides: Overrides) -> tuple[str, ...]:
    """Overrides as `key=value` texts, in order.

    Args:
        overrides: such texts, or values by key; a value is anything that JSON can hold, or a path.
    """
    if not isinstance(overrides, Mapping):
        return tuple(overrides)
    return tuple(
        f"{key}={json.dumps(value, default=str, ensure_ascii=False)}" for key, value in overrides.items()
    )


def override(data: Any, origin: Source, text: str) -> None:
    """Apply one `a.b.0.c=value`; the value is read as YAML."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    path, equals, value_text = text.partition("=")
    if not equals or not path:
        raise UsageError(f"--set {text}: expected key=value, for instance background.threshold=0.2")
    try:
        if value_text.strip():
            check_nodes(Path("--set"), YAML(typ="safe", pure=True).compose(value_text), (), {})
        value = YAML(typ="safe", pure=True).load(value_text) if value_text.strip() else ""
    except (YAMLError, ValueError) as error:
        raise UsageError(f"--set {text}: the value is not readable as YAML") from error
    parts: list[str | int] = [int(p) if p.isdigit() else p for p in path.split(".")]
    place = data
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(place, list):
            if not isinstance(part, int) or part >= len(place):
                raise UsageError(f"--set {text}: {part!r} is not one of the {len(place)} entries there")
        elif isinstance(place, dict):
            part = str(part)
            if not last and not isinstance(place.get(part), (dict, list)):
                place[part] = {}
        else:
            raise UsageError(f"--set {text}: there is nothing below {'.'.join(map(str, parts[:depth]))!r}")
        if last:
            place[part] = value
        else:
            place = place[part]
    origin.lines[tuple(parts)] = 0
