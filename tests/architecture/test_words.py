"""The words are the field's; those of version 0.1 are gone from code, recipes, help and docs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pseudolabel.recipes.yaml import read
from tests.architecture.syntax import (
    FOLDERS,
    PACKAGES,
    ROOT,
    identifiers,
    python_files,
    texts,
    tree_of,
    words_of,
)

WORDS = {  # a word of an identifier, a key or an option: what is written instead
    **dict.fromkeys(("picture", "pictures", "photograph", "photographs"), "image"),
    **dict.fromkeys(("brick", "bricks"), "component"),
    **dict.fromkeys(("room", "rooms"), "the folder's name, or kind"),
    **dict.fromkeys(("resolver", "resolvers"), "background"),
    **dict.fromkeys(("finisher", "finishers", "finish"), "postprocessor, postprocess, or reduce"),
    **dict.fromkeys(("twin", "twins"), "oracle"),
    **dict.fromkeys(("route", "routes"), "candidate"),
    **dict.fromkeys(("optimiser", "optimisers"), "optimizer"),
    **dict.fromkeys(("verb", "verbs"), "command"),
    **dict.fromkeys(("evidence",), "attribution"),
    **dict.fromkeys(("belief", "beliefs"), "label_scores"),
}
NAMES = {  # a whole identifier, underscores at its ends left aside
    **dict.fromkeys(("one", "found", "told", "made", "seen", "whole", "met"), "the noun that the value is"),
    "rgb": "image",
    "DataFault": "DataError",
    "UsageFault": "UsageError",
    "NumericFault": "NumericError",
    "EnvironmentFault": "MachineError",
    "ClassifierOf": "what it holds",
}
ALLOWED = {  # identifiers with such a word that are right, and why
}
PROSE = re.compile(r"\b(brick|room|resolver|finisher|twin|belief|verb|photograph)s?\b", re.IGNORECASE)
PROSE_ALLOWED = {  # file: why the word is right there
    "tests/architecture/test_words.py": "lists the words",
}


def fault_of(identifier: str) -> str | None:
    """What to write instead of a key or an identifier, or None where it is right."""
    if identifier.strip("_") in NAMES:
        return NAMES[identifier.strip("_")]
    return next((WORDS[word] for word in words_of(identifier) if word in WORDS), None)


def wrong_identifiers(file: Path) -> Iterator[str]:
    """`line: identifier: instead` for names, attributes, arguments, keywords and options of a Python file."""
    tree = tree_of(file)
    options = (
        (node.value, node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"--?[a-z][\w-]*", node.value)
    )
    for identifier, line in (*identifiers(tree), *options):
        for part in identifier.split():
            name = part.lstrip("-").partition("=")[0].replace("-", "_")
            instead = None if name in ALLOWED else fault_of(name)
            if instead is not None:
                yield f"{line}: {part}: {instead}"


def keys(value: object) -> Iterator[str]:
    """Every key of nested data."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield str(key)
            yield from keys(below)
    elif isinstance(value, list):
        for below in value:
            yield from keys(below)


def documents() -> list[Path]:
    """Text that people read: pages, recipes, scripts of the shell."""
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "pyproject.toml")]
    scripts = [ROOT / "scripts" / name for name in ("demo", "setup", "test")]
    pages = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "segtrain").rglob("*.j2")]
    return sorted([*top, *scripts, *pages, *(ROOT / "configs").rglob("*.yaml")])


def test_identifiers_and_options_are_the_field_s_words() -> None:
    files = python_files(ROOT, *FOLDERS)
    assert len(files) > 300
    wrong = [f"{file.relative_to(ROOT)}:{fault}" for file in files for fault in wrong_identifiers(file)]
    assert wrong == []


def test_a_class_has_a_name_of_its_own() -> None:
    """Two things under one name are as bad as one thing under two."""
    modules: dict[str, list[str]] = {}
    for file in python_files(ROOT, *PACKAGES):
        for node in tree_of(file).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules.setdefault(node.name, []).append(file.relative_to(ROOT).as_posix())
    assert {name: files for name, files in modules.items() if len(files) > 1} == {}


def test_recipe_keys_are_the_field_s_words() -> None:
    recipes = sorted((ROOT / "configs").rglob("*.yaml"))
    assert len(recipes) > 15
    wrong = [
        f"{file.relative_to(ROOT)}: {key}: {fault_of(key)}"
        for file in recipes
        for key in keys(read(file)[0])
        if fault_of(key) is not None
    ]
    assert wrong == []


def test_prose_uses_none_of_the_old_words() -> None:
    wrong: list[str] = []
    for file in (*python_files(ROOT, *FOLDERS), *documents()):
        if file.relative_to(ROOT).as_posix() in PROSE_ALLOWED:
            continue
        place = file.relative_to(ROOT).as_posix()
        plain = enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        lines = texts(file) if file.suffix == ".py" else ((text, line) for line, text in plain)
        wrong += [f"{place}:{line}: {text}" for text, line in lines if PROSE.search(text)]
    assert wrong == []


@pytest.mark.parametrize(
    "breach",
    [
        "picture = 1",
        "images.found",
        "def resolver(): ...",
        "def load(twin): ...",
        "class BeliefOf: ...",
        "run(made=2)",
        "import pseudolabel.verbs.train",
        "from pseudolabel import records as rooms",
        "try: ...\nexcept OSError as seen: ...",
        "option('--routes')",
        "with open(file) as _told: ...",
    ],
)
def test_a_planted_word_is_reported(tmp_path: Path, breach: str) -> None:
    (tmp_path / "planted.py").write_text(breach, encoding="utf-8")
    assert len(list(wrong_identifiers(tmp_path / "planted.py"))) == 1


@pytest.mark.parametrize("breach", ["'''A brick.'''", "x = 1  # Twins", "raise ValueError('no\\n verb')"])
def test_a_planted_word_in_prose_is_reported(tmp_path: Path, breach: str) -> None:
    (tmp_path / "planted.py").write_text(breach, encoding="utf-8")
    assert [text for text, _ in texts(tmp_path / "planted.py") if PROSE.search(text)]
