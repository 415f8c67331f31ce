"""Published data fetched over a network that breaks, lies and refuses; from a server in this process."""

from __future__ import annotations

import hashlib
import threading
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from eosfm import commands_data
from eosfm.contracts import ConfigError, CorruptArtifact, DataError
from eosfm.data.catalogue import dataset_names
from eosfm.data.published import fetch as module
from eosfm.data.published.fetch import Remote, fetch, fetchable, remotes
from eosfm.data.published.geobench2_tables import SHEETS
from eosfm.files import OutputError

DATA = bytes(range(256)) * 5000


class Server(ThreadingHTTPServer):
    """Gives `DATA`; ``breaks`` connections end after so many bytes; ``ranges`` tells whether parts can be had."""

    breaks: list[int]
    ranges = True
    code = 200
    asked: list[str | None]


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if self.server.code != 200:
            return self.send_error(self.server.code)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        if start >= len(DATA):
            return self.send_error(416)
        body = DATA[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        end = self.server.breaks.pop(0) if self.server.breaks else len(body)
        self.wfile.write(body[:end])
        return None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    made = Server(("127.0.0.1", 0), Answer)
    made.breaks, made.asked = [], []
    threading.Thread(target=made.serve_forever, daemon=True).start()
    monkeypatch.setattr(module, "_safe", lambda url: url.startswith("http://127.0.0.1"))
    monkeypatch.setattr(module, "PAUSE", 0.001)
    monkeypatch.setattr(module, "MARGIN", 0)
    yield made
    made.shutdown()
    made.server_close()


def remote(server: Server, path: str = "file", **changed: str) -> Remote:
    known = {"name": "a.bin", "hash": f"sha256:{hashlib.sha256(DATA).hexdigest()}"}
    return Remote(f"http://127.0.0.1:{server.server_port}/{path}", **{**known, **changed})


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_file_is_fetched_checked_and_not_fetched_again(server, tmp_path):
    told = []
    (line,) = fetch([remote(server)], tmp_path / "new", lambda f, s: told.append((f, s)))
    assert line.startswith("fetched, hash checked") and (tmp_path / "new" / "a.bin").read_bytes() == DATA
    assert names(tmp_path / "new") == ["a.bin"] and told == sorted(told, key=lambda t: t[0]) and told[-1][0] <= 1
    (line,) = fetch([remote(server)], tmp_path / "new")
    assert line.startswith("there already") and len(server.asked) == 1


def test_broken_connections_go_on_where_they_broke(server, tmp_path):
    server.breaks = [1000, 70_000, 5]
    fetch([remote(server)], tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert server.asked == [None, "bytes=1000-", "bytes=71000-", "bytes=71005-"]


def test_a_killed_fetch_goes_on_and_a_whole_part_is_only_checked(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(DATA[:999])
    fetch([remote(server)], tmp_path)
    assert server.asked == ["bytes=999-"] and (tmp_path / "a.bin").read_bytes() == DATA
    (tmp_path / "a.bin").rename(tmp_path / "a.bin.part")
    fetch([remote(server)], tmp_path)
    assert names(tmp_path) == ["a.bin"]


def test_a_server_without_parts_begins_anew(server, tmp_path):
    server.ranges = False
    (tmp_path / "a.bin.part").write_bytes(b"something else")
    fetch([remote(server)], tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_a_network_that_brings_nothing_is_given_up_and_nothing_is_lost(server, tmp_path):
    server.breaks = [500, *[0] * 20]
    with pytest.raises(DataError, match=r"5 times in a row\). 500 bytes are kept in .*a.bin.part; start again"):
        fetch([remote(server)], tmp_path)
    assert (tmp_path / "a.bin.part").read_bytes() == DATA[:500] and names(tmp_path) == ["a.bin.part"]


def test_what_the_publisher_refuses_is_asked_for_once(server, tmp_path):
    server.code = 404
    with pytest.raises(DataError, match="404 Not Found; the publisher does not give it"):
        fetch([remote(server)], tmp_path)
    assert len(server.asked) == 1


def test_another_file_than_was_published_is_thrown_away(server, tmp_path):
    with pytest.raises(CorruptArtifact, match="expected 0000000000000000: it was thrown away"):
        fetch([remote(server, hash=f"sha256:{'0' * 64}")], tmp_path)
    assert names(tmp_path) == []
    (tmp_path / "a.bin").write_bytes(DATA[:-1])
    with pytest.raises(CorruptArtifact, match="changed or incomplete; delete it and fetch it again"):
        fetch([remote(server)], tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == DATA[:-1], "what somebody has is not touched"


def test_room_is_asked_for_first(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage(1, 1, 1000))
    with pytest.raises(OutputError, match=r"are to come, 0.0 GB are free"):
        fetch([remote(server)], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write into"):
        fetch([remote(server)], tmp_path / "file")


def test_two_processes_do_not_fetch_one_file(server, tmp_path):
    with module._alone(tmp_path, remote(server)), pytest.raises(ConfigError, match="another process fetches it"):
        fetch([remote(server)], tmp_path)


def test_only_encrypted_addresses_are_asked_and_followed(server, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="not https"):
        fetch([Remote("http://example.org/a", "a", "md5:0")], tmp_path)
    asked = []
    monkeypatch.setattr(module.urllib.request, "urlopen", lambda r, **_: asked.append(r) or Elsewhere())
    with pytest.raises(DataError, match="led to ftp://elsewhere, which is not https"):
        fetch([remote(server)], tmp_path)


class Elsewhere:
    def geturl(self) -> str:
        return "ftp://elsewhere"

    def close(self) -> None:
        pass


def test_every_file_of_geo_bench_2_has_a_hash_and_an_address():
    assert set(fetchable()) <= set(dataset_names())
    for name in fetchable():
        files = remotes(name)
        assert all(f.url.startswith("https://") and f.hash.partition(":")[0] in ("sha256", "md5") for f in files)
        if name.startswith("geobench2-"):
            short = name.removeprefix("geobench2-").removesuffix("-s2")
            assert tuple(f.name for f in files) == SHEETS[short].paths
            assert all(len(f.hash) == 71 and f.url.endswith(f.name) for f in files)
    assert remotes("geobench2-pastis_r") == remotes("geobench2-pastis")
    with pytest.raises(ConfigError, match=r"mados: no file of it is known with a hash.*known: geobench2-benv2"):
        remotes("mados")


def test_the_command_lists_and_says_what_lacks(server, tmp_path, monkeypatch):
    assert "geobench2-everwatch" in commands_data.fetch().lines
    with pytest.raises(ConfigError, match="name the folder"):
        commands_data.fetch("geobench2-caffe")
    monkeypatch.setattr(module, "remotes", lambda _: (remote(server, name="x.zip"),))
    outcome = commands_data.fetch("pastis", tmp_path)
    assert (tmp_path / "x.zip").is_file() and "unpack it there: x.zip" in outcome.lines
