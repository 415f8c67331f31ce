"""Independent trainings side by side, one core each: small networks gain more from that than from many threads.

Two processes with one thread each train two ConvNeXtV2-Atto about twice as fast as one process with two threads, because
at 64 px most operators are too small to share.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

R = TypeVar("R")
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Job(Generic[R]):
    """A call of an importable function ``call(*args, progress=...)`` under a name."""

    name: str
    call: Callable[..., R]
    args: tuple[Any, ...] = ()


def run_jobs(
    jobs: Sequence[Job[R]], *, workers: int = 0, progress: Callable[[str, float, str], None] | None = None
) -> list[R]:
    """The jobs' results in their order; ``workers`` 0 means one per CPU core, 1 means in this process.

    The first error stops everything and is raised here. ``progress(name, fraction, line)`` is called as they go.
    """
    count = min(workers or cores(), max(1, len(jobs)))
    if count <= 1 or len(jobs) == 1:
        return [j.call(*j.args, progress=_tell(progress, j.name)) for j in jobs]
    context = mp.get_context("spawn")  # fork would copy torch's thread pools half-alive
    with context.Manager() as manager:
        messages = manager.Queue()
        with ProcessPoolExecutor(count, mp_context=context, initializer=_single_thread) as pool:
            futures: list[Future[R]] = [pool.submit(_run, j, messages) for j in jobs]
            pending: set[Future[R]] = set(futures)
            try:
                while pending:
                    done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                    _drain(messages, progress)
                    for f in done:
                        f.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            return [f.result() for f in futures]


class Relayed:
    """A progress callback that can travel to another process; see `relay`."""

    def __init__(self, messages: Any) -> None:
        self.messages = messages

    def __call__(self, fraction: float, line: str) -> None:
        self.messages.put(("", fraction, line))


@contextmanager
def relay(progress: Progress | None) -> Iterator[Relayed | None]:
    """A picklable stand-in for ``progress`` whose calls, from whatever process, arrive there; None for None."""
    if progress is None:
        yield None
        return
    with mp.get_context("spawn").Manager() as manager:
        messages = manager.Queue()
        over = threading.Event()

        def listen() -> None:
            while True:
                last = over.wait(0.2)  # what was said since the last look is heard, also when all is over
                _drain(messages, lambda _, fraction, line: progress(fraction, line))
                if last:
                    return

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        try:
            yield Relayed(messages)
        finally:
            over.set()
            listener.join()


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _single_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _run(job: Job[R], messages: Any) -> R:
    last = [-1.0]

    def report(fraction: float, line: str) -> None:
        if fraction - last[0] >= 0.01 or fraction >= 1:  # a message per percent is enough
            last[0] = fraction if fraction < 1 else -1.0
            messages.put((job.name, fraction, line))

    return job.call(*job.args, progress=report)


def _drain(messages: Any, progress: Callable[[str, float, str], None] | None) -> None:
    while True:
        try:
            name, fraction, line = messages.get_nowait()
        except queue.Empty:
            return
        if progress:
            progress(name, fraction, line)


def _tell(progress: Callable[[str, float, str], None] | None, name: str) -> Progress | None:
    return None if progress is None else lambda fraction, line: progress(name, fraction, line)
