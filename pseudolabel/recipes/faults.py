"""Faults of a recipe in a person's words: what stands there, what was wanted, what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from pseudolabel.records import nearest


@dataclass(frozen=True)
class RecipeFault:
    """One fault: the key's path from the top and the message."""

    key: tuple[str | int, ...]
    message: str


_BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}
_WANTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "keys with values",
    "model_type": "keys with values",
    "model_attributes_type": "keys with values",
    "finite_number": "a finite number",
    "path_type": "a path",
}


def explain_all(entries: Iterable[Any], model: type[BaseModel], data: Any) -> Iterator[RecipeFault]:
    """Entries of a pydantic error as faults, but for lists called short because their items were refused.

    Args:
        entries: `ValidationError.errors()`.
        model, data: see `explain`.
    """
    for entry in entries:
        there = entry.get("input")
        enough = isinstance(there, list) and len(there) >= entry.get("ctx", {}).get("min_length", 0)
        if entry["type"] != "too_short" or not enough:
            yield explain(entry, model, data)


def explain(entry: Any, model: type[BaseModel], data: Any) -> RecipeFault:
    """One entry of a pydantic error as a fault.

    Args:
        entry: of `ValidationError.errors()`.
        model: the schema that refused.
        data: the raw data that were refused; tells real keys from pydantic's names of union members.
    """
    kind, context, value = entry["type"], entry.get("ctx", {}), entry.get("input")
    key = _real_key(entry["loc"], data)
    owner, field = _owner(model, key)
    name = str(key[-1]) if key else "recipe"
    if kind == "extra_forbidden":
        known = owner.model_fields if owner else {}
        return RecipeFault(key, f"{name!r} is not a key here; {nearest(name, known)}")
    if kind == "missing":
        return RecipeFault(key, "is missing; " + (_hint(field) or "the recipe must say it"))
    if kind in _BOUNDS:
        bound, word = _BOUNDS[kind]
        unit = _unit(field)
        return RecipeFault(key, f"{value!r} is not {word} {context[bound]}{unit}{_default(field)}")
    if kind == "literal_error":
        return RecipeFault(key, f"{value!r} is not known here; choose {context['expected']}")
    if kind in ("too_short", "too_long"):
        wanted = context.get("min_length", context.get("max_length"))
        return RecipeFault(key, f"has {context.get('actual_length')} entries, {kind[4:]} for {wanted}")
    if kind == "value_error":
        return RecipeFault(key, str(context.get("error", entry["msg"])))
    wanted = _WANTED.get(kind)
    step = _step(kind, field, value)
    if wanted and step:
        return RecipeFault(key, f"{_shown(value)}, wanted {wanted}; write {step}")
    if wanted:
        return RecipeFault(key, f"{_shown(value)}, wanted {wanted}{_default(field)}")
    return RecipeFault(key, f"{_shown(value)}: {entry['msg'][:1].lower()}{entry['msg'][1:]}")


def _real_key(location: tuple[str | int, ...], data: Any) -> tuple[str | int, ...]:
    """The part of a location that walks through the data, and the one key that may be missing."""
    key: list[str | int] = []
    place = data
    for part in location:
        if isinstance(place, dict):
            key.append(part)
            place = place.get(part)
        elif isinstance(place, list) and isinstance(part, int):
            key.append(part)
            place = place[part] if part < len(place) else None
        else:
            break
    return tuple(key)


def _owner(model: type[BaseModel], key: tuple[str | int, ...]) -> tuple[type[BaseModel] | None, Any]:
    """The model that declares the last part of a key, and that field."""
    owner: type[BaseModel] | None = model
    field: Any = None
    for part in key:
        if isinstance(part, int):
            continue
        if field is not None:
            owner = _model_in(field.annotation)
        if owner is None:
            return None, None
        field = owner.model_fields.get(part)
        if field is None:
            return owner, None
    return owner, field


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        model = _model_in(argument)
        if model is not None:
            return model
    return None


def _step(kind: str, field: Any, value: Any) -> str:
    """How the name of a component is written where a step, or a list of them, is wanted; else nothing."""
    model = _model_in(field.annotation) if field is not None else None
    key = getattr(model, "key", None)  # of `pseudolabel.recipes.steps.Step`
    if not isinstance(key, str) or not isinstance(value, str) or not value:
        return ""
    name = value if re.fullmatch(r"[A-Za-z]\w*", value) else json.dumps(value, ensure_ascii=False)
    return f"[{{{key}: {name}}}]" if kind in ("tuple_type", "list_type") else f"{{{key}: {name}}}"


def _unit(field: Any) -> str:
    extra = getattr(field, "json_schema_extra", None) or {}
    unit = extra.get("unit", "no unit") if isinstance(extra, dict) else "no unit"
    return "" if unit in ("no unit", "none") else f" {unit}"


def _default(field: Any) -> str:
    if field is None or field.is_required() or field.default is None:
        return ""
    default = field.default
    shown = list(default) if isinstance(default, tuple) else default
    return f"; the default is {shown}"


def _hint(field: Any) -> str:
    return f"it is {field.description}" if field is not None and field.description else ""


def _shown(value: Any) -> str:
    kinds = {str: "the text", bool: "the truth value", int: "the number", float: "the number"}
    if isinstance(value, (str, bool, int, float)):
        return f"{kinds[type(value)]} {value!r}"
    if value is None:
        return "null"
    return "a list" if isinstance(value, list) else "keys with values"
