"""Two ranks make the step that one process makes, also where one rank has nothing to learn from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pseudolabel.training.state import load_state
from tests.segtrain.two_ranks import a_step


@pytest.mark.slow
@pytest.mark.parametrize("case", ["step", "few"])
@pytest.mark.parametrize("loss", ["cross_entropy", "lovasz"])  # lovasz: all labelled pixels in one forward
def test_two_ranks_make_one_step(case: str, loss: str, tmp_path: Path) -> None:
    script = Path(__file__).with_name("two_ranks.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.run(
        [*command, str(script), case, str(tmp_path), loss],
        capture_output=True, text=True, check=False, cwd=script.parents[2], timeout=600,
        env={**os.environ, "PYTHONPATH": str(script.parents[2]), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]
    ranks = [load_state(tmp_path / f"rank{rank}.safetensors")[0] for rank in (0, 1)]
    alone = a_step(case, None, loss).modules["network"].state_dict()
    assert ranks[0]["told"][0] > 0.5, "a loss near 0 would show little"
    for name, value in ranks[0].items():
        assert torch.equal(value, ranks[1][name]), name
        # sums in another order: float32 over 1024 pixels
        torch.testing.assert_close(value, alone[name], rtol=1e-4, atol=1e-6, msg=name)
