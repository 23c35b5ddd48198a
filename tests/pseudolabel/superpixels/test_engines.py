"""Every engine: the library called by hand, labels without gaps, odd sizes, the same for whoever asks."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import pseudolabel.superpixels
from pseudolabel import registry
from pseudolabel.contracts.inputs import image as make_image
from pseudolabel.errors import MachineError
from pseudolabel.superpixels import _opencv
from pseudolabel.superpixels.engine import NEEDS, Superpixels, segments
from tests.oracles import superpixels as oracles

ENGINES = get_args(Superpixels.model_fields["engine"].annotation)
SHAPES = [(1, 1), (1, 7), (7, 1), (2, 2), (3, 500), (500, 2), (20, 30), (40, 61)]
CORNERS = {"felzenszwalb": True, "slic": False, "cv_slic": False}  # what each promises to hang together by


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    if request.param in NEEDS:
        pytest.importorskip(NEEDS[request.param], reason="OpenCV is an extra: pip install .[opencv]")
    return request.param


def same_regions(first: np.ndarray, second: np.ndarray) -> bool:
    pairs = np.unique(np.stack([first.ravel(), second.ravel()]), axis=1).shape[1]
    return pairs == len(np.unique(first)) == len(np.unique(second))


def test_every_file_is_an_engine_that_a_recipe_can_name() -> None:
    files = {file.stem for file in Path(pseudolabel.superpixels.__path__[0]).glob("[a-z]*.py")}
    assert set(ENGINES) == files - {"engine", "cache", "labels", "quality"}
    assert set(ENGINES) == set(oracles.ENGINES)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 10, 30, 200])
def test_labels_have_no_gaps_on_any_size(engine: str, shape: tuple[int, int], count: int) -> None:
    for image in (make_image(*shape).numpy(), np.full((*shape, 3), 90, np.uint8)):
        labels = segments(image, Superpixels(engine=engine, segments=count))
        assert labels.dtype == np.int32
        assert labels.shape == shape
        number = labels.max() + 1
        assert np.unique(labels).tolist() == list(range(number))
        if engine in CORNERS:
            assert oracles.pieces(labels, corners=CORNERS[engine]) == number
        if engine == "felzenszwalb":
            assert number <= 4 * count


@pytest.mark.parametrize("settings", [{}, {"segments": 60}, {"compactness": 6.5}, {"sigma": 0.0}])
def test_regions_are_the_library_s(engine: str, settings: dict[str, float]) -> None:
    image = make_image(61, 84, seed=3).numpy()
    params = Superpixels(engine=engine, **settings)
    labels = segments(image, params)
    options = {key: value for key, value in params.as_dict().items() if key != "engine"}
    assert same_regions(labels, oracles.ENGINES[engine](image, **options))
    if settings:
        assert not same_regions(labels, segments(image, Superpixels(engine=engine))), "must show the setting"


def test_regions_follow_colours(engine: str) -> None:
    image = make_image(45, 63).numpy()
    patches = (np.arange(45) // 9)[:, None] * 7 + np.arange(63) // 9
    labels = segments(image, Superpixels(engine=engine, segments=60))
    pure = sum(np.bincount(patches[labels == label]).max() for label in range(labels.max() + 1))
    grid = (np.arange(45) // 7)[:, None] * 9 + np.arange(63) // 7
    pure_grid = sum(np.bincount(patches[grid == label]).max() for label in np.unique(grid))
    assert pure / patches.size > 0.86 > pure_grid / patches.size


def test_another_thread_gets_the_same(engine: str) -> None:
    image = make_image(90, 120).numpy()
    params = Superpixels(engine=engine)
    before, here = image.copy(), segments(image, params)
    with ThreadPoolExecutor(4) as threads:
        there = list(threads.map(lambda _: segments(image, params), range(8)))
    assert all(np.array_equal(here, labels) for labels in there)
    assert np.array_equal(image, before)


def test_a_read_only_image_will_do(engine: str) -> None:
    image = make_image(20, 30).numpy()
    image.flags.writeable = False
    assert segments(image, Superpixels(engine=engine)).shape == (20, 30)


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_a_missing_package_is_named_with_the_remedy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    _opencv.opencv.cache_clear()
    image = make_image(20, 30).numpy()
    wanted = rf"engine '{name}' needs OpenCV.*pip install pseudolabel\[opencv\].*slic or felzenszwalb"
    with pytest.raises(MachineError, match=wanted):
        segments(image, Superpixels(engine=name))


def test_an_opencv_without_the_extra_modules_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", type(sys)("cv2"))
    _opencv.opencv.cache_clear()
    with pytest.raises(MachineError, match="extra modules, which this OpenCV lacks"):
        segments(make_image(20, 30).numpy(), Superpixels(engine="seeds"))
    _opencv.opencv.cache_clear()


def test_recipes_of_before_keep_their_parameters() -> None:
    params = registry.get("backgrounds", "superpixel").params()
    assert params.as_dict() == {
        "threshold": 0.1, "mode": "absolute", "engine": "slic", "segments": 200, "compactness": 10.0,
        "sigma": 1.0,
    }  # fmt: skip
