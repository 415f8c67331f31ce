"""Writes are whole or absent: after every failure the previous bytes are there and no temporary file is."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eosfm.contracts import EosfmError
from eosfm.files import OutputError, atomic_file, atomic_folder, require_place, sha256_bytes, sha256_file, write_json
from helpers import full_disk, tree


class Boom(Exception):
    pass


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_file_appears_whole(tmp_path: Path):
    with atomic_file(tmp_path / "deep" / "er" / "x") as tmp:
        tmp.write_text("new")
        assert tmp.parent == tmp_path / "deep" / "er"  # the same folder, so that replacing is atomic
        assert not (tmp_path / "deep" / "er" / "x").exists()
    assert (tmp_path / "deep" / "er" / "x").read_text() == "new"
    assert names(tmp_path / "deep" / "er") == ["x"]


def test_a_folder_appears_whole(tmp_path: Path):
    with atomic_folder(tmp_path / "x") as tmp:
        (tmp / "a").write_text("1")
        assert not (tmp_path / "x").exists()
    assert tree(tmp_path).keys() == {"x/a"}


@pytest.mark.parametrize("error", [Boom, OSError, KeyboardInterrupt])
def test_a_failing_block_leaves_the_old_file(tmp_path: Path, error: type[BaseException]):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(OutputError if error is OSError else error), atomic_file(path) as tmp:
        tmp.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize("error", [Boom, OSError, KeyboardInterrupt])
def test_a_failing_block_leaves_the_old_folder(tmp_path: Path, error: type[BaseException]):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a").write_text("old")
    with (
        pytest.raises(OutputError if error is OSError else error),
        atomic_folder(tmp_path / "x", overwrite=True) as tmp,
    ):
        (tmp / "a").write_text("half")
        raise error
    assert (tmp_path / "x" / "a").read_text() == "old"
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize("error", [OSError("no rename"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.parametrize("step", [".part", ".old"])
def test_a_failing_replace_leaves_the_old_artifact(tmp_path: Path, monkeypatch, step: str, error: BaseException):
    """``step`` names what fails: putting the new one in place, or moving the old one aside."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a").write_text("old")
    (tmp_path / "f").write_text("old")
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if self.name.endswith(step) or Path(target).name.endswith(step):
            raise error
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr("eosfm.files._exchange", lambda *_: False)  # where the system cannot swap two names
    expected = OutputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected), atomic_folder(tmp_path / "x", overwrite=True) as tmp:
        (tmp / "a").write_text("new")
    if step == ".part":
        with pytest.raises(expected), atomic_file(tmp_path / "f") as tmp:
            tmp.write_text("new")
    assert (tmp_path / "x" / "a").read_text() == "old"
    assert (tmp_path / "f").read_text() == "old"
    assert names(tmp_path) == ["f", "x"]


def test_overwriting_replaces_everything(tmp_path: Path):
    for content in ("a", "b"):
        with atomic_folder(tmp_path / "x", overwrite=True) as tmp:
            (tmp / content).write_text(content)
    assert tree(tmp_path).keys() == {"x/b"}


def test_without_overwrite_an_existing_folder_is_refused_before_any_work(tmp_path: Path):
    (tmp_path / "x").mkdir()
    with pytest.raises(OutputError, match="exists already"), atomic_folder(tmp_path / "x"):
        pytest.fail("the block must not run")
    assert names(tmp_path) == ["x"]


def test_a_place_below_a_regular_file_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("old")
    for manager in (atomic_file, atomic_folder):
        with pytest.raises(OutputError, match="cannot write"), manager(tmp_path / "file" / "below" / "x"):
            pytest.fail("the block must not run")
    assert tree(tmp_path).keys() == {"file"}
    assert (tmp_path / "file").read_text() == "old"


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path: Path):
    write_json(tmp_path / "x.json", [1])
    before = tree(tmp_path)
    with full_disk(1000), pytest.raises(OutputError, match=r"cannot write .*x\.json.*File too large"):
        write_json(tmp_path / "x.json", ["x" * 100] * 100)
    assert tree(tmp_path) == before


KILLED = """
import os, signal, sys
from pathlib import Path
from eosfm.files import atomic_file, atomic_folder
place = Path(sys.argv[1])
with atomic_file(place / "f") as tmp, atomic_folder(place / "x", overwrite=True) as folder:
    tmp.write_text("half")
    (folder / "a").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_the_old_artifacts_and_only_hidden_leftovers(tmp_path: Path):
    write_json(tmp_path / "f", "old")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a").write_text("old")
    run = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert run.returncode == -9
    assert (tmp_path / "f").read_text() == '"old"\n'
    assert (tmp_path / "x" / "a").read_text() == "old"
    leftovers = [n for n in names(tmp_path) if n not in ("f", "x")]
    assert len(leftovers) == 2
    assert all(n.startswith(".") and n.endswith(".part") for n in leftovers)


def test_two_writers_at_once_do_not_mix(tmp_path: Path):
    with atomic_file(tmp_path / "x") as one, atomic_file(tmp_path / "x") as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
    assert (tmp_path / "x").read_text() == "one"  # the outer block ends last
    assert names(tmp_path) == ["x"]


def test_a_block_that_writes_nothing_is_an_error_and_not_an_empty_file(tmp_path: Path):
    with pytest.raises(OutputError), atomic_file(tmp_path / "x"):
        pass
    assert names(tmp_path) == []


def test_names_that_are_not_plain_ascii(tmp_path: Path):
    path = tmp_path / "mit Leerzeichen und Ünïcode" / "雪 %d.json"
    write_json(path, {"ключ": "значение"})
    assert "значение" in path.read_text(encoding="utf-8")
    assert names(path.parent) == [path.name]


def test_json_is_strict_and_readable(tmp_path: Path):
    write_json(tmp_path / "x", {"b": 1, "a": 2})
    assert (tmp_path / "x").read_text() == '{\n "b": 1,\n "a": 2\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x", float("nan"))
    assert names(tmp_path) == ["x"]
    assert (tmp_path / "x").read_text().startswith("{")


def test_hashes(tmp_path: Path):
    data = os.urandom(3_000_001)
    (tmp_path / "x").write_bytes(data)
    assert sha256_file(tmp_path / "x") == sha256_bytes(data) == hashlib.sha256(data).hexdigest()
    assert issubclass(OutputError, EosfmError)


def test_a_place_is_checked_before_the_work_and_left_as_it_was(tmp_path: Path):
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("mine")
    before = names(tmp_path)
    require_place(tmp_path / "new")
    require_place(tmp_path / "several" / "new" / "folders" / "x")
    require_place(tmp_path / "there", overwrite=True)
    for path, says in [(tmp_path / "there", "exists already"), (tmp_path / "file" / "x", "cannot write")]:
        with pytest.raises(OutputError, match=says):
            require_place(path)
    with full_disk(0):
        require_place(tmp_path / "new")  # an empty file still fits
    assert names(tmp_path) == before
    assert names(tmp_path / "there") == []


def test_a_folder_that_another_process_made_meanwhile_is_not_replaced_unasked(tmp_path: Path):
    with pytest.raises(OutputError, match="made by another process meanwhile"), atomic_folder(tmp_path / "x") as tmp:
        (tmp / "a").write_text("ours")
        with atomic_folder(tmp_path / "x") as theirs:
            (theirs / "a").write_text("theirs")
    assert (tmp_path / "x" / "a").read_text() == "theirs" and names(tmp_path) == ["x"]


@pytest.mark.parametrize("swaps", [True, False])
def test_a_link_to_a_folder_is_replaced_and_what_it_led_to_stays(tmp_path: Path, monkeypatch, swaps: bool):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "mine").write_text("mine")
    (tmp_path / "x").symlink_to("real")
    if not swaps:
        monkeypatch.setattr("eosfm.files._exchange", lambda *_: False)
    with atomic_folder(tmp_path / "x", overwrite=True) as tmp:
        (tmp / "a").write_text("new")
    assert tree(tmp_path).keys() == {"real/mine", "x/a"} and names(tmp_path) == ["real", "x"]
    assert not (tmp_path / "x").is_symlink()


def test_a_disk_that_refuses_even_tidying_up_is_an_error_of_ours(tmp_path: Path, monkeypatch):
    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(OutputError, match="Read-only file system"), atomic_file(tmp_path / "x"):
        read_only()
