"""Progress on stderr, for `eosfm.training.settings.Progress` callbacks: bars in a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

NamedProgress = Callable[[str, float, str], None]
"""(name of the work, fraction done 0-1, one line for people)"""
EVERY = 30.0
"""seconds between two plain lines, if no tenth of the work was finished meanwhile"""
AT_MOST = 2.0
"""no plain line sooner than so many seconds after the last"""


@contextmanager
def bars(title: str, total: int | None = None, *, short: bool = False) -> Iterator[NamedProgress]:
    """Bars that appear as work begins and leave when it is done; ``total`` adds one over all pieces.

    Where stderr is a file or a pipe, a line now and then instead, without control characters: a log shows that it lives.
    Work that is often over at once (``short``) says nothing in its first seconds.
    """
    console = Console(stderr=True)
    terminal = sys.stderr is not None and sys.stderr.isatty() and not console.is_dumb_terminal
    if not (terminal or console.is_jupyter):
        yield _Lines(title, total, short=short).tell
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=console, transient=True)
    whole = progress.add_task(f"[bold]{escape(title)}", total=total) if total else None
    tasks: dict[str, TaskID] = {}

    def tell(name: str, fraction: float, line: str) -> None:
        progress.start()  # not before: an error about the configuration needs no bar
        if name not in tasks:
            tasks[name] = progress.add_task(escape(name), total=1.0)
        progress.update(tasks[name], completed=fraction, description=escape(line or name))
        if whole is not None:
            progress.update(whole, completed=sum(t.completed for t in progress.tasks if t.id != whole))

    try:
        yield tell
    finally:
        if tasks:
            progress.stop()


class _Lines:
    """A plain line at the start, at every tenth of the whole and every half minute: `` 30 %  title: line  (95 s)``."""

    def __init__(self, title: str, total: int | None, *, short: bool) -> None:
        self.title, self.total = title, total
        self.began = time.monotonic()
        self.last, self.tenth = 0.0 if short else -EVERY, -1
        self.done: dict[str, float] = {}

    def tell(self, name: str, fraction: float, line: str) -> None:
        """Note how far ``name`` is, and print a line if one is due."""
        self.done[name] = fraction
        share = sum(self.done.values()) / max(self.total or 0, len(self.done))
        tenth, now = int(10 * share + 1e-9), time.monotonic() - self.began
        due = now - self.last >= EVERY or (tenth != self.tenth and now - self.last >= AT_MOST)
        if not due:
            return
        self.last, self.tenth = now, tenth
        text = " ".join((line or name).split())  # one line, whatever a name holds
        text = "".join(c for c in text if c.isprintable())
        where = "" if text.startswith(self.title) else f"{self.title}: "
        if sys.stderr is not None:
            with suppress(OSError, ValueError):  # whoever reads it went away, or the log's disk is full: work goes on
                sys.stderr.write(f"{100 * share:3.0f} %  {where}{text}  ({now:.0f} s)\n")
                sys.stderr.flush()


@contextmanager
def bar(title: str, *, short: bool = False) -> Iterator[Callable[[float, str], None]]:
    """One bar for one piece of work; ``short`` as in `bars`."""
    with bars(title, short=short) as tell:
        yield lambda fraction, line: tell(title, fraction, line)
