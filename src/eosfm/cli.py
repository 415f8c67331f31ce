"""The command line: one table from command to function. Errors a user can repair end with exit code 2 and no traceback."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import typer
import typer.core

from eosfm import (
    commands,
    commands_bench,
    commands_data,
    commands_explain,
    commands_export,
    commands_scene,
    commands_zoo,
)
from eosfm._version import __version__
from eosfm.contracts import EosfmError, missing_extra
from eosfm.outcomes import Outcome

_EXTRA_OF = {
    "lightning": "train",
    "torchmetrics": "train",
    "segmentation_models_pytorch": "train",
    "tensorboard": "train",
    "codecarbon": "train",
    "matplotlib": "report",
    "jinja2": "report",
    "PIL": "report",
    "ray": "cluster",
    "model_signing": "sign",
    "openvino": "export",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "nncf": "export",
    "torchgeo": "baselines",
    "terratorch": "terratorch",
}
"""optional library -> the extra that installs it"""

COMMANDS: dict[str, Callable[..., Outcome]] = {
    "demo": commands.demo,
    "zoo list": commands_zoo.zoo_list,
    "zoo show": commands_zoo.zoo_show,
    "zoo verify": commands_zoo.zoo_verify,
    "zoo sign": commands_zoo.zoo_sign,
    "zoo add": commands_zoo.zoo_add,
    "zoo import": commands_zoo.zoo_import,
    "zoo push": commands_zoo.zoo_push,
    "zoo pull": commands_zoo.zoo_pull,
    "zoo export-stac": commands_zoo.zoo_export_stac,
    "zoo export-pangaea": commands_zoo.zoo_export_pangaea,
    "fetch": commands_data.fetch,
    "train": commands.train,
    "pretrain": commands.pretrain,
    "compose": commands.compose,
    "routes": commands.routes,
    "adapt": commands.adapt,
    "select": commands_explain.select,
    "prune": commands_explain.prune,
    "scaling": commands_explain.scaling,
    "explain": commands_explain.explain,
    "similarity": commands_explain.similarity,
    "evaluate": commands.evaluate,
    "bench run": commands_bench.bench,
    "bench report": commands_bench.bench_report,
    "bench models": commands_bench.bench_models,
    "predict": commands_scene.predict,
    "embed": commands_scene.embed,
    "export": commands_export.export,
    "kernels": commands_export.kernels,
}


class _RunByDefault(typer.core.TyperGroup):
    """``eosfm bench SUITE.yaml`` is ``eosfm bench run SUITE.yaml``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = not args or args[0] in self.commands or args[0] in ("--help", "-h")
        rest: list[str] = super().parse_args(ctx, args if named else ["run", *args])
        return rest


def make_app() -> typer.Typer:
    """The typer application made from `COMMANDS`."""
    about = "A generalist feature extractor for Earth observation, assembled from small specialists."
    app = typer.Typer(
        help=about, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None
    )
    groups = {
        "zoo": typer.Typer(help="List, check, sign, import and share specialists.", no_args_is_help=True),
        "bench": typer.Typer(
            help="Measure a suite (eosfm bench SUITE.yaml), or make its page.", no_args_is_help=True, cls=_RunByDefault
        ),
    }
    for name, group in groups.items():
        app.add_typer(group, name=name)
    for words, function in COMMANDS.items():
        *parents, leaf = words.split()
        (groups[parents[0]] if parents else app).command(leaf)(_printing(function))

    @app.callback(invoke_without_command=True)
    def root(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
        if version:
            typer.echo(__version__)
            raise typer.Exit

    return app


def _printing(function: Callable[..., Outcome]) -> Callable[..., None]:
    @wraps(function)
    def run(*args: object, **kwargs: object) -> None:
        show(outcome := function(*args, **kwargs))
        if outcome.failed:
            raise typer.Exit(1)

    return run


def show(outcome: Outcome) -> None:
    """Print an outcome: its table, then its lines."""
    if outcome.table:
        from rich.console import Console
        from rich.table import Table

        table = Table(*outcome.table[0], header_style="bold", show_lines=False, box=None, pad_edge=False)
        for row in outcome.table[1:]:
            table.add_row(*row)
        # A terminal wraps to its width; a file or pipe gets every cell whole.
        Console(width=None if sys.stdout.isatty() else 240, markup=False, highlight=False).print(table)
    for line in outcome.lines:
        typer.echo(line)


_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
"""what a disk says that is full, broken, read-only or somebody else's"""
_LESS_MEMORY = (
    "give it less at once: --batch-size of a command; fit.batch_size, data.chip_size or data.limit of a YAML file"
)
_INTERRUPTED, _TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


def _terminated(*_: object) -> None:
    raise SystemExit(_TERMINATED)


def main() -> None:
    """Entry point of ``eosfm``."""
    # Small networks on a shared machine: threads that spin while they wait slow each other down by a factor of ten.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, _terminated)  # Lightning takes it over while it trains, and leaves the same way
    try:
        make_app()()
    except EosfmError as e:
        typer.echo(f"error: {e}", err=True)
        raise SystemExit(2) from None
    except ModuleNotFoundError as e:
        extra = _EXTRA_OF.get((e.name or "").split(".")[0])
        if extra is None:
            raise
        typer.echo(f"error: {missing_extra(str(e.name), extra)}", err=True)
        raise SystemExit(2) from None
    except SystemExit as e:
        if e.code == _TERMINATED:
            typer.echo(
                "stopped by SIGTERM; what was finished is kept, start the same command again to continue", err=True
            )
        elif e.code == _INTERRUPTED:  # typer made it of a KeyboardInterrupt
            typer.echo("interrupted; start the same command again to continue", err=True)
        raise
    except KeyboardInterrupt:
        typer.echo("interrupted; start the same command again to continue", err=True)
        raise SystemExit(_INTERRUPTED) from None
    except (MemoryError, RuntimeError) as e:
        if isinstance(e, RuntimeError) and "can't allocate memory" not in str(e):  # how PyTorch says it
            raise
        said = str(e).split("memory: ")[-1].split(". Error")[0] or "no more could be had"
        typer.echo(f"error: out of memory ({said}); {_LESS_MEMORY}", err=True)
        raise SystemExit(2) from None
    except OSError as e:
        if e.errno not in _DISK:
            raise
        where = f" {e.filename}" if e.filename else ""
        typer.echo(
            f"error: cannot read or write{where}: {e.strerror}; what was finished is kept. Make room, or name a place that "
            "can be written, and start the same command again",
            err=True,
        )
        raise SystemExit(2) from None
