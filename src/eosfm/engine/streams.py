"""Independent small computations side by side on a CPU, one thread each.

A small network keeps one core busy but not two: at the sizes of a chip, threads that share every operation wait for each
other more than they work. Two views of an ensemble on two threads wait for nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier, Lock
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def each(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """``work`` of every item, in their order, on as many threads as PyTorch has; gradients are off.

    The first error is raised when all threads have stopped.
    """
    threads = min(torch.get_num_threads(), len(items))
    infer = torch.is_inference_mode_enabled()

    def quiet(item: T) -> R:
        # autocast is a thread's own: without this, one thread would have it and several would not
        with torch.inference_mode() if infer else torch.no_grad(), torch.autocast("cpu", enabled=False):
            return work(item)

    if threads < 2:
        return [quiet(item) for item in items]
    waiting, results, lock = iter(range(len(items))), dict[int, R](), Lock()

    def stream() -> None:
        while True:
            with lock:
                i = next(waiting, None)
            if i is None:
                return
            results[i] = quiet(items[i])

    streams = [_pool(os.getpid(), torch.get_num_threads()).submit(stream) for _ in range(threads)]
    errors = [e for s in streams if (e := s.exception()) is not None]
    if errors:
        raise errors[0]
    return [results[i] for i in range(len(items))]


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:  # noqa: ARG001  (a forked process needs its own)
    pool, all_here = ThreadPoolExecutor(threads, thread_name_prefix="eosfm"), Barrier(threads)

    def start() -> None:
        all_here.wait()  # so that no thread of the pool does the start of another
        torch.get_num_threads()  # a thread's first look takes over the process's number, and would undo the next line
        torch.set_num_threads(1)

    for started in [pool.submit(start) for _ in range(threads)]:
        started.result()
    torch.set_num_threads(threads)  # theirs is 1; so would be that of threads that others start from now on
    return pool
