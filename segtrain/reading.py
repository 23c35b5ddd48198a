"""Work done ahead by threads, handed over in order.

Decoding and resizing leave the interpreter's lock, so threads are enough; they need no start-up, no copy
between processes, and a fault in one arrives as it was raised.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(work: Callable[[T], R], items: Iterable[T], workers: int, ahead: int = 2) -> Iterator[R]:
    """The results of `work` over the items, in their order, whatever the workers.

    Args:
        work: free of side effects.
        items: what it is called with.
        workers: threads; 0 works when asked.
        ahead: results that may wait for each worker.

    Raises:
        Whatever `work` raises, in the place of its result.
    """
    if workers == 0:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="reading")
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > workers * ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
