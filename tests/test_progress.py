"""Progress where nobody watches a terminal: a log shows now and then that the work goes on, in plain lines."""

from __future__ import annotations

import io
import sys

import pytest

from eosfm import progress
from eosfm.progress import bar, bars


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def test_a_log_gets_a_line_at_the_start_at_every_tenth_and_every_half_minute(clock, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as continuous integration sets it: rich would draw into the file
    with bar("adapting x") as tell:
        for i in range(1001):
            tell(i / 1000, f"x: epoch {i // 100 + 1}\tloss\x1b[31m \r0.5")
            clock(0.5)
    lines = capsys.readouterr().err.splitlines()
    assert 11 <= len(lines) <= 30, lines
    assert lines[0] == "  0 %  adapting x: x: epoch 1 loss[31m 0.5  (0 s)"
    assert lines[-1].startswith("100 %") and all(line.isprintable() for line in lines)


def test_slow_work_is_seen_to_live_and_quick_work_says_little(clock, capsys):
    with bar("slow") as tell:
        for _ in range(20):
            tell(0.001, "still the first chips")
            clock(10.0)
    assert len(capsys.readouterr().err.splitlines()) == 7
    with bars("specialists", 3) as tell_named:
        for i in range(3):
            for f in range(11):
                tell_named(f"s{i}", f / 10, "")
    assert capsys.readouterr().err == "  0 %  specialists: s0  (0 s)\n"
    with bar("a scene", short=True) as tell:
        tell(0.0, "")
        tell(0.5, "")
        clock(3.0)
        tell(0.6, "")
    assert capsys.readouterr().err == " 60 %  a scene  (3 s)\n"


def test_a_reader_that_went_away_does_not_end_the_work(monkeypatch):
    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    for stderr in (Gone(), None):
        monkeypatch.setattr(sys, "stderr", stderr)
        with bar("adapting") as tell:
            tell(0.5, "half")
