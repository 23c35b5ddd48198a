"""Every method against what the referees once answered on the small network (`tests/golden/referees.npz`)."""

from __future__ import annotations

import numpy as np
import pytest

from pseudolabel.contracts.networks import random_images
from tests.golden.make_referees import FILE, PIXELS
from tests.referees.cases import Case, cases, error, ours
from tests.referees.scenes import scene


@pytest.mark.parametrize("case", cases(("small",)), ids=str)
def test_agrees_with_the_golden_answer(case: Case) -> None:
    with np.load(FILE) as answers:
        wanted = list(answers[str(case)])
    assert len(wanted) == 5
    assert all(answer.any() for answer in wanted)
    images = random_images(2, *PIXELS)
    assert error(case, ours(case, scene(case.scene, images), images), wanted) <= 1e-4
