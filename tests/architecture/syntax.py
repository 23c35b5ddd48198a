"""Python files of the repository and what their syntax trees hold: identifiers, imports, prose."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("pseudolabel", "segtrain")
FOLDERS = (*PACKAGES, "scripts", "tests")


def python_files(root: Path, *folders: str) -> list[Path]:
    """Every Python file below the folders, sorted."""
    return sorted(file for folder in folders for file in (root / folder).rglob("*.py"))


def tree_of(file: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(file.read_text(encoding="utf-8"))


def identifiers(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that the code gives or uses, with its line; keywords and parts of imports included."""
    for node in ast.walk(tree):
        match node:
            case ast.Name():
                yield node.id, node.lineno
            case ast.Attribute():
                yield node.attr, node.lineno
            case ast.arg():
                yield node.arg, node.lineno
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name, node.lineno
            case ast.keyword(arg=str(name)):
                yield name, node.value.lineno
            case ast.alias():
                for part in node.name.split("."):
                    yield part, node.lineno
                if node.asname:
                    yield node.asname, node.lineno
            case (
                ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
            ):
                yield name, node.lineno
            case ast.Global() | ast.Nonlocal():
                for name in node.names:
                    yield name, node.lineno


def words_of(identifier: str) -> list[str]:
    """The words of an identifier in lower case: `LabelScores` and `label_scores` are label, scores."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)]


def texts(file: Path) -> Iterator[tuple[str, int]]:
    """Every comment and every string of a Python file, docstrings included, with its line."""
    source = file.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for number, line in enumerate(node.value.splitlines()):
                yield line, node.lineno + number
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string, token.start[0]


def imported_paths(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Dotted paths that a module imports, or reaches as an attribute of what it imports, with the line.

    `from pseudolabel import draws` gives pseudolabel.draws, and `draws._parts` pseudolabel.draws._parts.
    """
    bound: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
                top = alias.name.partition(".")[0]
                bound[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno
                bound[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            parts = [node.attr]
            value = node.value
            while isinstance(value, ast.Attribute):
                parts.append(value.attr)
                value = value.value
            if isinstance(value, ast.Name) and value.id in bound:
                yield ".".join([bound[value.id], *reversed(parts)]), node.lineno
