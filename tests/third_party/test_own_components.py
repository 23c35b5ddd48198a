"""Components of another package: found by their entry points, run in a recipe, held to the shipped suites."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from pseudolabel import masks
from tests.pseudolabel.commands.untrained import NAMES, image, recipe, save_tiny

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]  # an installed copy may be of another one
COMPONENTS = {
    "methods": "strongest_votes",
    "refiners": "gamma",
    "backgrounds": "margin",
    "readers": "polygons",
    "exporters": "raw_ids",
    "importers": "raw_folder",
}
SUITES = [f"pseudolabel.contracts.{kind}" for kind in COMPONENTS]


def install(site: Path, name: str = "acme-components", entries: dict[str, str] | None = None) -> Path:
    """What an installer leaves behind for `importlib.metadata`: a .dist-info folder beside the package."""
    if entries is None:
        project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
        entries = project["entry-points"]["pseudolabel.components"]
    folder = site / f"{name.replace('-', '_')}-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{entry} = {module}" for entry, module in entries.items()]
    (folder / "entry_points.txt").write_text("\n".join(["[pseudolabel.components]", *lines, ""]))
    if not (site / "acme_components").exists():
        shutil.copytree(
            HERE / "acme_components", site / "acme_components", ignore=shutil.ignore_patterns("__pycache__")
        )
    return site


def run(site: Path, *command: str, module: str = "pseudolabel.cli") -> subprocess.CompletedProcess[str]:
    """A command in a process of its own that sees what is installed in `site`."""
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{CHECKOUT}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", module, *command],
        cwd=site, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def suite(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The shipped suites on some components, as their author runs them, without our settings."""
    chosen = ("-k", " or ".join(words), "-c", os.devnull, "--rootdir", str(site))
    return run(site, "-q", "-p", "no:cacheprovider", *chosen, "--pyargs", *SUITES, module="pytest")


def oracles(site: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("acme_oracles", site / "acme_components" / "oracles.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return install(tmp_path / "site")


def small(root: Path) -> dict[str, Any]:
    """Two tiny images, a classifier that was never trained, and a recipe of the package's components."""
    (root / "images").mkdir(parents=True)
    for index in range(2):
        image(index, (40, 56)).save(root / "images" / f"p{index}.png")
    (root / "tags.csv").write_text("id,labels\np0,cat;dog\np1,sheep;cat;dog\n")
    (root / "classes.txt").write_text("\n".join([*NAMES, ""]))
    save_tiny(root / "run")
    method = {"method": {"name": "strongest_votes", "top": 4}}
    refiners = [{"name": "normalise", "method": "max"}, {"name": "gamma", "exponent": 0.5}]
    return recipe(root, maps=[{**method, "refine": refiners}], background={"name": "margin", "margin": 0.05})


def test_they_are_listed_with_formula_and_source(site: Path) -> None:
    listed = json.loads(run(site, "methods", "--json").stdout)
    for kind, name in COMPONENTS.items():
        assert listed[kind][name]["formula"]
        assert listed[kind][name]["source"]
    output = run(site, "methods", "margin").stdout
    assert "margin = 0.1, at least 0, at most 1 [share 0..1]: lead over the second class" in output


def test_a_recipe_uses_them(site: Path, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(small(tmp_path / "data")))  # JSON is YAML
    done = run(site, "generate", str(path), "-o", str(tmp_path / "out"), "--workers", "0", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 2
    own = oracles(site)
    labels = set()
    for name in ("p0", "p1"):
        stored = load_file(tmp_path / "out" / "maps" / f"{name}.safetensors")
        ids, raw = stored["ids"].tolist(), stored["scores"].astype(np.float64)
        unit = raw / raw.max(axis=(1, 2), keepdims=True)
        label_scores = own.margin(ids, own.gamma(ids, unit, None, 0.5), None, 0.05)
        wanted = np.array([0, *ids])[label_scores.argmax(axis=0)]
        mask = masks.read_mask(tmp_path / "out" / "masks" / f"{name}.png")
        assert (mask != wanted).mean() < 0.002  # a tie in float32 need not be one in float64
        labels.update(np.unique(mask).tolist())
    assert len(labels) >= 3, "the masks must show several outcomes"


@pytest.fixture
def drawn(tmp_path: Path, site: Path) -> Path:
    """A run on the package's reader, whose ground truth is polygons."""
    root = tmp_path / "data"
    root.mkdir()
    rectangle = [[4, 4], [40, 4], [40, 30], [4, 30]]
    listed = {"p0": [["cat", rectangle]], "p1": [["sheep", [[9, 9], [50, 9], [30, 38]]], ["cat", rectangle]]}
    for index, item in enumerate(listed):
        image(index, (40, 56)).save(root / f"{item}.png")
    (root / "polygons.json").write_text(json.dumps({"classes": list(NAMES[1:]), "images": listed}))
    save_tiny(root / "run")
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe(root, data={"reader": "polygons", "root": str(root)})))
    done = run(site, "generate", str(path), "-o", str(tmp_path / "out"), "--workers", "0", "--json")
    assert done.returncode == 0, done.stderr
    return tmp_path / "out"


def test_polygons_are_ground_truth_everywhere(site: Path, drawn: Path) -> None:
    done = run(site, "evaluate", str(drawn), "--json")
    assert done.returncode == 0, done.stderr
    scored = json.loads(done.stdout)
    assert scored["images"] == 2
    assert 0 < scored["miou"] < 1
    assert scored["iou"]["dog"] is None or scored["iou"]["dog"] == 0
    swept = run(site, "sweep", str(drawn), "--thresholds", "0.2,0.5", "--workers", "0", "--json")
    assert swept.returncode == 0, swept.stderr
    assert len(json.loads(swept.stdout)["rows"]) == 2


def test_set_reaches_the_parameters_of_an_exporter_and_its_fingerprint(
    site: Path, drawn: Path, tmp_path: Path
) -> None:
    command = ("export", str(drawn), "-o", str(tmp_path / "raw"), "--to", "raw_ids")
    plain = run(site, *command, "--json")
    assert plain.returncode == 0, plain.stderr
    assert json.loads(plain.stdout)["lost"] == []
    other = run(site, *command, "--set", "ignore=9")
    assert other.returncode == 2
    assert "parameters.ignore: 255 -> 9" in other.stderr
    wrong = run(site, *command, "--set", "ignore=256")
    assert wrong.returncode == 2
    assert "ignore: 256 is not at most 255" in wrong.stderr
    moved = run(site, *command, "--set", "ignore=9", "--overwrite", "--json")
    assert json.loads(moved.stdout)["lost"] == ["pixels of 255 are written as 9"]
    stored = np.load(tmp_path / "raw" / "p0.npy")
    mask = masks.read_mask(drawn / "masks" / "p0.png")
    np.testing.assert_array_equal(stored, np.where(mask == 255, 9, mask))


def test_the_shipped_suites_hold_them_to_their_oracles(site: Path) -> None:
    done = suite(site, *COMPONENTS.values())
    assert done.returncode == 0, done.stdout
    (passed,) = [
        int(part.split()[0]) for part in done.stdout.splitlines()[-1].split(", ") if "passed" in part
    ]
    assert passed > 90
    path = site / "acme_components" / "oracles.py"
    path.write_text(path.read_text().replace("behind + margin", "behind + 1.01 * margin"))
    wrong = suite(site, "(margin and oracle)")
    assert wrong.returncode == 1
    assert "1 failed" in wrong.stdout.splitlines()[-1]
    assert "test_equals_its_oracle[margin]" in wrong.stdout


def test_the_shipped_suites_hold_components_that_need_more(site: Path) -> None:
    entries = {"refiners.confidence": "confidence", "postprocessors.painted": "painted"}
    modules = {name: f"tests.third_party.needy_components.{module}" for name, module in entries.items()}
    install(site, "needy-components", modules)
    suites = ("pseudolabel.contracts.refiners", "pseudolabel.contracts.postprocessors")
    own = ("-k", "confidence or painted", "-c", os.devnull, "--rootdir", str(site))
    done = run(site, "-q", "-p", "no:cacheprovider", *own, "--pyargs", *suites, module="pytest")
    assert done.returncode == 0, done.stdout
    (passed,) = [
        int(part.split()[0]) for part in done.stdout.splitlines()[-1].split(", ") if "passed" in part
    ]
    assert passed > 20


def test_the_same_name_twice_names_both_modules(site: Path) -> None:
    install(site, "other-components", {"refiners.gamma": "other_components.gamma"})
    done = run(site, "methods")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "two components are named refiners.gamma" in line
    assert "acme_components.gamma" in line
    assert "other_components.gamma" in line


def test_a_name_of_ours_cannot_be_taken(site: Path) -> None:
    install(site, "other-components", {"refiners.smooth": "other_components.smooth"})
    (line,) = run(site, "methods").stderr.splitlines()
    assert "pseudolabel.refiners.smooth and other_components.smooth of the package other-components" in line


def test_an_entry_point_without_its_module_is_one_line(site: Path, tmp_path: Path) -> None:
    install(site, "gone-components", {"backgrounds.gone": "gone_components.gone"})
    listed = run(site, "methods")
    assert listed.returncode == 0, "a package that is broken must not stop the others"
    (line,) = [line for line in listed.stdout.splitlines() if "gone" in line]
    assert (
        "cannot be used: there is no module gone_components.gone; mend or remove the package gone-components"
        in line
    )
    path = tmp_path / "recipe.yaml"
    chosen = recipe(tmp_path, background={"name": "gone"})
    path.write_text(json.dumps(chosen))
    used = run(site, "generate", str(path), "-o", str(tmp_path / "out"))
    assert used.returncode == 1
    (line,) = used.stderr.splitlines()
    assert line.startswith(
        "backgrounds.gone: gone_components.gone cannot be imported (No module named 'gone_components')"
    )
    assert line.endswith("mend or remove the package gone-components")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("raise ValueError\n", "ValueError"),
        ("def bad(:\n", "SyntaxError: invalid syntax (bad.py, line 1)"),
    ],
)
def test_a_module_that_raises_is_one_line(site: Path, tmp_path: Path, text: str, reason: str) -> None:
    install(site, "bad-components", {"backgrounds.bad": "acme_components.bad"})
    (site / "acme_components" / "bad.py").write_text(text)
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe(tmp_path, background={"name": "bad"})))
    used = run(site, "generate", str(path), "-o", str(tmp_path / "out"))
    assert used.returncode == 1
    (line,) = used.stderr.splitlines()
    assert line == (
        f"backgrounds.bad: acme_components.bad cannot be imported ({reason}); "
        "mend or remove the package bad-components"
    )
    assert run(site, "methods", "bad").stderr.splitlines() == [line]
    assert run(site, "methods").returncode == 0, "a package that is broken must not stop the others"


def test_an_entry_point_of_no_kind_is_refused(site: Path) -> None:
    install(site, "other-components", {"refiner.mine": "other_components.mine"})
    done = run(site, "methods")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert (
        "'refiner.mine' of the package other-components names no kind of components; did you mean 'refiners'?"
        in line
    )
