"""Work after the model, done beside it: threads, with processes behind them for bricks of the CPU.

Threads suffice for torch, which frees the interpreter's lock; a brick that says `cpu` may hold it, so its
work goes to a process. Files are written by the threads, in the process that holds the run folder's lock.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from pseudolabel.errors import EnvironmentFault

STAND_BACK = 10  # added to a worker's niceness
J = TypeVar("J")
M = TypeVar("M")
R = TypeVar("R")


@contextlib.contextmanager
def pool(
    make: Callable[[J], M], put: Callable[[J, M], R], *, workers: int, processes: bool
) -> Iterator[Callable[[J], Future[R]]]:
    """A function that takes a job and gives the future of `put(job, make(job))`.

    Args:
        make: pure; picklable where processes are used.
        put: runs in a thread of this process.
        workers: how many jobs at once; 0 does each in the caller's own thread.
        processes: send `make` to worker processes.

    Raises:
        EnvironmentFault: from a future: a worker process died.
    """
    if workers == 0:

        def at_once(job: J) -> Future[R]:
            future: Future[R] = Future()
            future.set_result(put(job, make(job)))
            return future

        yield at_once
        return
    with contextlib.ExitStack() as stack:
        away = None
        if processes:
            # spawn: a fork would copy the locks of torch's threads as they happen to be held
            context = multiprocessing.get_context("spawn")
            away = ProcessPoolExecutor(workers, mp_context=context, initializer=_settle)
            stack.callback(away.shutdown, wait=True, cancel_futures=True)
        threads = ThreadPoolExecutor(workers, thread_name_prefix="finish")
        stack.callback(threads.shutdown, wait=True, cancel_futures=True)

        def work(job: J) -> R:
            if away is None:
                return put(job, make(job))
            try:
                made = away.submit(make, job).result()
            except BrokenProcessPool as error:
                raise EnvironmentFault(
                    "a worker process died (killed, or out of memory); what is finished is kept, the same "
                    "command continues; --workers 0 needs none. In a script, call this below "
                    "`if __name__ == '__main__':`"
                ) from error
            return put(job, made)

        yield lambda job: threads.submit(work, job)


def _settle() -> None:
    """What a worker process does first: one torch thread, signals left to its parent, no life without it.

    It stands back behind the model, whose threads wait for one another: one that a worker displaced would
    hold all of them up.
    """
    import torch

    torch.set_num_threads(1)
    os.nice(STAND_BACK)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave(_: Any = None) -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=leave, daemon=True, name="parent").start()
