"""Who may import whom: the contracts hold, and each of them notices a breach planted on purpose."""

from __future__ import annotations

import ast
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BREACHES = [
    (
        "pseudolabel/methods/cam.py",
        "import pseudolabel.commands.generate",
        "components never import one another",
    ),
    (
        "pseudolabel/refiners/smooth.py",
        "import pseudolabel.backgrounds.power",
        "components never import one another",
    ),
    ("pseudolabel/registry.py", "import pseudolabel.recipes.loading", "components never import one another"),
    ("pseudolabel/commands/generate.py", "import pseudolabel.cli", "command line, commands"),
    (
        "pseudolabel/backgrounds/power.py",
        "import pseudolabel.recipes.loading",
        "components read no configuration",
    ),
    ("pseudolabel/refiners/smooth.py", "import pseudolabel.runs.writing", "touch no files"),
    ("pseudolabel/methods/saliency.py", "import pseudolabel.superpixels.slic", "use superpixels"),
    ("pseudolabel/pipeline/postprocessing.py", "import segtrain.losses", "never imports segtrain"),
    ("segtrain/losses.py", "import pseudolabel.commands.generate", "only the comparison calls pl's commands"),
    ("segtrain/commands/train.py", "import segtrain.cli", "seg: command line"),
]
GROUND = [
    "errors", "records", "draws", "registry", "recipes.loading", "recipes.schema", "recipes.steps",
    "images", "masks", "runs.disk", "runs.writing", "console", "weights", "pipeline.postprocessing",
    "superpixels.engine", "superpixels.quality", "superpixels.slic", "training.schedule",
    "training.order", "training.checkpoint", "training.device",
]  # fmt: skip


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
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("file", "breach", "contract"), BREACHES)
def test_a_planted_breach_is_seen(copy: Path, file: str, breach: str, contract: str) -> None:
    with (copy / file).open("a", encoding="utf-8") as out:
        out.write(f"\n{breach}\n")
    done = lint(copy)
    assert done.returncode == 1, done.stdout
    told = re.findall(r"(.+?) (KEPT|BROKEN)", " ".join(done.stdout.split()))  # long names are wrapped
    assert any(contract in name for name, state in told if state == "BROKEN"), told


@pytest.mark.parametrize("module", GROUND)
def test_ground_imports_no_torch(module: str) -> None:
    code = f"import pseudolabel.{module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_oracles_import_neither_package_nor_torch() -> None:
    files = sorted((ROOT / "tests" / "oracles").glob("*.py"))
    assert len(files) >= 4
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.partition(".")[0] not in ("torch", "pseudolabel", "segtrain"), (file.name, name)


ONE_WAY = {
    "Image.open(": {"pseudolabel/images.py", "pseudolabel/masks.py"},
    "torch.load(": {"pseudolabel/weights.py"},
    "np.load(": set(),
    "pickle.load": set(),
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
                ours = "disk.write_" in line or "def write_" in line
                assert call not in line or ours, f"{name}:{number}: {line.strip()}"


def test_no_file_is_long_and_no_name_says_nothing() -> None:
    empty = {"utils", "util", "helpers", "helper", "misc", "common", "manager", "managers"}
    for package in ("pseudolabel", "segtrain", "tests", "scripts"):
        for file in sorted((ROOT / package).rglob("*.py")):
            assert file.stem not in empty
            assert not empty & set(file.parts)
            assert len(file.read_text(encoding="utf-8").splitlines()) <= 450, file


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
