"""Docstrings keep up with signatures: every argument that one describes is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.syntax import PACKAGES, ROOT, python_files, tree_of

ENTRY = re.compile(r"^    ([a-z_*][\w, *]*): ")


def absent_arguments(file: Path) -> Iterator[str]:
    """`line: name` of every argument that a docstring describes and its function does not have."""
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.FunctionDef):
            described, function = ast.get_docstring(node) or "", node
        elif isinstance(node, ast.ClassDef):
            own = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
            if not own:
                continue
            described, function = ast.get_docstring(node) or "", own[0]
        else:
            continue
        block = re.search(r"^Args:\n((?:    .*\n?|\n)+)", described, re.MULTILINE)
        a = function.args
        names = {
            argument.arg
            for argument in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg)
            if argument
        }
        for line in block[1].splitlines() if block else ():
            if entry := ENTRY.match(line):
                given = [name.strip(" *") for name in entry[1].split(",")]
                yield from (f"{function.lineno}: {name}" for name in given if name not in names)


def test_every_described_argument_is_there() -> None:
    files = python_files(ROOT, *PACKAGES, "scripts")
    assert [f"{file.relative_to(ROOT)}:{entry}" for file in files for entry in absent_arguments(file)] == []


def test_a_planted_argument_is_reported(tmp_path: Path) -> None:
    described = "Do.\n\n    Args:\n        a: one.\n        c: gone.\n        b: two.\n    "
    source = f'def f(a, *, b):\n    """{described}"""\n'
    (tmp_path / "planted.py").write_text(source, encoding="utf-8")
    assert list(absent_arguments(tmp_path / "planted.py")) == ["1: c"]
