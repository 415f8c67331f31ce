"""Kernels that were damaged, folders that cannot hold them, builds that were killed: told in words, never loaded."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eosfm import cli
from eosfm.engine import native

FAKE = """#!/bin/sh
for last; do case "$before" in -o) out="$last";; esac; before="$last"; done
printf 'machine code' > "$out"
"""


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty folder for kernels, and a compiler that is done at once."""
    compiler = tmp_path / "compiler"
    compiler.write_text(FAKE)
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    folder = tmp_path / "kernels"
    monkeypatch.setenv("EOSFM_KERNELS", str(folder))
    return folder


@pytest.mark.parametrize("how", ["a byte", "cut short", "longer", "nothing left"])
def test_kernels_that_were_changed_are_not_loaded_and_are_built_again(place, monkeypatch, how):
    target = native.build()
    good = target.read_bytes()
    assert good.startswith(b"machine code") and native.intact()
    target.write_bytes(
        {"a byte": b"M" + good[1:], "cut short": good[:-9], "longer": good + b"x", "nothing left": b""}[how]
    )
    loaded = []
    monkeypatch.setattr("torch.ops.load_library", loaded.append)
    with pytest.raises(native.BuildError, match=r"is damaged.*build again: eosfm kernels"):
        native.load()
    assert not loaded and not native.intact()
    assert native.build() == target and target.read_bytes() == good


def test_a_folder_that_cannot_be_written_is_named(place, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("mine")
    for where in (tmp_path / "file" / "kernels", Path("/proc/self")):
        monkeypatch.setenv("EOSFM_KERNELS", str(where))
        monkeypatch.setattr(sys, "argv", ["eosfm", "kernels"])
        with pytest.raises(SystemExit) as e:
            cli.main()
        err = capsys.readouterr().err
        assert e.value.code == 2 and "cannot write kernels" in err and "EOSFM_KERNELS" in err, err
        assert "Traceback" not in err


def test_a_disk_that_fills_while_the_library_is_sealed_leaves_nothing(place, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(native.os, "fsync", full)
    with pytest.raises(native.BuildError, match=r"No space left on device; make room"):
        native.build()
    assert list(place.iterdir()) == []


def test_what_killed_builds_left_goes_and_a_running_build_stays(place):
    place.mkdir()
    for name, age in (("building-old", 2 * native.ABANDONED), ("building-now", 10.0)):
        (place / name).mkdir()
        (place / name / "part.so").write_bytes(b"half")
        os.utime(place / name, (time.time() - age,) * 2)
    target = native.build()
    assert sorted(p.name for p in place.iterdir()) == sorted(["building-now", target.name])


def test_two_builds_at_once_are_both_done(place):
    code = "from eosfm.engine import native; print(native.build()); assert native.intact()"
    runs = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)
    ]
    said = [r.communicate() for r in runs]
    assert [r.returncode for r in runs] == [0, 0], said
    assert [p.name for p in place.iterdir()] == [native.library().name]
