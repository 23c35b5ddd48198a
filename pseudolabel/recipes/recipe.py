"""Recipes: YAML + `--set` to a frozen typed recipe. The only place that reads configuration.

YAML 1.2 by the safe loader: `1e-4` is a number, `no` is a word, tags and double keys are refused.
Types are checked and never coerced. Every fault of a recipe is told at once, each with file, line and
dotted key. The schemas stand in `pseudolabel.recipes.schema` and `segtrain.recipe`.
"""

from __future__ import annotations

import json
import math
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pseudolabel import registry
from pseudolabel.errors import UsageError
from pseudolabel.recipes.faults import RecipeFault, explain_all

MOST_BYTES = 1_000_000
MOST_NODES = 20_000

Key = tuple[str | int, ...]


class Section(BaseModel):
    """A part of a recipe: frozen, strict, unknown keys refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    def check(self) -> Iterator[tuple[Key, str]]:
        """What single keys cannot tell: (key, message) for each contradiction; none by default."""
        yield from ()


class Step(BaseModel):
    """One component with its parameters, as a recipe names it: `{name: smooth, size: 13}`.

    Subclasses fix `kind`. After `load` every parameter is filled in.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="allow", allow_inf_nan=False)
    kind: ClassVar[str]
    key: ClassVar[str] = "name"

    @property
    def component_name(self) -> str:
        """The component's name within its kind."""
        return str(getattr(self, self.key))

    def parameters(self) -> dict[str, Any]:
        """The parameters as plain data."""
        return {k: v for k, v in self.model_dump(mode="json").items() if k != self.key}

    def load(self) -> tuple[registry.Component, registry.Parameters]:
        """The component and its validated parameters.

        Raises:
            UsageError: unknown component.
        """
        component = registry.get(self.kind, self.component_name)
        return component, component.params.model_validate_json(json.dumps(self.parameters()))


class ReaderStep(Step):
    """A reader of a data set: `{reader: voc, root: ..., split: train}`."""

    kind = "readers"
    key = "reader"
    reader: str


class MethodStep(Step):
    """A map method."""

    kind = "methods"
    name: str


class AggregatorStep(Step):
    """An aggregator around the method and the aggregators before it."""

    kind = "aggregators"
    name: str


class RefinerStep(Step):
    """A refiner."""

    kind = "refiners"
    name: str


class BackgroundStep(Step):
    """A background rule."""

    kind = "backgrounds"
    name: str


class PostprocessorStep(Step):
    """A postprocessor."""

    kind = "postprocessors"
    name: str


M = TypeVar("M", bound=Section)


@dataclass(frozen=True)
class _Source:
    """Where each key of the raw data stands."""

    name: str
    lines: dict[Key, int]

    def place(self, key: Key) -> str:
        found = key
        while found not in self.lines and found:
            found = found[:-1]
        line = self.lines.get(found)
        if line == 0:
            return "--set"
        return f"{self.name}:{line}" if line else self.name


def load(source: Path | str | Mapping[str, Any] | M, model: type[M], overrides: Sequence[str] = ()) -> M:
    """Read a recipe.

    Args:
        source: a YAML file, plain data, or a recipe already read.
        model: the schema.
        overrides: `maps.0.aggregate.0.count=50` and the like, applied in order.

    Returns:
        The recipe with every default filled in; `load(dump(r)) == r`.

    Raises:
        UsageError: a line for each fault: place, dotted key, what is wrong, what to do.
    """
    if isinstance(source, Section):
        data, origin = plain(source), _Source("recipe", {})
    elif isinstance(source, Mapping):
        data, origin = json.loads(json.dumps(source)), _Source("recipe", {})
    else:
        data, origin = _read(Path(source))
    for text in overrides:
        _override(data, origin, text)
    faults: list[RecipeFault] = []
    filled = _fill_steps(data, model, (), faults)
    try:
        recipe = model.model_validate_json(json.dumps(filled))
    except ValidationError as error:
        faults += explain_all(error.errors(), model, data)
    else:
        if not faults:
            faults += [RecipeFault(key, message) for key, message in recipe.check()]
    if faults:
        lines = [
            f"{origin.place(f.key)}: {'.'.join(map(str, f.key)) or 'recipe'}: {f.message}" for f in faults
        ]
        raise UsageError("\n".join(dict.fromkeys(lines)))
    return recipe


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
    data, origin = _read(path, what)
    return data, origin.place


def plain(recipe: BaseModel) -> dict[str, Any]:
    """A recipe as JSON-able data, every default filled in."""
    return recipe.model_dump(mode="json")


def dump(recipe: BaseModel) -> str:
    """A recipe as YAML text that `load` reads back to an equal recipe."""
    return "\n".join(_block(plain(recipe))) + "\n"


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


def _read(path: Path, what: str = "recipe") -> tuple[Any, _Source]:
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
        _check_nodes(path, node, (), lines)
        return YAML(typ="safe", pure=True).load(text), _Source(str(path), lines)
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


def _check_nodes(path: Path, node: Any, key: Key, lines: dict[Key, int]) -> None:
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
            _check_nodes(path, child, (*key, index), lines)
    elif kind == "map":
        seen: set[str] = set()
        for name, child in node.value:
            text = str(name.value)
            if not str(getattr(name.tag, "value", None) or name.tag).endswith(":str"):
                raise UsageError(f"{path}:{name.start_mark.line + 1}: key {text} is not a word; quote it")
            if text in seen:
                raise UsageError(f"{path}:{name.start_mark.line + 1}: key {text!r} stands twice; keep one")
            seen.add(text)
            lines[(*key, text)] = name.start_mark.line + 1
            _check_nodes(path, child, (*key, text), lines)


def _number(text: str) -> float:
    try:
        return float(text.replace("_", ""))
    except ValueError:
        return math.inf  # .inf and .nan are floats to YAML and words to Python


def _override(data: Any, origin: _Source, text: str) -> None:
    """Apply one `a.b.0.c=value`; the value is read as YAML."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    path, equals, value_text = text.partition("=")
    if not equals or not path:
        raise UsageError(f"--set {text}: expected key=value, for instance background.threshold=0.2")
    try:
        if value_text.strip():
            _check_nodes(Path("--set"), YAML(typ="safe", pure=True).compose(value_text), (), {})
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


def _fill_steps(data: Any, annotation: Any, key: Key, faults: list[RecipeFault]) -> Any:
    """Validate the parameters of every step below and fill in their defaults."""
    step, section, item = _kind(annotation)
    if step is not None and isinstance(data, dict):
        return _fill_step(data, step, key, faults)
    if section is not None and isinstance(data, dict):
        fields = section.model_fields
        return {
            name: _fill_steps(value, fields[name].annotation, (*key, name), faults)
            if name in fields
            else value
            for name, value in data.items()
        }
    if item is not None and isinstance(data, list):
        return [_fill_steps(value, item, (*key, index), faults) for index, value in enumerate(data)]
    return data


def _kind(annotation: Any) -> tuple[type[Step] | None, type[Section] | None, Any]:
    """What an annotation holds: a step, a section, or the items of a tuple."""
    options = [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(annotation) if option is not type(None)]
    for option in options:
        if isinstance(option, type) and issubclass(option, Step):
            return option, None, None
        if isinstance(option, type) and issubclass(option, Section):
            return None, option, None
        arguments = typing.get_args(option)
        if typing.get_origin(option) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
            return None, None, arguments[0]
    return None, None, None


def _fill_step(data: dict[str, Any], step: type[Step], key: Key, faults: list[RecipeFault]) -> dict[str, Any]:
    name = data.get(step.key)
    if not isinstance(name, str):
        return data  # the schema's own check names the missing or mistyped key
    try:
        component = registry.get(step.kind, name)
    except UsageError as error:
        faults.append(RecipeFault((*key, step.key), str(error)))
        return data
    rest = {k: v for k, v in data.items() if k != step.key}
    try:
        params = component.params.model_validate_json(json.dumps(rest))
    except ValidationError as error:
        found = explain_all(error.errors(), component.params, rest)
        faults += [RecipeFault((*key, *fault.key), fault.message) for fault in found]
        return data
    return {step.key: name, **params.model_dump(mode="json")}
