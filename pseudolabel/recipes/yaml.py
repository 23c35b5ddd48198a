"""YAML 1.2 to plain data and back, with the line of every key.

The safe loader reads it: `1e-4` is a number, `no` is a word, tags and double keys are refused, aliases are
counted before anything is built from them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pseudolabel.errors import UsageError
from pseudolabel.recipes.section import Key

MOST_BYTES = 1_000_000
MOST_NODES = 20_000


@dataclass(frozen=True)
class Source:
    """Where each key of the raw data stands."""

    name: str
    lines: dict[Key, int]

    def place(self, key: Key) -> str:
        known = key
        while known not in self.lines and known:
            known = known[:-1]
        line = self.lines.get(known)
        if line == 0:
            return "--set"
        return f"{self.name}:{line}" if line else self.name


def read_plain(path: Path, what: str) -> tuple[Any, Callable[[Key], str]]:
    """Plain data of a YAML file that is no recipe, read with the same care.

    Args:
        path: the file.
        what: what it is, for messages.

    Returns:
        The data, and the place `file:line` of each key path in them.

    Raises:
        UsageError: unreadable, too large, or with tags, double keys or numbers that are not finite.
    """
    data, origin = read(path, what)
    return data, origin.place


def dump_recipe(recipe: BaseModel) -> str:
    """A recipe as YAML text that `load_recipe` reads back to an equal recipe."""
    return "\n".join(_block(recipe.model_dump(mode="json"))) + "\n"


def _block(data: Any) -> list[str]:
    """Lines of block YAML; a list of plain values stands on one line."""
    rows: list[str] = []
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in items:
        head = f"{_scalar(key)}:" if isinstance(data, dict) else "-"
        nested = isinstance(value, dict) or any(isinstance(item, (dict, list)) for item in _list(value))
        if not nested or not value:
            rows.append(f"{head} {_flow(value)}")
        elif isinstance(data, dict):
            rows += [head, *(f"  {row}" for row in _block(value))]
        else:
            first, *rest = _block(value)
            rows += [f"- {first}", *(f"  {row}" for row in rest)]
    return rows


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _flow(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    return "{}" if isinstance(value, dict) else _scalar(value)


def _scalar(value: Any) -> str:
    """A value that YAML 1.2 reads back as it was: words as they are, other texts quoted and escaped."""
    if not isinstance(value, str):
        return json.dumps(value, allow_nan=False)
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", value) and value.lower() not in ("true", "false", "null"):
        return value
    escaped = "".join(
        letter if letter.isprintable() and letter not in '"\\' else f"\\U{ord(letter):08x}"
        for letter in value
    )
    return f'"{escaped}"'


def read(path: Path, what: str = "recipe") -> tuple[Any, Source]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot read the {what} ({error.strerror}); check the path") from error
    if len(raw) > MOST_BYTES:
        raise UsageError(f"{path}: {len(raw)} bytes; a {what} has at most {MOST_BYTES}")
    yaml = YAML(typ="safe", pure=True)  # the C loader reads YAML 1.1, where `no` is false
    try:
        text = raw.decode("utf-8-sig")
        node = yaml.compose(text)
        if node is None:
            raise UsageError(f"{path}: the {what} is empty")
        _check_size(path, node)
        lines: dict[Key, int] = {}
        check_nodes(path, node, (), lines)
        return YAML(typ="safe", pure=True).load(text), Source(str(path), lines)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        problem = " ".join(str(error.problem or error).split())
        raise UsageError(f"{path}{line}: not readable as YAML: {problem}") from error
    except (YAMLError, ValueError) as error:
        raise UsageError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise UsageError(f"{path}: nested too deeply; a recipe is a few levels deep") from error


def _check_size(path: Path, node: Any) -> None:
    """Count nodes with aliases followed, before anything is built from them."""
    counts: dict[int, int] = {}
    open_nodes: set[int] = set()

    def count(item: Any) -> int:
        if id(item) in counts:
            return counts[id(item)]
        if id(item) in open_nodes:
            raise UsageError(f"{path}: an alias contains itself; write the values out")
        open_nodes.add(id(item))
        total = 1
        if isinstance(item.value, list):
            for child in item.value:
                pair = child if isinstance(child, tuple) else (child,)
                total += sum(count(part) for part in pair)
        open_nodes.discard(id(item))
        counts[id(item)] = total
        return total

    total = count(node)
    if total > MOST_NODES:
        raise UsageError(f"{path}: {total} nodes after following aliases; a recipe has at most {MOST_NODES}")


_PLAIN = {"str", "int", "float", "bool", "null", "seq", "map"}


def check_nodes(path: Path, node: Any, key: Key, lines: dict[Key, int]) -> None:
    """Refuse tags and non-finite numbers, and note the line of every key."""
    line = node.start_mark.line + 1
    lines.setdefault(key, line)
    tag = str(getattr(node.tag, "value", None) or node.tag)
    kind = tag.rpartition(":")[2]
    if not tag.startswith("tag:yaml.org,2002:") or kind not in _PLAIN:
        raise UsageError(f"{path}:{line}: tag {tag} is refused; write plain values")
    if kind == "float" and not math.isfinite(_number(node.value)):
        raise UsageError(f"{path}:{line}: {node.value} is refused; write a finite number")
    if kind == "seq":
        for index, child in enumerate(node.value):
            check_nodes(path, child, (*key, index), lines)
    elif kind == "map":
        unique: set[str] = set()
        for name, child in node.value:
            text = str(name.value)
            if not str(getattr(name.tag, "value", None) or name.tag).endswith(":str"):
                raise UsageError(f"{path}:{name.start_mark.line + 1}: key {text} is not a word; quote it")
            if text in unique:
                raise UsageError(f"{path}:{name.start_mark.line + 1}: key {text!r} stands twice; keep one")
            unique.add(text)
            lines[(*key, text)] = name.start_mark.line + 1
            check_nodes(path, child, (*key, text), lines)


def _number(text: str) -> float:
    try:
        return float(text.replace("_", ""))
    except ValueError:
        return math.inf  # .inf and .nan are floats to YAML and words to Python
