"""Batches of images explained side by side.

On a CPU every core has a lane: a copy of the classifier and one thread of torch. Cores then never wait
for one another inside a layer, and no sum depends on their number. On a GPU there is one lane, in the
caller's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from typing import TypeVar

import torch

from pseudolabel.pipeline.explained_classifier import ExplainedClassifier
from pseudolabel.training.feed import ahead

MOST = 16  # each holds a copy of the classifier and its activations
J = TypeVar("J")
R = TypeVar("R")


class Lanes:
    """Classifiers that work at the same time.

    Args:
        classifier: makes one; the first is made at once, others when they are needed.
        device: where they run.

    Attributes:
        first: one of them.
        count: how many may come to be.
    """

    def __init__(self, classifier: Callable[[], ExplainedClassifier], device: torch.device) -> None:
        self._new = classifier
        self.first = classifier()
        self._all, self._free = [self.first], SimpleQueue[ExplainedClassifier]()
        self._free.put(self.first)
        self.count = min(torch.get_num_threads(), MOST) if device.type == "cpu" else 1

    @property
    def batch(self) -> int:
        """Items of one forward now, the least of all."""
        return min(lane.model.batch for lane in self._all)

    def run(self, jobs: Iterable[J], work: Callable[[ExplainedClassifier, J], R]) -> Iterator[tuple[J, R]]:
        """Pairs (job, work(a classifier, job)) in the order of the jobs.

        Raises:
            Whatever `work` raises, at its job's turn.
        """
        if self.count == 1:
            for job in jobs:
                yield job, work(self.first, job)
            return
        threads = torch.get_num_threads()

        def alone(job: J) -> R:
            torch.set_num_threads(1)  # of this thread
            try:
                lane = self._free.get_nowait()
            except Empty:
                lane = self._new()
                self._all.append(lane)
            try:
                return work(lane, job)
            finally:
                self._free.put(lane)

        try:
            yield from ahead(jobs, alone, workers=self.count, depth=self.count + 1)
        finally:
            torch.set_num_threads(threads)  # threads to come take the last number that was set
