"""The tracked files stand in the folders that docs/architecture.md names, and nowhere else."""

from __future__ import annotations

import subprocess
from pathlib import PurePosixPath

import pytest

from pseudolabel.registry import KINDS
from tests.architecture.syntax import ROOT

COMPONENTS = {
    "readers", "methods", "aggregators", "refiners", "backgrounds", "postprocessors", "exporters",
    "importers", "objectives",
}  # fmt: skip
ALLOWED = {
    ".": {
        ".ci", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "configs", "docs",
        "pseudolabel", "pyproject.toml", "scripts", "segtrain", "tests",
    },
    "pseudolabel": COMPONENTS | {
        "__init__.py", "_torchvision.py", "classifier", "cli.py", "commands", "console.py", "contracts",
        "draws.py", "errors.py", "explain", "figures", "images.py", "masks.py", "metrics", "pipeline",
        "py.typed", "recipes", "records.py", "registry.py", "runs", "scoring", "superpixels", "training",
        "weights.py",
    },
    "segtrain": {
        "__init__.py", "_torchvision.py", "card.py", "checkpoint.py", "cli.py", "commands", "comparison",
        "contracts", "curves.py", "dataset.py", "export", "inspection.py", "learning.py",
        "loss.py", "losses", "networks.py", "pairs.py", "py.typed",
        "recipe.py", "results.py", "scoring.py", "text.py", "training_run.py",
    },
    "pseudolabel/commands": {
        "__init__.py", "_selection.py", "affinity.py", "data_check.py", "data_convert.py", "data_download.py",
        "evaluate.py", "export.py", "generate.py", "import_.py", "init.py", "methods.py", "preview.py",
        "reference.py", "refine.py", "sweep.py", "train.py",
    },
    "segtrain/commands": {
        "__init__.py", "check.py", "compare.py", "evaluate.py", "export.py", "predict.py", "relabel.py",
        "train.py",
    },
    "configs": {"coco", "demo", "folder", "table", "voc"},
    "docs": {
        "architecture.md", "components.md", "demo.jpg", "from_captum_and_torchcam.md", "maps.md", "masks.md",
        "own_components.md", "preview.jpg", "recipes.md", "results",
    },
    "tests": {
        "architecture", "command_line", "conftest.py", "contracts", "golden", "oracles", "pseudolabel",
        "referees", "scripts", "segtrain", "third_party",
    },
}  # fmt: skip


def tracked() -> list[PurePosixPath]:
    """The files that git tracks, those staged for the first time included."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("no git checkout")
    return [PurePosixPath(name) for name in listing.stdout.split("\0") if name]


@pytest.mark.parametrize("folder", ALLOWED)
def test_a_folder_holds_what_the_architecture_names(folder: str) -> None:
    depth = 0 if folder == "." else len(PurePosixPath(folder).parts)
    below = [file for file in tracked() if folder == "." or PurePosixPath(folder) in file.parents]
    assert below, folder
    assert {file.parts[depth] for file in below} - ALLOWED[folder] == set()


def test_every_folder_of_components_is_a_kind_of_the_registry() -> None:
    """And every kind of pseudolabel's has its folder."""
    folders = {package.rpartition(".")[2] for package in KINDS.values() if package.startswith("pseudolabel.")}
    assert folders <= COMPONENTS
    for package in KINDS.values():
        assert ROOT.joinpath(*package.split("."), "__init__.py").is_file(), package


def test_tests_mirror_the_packages() -> None:
    """The tests of a folder stand below tests/ under the name of the folder."""
    for file in tracked():
        if file.name.startswith("test_") and file.parts[1] in ("pseudolabel", "segtrain"):
            assert ROOT.joinpath(*file.parts[1:-1]).is_dir(), file
