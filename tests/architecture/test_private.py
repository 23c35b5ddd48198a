"""An underscore means private to a folder; components of one folder share only what begins with one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pseudolabel.registry import KINDS
from tests.architecture.syntax import FOLDERS, ROOT, imported_paths, python_files, tree_of


def private_imports(root: Path) -> Iterator[str]:
    """`file:line: path` of every import of a private module or name from outside of its folder.

    Tests mirror the packages: tests/pseudolabel/readers/ may use what is private to pseudolabel/readers/.
    """
    for file in python_files(root, *FOLDERS):
        place = file.relative_to(root)
        importer = place.parts[1:-1] if place.parts[0] == "tests" else place.parts[:-1]
        for path, line in imported_paths(tree_of(file)):
            folder = owner(root, path)
            if folder is not None and importer[: len(folder)] != folder:
                yield f"{place.as_posix()}:{line}: {path}"


def owner(root: Path, path: str) -> tuple[str, ...] | None:
    """The folder that a path's first private part belongs to; None where the path is public or foreign."""
    parts = path.split(".")
    private = next((i for i, part in enumerate(parts) if part.startswith("_") and part[:2] != "__"), None)
    if private is None or parts[0] not in FOLDERS:
        return None
    folder = parts[:private]
    while folder and not root.joinpath(*folder).is_dir():  # a private name of a module: the module's folder
        folder.pop()
    return tuple(folder[1:] if folder[0] == "tests" else folder)


def sibling_imports(root: Path, package: str) -> Iterator[str]:
    """`file: path` of every import of one component by another of the same folder."""
    for file in sorted(root.joinpath(*package.split(".")).glob("[!_]*.py")):
        for path, _ in imported_paths(tree_of(file)):
            name = path.removeprefix(f"{package}.")
            if name != path and not name.startswith("_") and name.partition(".")[0] != file.stem:
                yield f"{file.name}: {path}"


def test_nothing_imports_what_is_private_to_another_folder() -> None:
    assert list(private_imports(ROOT)) == []


@pytest.mark.parametrize("package", KINDS.values())
def test_components_of_a_folder_never_import_one_another(package: str) -> None:
    assert list(sibling_imports(ROOT, package)) == []


PLANTED = {
    "from pseudolabel.readers import _files": "pseudolabel.readers._files",
    "import pseudolabel.readers._files": "pseudolabel.readers._files",
    "from pseudolabel.readers._files import stem": "pseudolabel.readers._files.stem",
    "from pseudolabel.readers.voc import _split": "pseudolabel.readers.voc._split",
    "from pseudolabel.readers import voc\nvoc._split()": "pseudolabel.readers.voc._split",
}


@pytest.mark.parametrize("breach", PLANTED)
@pytest.mark.parametrize(
    "importer", ["pseudolabel/images.py", "segtrain/pairs.py", "tests/pseudolabel/methods/test_cam.py"]
)
def test_a_planted_private_import_is_reported(tmp_path: Path, importer: str, breach: str) -> None:
    (tmp_path / "pseudolabel" / "readers").mkdir(parents=True)
    (tmp_path / importer).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / importer).write_text(breach, encoding="utf-8")
    line = len(breach.splitlines())
    assert list(private_imports(tmp_path)) == [f"{importer}:{line}: {PLANTED[breach]}"]


@pytest.mark.parametrize(
    "importer", ["pseudolabel/readers/table.py", "tests/pseudolabel/readers/test_table.py"]
)
def test_a_folder_and_its_tests_may_import_its_private_modules(tmp_path: Path, importer: str) -> None:
    (tmp_path / "pseudolabel" / "readers").mkdir(parents=True)
    (tmp_path / importer).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / importer).write_text("\n".join(PLANTED), encoding="utf-8")
    assert list(private_imports(tmp_path)) == []


@pytest.mark.parametrize(
    "breach", ["from pseudolabel.refiners.smooth import smooth", "from pseudolabel.refiners import smooth"]
)
def test_a_planted_import_of_a_sibling_component_is_reported(tmp_path: Path, breach: str) -> None:
    folder = tmp_path / "pseudolabel" / "refiners"
    folder.mkdir(parents=True)
    (folder / "normalise.py").write_text(
        f"{breach}\nfrom pseudolabel.refiners import _shared\n", encoding="utf-8"
    )
    assert len(list(sibling_imports(tmp_path, "pseudolabel.refiners"))) == 1
