"""Independent jobs on a Ray cluster, or on this machine by way of Ray. The only door to Ray.

What travels: the name of an importable function with its arguments, messages about progress, and results. Files do not:
whatever a job reads or writes must lie where every machine sees it under the same path (`connected` looks).
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from eosfm._version import __version__
from eosfm.contracts import ConfigError, missing_extra
from eosfm.files import atomic_file

R = TypeVar("R")
LOCAL = "local"
"""the address that starts Ray on this machine, and stops it in the end"""
TRIES = 2
"""how often a job is begun whose process was lost"""
_STORE = 256 << 20
"""bytes of shared memory for a local Ray; what travels is small"""


@dataclass(frozen=True)
class Task(Generic[R]):
    """A call of an importable function ``call(beside=..., progress=...)`` under a name.

    ``beside`` says how many tasks like it share the machine at the most, itself among them.
    """

    name: str
    call: Callable[..., R]
    devices: int = 1
    """GPUs where the cluster has any, else CPU cores"""
    helpers: int = 0
    """CPU cores besides, for processes that load data; fewer where no machine has as many"""


@dataclass(frozen=True)
class Lost:
    """In place of a result: the process at work was lost (killed, out of memory, its machine gone), `TRIES` times."""

    reason: str


@contextmanager
def connected(
    address: str, *, cpus: int | None = None, shared: Sequence[Path] = (), given: Sequence[Path] = ()
) -> Iterator[None]:
    """Ray for the block: a cluster's, or one of its own for ``local``; a connection that is there already is used as it is.

    Args:
        address: ``local``, ``auto``, ``HOST:6379`` or ``ray://HOST:10001``.
        cpus: cores that a ``local`` Ray gives away; default all.
        shared: folders that tasks will write to; they need not exist.
        given: files and folders that tasks will read.

    Raises:
        MissingExtra: Ray is not installed.
        ConfigError: no cluster at the address, or a machine that lacks one of the paths, or has another eosfm.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is sent to Ray's makers
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as Ray will do by itself; else it warns
    try:
        import ray
    except ImportError:
        raise missing_extra("ray", "cluster") from None

    with ExitStack() as stack:
        if not ray.is_initialized():
            own = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _STORE}
            _require_answer(address)
            with _signals_kept(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a head that does not answer; the error says it
                try:
                    ray.init(address, logging_level="ERROR", log_to_driver=False, **(own if address == LOCAL else {}))
                except (ConnectionError, ValueError, RuntimeError, OSError) as e:
                    reason = " ".join(str(e).split())[:300] or type(e).__name__
                    raise ConfigError(
                        f"no Ray cluster at {address!r}; expected local, auto, HOST:6379 or ray://HOST:10001, of a cluster "
                        f"started with `ray start --head` and of the same Ray and Python as here: {reason}"
                    ) from None
            stack.callback(ray.shutdown)
            # What it reports of lost machines, hundreds of lines on stdout, is told by `Lost` and by progress.
            ray._private.worker._worker_logs_enabled = False
        if address != LOCAL:
            _require_sight(shared, given)
        yield


def _require_answer(address: str) -> None:
    """`ConfigError` where nobody listens at HOST:PORT: Ray would ask again for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # local, auto, or what Ray refuses at once
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as e:
        raise ConfigError(
            f"no Ray cluster at {address!r}: {e}; expected local, auto, HOST:6379 or ray://HOST:10001, of a cluster started "
            "with `ray start --head`"
        ) from None


def run_tasks(
    tasks: Sequence[Task[R]], *, at_once: int = 0, progress: Callable[[str, float, str], None] | None = None,
    landed: Callable[[int, R | Lost], None] | None = None,
) -> list[R | Lost]:  # fmt: skip
    """The tasks' results in their order, or `Lost` where the process was lost `TRIES` times. Needs `connected`.

    The first error that a task raises stops everything and is raised here; so does an interrupt, after cancelling.

    Args:
        tasks: in this order, as machines have room.
        at_once: at most so many; 0 means as many as there is room for.
        progress: called with name, fraction and line as they go.
        landed: called, here, with the number of a task and its result as soon as it is there.

    Raises:
        ConfigError: a task for more devices than any machine of the cluster has.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    rooms = [_room(t, ray.nodes(), min(at_once or len(tasks), len(tasks))) for t in tasks]
    board = ray.remote(num_cpus=0, max_restarts=-1)(_Board).remote()

    def start(i: int) -> Any:
        need, beside = rooms[i]
        call = ray.remote(max_retries=0, **need)(_work)  # it counts its own tries: a retry of Ray's would not be told
        return call.options(name=tasks[i].name).remote(tasks[i], board, beside, int(need["num_cpus"]))

    results: dict[int, R | Lost] = {}
    waiting, tries = deque(range(len(tasks))), [0] * len(tasks)
    flying: dict[Any, int] = {}
    with _terminated_between() as look, ExitStack() as stack:
        stack.callback(lambda: [ray.cancel(ref, force=True) for ref in flying])  # none is left when all went well
        while waiting or flying:
            look()
            while waiting and (not at_once or len(flying) < at_once):
                i = waiting.popleft()
                tries[i] += 1
                flying[start(i)] = i
            done, _ = ray.wait(list(flying), timeout=0.3)
            _pass_on(board, progress)
            for ref in done:
                i = flying.pop(ref)
                try:
                    results[i] = ray.get(ref)
                except RayTaskError as e:
                    raise e.cause if isinstance(getattr(e, "cause", None), Exception) else e from None
                except RayError as e:
                    if tries[i] < TRIES:
                        waiting.appendleft(i)
                        if progress:
                            progress(tasks[i].name, 0.0, f"{tasks[i].name}: its process was lost, once more")
                    else:
                        results[i] = Lost(f"{type(e).__name__}: {' '.join(str(e).split())[:300]}")
                if landed and i in results:
                    landed(i, results[i])
    _pass_on(board, progress)
    return [results[i] for i in range(len(tasks))]


def _work(task: Task[R], board: Any, beside: Mapping[str, int], threads: int) -> R:
    """What a process of the cluster does."""
    import ray
    import torch

    torch.set_num_threads(max(1, threads))
    node = ray.get_runtime_context().get_node_id()
    return task.call(beside=beside.get(node, 1), progress=_Told(board, task.name))


class _Told:
    """A progress callback in another process: a message per percent, for which nobody waits."""

    def __init__(self, board: Any, name: str) -> None:
        self.board, self.name, self.last = board, name, -1.0

    def __call__(self, fraction: float, line: str) -> None:
        if fraction - self.last >= 0.01 or fraction >= 1:
            self.last = fraction if fraction < 1 else -1.0
            self.board.tell.remote(self.name, fraction, line)


class _Board:
    """Where tasks post how far they are; only the last word of each is kept."""

    def __init__(self) -> None:
        self.news: dict[str, tuple[float, str]] = {}

    def tell(self, name: str, fraction: float, line: str) -> None:
        self.news[name] = (fraction, line)

    def take(self) -> dict[str, tuple[float, str]]:
        news, self.news = self.news, {}
        return news


def _pass_on(board: Any, progress: Callable[[str, float, str], None] | None) -> None:
    import ray
    from ray.exceptions import RayError

    if progress is None:
        return
    try:
        news = ray.get(board.take.remote(), timeout=5)
    except RayError:  # it moves to another machine; training goes on
        return
    for name, (fraction, line) in news.items():
        progress(name, fraction, line)


def _room(task: Task[Any], nodes: Sequence[Mapping[str, Any]], most: int) -> tuple[dict[str, int], dict[str, int]]:
    """What ``task`` asks of a machine, and how many like it, ``most`` at most, each machine has room for."""
    have = {n["NodeID"]: n["Resources"] for n in nodes if n["Alive"] and n["Resources"].get("CPU", 0) >= 1}
    kind = "GPU" if any(r.get("GPU", 0) >= 1 for r in have.values()) else "CPU"
    gpus = task.devices if kind == "GPU" else 0
    fit = {i: r for i, r in have.items() if r.get("GPU", 0) >= gpus}
    if not fit:
        largest = max((int(r.get("GPU", 0)) for r in have.values()), default=0)
        raise ConfigError(
            f"{task.name}: devices {task.devices}; the cluster's {len(have)} machines have CPU cores to give, and at most "
            f"{largest} GPUs each. Set fit.devices to what one machine has, or add one"
        )
    wanted = task.helpers + (1 if gpus else task.devices)
    cpus = min(wanted, max(int(r["CPU"]) for r in fit.values()))
    need = {"num_cpus": cpus, **({"num_gpus": gpus} if gpus else {})}
    rooms = {i: min(int(r["CPU"]) // cpus, int(r["GPU"]) // gpus if gpus else most, most) for i, r in fit.items()}
    return need, {i: max(1, n) for i, n in rooms.items()}


def _require_sight(shared: Sequence[Path], given: Sequence[Path]) -> None:
    """`ConfigError` unless every machine that can work sees the files of this one, and has the same eosfm."""
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    token = secrets.token_hex(8)
    with ExitStack() as stack:
        marks = {}
        for folder in {next(p for p in (f, *f.parents) if p.is_dir()) for f in shared}:
            mark = folder / f".eosfm-{token}"
            stack.callback(mark.unlink, missing_ok=True)
            with atomic_file(mark) as tmp:
                tmp.write_text(token)
            marks[str(mark)] = str(folder)
        paths = {**marks, **{str(p): str(p) for p in given if p.exists()}}
        looks = []
        for n in ray.nodes():
            if n["Alive"] and n["Resources"].get("CPU", 0) >= 1:
                there = NodeAffinitySchedulingStrategy(n["NodeID"], soft=False)
                look = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(_look)
                looks.append((n["NodeManagerHostname"], look.remote(paths)))
        for host, look in looks:
            try:
                version, unseen = ray.get(look, timeout=120)
            except RayError as e:
                reason = " ".join(str(getattr(e, "cause", None) or e).split())[:300]
                raise ConfigError(
                    f"{host} of the cluster cannot work for eosfm ({reason}); install eosfm {__version__} with the extras "
                    "train and cluster on every machine"
                ) from None
            if version != __version__:
                raise ConfigError(
                    f"{host} of the cluster has eosfm {version}, {socket.gethostname()} {__version__}; align"
                )
            if unseen:
                raise ConfigError(
                    f"{host} of the cluster does not see {', '.join(unseen)} of {socket.gethostname()}: every path must lie on "
                    "a file system that all machines share under one name (NFS, Lustre, ...); set zoo, run and data.root there"
                )


def _look(paths: Mapping[str, str]) -> tuple[str, list[str]]:
    """The version of eosfm here, and which of ``paths`` (by their names for people) are not here."""
    return __version__, sorted({name for path, name in paths.items() if not Path(path).exists()})


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray replaces the handler of SIGTERM, by which a command says how to go on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@contextmanager
def _terminated_between() -> Iterator[Callable[[], None]]:
    """What a SIGTERM does, it does when the function that is given is called: inside Ray its exit code would be lost."""
    came: list[int] = []

    def look() -> None:
        if came:
            signal.signal(signal.SIGTERM, before)
            signal.raise_signal(signal.SIGTERM)

    if threading.current_thread() is not threading.main_thread():
        yield look
        return
    with _signals_kept():
        before = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
        signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
        yield look
