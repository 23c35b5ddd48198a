"""Work after the model, done beside it: threads, with processes behind them for components of the CPU.

Threads suffice for torch, which frees the interpreter's lock; a component that says `cpu` may hold it, so its
work goes to a process. Files are written by the threads, in the process that holds the run folder's lock.

On Linux processes are forks of a server, which imports torch once for all of them and has never run
anything: a fork of this process would copy the locks of torch's threads as they happen to be held.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

from pseudolabel.errors import MachineError
from pseudolabel.training.allocator import keep_pages

SERVER = "pseudolabel.pipeline._worker_server"
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
        MachineError: from a future: a worker process died.
    """
    keep_pages()
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
            away = ProcessPoolExecutor(workers, mp_context=_context(), initializer=_settle)
            stack.callback(away.shutdown, wait=True, cancel_futures=True)
        threads = ThreadPoolExecutor(workers, thread_name_prefix="postprocess")
        stack.callback(threads.shutdown, wait=True, cancel_futures=True)

        def work(job: J) -> R:
            if away is None:
                return put(job, make(job))
            try:
                result = away.submit(make, job).result()
            except BrokenProcessPool as error:
                raise MachineError(
                    "a worker process died (killed, or out of memory); what is finished is kept, the same "
                    "command continues; --workers 0 needs none. In a script, call this below "
                    "`if __name__ == '__main__':`"
                ) from error
            return put(job, result)

        yield lambda job: threads.submit(work, job)


def make_ready() -> None:
    """Let the server of worker processes start and import while this process does something else."""
    if _context().get_start_method() == "forkserver":
        from multiprocessing.forkserver import ensure_running

        ensure_running()


def _context() -> BaseContext:
    """How worker processes come to be."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([SERVER])
    return context


def _settle() -> None:
    """What a worker process does first: one torch thread, signals left to its parent, no life without it.

    It stands back behind the model, whose threads wait for one another: one that a worker displaced would
    hold all of them up.
    """
    import torch

    torch.set_num_threads(1)
    keep_pages()
    os.nice(STAND_BACK)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave(_: Any = None) -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=leave, daemon=True, name="parent").start()
