"""`pseudolabel.explain` against captum and torchcam (the extra `referee`; see test_referees.py)."""

from __future__ import annotations

import pytest

from tests.referees.public_scenes import cases, error, ours

pytestmark = pytest.mark.referee


@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize(("name", "what"), cases())
def test_agrees_with_the_libraries(name: str, what: str) -> None:
    for library in ("captum", "torchcam"):
        pytest.importorskip(library, reason=f"{library} is not here; install the extra referee")
    from tests.referees.public_libraries import asked

    largest = error(ours(name, what), asked(name, what))
    print(f"{name}, {what}: largest relative error {largest:.1e}")
    assert largest <= 1e-4
