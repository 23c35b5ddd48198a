"""No file is long, no function is long without a reason beside it, no module's name says nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.syntax import FOLDERS, ROOT, python_files, tree_of

FILE = 400  # lines
FUNCTION = 60  # lines, unless a comment on the line of `def` says why it is longer
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "misc", "common", "manager", "managers", "handler"}


def long_files(root: Path) -> Iterator[str]:
    for file in python_files(root, *FOLDERS):
        lines = len(file.read_text(encoding="utf-8").splitlines())
        if lines > FILE:
            yield f"{file.relative_to(root).as_posix()}: {lines} lines"


def long_functions(root: Path) -> Iterator[str]:
    for file in python_files(root, *FOLDERS):
        source = file.read_text(encoding="utf-8").splitlines()
        for node in ast.walk(tree_of(file)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                lines = node.end_lineno - node.lineno + 1
                if lines > FUNCTION and "  # " not in source[node.lineno - 1]:
                    yield f"{file.relative_to(root).as_posix()}:{node.lineno}: {node.name}: {lines} lines"


def test_no_file_is_long() -> None:
    assert list(long_files(ROOT)) == []


def test_no_function_is_long_without_a_reason() -> None:
    assert list(long_functions(ROOT)) == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    for file in python_files(ROOT, *FOLDERS):
        assert not EMPTY_NAMES & {part.strip("_") for part in (*file.relative_to(ROOT).parts, file.stem)}, (
            file
        )


def test_a_planted_long_file_and_function_are_reported(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    body = "\n".join("    pass" for _ in range(FUNCTION))
    short = f"def short():\n{body.partition(chr(10))[2]}\n\n\n"
    source = f"{short}def long():\n{body}\n\n\ndef said():  # why\n{body}\n"
    (tmp_path / "scripts" / "planted.py").write_text(source, encoding="utf-8")
    assert list(long_files(tmp_path)) == []
    assert list(long_functions(tmp_path)) == [
        f"scripts/planted.py:{FUNCTION + 3}: long: {FUNCTION + 1} lines"
    ]
    (tmp_path / "scripts" / "planted.py").write_text("\n" * (FILE + 1), encoding="utf-8")
    assert list(long_files(tmp_path)) == [f"scripts/planted.py: {FILE + 1} lines"]
