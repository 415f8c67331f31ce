"""Damaged and hostile specialist files (F1-F5, M4): refused quickly, with the file's name, and without running anything."""

from __future__ import annotations

import json
import os
import pickle
import re
import resource
import struct
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eosfm.contracts import CardError, CorruptArtifact, EosfmError
from eosfm.specialists.store import load_specialist, read_tensors, verify_specialist
from eosfm.specialists.zoo import verify_zoo
from helpers import edit_json, forge_weights


@pytest.mark.parametrize("size", [0, 1, 1000, -1])
def test_f1_truncated_weights_say_expected_and_actual_bytes(own_zoo: Path, size: int):
    weights = own_zoo / "s2-rgb" / "model.safetensors"
    whole = weights.stat().st_size
    with weights.open("r+b") as f:
        f.truncate(size if size >= 0 else whole - 1)
    with pytest.raises(CorruptArtifact) as e:
        load_specialist(own_zoo / "s2-rgb")
    assert str(weights) in str(e.value)
    assert f"{size if size >= 0 else whole - 1} bytes, its card says {whole}" in str(e.value)


@pytest.mark.parametrize("where", ["header", "middle", "last"])
def test_f2_one_flipped_bit_is_found(own_zoo: Path, where: str):
    weights = own_zoo / "s2-rgb" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[{"header": 20, "middle": len(data) // 2, "last": len(data) - 1}[where]] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CorruptArtifact, match=r"model\.safetensors: sha256 .* its card says"):
        load_specialist(own_zoo / "s2-rgb")
    assert "sha256" in verify_zoo(own_zoo)[0][1]


def header(text: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text)) + text + data


HOSTILE = {
    "2^62 bytes of header": struct.pack("<Q", 2**62) + b"{}",
    "2^64-1 bytes of header": b"\xff" * 8,
    "empty": b"",
    "no header": struct.pack("<Q", 0),
    "random": bytes(range(256)) * 16,
    "nested": header(b'{"a":' * 50_000),
    "not utf-8": header(b"\xff\xfe{}"),
    "list": header(b"[]"),
    "negative offset": header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}'),
    "shape overflows": header(b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}'),
    "shape is huge": header(b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'),
    "hole": header(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[5,6]}}', b"\0" * 6),
    "unknown type": header(b'{"a":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}}', b"\0" * 3),
    "other tensors": header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"\0" * 4),
    "zip": b"PK\x03\x04" + b"\0" * 100,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_f3_a_hostile_header_is_refused_at_once_and_costs_no_memory(own_zoo: Path, data: bytes):
    forge_weights(own_zoo / "s2-rgb", data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    with pytest.raises((CorruptArtifact, CardError), match="s2-rgb"):
        load_specialist(own_zoo / "s2-rgb")
    assert time.perf_counter() - start < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


@settings(max_examples=150)
@given(st.binary(max_size=200), st.integers(-8, 64))
def test_f3_random_headers_are_an_error_of_ours_or_nothing(tmp_path_factory, data: bytes, slack: int):
    path = tmp_path_factory.getbasetemp() / "fuzzed.safetensors"
    path.write_bytes(struct.pack("<Q", max(0, len(data) - slack)) + data)
    try:
        read_tensors(path)
    except CorruptArtifact as e:
        assert str(path) in str(e)


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_f4_a_pickle_in_disguise_is_refused_and_never_run(own_zoo: Path, tmp_path: Path, form: str):
    marker = tmp_path / "marker"
    if form == "pickle":
        data = pickle.dumps(Payload(marker))
    else:
        torch.save({"stem_0.weight": torch.zeros(1), "x": Payload(marker)}, tmp_path / "x.pt")
        data = (tmp_path / "x.pt").read_bytes()
    forge_weights(own_zoo / "s2-rgb", data)
    with pytest.raises(CorruptArtifact, match="not a valid safetensors file"):
        load_specialist(own_zoo / "s2-rgb")
    assert verify_zoo(own_zoo)[0][1]
    assert not marker.exists(), "code from the file was run"
    if form == "pickle":
        pickle.loads(data)
        assert marker.exists(), "the payload itself is dead, so this test proves nothing"


@pytest.mark.parametrize("name", ["evil.py", ".hidden", "model.pt", "README.md.py", "folder"])
def test_f5_whatever_else_lies_there_is_found(own_zoo: Path, name: str):
    extra = own_zoo / "s2-rgb" / name
    extra.mkdir() if name == "folder" else extra.write_text("")
    with pytest.raises(CorruptArtifact, match=f"extra files {re.escape(name)}"):
        verify_specialist(own_zoo / "s2-rgb", exact_files=True)


def test_f7_a_weights_path_inside_the_card_is_not_followed(own_zoo: Path, tmp_path: Path):
    (own_zoo / "s2-rgb" / "model.safetensors").rename(tmp_path / "stolen.safetensors")
    card = json.loads((own_zoo / "s2-rgb" / "card.json").read_text())
    edit_json(own_zoo / "s2-rgb" / "card.json", weights=card["weights"] | {"file": "../../stolen.safetensors"})
    with pytest.raises(CardError, match=r"weights\.file"):
        load_specialist(own_zoo / "s2-rgb")


@pytest.mark.parametrize("size", [-1, 0, 10**18])
def test_an_impossible_size_on_the_card_is_refused(own_zoo: Path, size: int):
    card = json.loads((own_zoo / "s2-rgb" / "card.json").read_text())
    edit_json(own_zoo / "s2-rgb" / "card.json", weights=card["weights"] | {"bytes": size})
    with pytest.raises(EosfmError, match="s2-rgb"):
        load_specialist(own_zoo / "s2-rgb")


@pytest.mark.parametrize(
    ("mean", "std"),
    [("[0,0,0]", "[1,0,1]"), ("[0,0,0]", "[1,-1,1]"), ("[0,0,0]", "[1,NaN,1]"), ("[0,1e999,0]", "[1,1,1]"),
     ("[0,0]", "[1,1]"), ("[0,0,0]", "[1,1]"), ("[0,0,0,0]", "[1,1,1,1]"), ("[]", "[]")],
)  # fmt: skip
def test_m4_impossible_statistics_are_refused_with_the_file(own_zoo: Path, mean: str, std: str):
    path = own_zoo / "s2-rgb" / "card.json"
    edit_json(path, statistics="HERE")
    path.write_text(path.read_text().replace('"HERE"', f'{{"mean": {mean}, "std": {std}}}'))
    with pytest.raises(CardError) as e:
        load_specialist(own_zoo / "s2-rgb")
    assert str(path) in str(e.value)
