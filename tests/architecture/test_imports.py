"""Who may import whom: the contracts hold, and each of them reports a breach that is planted on purpose."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.syntax import ROOT, imported_paths, tree_of

BREACHES = [  # (contract, file, import planted in it)
    ("rule 1: cli, commands", "pseudolabel/commands/generate.py", "pseudolabel.cli"),
    ("rule 1: cli, commands", "pseudolabel/pipeline/postprocessing.py", "pseudolabel.commands.generate"),
    ("rule 1: cli, commands", "pseudolabel/classifier/network.py", "pseudolabel.commands.train"),
    ("rule 1: cli, commands", "pseudolabel/methods/cam.py", "pseudolabel.commands.generate"),
    ("rule 1: cli, commands", "pseudolabel/methods/cam.py", "pseudolabel.pipeline.postprocessing"),
    ("rule 1: cli, commands", "pseudolabel/methods/cam.py", "pseudolabel.aggregators.random_crop"),
    ("rule 1: cli, commands", "pseudolabel/refiners/smooth.py", "pseudolabel.backgrounds.power"),
    ("rule 1: cli, commands", "pseudolabel/metrics/regions.py", "pseudolabel.figures.overlays"),
    ("rule 1: cli, commands", "pseudolabel/explain/layers.py", "pseudolabel.methods.cam"),
    ("rule 1: cli, commands", "pseudolabel/registry.py", "pseudolabel.recipes.loading"),
    ("rule 1: cli, commands", "pseudolabel/images.py", "pseudolabel.explain.layers"),
    ("only the finished run knows recipes", "pseudolabel/runs/writing.py", "pseudolabel.recipes.loading"),
    ("only the finished run knows recipes", "pseudolabel/masks.py", "pseudolabel.weights"),
    ("rule 1: seg", "segtrain/commands/train.py", "segtrain.cli"),
    ("rule 1: seg", "segtrain/comparison/plan.py", "segtrain.commands.train"),
    ("rule 1: seg", "segtrain/networks.py", "segtrain.comparison.plan"),
    ("no component imports recipes", "pseudolabel/backgrounds/power.py", "pseudolabel.recipes.loading"),
    ("no component imports recipes", "pseudolabel/exporters/grey.py", "pseudolabel.recipes.schema"),
    ("no component imports recipes", "pseudolabel/explain/model.py", "pseudolabel.recipes.loading"),
    ("touch no files", "pseudolabel/explain/adapter.py", "pseudolabel.images"),
    ("no component imports recipes", "segtrain/losses/dice.py", "segtrain.recipe"),
    ("no component imports recipes", "pseudolabel/objectives/bce.py", "pseudolabel.recipes.schema"),
    ("touch no files", "pseudolabel/refiners/smooth.py", "pseudolabel.runs.writing"),
    ("touch no files", "pseudolabel/methods/saliency.py", "pseudolabel.images"),
    ("touch no files", "pseudolabel/objectives/focal.py", "pseudolabel.runs.writing"),
    ("touch no files", "pseudolabel/metrics/confusion.py", "pseudolabel.masks"),
    ("touch no files", "segtrain/losses/dice.py", "pseudolabel.masks"),
    ("load no weights", "pseudolabel/readers/voc.py", "pseudolabel.weights"),
    ("only the superpixel ones", "pseudolabel/methods/saliency.py", "pseudolabel.superpixels.slic"),
    ("only the superpixel ones", "pseudolabel/refiners/smooth.py", "pseudolabel.superpixels.slic"),
    ("only methods and aggregators", "pseudolabel/refiners/smooth.py", "pseudolabel.explain.layers"),
    ("never imports segtrain", "pseudolabel/pipeline/postprocessing.py", "segtrain.losses.dice"),
    ("rule 3: segtrain uses", "segtrain/networks.py", "pseudolabel.methods.cam"),
    ("rule 3: segtrain uses", "segtrain/networks.py", "pseudolabel.refiners.smooth"),
    ("rule 3: segtrain uses", "segtrain/commands/train.py", "pseudolabel.pipeline.workers"),
    ("only the comparison calls", "segtrain/networks.py", "pseudolabel.commands.generate"),
    ("only the comparison calls", "segtrain/commands/train.py", "pseudolabel.commands.generate"),
]  # fmt: skip
CORE = [
    "errors", "records", "draws", "registry", "recipes.loading", "recipes.schema", "recipes.steps",
    "images", "masks", "runs.disk", "runs.writing", "runs.run", "console", "weights",
    "pipeline.postprocessing", "pipeline.to_mask", "explain",
    "superpixels.engine", "superpixels.quality", "superpixels.slic", "training.schedule",
    "training.order", "training.state", "training.device",
]  # fmt: skip


def broken(report: subprocess.CompletedProcess[str]) -> list[str]:
    """Names of the contracts that a report calls broken; long names are wrapped."""
    states = re.findall(r"(rule \d: .+?) (KEPT|BROKEN)", " ".join(report.stdout.split()))
    return [name for name, state in states if state == "BROKEN"]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in ("pseudolabel", "segtrain"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_contracts_hold() -> None:
    report = lint(ROOT)
    assert report.returncode == 0, report.stdout


@pytest.mark.parametrize(("contract", "file", "imported"), BREACHES)
def test_a_planted_breach_is_reported(copy: Path, contract: str, file: str, imported: str) -> None:
    with (copy / file).open("a", encoding="utf-8") as out:
        out.write(f"\nimport {imported}\n")
    assert any(contract in name for name in broken(lint(copy))), "the contract held all the same"


def test_every_contract_has_a_planted_breach() -> None:
    names = re.findall(r'^name = "(rule .+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert len(names) >= 10
    assert [name for name in names if not any(contract in name for contract, _, _ in BREACHES)] == []


@pytest.mark.parametrize("file", ["pseudolabel/stray.py", "segtrain/stray.py"])
def test_a_module_that_no_layer_names_is_reported(copy: Path, file: str) -> None:
    (copy / file).touch()
    assert "stray" in lint(copy).stdout


def loads_torch(module: str, folder: Path = ROOT) -> bool:
    """Whether importing a module imports torch, in a process of its own."""
    code = f"import {module}, sys; print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    return subprocess.check_output(command, cwd=folder, text=True).strip() == "True"


@pytest.mark.parametrize("module", CORE)
def test_core_loads_no_torch(module: str) -> None:
    assert not loads_torch(f"pseudolabel.{module}")


def test_a_planted_import_of_torch_is_reported(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("import torch\n", encoding="utf-8")
    assert loads_torch("planted", tmp_path)


def foreign_to_oracles(file: Path) -> list[str]:
    """What an oracle imports and may not: either package, or torch."""
    paths = {path.partition(".")[0] for path, _ in imported_paths(tree_of(file))}
    return sorted(paths & {"torch", "pseudolabel", "segtrain"})


def test_oracles_import_neither_package_nor_torch() -> None:
    files = sorted((ROOT / "tests" / "oracles").glob("*.py"))
    assert len(files) >= 4
    assert {file.name: foreign_to_oracles(file) for file in files} == {file.name: [] for file in files}


@pytest.mark.parametrize(
    "breach", ["import torch", "from torch.nn import functional", "import pseudolabel.masks"]
)
def test_a_planted_import_of_an_oracle_is_reported(tmp_path: Path, breach: str) -> None:
    (tmp_path / "oracle.py").write_text(f"def scores():\n    {breach}\n", encoding="utf-8")
    assert len(foreign_to_oracles(tmp_path / "oracle.py")) == 1


ONE_WAY = {
    "Image.open(": {"pseudolabel/images.py", "pseudolabel/masks.py"},
    "torch.load(": {"pseudolabel/weights.py"},
    "np.load(": set(),
    "pickle.load": {"pseudolabel/contracts/readers.py"},  # of what it pickled itself, as workers do
    "yaml.load(": set(),
    "extractall": set(),
    '"w")': {"pseudolabel/runs/disk.py"},
    "write_text(": {"pseudolabel/runs/disk.py"},
    "write_bytes(": {"pseudolabel/runs/disk.py"},
}


@pytest.mark.parametrize("call", ONE_WAY)
def test_one_way_in_one_way_out(call: str) -> None:
    """Images, checkpoints and files go through one function each."""
    for package in ("pseudolabel", "segtrain"):
        for file in sorted((ROOT / package).rglob("*.py")):
            name = file.relative_to(ROOT).as_posix()
            if name in ONE_WAY[call]:
                continue
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                own = "disk.write_" in line or "def write_" in line
                assert call not in line or own, f"{name}:{number}: {line.strip()}"


@pytest.mark.parametrize("command", [["pl", "--help"], ["pl", "methods"], ["seg", "--help"]])
def test_answers_in_under_half_a_second(command: list[str]) -> None:
    """Median of five, in seconds of a core: the clock of a busy machine says nothing."""
    program = str(Path(sys.executable).with_name(command[0]))
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([program, *command[1:]], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert sorted(times)[2] < 0.5, times
