"""Progress bars on stderr: one line per piece of work, made for `eosfm.training.settings.Progress` callbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

NamedProgress = Callable[[str, float, str], None]
"""(name of the work, fraction done 0-1, one line for people)"""


@contextmanager
def bars(title: str, total: int | None = None) -> Iterator[NamedProgress]:
    """Bars that appear as work begins and leave when it is done; ``total`` adds one over all pieces."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    progress = Progress(*columns, console=console, transient=True)
    whole = progress.add_task(f"[bold]{title}", total=total) if total else None
    tasks: dict[str, TaskID] = {}

    def tell(name: str, fraction: float, line: str) -> None:
        progress.start()  # not before: an error about the configuration needs no bar
        if name not in tasks:
            tasks[name] = progress.add_task(name, total=1.0)
        progress.update(tasks[name], completed=fraction, description=line or name)
        if whole is not None:
            progress.update(whole, completed=sum(t.completed for t in progress.tasks if t.id != whole))

    try:
        yield tell
    finally:
        if tasks:
            progress.stop()


@contextmanager
def bar(title: str) -> Iterator[Callable[[float, str], None]]:
    """One bar for one piece of work."""
    with bars(title) as tell:
        yield lambda fraction, line: tell(title, fraction, line)
