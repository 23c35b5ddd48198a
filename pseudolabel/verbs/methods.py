"""`pl methods`: every brick with its summary, formula and source; one brick with its parameters."""

from __future__ import annotations

from typing import Any

from pseudolabel import registry
from pseudolabel.errors import UsageFault
from pseudolabel.records import nearest


def methods(name: str | None = None) -> dict[str, Any]:
    """What bricks there are.

    Args:
        name: a brick, `smooth` or `refiners.smooth`; None lists all without importing any.

    Returns:
        Without a name `{room: {brick: {summary, formula, source}}}`; with one `{room.brick: {summary,
        formula, source, takes, gives, device, parameters: {key: {type, default, unit, help, bounds}}}}`.

    Raises:
        UsageFault: no brick of that name.
    """
    if name is None:
        return {
            room: {brick: _described(room, brick) for brick in bricks}
            for room in registry.ROOMS
            if (bricks := registry.names(room))
        }
    wanted_room, _, wanted = name.rpartition(".")
    found = {
        f"{room}.{brick}": {**_described(room, brick), **_parameters(room, brick)}
        for room in registry.ROOMS
        for brick in registry.names(room)
        if brick == wanted and wanted_room in ("", room)
    }
    if not found:
        known = [brick for room in registry.ROOMS for brick in registry.names(room)]
        raise UsageFault(f"{name!r} is not a brick; {nearest(wanted, known)}")
    return found


def _described(room: str, brick: str) -> dict[str, str]:
    """Summary, formula (the indented lines) and source of a module's docstring."""
    lines = registry.documentation(room, brick).splitlines()
    formula = [line.strip() for line in lines if line.startswith("    ")]
    source: list[str] = []
    for line in lines:
        if line.startswith("Source:"):
            source = [line.removeprefix("Source:").strip()]
        elif source and line.strip():
            source.append(line.strip())
        elif source:
            break
    summary = lines[0].strip() if lines else ""
    return {"summary": summary, "formula": "\n".join(formula), "source": " ".join(source)}


def _parameters(room: str, name: str) -> dict[str, Any]:
    brick = registry.get(room, name)
    schema = brick.params.model_json_schema()
    shown: dict[str, Any] = {}
    for key, field in brick.params.model_fields.items():
        entry = schema["properties"][key]
        bounds = {
            word: entry[bound]
            for bound, word in (
                ("exclusiveMinimum", "above"),
                ("minimum", "at least"),
                ("exclusiveMaximum", "below"),
                ("maximum", "at most"),
            )
            if bound in entry
        }
        if "enum" in entry:
            bounds["one of"] = entry["enum"]
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        shown[key] = {
            "type": str(getattr(field.annotation, "__name__", field.annotation)).replace("typing.", ""),
            "default": entry.get("default") if not field.is_required() else "required",
            "unit": extra.get("unit", "no unit"),
            "help": field.description or "",
            "bounds": bounds,
        }
    return {"takes": brick.takes, "gives": brick.gives, "device": brick.device, "parameters": shown}
