"""Components by name: where they stand, their parameters, defaults, bounds, formula and source.

A component is a file of its kind: the file's name is the component's name and its function's. Names are
listed by looking at the folder, nothing is imported; only the components of a recipe are loaded. A third
party adds components through the entry point group `pseudolabel.components`, an entry `kind.name = "module"`.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict
from pydantic import Field as _Field

from pseudolabel.errors import MachineError, UsageError
from pseudolabel.records import nearest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

RAW = "RAW"
UNIT = "UNIT"
SAME = "SAME"
ENTRY_POINTS = "pseudolabel.components"

KINDS = {
    "readers": "pseudolabel.readers",
    "methods": "pseudolabel.methods",
    "aggregators": "pseudolabel.aggregators",
    "refiners": "pseudolabel.refiners",
    "backgrounds": "pseudolabel.backgrounds",
    "postprocessors": "pseudolabel.postprocessors",
    "objectives": "pseudolabel.objectives",
    "exporters": "pseudolabel.exporters",
    "importers": "pseudolabel.importers",
    "losses": "segtrain.losses",  # found by name; nothing of segtrain is imported here
}


class Parameters(BaseModel):
    """Parameters of a component: frozen, typed, never coerced; an unknown key is refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    def as_dict(self) -> dict[str, Any]:
        """Values by name, as the component sees them."""
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


class ObjectiveParameters(Parameters):
    """What every objective has; its weight is applied by the training, not by the objective.

    An objective with modules of its own (trait `modules`) also declares `lr_factor`, how many times faster
    than the backbone they learn.
    """

    weight: float = parameter(1.0, ge=0, help="factor on this objective in the sum that is minimised")


@dataclass(frozen=True)
class Need:
    """What a component is handed as a keyword argument, beside its input, the image and its parameters.

    Attributes:
        kind: `network`, the classifier of a run of `pl train` that the parameter names; or `file`, the bytes
            of
            one file per image, `<folder>/<id><suffix>`, of the folder that the parameter names.
        parameter: the parameter that holds the path. Its digest, not the path, decides what is already done.
        suffix: of `file`.
    """

    kind: Literal["network", "file"]
    parameter: str
    suffix: str = ""


@dataclass(frozen=True)
class Component:
    """A registered function with its parameters.

    Attributes:
        kind, name: where it stands.
        run: the function.
        params: its parameters' class.
        takes, gives: range of the scores, RAW, UNIT or SAME (as taken); None where none flow.
        device: `any`, or `cpu` for one that is sent to the worker pool.
        needs: what the caller loads and hands over, by the name of the keyword argument.
        traits: what a kind wants to know beside (a method's `place`, a background rule's `swept` key).
    """

    kind: str
    name: str
    run: Callable[..., Any]
    params: type[Parameters]
    takes: str | None = None
    gives: str | None = None
    device: str = "any"
    needs: Mapping[str, Need] = field(default_factory=dict)
    traits: dict[str, Any] = field(default_factory=dict)

    def __reduce__(self) -> tuple[Callable[[str, str], Component], tuple[str, str]]:
        """Pickled by its name: a worker process finds its own."""
        return get, (self.kind, self.name)


def component(
    params: type[Parameters],
    *,
    kind: str | None = None,
    takes: str | None = None,
    gives: str | None = None,
    device: str = "any",
    needs: Mapping[str, Need] | None = None,
    **traits: Any,
) -> Callable[[Callable[..., Any]], Component]:
    """Register the function below as a component; its module's place tells the kind.

    Raises:
        TypeError: the function is not named after its file, or the kind cannot be told.
    """

    def register(function: Callable[..., Any]) -> Component:
        package, _, stem = function.__module__.rpartition(".")
        registered_kind = kind or next((name for name, place in KINDS.items() if place == package), None)
        if registered_kind is None:
            raise TypeError(f"{function.__module__}: no kind has the package {package!r}; say kind=...")
        name = function.__name__.rstrip("_")
        if stem.rstrip("_") != name:
            raise TypeError(f"{function.__module__}: the component {name!r} must stand in a file of its name")
        return Component(registered_kind, name, function, params, takes, gives, device, needs or {}, traits)

    return register


def names(kind: str) -> tuple[str, ...]:
    """The components of a kind in alphabetical order; imports none of them.

    Raises:
        UsageError: two modules bring a component of the same name.
    """
    return tuple(sorted(_modules(kind)))


def get(kind: str, name: str) -> Component:
    """Load one component.

    Raises:
        UsageError: there is none of that name; the nearest is named.
        MachineError: another package's entry point names a module that cannot be imported,
            whatever it raises.
    """
    modules = _modules(kind)
    if name not in modules:
        raise UsageError(f"{name!r} is not known; {nearest(name, names(kind))}")
    try:
        module = importlib.import_module(modules[name])
    except Exception as error:  # another package's module may do anything
        if modules[name].startswith(f"{KINDS[kind]}."):
            raise  # one of ours: a package that is missing, which the component itself says better
        reason = " ".join(str(error).split())
        if not isinstance(error, ImportError):
            reason = f"{type(error).__name__}: {reason}".rstrip(": ")
        raise MachineError(
            f"{kind}.{name}: {modules[name]} cannot be imported ({reason}); {_mend(kind, name)}"
        ) from error
    loaded = getattr(module, name, None) or getattr(module, f"{name}_", None)
    if not isinstance(loaded, Component):
        raise TypeError(f"{modules[name]} registers no component named {name!r}")
    if loaded.kind != kind:
        raise TypeError(f"{modules[name]} registers {loaded.kind}.{name}, its entry point says {kind}.{name}")
    return loaded


def documentation(kind: str, name: str) -> str:
    """The docstring of a component's module (summary, formula, source), read without importing it.

    A module that is not there or not Python, of a broken or half removed package, is said to be so instead.
    """
    module = _modules(kind)[name]
    file = _file(module)
    if file is None:
        return f"cannot be used: there is no module {module}; {_mend(kind, name)}"
    try:
        return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    except (SyntaxError, ValueError) as error:  # or bytes that are no text
        return f"cannot be used: {module} is not Python ({error}); {_mend(kind, name)}"


@functools.cache
def _modules(kind: str) -> dict[str, str]:
    """Module of every component of a kind, by component name."""
    package = KINDS[kind]
    modules: dict[str, str] = {}
    for file in sorted(_folder(package).glob("*.py")):
        if not file.stem.startswith("_"):
            modules[file.stem.rstrip("_")] = f"{package}.{file.stem}"
    for entry in _entries():
        entry_kind, _, name = entry.name.partition(".")
        if entry_kind not in KINDS or not name:
            hint = nearest(entry_kind, KINDS)
            raise UsageError(
                f"entry point {entry.name!r} of {_owner(entry)} names no kind of components; {hint}"
            )
        if entry_kind != kind:
            continue
        if modules.get(name, entry.module) != entry.module:
            raise UsageError(
                f"two components are named {kind}.{name}: {modules[name]} and {entry.module} of "
                f"{_owner(entry)}; rename or remove one"
            )
        modules[name] = entry.module
    return modules


def _entries() -> EntryPoints:
    """Entry points of other packages' components."""
    from importlib.metadata import entry_points

    return entry_points(group=ENTRY_POINTS)


def _owner(entry: EntryPoint) -> str:
    return f"the package {entry.dist.name}" if entry.dist is not None else "an unknown package"


def _mend(kind: str, name: str) -> str:
    """What to do about a component that is named and not there."""
    for entry in _entries():
        if entry.name == f"{kind}.{name}":
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
