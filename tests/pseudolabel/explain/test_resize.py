"""The resize by kernels and by matrices: the library's weights, and its adjoint."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from pseudolabel.explain.resize import Resize, resize_matrix
from tests.oracles import aggregators as oracles

SIZES = [((7, 9), (12, 5)), ((1, 1), (4, 4)), ((40, 31), (8, 8)), ((5, 5), (1, 1)), ((6, 8), (6, 8))]


def axes(source: tuple[int, int], target: tuple[int, int], antialias: bool) -> tuple[torch.Tensor, ...]:
    return tuple(resize_matrix(a, b, antialias=antialias) for a, b in zip(source, target, strict=True))


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("source", "target"), SIZES)
def test_equals_the_library_and_the_oracle(
    source: tuple[int, int], target: tuple[int, int], antialias: bool
) -> None:
    image = torch.randn(2, *source, generator=torch.Generator().manual_seed(3))
    resize = Resize(source, target, antialias)
    actual = resize(image)
    wanted = interpolate(image[None], size=target, mode="bilinear", align_corners=False, antialias=antialias)[
        0
    ]
    torch.testing.assert_close(actual, wanted, rtol=1e-5, atol=2e-6)
    expected = oracles.resize(image.double().numpy(), target, antialias)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-5, atol=2e-6)
    rows, columns = axes(source, target, antialias)
    torch.testing.assert_close(rows @ image @ columns.T, actual, rtol=1e-5, atol=2e-6)
    gradient = torch.randn(2, *target, generator=torch.Generator().manual_seed(4))
    back = resize.back(gradient)
    expected = oracles.adjoint(gradient.double().numpy(), source, antialias)
    np.testing.assert_allclose(back.numpy(), expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.booleans(),
)
def test_adjoint_identity(source: tuple[int, int], target: tuple[int, int], antialias: bool) -> None:
    # <A x, y> = <x, A' y>
    generator = torch.Generator().manual_seed(hash((source, target)) % 2**31)
    x = torch.randn(3, *source, generator=generator, dtype=torch.float64)
    y = torch.randn(3, *target, generator=generator, dtype=torch.float64)
    resize = Resize(source, target, antialias)
    forward, back = (resize(x) * y).sum(), (x * resize.back(y)).sum()
    torch.testing.assert_close(forward, back, rtol=1e-10, atol=1e-10)
    rows, columns = (matrix.double() for matrix in axes(source, target, antialias))
    forward, back = ((rows @ x @ columns.T) * y).sum(), (x * (rows.T @ y @ columns)).sum()
    torch.testing.assert_close(forward, back, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(rows.sum(dim=1), torch.ones(target[0], dtype=torch.float64))
    assert rows.min() >= 0


def test_the_adjoint_is_the_librarys_backward() -> None:
    image = torch.randn(1, 3, 31, 44, generator=torch.Generator().manual_seed(1)).requires_grad_()
    gradient = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(2))
    out = interpolate(image, size=(24, 24), mode="bilinear", align_corners=False)
    (wanted,) = torch.autograd.grad(out, image, gradient)
    rows, columns = axes((31, 44), (24, 24), False)
    actual = rows.T @ gradient @ columns
    torch.testing.assert_close(Resize((31, 44), (24, 24)).back(gradient), wanted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(actual, wanted, rtol=1e-5, atol=1e-5)


def test_the_same_size_changes_nothing() -> None:
    image = torch.randn(3, 9, 5)
    for antialias in (False, True):
        same = Resize((9, 5), (9, 5), antialias)
        assert torch.equal(same(image), image)
        assert torch.equal(same.back(image), image)
