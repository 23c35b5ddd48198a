"""Work ahead: in order, whatever the number of threads; a fault at its job's turn; nothing left running."""

from __future__ import annotations

import threading
import time

import pytest

from pseudolabel.training.feed import ahead


def slow_square(number: int) -> int:
    time.sleep(0.002 * (number % 3))  # later jobs end before earlier ones
    return number * number


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_order(workers: int) -> None:
    results = list(ahead(iter(range(20)), slow_square, workers=workers, depth=workers + 2))
    assert results == [(number, number * number) for number in range(20)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_fault_comes_at_its_turn(workers: int) -> None:
    def work(number: int) -> int:
        if number == 3:
            raise ValueError("job 3")
        return number

    feed = ahead(range(9), work, workers=workers, depth=4)
    assert [next(feed)[1] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="job 3"):
        next(feed)


def test_only_so_many_jobs_are_taken_ahead() -> None:
    taken: list[int] = []

    def jobs():  # type: ignore[no-untyped-def]
        for number in range(50):
            taken.append(number)
            yield number

    feed = ahead(jobs(), slow_square, workers=2, depth=4)
    next(feed)
    assert len(taken) == 5


def test_threads_end_with_the_feed() -> None:
    feed = ahead(range(100), slow_square, workers=3, depth=5)
    next(feed)
    feed.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("feed")]
