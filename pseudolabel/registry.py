"""Bricks by name: where they stand, their parameters, defaults, bounds, formula and source.

A brick is a file of its room: the file's name is the brick's name and its function's. Names are
listed by looking at the folder, nothing is imported; only the bricks of a recipe are loaded. A third
party adds bricks through the entry point group `pseudolabel.bricks`, an entry `room.name = "module"`.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict
from pydantic import Field as _Field

from pseudolabel.errors import EnvironmentFault, UsageFault
from pseudolabel.records import nearest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

RAW = "RAW"
UNIT = "UNIT"
SAME = "SAME"
ENTRY_POINTS = "pseudolabel.bricks"

ROOMS = {
    "readers": "pseudolabel.data",
    "methods": "pseudolabel.maps",
    "aggregators": "pseudolabel.maps.aggregate",
    "refiners": "pseudolabel.refiners",
    "resolvers": "pseudolabel.resolvers",
    "finishers": "pseudolabel.finishers",
    "exporters": "pseudolabel.exporters",
    "importers": "pseudolabel.importers",
}


class Parameters(BaseModel):
    """Parameters of a brick: frozen, typed, never coerced; an unknown key is refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    def as_dict(self) -> dict[str, Any]:
        """Values by name, as the brick sees them."""
        return {name: getattr(self, name) for name in type(self).model_fields}


def parameter(default: Any = ..., *, help: str, unit: str = "no unit", **bounds: Any) -> Any:
    """One parameter, declared once: type by annotation, default, bounds (gt, ge, lt, le), unit, help.

    Args:
        default: the default, or `...` where the recipe must say.
        help: one clause for a person; stands in `pl methods NAME`, docs and errors.
        unit: `pixels of the original image`, `share 0..1`, `no unit`, ...
        bounds: handed to pydantic.
    """
    return _Field(default, description=help, json_schema_extra={"unit": unit}, **bounds)


@dataclass(frozen=True)
class Brick:
    """A registered function with its parameters.

    Attributes:
        room, name: where it stands.
        run: the function.
        params: its parameters' class.
        takes, gives: range of the scores, RAW, UNIT or SAME (as taken); None where none flow.
        device: `any`, or `cpu` for one that is sent to the worker pool.
        traits: what a room wants to know beside (a method's `place`, a resolver's `swept` key).
    """

    room: str
    name: str
    run: Callable[..., Any]
    params: type[Parameters]
    takes: str | None = None
    gives: str | None = None
    device: str = "any"
    traits: dict[str, Any] = field(default_factory=dict)


def brick(
    params: type[Parameters],
    *,
    room: str | None = None,
    takes: str | None = None,
    gives: str | None = None,
    device: str = "any",
    **traits: Any,
) -> Callable[[Callable[..., Any]], Brick]:
    """Register the function below as a brick; its module's place tells the room.

    Raises:
        TypeError: the function is not named after its file, or the room cannot be told.
    """

    def register(function: Callable[..., Any]) -> Brick:
        package, _, stem = function.__module__.rpartition(".")
        found = room or next((name for name, place in ROOMS.items() if place == package), None)
        if found is None:
            raise TypeError(f"{function.__module__}: no room has the package {package!r}; say room=...")
        name = function.__name__.rstrip("_")
        if stem.rstrip("_") != name:
            raise TypeError(f"{function.__module__}: the brick {name!r} must stand in a file of its name")
        return Brick(found, name, function, params, takes, gives, device, traits)

    return register


def names(room: str) -> tuple[str, ...]:
    """The bricks of a room in alphabetical order; imports none of them.

    Raises:
        UsageFault: two modules bring a brick of the same name.
    """
    return tuple(sorted(_modules(room)))


def get(room: str, name: str) -> Brick:
    """Load one brick.

    Raises:
        UsageFault: there is none of that name; the nearest is named.
        EnvironmentFault: another package's entry point names a module that cannot be imported,
            whatever it raises.
    """
    modules = _modules(room)
    if name not in modules:
        raise UsageFault(f"{name!r} is not known; {nearest(name, names(room))}")
    try:
        module = importlib.import_module(modules[name])
    except Exception as error:  # another package's module may do anything
        if modules[name].startswith(f"{ROOMS[room]}."):
            raise  # one of ours: a package that is missing, which the brick itself says better
        reason = " ".join(str(error).split())
        if not isinstance(error, ImportError):
            reason = f"{type(error).__name__}: {reason}".rstrip(": ")
        raise EnvironmentFault(
            f"{room}.{name}: {modules[name]} cannot be imported ({reason}); {_mend(room, name)}"
        ) from error
    found = getattr(module, name, None) or getattr(module, f"{name}_", None)
    if not isinstance(found, Brick):
        raise TypeError(f"{modules[name]} registers no brick named {name!r}")
    if found.room != room:
        raise TypeError(f"{modules[name]} registers {found.room}.{name}, its entry point says {room}.{name}")
    return found


def documentation(room: str, name: str) -> str:
    """The docstring of a brick's module (summary, formula, source), read without importing it.

    A module that is not there or not Python, of a broken or half removed package, is said to be so instead.
    """
    module = _modules(room)[name]
    file = _file(module)
    if file is None:
        return f"cannot be used: there is no module {module}; {_mend(room, name)}"
    try:
        return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    except (SyntaxError, ValueError) as error:  # or bytes that are no text
        return f"cannot be used: {module} is not Python ({error}); {_mend(room, name)}"


@functools.cache
def _modules(room: str) -> dict[str, str]:
    """Module of every brick of a room, by brick name."""
    package = ROOMS[room]
    found: dict[str, str] = {}
    for file in sorted(_folder(package).glob("*.py")):
        if not file.stem.startswith("_"):
            found[file.stem.rstrip("_")] = f"{package}.{file.stem}"
    for entry in _entries():
        entry_room, _, name = entry.name.partition(".")
        if entry_room not in ROOMS or not name:
            hint = nearest(entry_room, ROOMS)
            raise UsageFault(f"entry point {entry.name!r} of {_owner(entry)} names no room of bricks; {hint}")
        if entry_room != room:
            continue
        if found.get(name, entry.module) != entry.module:
            raise UsageFault(
                f"two bricks are named {room}.{name}: {found[name]} and {entry.module} of {_owner(entry)}; "
                "rename or remove one"
            )
        found[name] = entry.module
    return found


def _entries() -> EntryPoints:
    """Entry points of other packages' bricks."""
    from importlib.metadata import entry_points

    return entry_points(group=ENTRY_POINTS)


def _owner(entry: EntryPoint) -> str:
    return f"the package {entry.dist.name}" if entry.dist is not None else "an unknown package"


def _mend(room: str, name: str) -> str:
    """What to do about a brick that is named and not there."""
    for entry in _entries():
        if entry.name == f"{room}.{name}":
            return f"mend or remove {_owner(entry)}"
    return "install this package again"


def _file(module: str) -> Path | None:
    """Where a module's source stands, found without importing anything; None where there is none."""
    top, *below = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not below:
        return None if spec.origin is None else Path(spec.origin)
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, *below)
        for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


def _folder(package: str) -> Path:
    """A package's folder, found without importing the package below the top."""
    root = importlib.util.find_spec(package.partition(".")[0])
    assert root is not None
    assert root.origin is not None
    return Path(root.origin).parent.joinpath(*package.split(".")[1:])
