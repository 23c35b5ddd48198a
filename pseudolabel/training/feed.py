"""Work done ahead of the network by threads, in order: the one reader of both packages.

Decoding and resizing release the interpreter's lock, so threads serve as well as processes: nothing is
pickled, no worker can die alone, and a script needs no main guard. Results come in the order of the
jobs whatever the number of workers, and an error of one arrives as it was raised.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

J = TypeVar("J")
R = TypeVar("R")


def ahead(
    jobs: Iterable[J], work: Callable[[J], R], *, workers: int, depth: int | None = None
) -> Generator[tuple[J, R], None, None]:
    """Pairs (job, work(job)) in the order of the jobs.

    Args:
        jobs: taken as they are needed.
        work: safe to run in several threads.
        workers: threads; 0 works in the caller's own.
        depth: how many jobs may be under way or waiting to be fetched; None: two for each worker and one.

    Raises:
        Whatever `work` raises, at its job's turn.
    """
    if workers == 0:
        for job in jobs:
            yield job, work(job)
        return
    depth = 2 * workers + 1 if depth is None else depth
    remaining = iter(jobs)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="feed")
    try:
        queue: deque[tuple[J, Future[R]]] = deque(
            (job, pool.submit(work, job)) for job in islice(remaining, depth)
        )
        while queue:
            job, future = queue.popleft()
            result = future.result()
            queue.extend((new, pool.submit(work, new)) for new in islice(remaining, 1))
            yield job, result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
