"""Write docs/recipes.md, docs/components.md and the README's table of commands from the code.

python scripts/write_docs.py            write them
python scripts/write_docs.py --check    exit 1 where they are not up to date
"""

from __future__ import annotations

import sys
import types
import typing
from pathlib import Path
from typing import Any

import typer.main
from pydantic import BaseModel

import pseudolabel.cli
import segtrain.cli
from pseudolabel import registry
from pseudolabel.commands.methods import methods
from pseudolabel.recipes.schema import RECIPES as PL
from pseudolabel.recipes.section import Section
from pseudolabel.recipes.steps import Step
from segtrain.comparison.recipe import RECIPES as COMPARE
from segtrain.recipe import RECIPES as SEG

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- commands: made by scripts/write_docs.py -->\n", "<!-- end of commands -->\n"
HEAD = "<!-- made by scripts/write_docs.py; change the code, not this page -->\n"


def main() -> int:
    """Write or check the pages."""
    pages = {"docs/recipes.md": recipes(), "docs/components.md": components(), "README.md": readme()}
    stale = [name for name, text in pages.items() if not _equal(ROOT / name, text)]
    if "--check" in sys.argv[1:]:
        for name in stale:
            print(f"{name}: not what the code says; run python scripts/write_docs.py", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        (ROOT / name).write_text(pages[name], encoding="utf-8")
    return 0


def readme() -> str:
    """README.md with its table of commands."""
    before, _, rest = (ROOT / "README.md").read_text(encoding="utf-8").partition(BEGIN)
    rows = [*commands("pl", pseudolabel.cli.app), *commands("seg", segtrain.cli.app)]
    table = "\n".join(["| command | what it does |", "| --- | --- |", *rows, ""])
    return f"{before}{BEGIN}{table}{END}{rest.partition(END)[2]}"


def commands(program: str, app: typer.Typer) -> list[str]:
    """A row of the table for every command: what must be given, and what it does."""
    rows = []
    for name, command in typer.main.get_group(app).commands.items():
        needed = [
            f"-o {parameter.name.upper()}" if parameter.name == "out" else str(parameter.name).upper()
            for parameter in command.params
            if parameter.required
        ]
        rows.append(f"| `{' '.join([program, name, *needed])}` | {_cell(_line(command.help or ''))} |")
    return rows


def _line(text: str) -> str:
    """The first paragraph of a help text as one line."""
    return " ".join(text.partition("\n\n")[0].split())


def recipes() -> str:
    """Every key of every recipe."""
    parts = [
        HEAD,
        "# Recipes\n",
        "A recipe is a YAML 1.2 file; `configs/` has some to start from. Types are checked and never "
        "coerced, unknown keys are refused with file, line and the nearest known key, and every fault is "
        "told at once. `--set schedule.epochs=3` or `--set maps.0.aggregate.0.count=50` overrides a key. "
        "A *step* names a component with its parameters (`{name: smooth, size: 13}`); "
        "[components.md](components.md) lists them, and so does `pl methods`.\n",
    ]
    for command, model in {**PL, **SEG, **COMPARE}.items():
        parts.append(f"## `{command}`\n")
        parts.append(_sentence(model) + "\n")
        parts.append("| key | type | default | what |\n| --- | --- | --- | --- |")
        parts.append("\n".join(_rows(model, "")) + "\n")
    return "\n".join(parts)


def _rows(model: type[BaseModel], prefix: str) -> list[str]:
    rows: list[str] = []
    for name, field in model.model_fields.items():
        inner = _section(field.annotation)
        key = f"{prefix}{name}"
        many = typing.get_origin(field.annotation) is tuple
        if inner is not None and not issubclass(inner, Step):
            rows.append(f"| `{key}` | {'list of ' if many else ''}keys | | {_sentence(inner)} |")
            rows += _rows(inner, f"{key}{'.0' if many else ''}.")
            continue
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        unit = extra.get("unit", "no unit")
        help_text = field.description or ""
        if unit not in ("no unit", "none"):
            help_text += f" ({unit})"
        default = (
            "required" if field.is_required() else f"`{_plain(field.get_default(call_default_factory=True))}`"
        )
        rows.append(f"| `{key}` | {_type(field.annotation)} | {default} | {_cell(help_text)} |")
    return rows


def _section(annotation: Any) -> type[BaseModel] | None:
    for option in (annotation, *typing.get_args(annotation)):
        if isinstance(option, type) and issubclass(option, Section):
            return option
    return None


def _type(annotation: Any) -> str:
    if isinstance(annotation, type):
        if issubclass(annotation, Step):
            return f"step of `{annotation.kind}`"
        return {"str": "text", "int": "whole number", "float": "number", "bool": "true / false"}.get(
            annotation.__name__, annotation.__name__
        )
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:  # a type with its bounds
        return _type(arguments[0])
    if origin is typing.Literal:
        return " / ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if a is type(None) else _type(a) for a in arguments)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return f"list of {_type(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(_type(a) for a in arguments)}]"
    return "keys" if origin is dict else _cell(str(annotation))


def _plain(value: Any) -> str:
    if isinstance(value, Step):
        return f"{{{value.key}: {value.component_name}}}"
    if isinstance(value, BaseModel):
        return "{}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(list(value)) if isinstance(value, (tuple, list)) else str(value)


def components() -> str:
    """Every component with its formula, source and parameters."""
    parts = [HEAD, "# Components\n", "What `pl methods` and `pl methods NAME` print, on one page.\n"]
    for kind, names in methods().items():
        parts.append(f"## {kind}\n")
        for name in names:
            entry = methods(f"{kind}.{name}")[f"{kind}.{name}"]
            parts.append(f"### `{name}`\n\n{entry['summary']}\n")
            if entry["formula"]:
                parts.append(f"```\n{entry['formula']}\n```\n")
            flow = f"takes {entry['takes']}, gives {entry['gives']}; " if entry["takes"] else ""
            parts.append(
                f"{flow}runs on: {entry['device']}. "
                + (f"Source: {entry['source']}" if entry["source"] else "")
                + "\n"
            )
            if entry["parameters"]:
                parts.append(
                    "| parameter | default | bounds | unit | what |\n| --- | --- | --- | --- | --- |"
                )
                rows = []
                for key, p in entry["parameters"].items():
                    bounds = ", ".join(f"{word} {value}" for word, value in p["bounds"].items())
                    cells = (f"`{key}`", f"`{_plain(p['default'])}`", bounds, p["unit"], p["help"])
                    rows.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
                parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def _sentence(model: type[BaseModel]) -> str:
    return _cell((model.__doc__ or "").strip().splitlines()[0])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _equal(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    assert registry.KINDS
    sys.exit(main())
