"""Work done ahead of the network by threads, in order.

Decoding and resizing release the interpreter's lock, so threads serve as well as processes: nothing is
pickled, no worker can die alone, and a script needs no main guard. Results come in the order of the
jobs whatever the number of workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

J = TypeVar("J")
R = TypeVar("R")


def ahead(jobs: Iterable[J], work: Callable[[J], R], *, workers: int, depth: int) -> Iterator[tuple[J, R]]:
    """Pairs (job, work(job)) in the order of the jobs.

    Args:
        jobs: taken as they are needed.
        work: safe to run in several threads.
        workers: threads; 0 works in the caller's own.
        depth: how many jobs may be under way or waiting to be fetched.

    Raises:
        Whatever `work` raises, at its job's turn.
    """
    if workers == 0:
        for job in jobs:
            yield job, work(job)
        return
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
