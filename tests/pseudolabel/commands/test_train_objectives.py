"""`pl train` minimises a list of objectives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import pseudolabel
from pseudolabel.errors import UsageError
from pseudolabel.runs import disk
from tests.pseudolabel.training.small_data import classifier_files


class TestObjectives:
    """What is minimised is a list of the recipe."""

    def test_the_default_is_soft_margin(
        self, recipe: dict[str, Any], tmp_path: Path, uninterrupted: dict[str, bytes]
    ) -> None:
        spelled = {**recipe, "objective": [{"name": "soft_margin", "weight": 1.0}]}
        pseudolabel.train(spelled, tmp_path / "run", quiet=True, workers=0)
        assert classifier_files(tmp_path / "run") == uninterrupted

    def test_a_list_is_a_weighted_sum_with_a_figure_for_each(
        self, recipe: dict[str, Any], tmp_path: Path
    ) -> None:
        objective = [
            {"name": "soft_margin", "weight": 0.5},
            {"name": "focal"},
            {"name": "bce", "weight": 0.0},
        ]
        pseudolabel.train({**recipe, "objective": objective}, tmp_path / "run", quiet=True, workers=0)
        for line in disk.read_json_lines(tmp_path / "run" / "metrics.jsonl"):
            assert line["loss"] == pytest.approx(0.5 * line["soft_margin.loss"] + line["focal.loss"])
            assert "bce.loss" not in line, "a weight of 0 costs nothing"

    @pytest.mark.parametrize(
        ("objective", "message"),
        [
            ([], r"objective: has 0 entries, short for 1"),
            ([{"name": "focl"}], r"objective.0.name: 'focl' is not known; did you mean 'focal'"),
            ([{"name": "focal", "gamma": -1.0}], r"objective.0.gamma: -1.0 is not at least 0"),
            ([{"name": "bce"}, {"name": "bce"}], r"objective.1: 'bce' stands twice; keep one"),
            ([{"name": "bce", "weight": 0.0}], r"objective: every weight is 0; give one above 0"),
        ],
    )
    def test_refused(
        self, recipe: dict[str, Any], tmp_path: Path, objective: list[dict[str, Any]], message: str
    ) -> None:
        with pytest.raises(UsageError, match=message):
            pseudolabel.train({**recipe, "objective": objective}, tmp_path / "run", quiet=True)
