"""`pl train` where a loss or a gradient is not finite: stop, skip, and the scaling of float16."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision

import pseudolabel
from pseudolabel.errors import NumericError
from pseudolabel.runs import disk
from pseudolabel.training import device, limits
from tests.pseudolabel.training.small_data import classifier_files


def scaled_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """float16 with its loss scaling on the CPU, where Fabric has none of its own accord."""
    scaler = torch.amp.GradScaler("cpu")
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    monkeypatch.setattr(device, "launch", lambda *_: Fabric(accelerator="cpu", devices=1, plugins=[plugin]))


class TestNotFinite:
    """The step is not applied, the last good state stays, the message says where."""

    def spoil(
        self, monkeypatch: pytest.MonkeyPatch, at: int, how: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        loss, calls = torch.nn.functional.multilabel_soft_margin_loss, 0

        def spoilt(*args: Any) -> torch.Tensor:
            nonlocal calls
            calls += 1
            value: torch.Tensor = loss(*args)
            return how(value) if calls == at else value

        monkeypatch.setattr(torch.nn.functional, "multilabel_soft_margin_loss", spoilt)

    @pytest.mark.parametrize("kind", ["loss", "gradient"])
    def test_stops_with_the_last_good_state(
        self,
        recipe: dict[str, Any],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        uninterrupted: dict[str, bytes],
        kind: str,
    ) -> None:
        run = tmp_path / "run"

        def how(value: torch.Tensor) -> torch.Tensor:
            if kind == "loss":
                return value * float("nan")
            value.register_hook(lambda gradient: gradient * float("inf"))
            return value + 0

        with monkeypatch.context() as patch:
            self.spoil(patch, 5, how)
            with pytest.raises(
                NumericError, match=r"epoch 2, step 2: loss .*, gradient norm (nan|inf), learning rate 0.0"
            ):
                pseudolabel.train(recipe, run, quiet=True, workers=0)
        (problem,) = disk.read_json_lines(run / "problems.jsonl")
        assert problem["code"] == "not_finite"
        assert problem["file"].count("train") == 4  # every id of the batch
        # the state is that of the epoch's end, and the same run without the fault ends as ever
        pseudolabel.train(recipe, run, quiet=True, workers=0)
        assert classifier_files(run) == uninterrupted

    def test_half_precision_leaves_out_a_step_that_overflows(
        self, recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scaled_on_the_cpu(monkeypatch)

        def how(value: torch.Tensor) -> torch.Tensor:
            value.register_hook(lambda gradient: gradient * float("inf"))
            return value + 0

        self.spoil(monkeypatch, 2, how)
        summary = pseudolabel.train(
            recipe, tmp_path / "run", overrides=["precision=float16"], quiet=True, workers=0
        )
        assert summary.map is not None
        lines = disk.read_json_lines(tmp_path / "run" / "metrics.jsonl")
        assert [line["steps_scaled"] for line in lines] == [1, 0]
        (problem,) = disk.read_json_lines(tmp_path / "run" / "problems.jsonl")
        assert problem["code"] == "float16_overflow"

    def test_half_precision_has_a_limit(
        self, recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scaled_on_the_cpu(monkeypatch)
        monkeypatch.setattr(limits, "LONGEST_SCALING", 1)

        def how(value: torch.Tensor) -> torch.Tensor:
            value.register_hook(lambda gradient: gradient * float("inf"))
            return value + 0

        loss = torch.nn.functional.multilabel_soft_margin_loss
        monkeypatch.setattr(
            torch.nn.functional, "multilabel_soft_margin_loss", lambda *args: how(loss(*args))
        )
        with pytest.raises(NumericError, match=r"step 2.*1 steps in a row overflow float16; take bf16"):
            pseudolabel.train(
                recipe, tmp_path / "run", overrides=["precision=float16"], quiet=True, workers=0
            )


class TestSkip:
    """`on_nan: skip` leaves a step out, up to a limit."""

    def test_goes_on(self, recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        TestNotFinite().spoil(monkeypatch, 2, lambda value: value * float("nan"))
        summary = pseudolabel.train({**recipe, "on_nan": "skip"}, tmp_path / "run", quiet=True, workers=0)
        lines = disk.read_json_lines(tmp_path / "run" / "metrics.jsonl")
        assert [line["steps_skipped"] for line in lines] == [1, 0]
        assert [line["images"] for line in lines] == [10, 10]
        assert all(np.isfinite(line["loss"]) for line in lines)
        (problem,) = disk.read_json_lines(tmp_path / "run" / "problems.jsonl")
        assert (problem["code"], problem["remedy"]) == ("not_finite", "the step was left out")
        assert (summary.problems, summary.failed) == (1, 0)

    def test_has_a_limit(
        self, recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loss = torch.nn.functional.multilabel_soft_margin_loss
        monkeypatch.setattr(
            torch.nn.functional, "multilabel_soft_margin_loss", lambda *args: loss(*args) * float("nan")
        )
        with pytest.raises(NumericError, match="more than 1% of all steps skipped"):
            pseudolabel.train({**recipe, "on_nan": "skip"}, tmp_path / "run", quiet=True, workers=0)
