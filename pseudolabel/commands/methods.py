"""`pl methods`: every component with its summary, formula and source; one component with its parameters."""

from __future__ import annotations

from typing import Any

from pseudolabel import registry
from pseudolabel.errors import UsageError
from pseudolabel.records import nearest


def methods(name: str | None = None) -> dict[str, Any]:
    """What components there are.

    Args:
        name: a component, `smooth` or `refiners.smooth`; None lists all without importing any.

    Returns:
        Without a name `{kind: {component: {summary, formula, source}}}`; with one `{kind.component: {summary,
        formula, source, takes, gives, device, parameters: {key: {type, default, unit, help, bounds}}}}`.

    Raises:
        UsageError: no component of that name.
    """
    if name is None:
        return {
            kind: {component: _described(kind, component) for component in components}
            for kind in registry.KINDS
            if (components := registry.names(kind))
        }
    wanted_kind, _, wanted = name.rpartition(".")
    entries = {
        f"{kind}.{component}": {**_described(kind, component), **_parameters(kind, component)}
        for kind in registry.KINDS
        for component in registry.names(kind)
        if component == wanted and wanted_kind in ("", kind)
    }
    if not entries:
        known = [component for kind in registry.KINDS for component in registry.names(kind)]
        raise UsageError(f"{name!r} is not a component; {nearest(wanted, known)}")
    return entries


def _described(kind: str, component: str) -> dict[str, str]:
    """Summary, formula (the indented lines) and source of a module's docstring."""
    lines = registry.documentation(kind, component).splitlines()
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


def _parameters(kind: str, name: str) -> dict[str, Any]:
    component = registry.get(kind, name)
    schema = component.params.model_json_schema()
    shown: dict[str, Any] = {}
    for key, field in component.params.model_fields.items():
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
    return {
        "takes": component.takes,
        "gives": component.gives,
        "device": component.device,
        "parameters": shown,
    }
