"""The compiled part of the fast plan, `views.cpp`: built on request for this CPU and PyTorch, then found by itself.

    eosfm kernels          # once per machine; needs g++ or clang++

Nothing is downloaded, and nothing is compiled unasked. What was built for another CPU, PyTorch or source is not found: its
name is the hash of all three. A library ends with the hash of what comes before it (a loader does not read that far), so that
one that was changed or cut short is refused: machine code that is damaged would crash, or compute something else. Without
kernels the plan runs PyTorch's own operators, with the same results up to rounding.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eosfm.contracts import ConfigError, EosfmError

SOURCE = Path(__file__).with_name("views.cpp")
FLAGS = ("-std=c++20", "-O3", "-march=native", "-shared", "-fPIC", "-fno-math-errno")
Views = Callable[..., list[Tensor]]
_MARK = b"\neosfm kernels, sha256 "
ABANDONED = 3600.0
"""seconds after which a build's own folder is a killed build's"""


class BuildError(EosfmError):
    """The compiler is not there, or refused."""


def folder() -> Path:
    """Where built kernels lie: ``$EOSFM_KERNELS``, or ``eosfm/kernels`` in the user's cache."""
    chosen = os.environ.get("EOSFM_KERNELS")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eosfm" / "kernels"


@cache
def _cpu() -> str:
    """What ``-march=native`` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    kinds = {line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}
    return platform.machine() + "".join(sorted(kinds))


def library() -> Path:
    """The file for this CPU, PyTorch and source, whether it is there or not."""
    facts = (_MARK, SOURCE.read_bytes(), torch.__version__.encode(), " ".join(FLAGS).encode(), _cpu().encode())
    return folder() / f"views-{hashlib.sha256(b'|'.join(facts)).hexdigest()[:24]}.so"


def built() -> bool:
    """Whether `load` would find kernels, good ones or not."""
    return library().is_file()


def intact() -> bool:
    """Whether kernels are there that nobody changed since they were built."""
    try:
        return built() and _whole(library())
    except OSError:
        return False


def build() -> Path:
    """Compile `views.cpp` for this machine (about 15 s); what is there already stays, unless it is damaged.

    Raises:
        BuildError: no compiler, a compiler that refuses, or a folder that cannot be written.
    """
    target = library()
    if intact():
        return target
    compiler = os.environ.get("CXX") or next((c for c in ("g++", "clang++", "c++") if shutil.which(c)), None)
    if compiler is None or not shutil.which(compiler):
        raise BuildError(
            f"no C++ compiler: {compiler or 'g++, clang++ and c++'} not found. Install one (Debian: apt install g++), or go "
            "on without: the plan runs PyTorch's own operators then"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if target.exists() and not target.is_file():
            raise BuildError(f"{target} is there and no file; remove it, and build again")
        _remove_abandoned(target.parent)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="building-", ignore_cleanup_errors=True) as scratch:
            part = Path(scratch) / target.name
            _compile(compiler, part)
            with part.open("ab") as f:
                f.write(_seal(part.read_bytes()))
                f.flush()
                os.fsync(f.fileno())
            part.replace(target)
    except OSError as e:
        raise BuildError(
            f"cannot write kernels into {target.parent}: {e.strerror or e}; make room there, or set EOSFM_KERNELS to a "
            "folder of yours"
        ) from None
    return target


def _compile(compiler: str, part: Path) -> None:
    home = Path(torch.__file__).parent
    libraries, headers = home / "lib", (home / "include", home / "include" / "torch" / "csrc" / "api" / "include")
    command = [compiler, *FLAGS, *(f"-I{path}" for path in headers), str(SOURCE), "-o", str(part)]
    command += [f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-lc10", "-ltorch_cpu"]
    # its own temporary files go where the library goes, so that no other folder must have room
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, env={**os.environ, "TMPDIR": str(part.parent)}
    )  # fmt: skip
    if done.returncode:
        said = done.stderr.splitlines()
        errors = [line for line in said if "error" in line or "No space" in line][:3] or said[-3:]
        errors = errors or [f"it ended with code {done.returncode} and said nothing"]
        raise BuildError(f"{compiler} could not compile {SOURCE.name}: {'; '.join(errors)}")
    if not part.is_file():
        raise BuildError(f"{compiler} wrote nothing; is it a C++ compiler? CXX names another")


def _seal(code: bytes) -> bytes:
    return _MARK + hashlib.sha256(code).hexdigest().encode()


def _whole(target: Path) -> bool:
    """Whether the library ends with the hash of what comes before."""
    content = target.read_bytes()
    end = len(content) - len(_seal(b""))
    return content[max(0, end) :] == _seal(content[: max(0, end)])


def _remove_abandoned(place: Path) -> None:
    for scratch in place.glob("building-*"):
        try:
            if time.time() - scratch.stat().st_mtime > ABANDONED:
                shutil.rmtree(scratch)
        except OSError:
            pass  # not ours to delete, or gone


def load() -> Views:
    """The operator of `views.cpp`.

    Raises:
        ConfigError: not built, or built by somebody else.
        BuildError: built, but changed since, or it cannot be loaded.
    """
    target = library()
    if not target.is_file():
        raise ConfigError("the CPU kernels are not built for this machine and PyTorch; build them: eosfm kernels")
    return _load(target)


@cache
def _load(target: Path) -> Views:
    if hasattr(os, "getuid") and target.stat().st_uid not in (os.getuid(), 0):
        raise ConfigError(f"{target} belongs to another user; remove it, or set EOSFM_KERNELS to a folder of yours")
    try:
        whole = _whole(target)
    except OSError as e:
        raise BuildError(f"{target} cannot be read ({e.strerror}); set EOSFM_KERNELS to a folder of yours") from None
    if not whole:
        raise BuildError(f"{target} is damaged, or not what was built; build again: eosfm kernels")
    try:
        torch.ops.load_library(str(target))  # type: ignore[no-untyped-call]
    except OSError as e:
        raise BuildError(f"{target} cannot be loaded ({e}); remove it and build again: eosfm kernels") from None
    try:
        operator: Any = torch.ops.eosfm_native.views.default
    except AttributeError:
        raise BuildError(f"{target} is another library; remove it and build again: eosfm kernels") from None
    return operator  # type: ignore[no-any-return]
