"""The README's Python example runs as it stands, and its shell lines name commands that exist."""

import re
import shutil
from pathlib import Path

import helpers
from eosfm import cli
from eosfm.specialists.store import save_specialist

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(tmp_path, monkeypatch, capsys):
    zoo = tmp_path / "runs" / "demo" / "zoo"
    like_the_demo = {
        "s2-land-cover": "sentinel-2-l2a:B02,B03,B04,B8A,B11,B12@dn-1e4",
        "s2-vegetation": "sentinel-2-l2a:B8A,B04,B03@reflectance",
        "s1-flood": "sentinel-1:VV,VH,VH@db",
        "many-bands": "sentinel-2-l1c:all@dn-1e4",
    }
    for seed, (name, bands) in enumerate(like_the_demo.items()):
        save_specialist(*helpers.make_specialist(name, bands, seed), zoo)
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(r"```python\n(.*?)```", README, re.S)
    exec(compile(code, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert "[(8, 40, 16, 16), (8, 80, 8, 8), (8, 160, 4, 4), (8, 320, 2, 2)]" in out
    assert "many-bands is left out: " in out
    shutil.rmtree(zoo)


def test_shell_lines_name_commands_that_exist():
    words = {tuple(c.split()) for c in cli.COMMANDS} | {("bench",)}  # eosfm bench FILE is eosfm bench run FILE
    lines = re.findall(r"^eosfm ([a-z]+(?: [a-z]+)?)", README, re.M)
    assert len(lines) >= 8
    for line in lines:
        first = tuple(line.split())
        assert first in words or first[:1] in words, line
