"""Every method as other libraries compute it; they live in their own environment (the extra `referee`).

python -m venv /somewhere && /somewhere/bin/pip install -e .[referee] pytest
/somewhere/bin/python -m pytest -m referee -rP tests/referees
"""

from __future__ import annotations

import pytest

from pseudolabel import registry
from pseudolabel.contracts.networks import random_images
from tests.referees.cases import BACKBONES, REFEREES, Case, cases, error, ours
from tests.referees.scenes import Scene, scene

pytestmark = pytest.mark.referee
GRADIENTS = ("saliency", "input_x_gradient", "integrated_gradients")
PIXELS = (96, 128)


@pytest.fixture(scope="module")
def libraries() -> object:
    for name in ("captum", "torchcam", "pytorch_grad_cam"):
        pytest.importorskip(name, reason=f"{name} is not here; install the extra referee")
    from tests.referees import libraries

    return libraries


@pytest.fixture(scope="module")
def scenes() -> dict[str, Scene]:
    return {}


def test_every_method_has_a_referee() -> None:
    assert set(REFEREES) == set(registry.names("methods"))


@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("case", cases(("small", *BACKBONES)), ids=str)
def test_agrees_in_float32(case: Case, libraries, scenes: dict[str, Scene]) -> None:
    images = random_images(2) if case.scene.endswith("small") else random_images(2, *PIXELS)
    where = scenes.setdefault(case.scene, scene(case.scene, images))
    largest = error(case, ours(case, where, images), libraries.asked(case, where, images))
    print(f"{case}: largest relative error {largest:.1e}")
    assert largest <= 1e-4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", [case for case in cases(("resnet18",)) if case.method in GRADIENTS], ids=str)
def test_agrees_in_float64_where_there_are_kinks(case: Case, libraries) -> None:
    images = random_images(2, 64, 64)
    where = scene(case.scene, images)
    where.network.double()
    largest = error(case, ours(case, where, images.double()), libraries.asked(case, where, images.double()))
    print(f"{case}: largest relative error {largest:.1e}")
    assert largest <= (
        1e-6 if case.method == "integrated_gradients" else 1e-12
    )  # captum has steps in float32
