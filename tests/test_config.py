"""Records and their readers: what is not exactly right is refused, with the file and the key path."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eosfm.config import MAX_BYTES, read_json, read_record, read_text, read_yaml, record, to_plain
from eosfm.contracts import CardError, ConfigError
from eosfm.statistics import BandStatistics


@record
class Inner:
    rate: float = 1.0
    sizes: tuple[int, ...] = (1,)


@record
class Outer:
    name: str
    kind: Literal["a", "b"] = "a"
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()
    statistics: BandStatistics | None = None

    def __post_init__(self) -> None:
        if self.name == "forbidden":
            raise ValueError("this name contradicts everything")


def refused(data: object, **kwargs) -> str:
    with pytest.raises(ConfigError) as e:
        read_record(Outer, data, "some/file.yaml", **kwargs)
    assert str(e.value).startswith("some/file.yaml:")
    return str(e.value)


def test_a_record_reads_and_writes_back():
    plain = {"name": "n", "inner": {"rate": 2.5, "sizes": [3, 4]}, "many": [{"rate": 1}, {}],
             "statistics": {"mean": [1.0], "std": [2.0]}}  # fmt: skip
    value = read_record(Outer, plain, "x")
    assert value == Outer(
        name="n", inner=Inner(rate=2.5, sizes=(3, 4)), many=(Inner(rate=1.0), Inner()),
        statistics=BandStatistics(mean=(1.0,), std=(2.0,)),
    )  # fmt: skip
    assert read_record(Outer, to_plain(value), "x") == value
    assert to_plain(value)["inner"] == {"rate": 2.5, "sizes": [3, 4]}


@given(st.builds(Inner, rate=st.floats(allow_nan=False, allow_infinity=False),
                 sizes=st.lists(st.integers()).map(tuple)))  # fmt: skip
def test_every_record_round_trips(value: Inner):
    assert read_record(Inner, to_plain(value), "x") == value


def test_a_record_is_frozen_and_takes_keywords_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Inner().rate = 2.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        Inner(2.0)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({}, "name: "),
        ({"name": "n", "nmae": 1}, "nmae: unknown key; known: inner, kind, many, name, statistics"),
        ({"name": "n", "inner": {"rat": 1}}, "inner.rat: unknown key"),
        ({"name": "n", "many": [{}, {"rate": "fast"}]}, "many.1.rate: .*number.*'fast'"),
        ({"name": 3}, "name: .*string.*'3'"),
        ({"name": None}, "name: .*string"),
        ({"name": "n", "kind": "c"}, "kind: .*'a' or 'b'.*'c'"),
        ({"name": "n", "inner": {"sizes": [1, 2.5]}}, "inner.sizes.1: .*integer"),
        ({"name": "n", "inner": {"sizes": 3}}, "inner.sizes: .*tuple"),
        ({"name": "n", "inner": [1]}, "inner: "),
        ({"name": "n", "inner": {"rate": float("nan")}}, "inner.rate: .*finite"),
        ({"name": "n", "inner": {"rate": float("inf")}}, "inner.rate: .*finite"),
        ({"name": "forbidden"}, "this name contradicts everything"),
        ([], "in this file: "),
        (None, "in this file: "),
    ],
)
def test_a_wrong_record_is_refused_with_the_key_path(data: object, says: str):
    import re

    assert re.search(says, refused(data))


def test_a_record_that_contradicts_itself_names_the_file_too():
    assert "std 0" in refused({"name": "n", "statistics": {"mean": [1.0], "std": [0.0]}})


def test_many_problems_are_shown_together_but_not_thousands():
    text = refused({"name": "n", **{f"k{i}": i for i in range(1000)}})
    assert 3 < len(text.splitlines()) < 12


def test_a_huge_value_is_not_repeated_in_the_message():
    assert len(refused({"name": "n", "kind": "x" * 100_000})) < 1000


def test_the_caller_chooses_the_error():
    with pytest.raises(CardError):
        read_record(Outer, {}, "x", error=CardError)


# files -------------------------------------------------------------------------------------------------------------


def write(tmp_path: Path, text: str | bytes, name: str = "file") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_missing_file_a_folder_and_bytes_are_named(tmp_path: Path):
    for path, says in [
        (tmp_path / "absent", "no such file"),
        (tmp_path, "not a plain file"),
        (write(tmp_path, b"\xff\xfe\x00", "bytes"), "cannot be read"),
        (write(tmp_path, b" " * (MAX_BYTES + 1)), f"{MAX_BYTES + 1} bytes"),
        (tmp_path / "file" / "below", "cannot be read"),
    ]:
        with pytest.raises(ConfigError, match=says) as e:
            read_text(path)
        assert str(path) in str(e.value)
    assert len(read_text(write(tmp_path, b" " * MAX_BYTES))) == MAX_BYTES


@pytest.mark.timeout(10)
def test_a_pipe_or_device_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ConfigError, match="not a plain file"):
            read_text(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ('{"a": 1,}', "not a valid JSON file"),
        ('{"a": NaN}', "NaN is not a JSON number"),
        ('{"a": [-Infinity]}', "-Infinity is not a JSON number"),
        ('{"a": 1, "b": 2, "a": 1}', "duplicate key 'a'"),
        ('[{"x": {"k": 1, "k": 2}}]', "duplicate key 'k'"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("9" * 5000, "not a valid JSON file"),
        ("{'a': 1}", "not a valid JSON file"),
        ('{"a": 1} trailing', "Extra data"),
    ],
)
def test_hostile_json(tmp_path: Path, text: str, says: str):
    path = write(tmp_path, text)
    with pytest.raises(CardError, match=says) as e:
        read_json(path, error=CardError)
    assert str(path) in str(e.value)


def test_good_json_is_read(tmp_path: Path):
    assert read_json(write(tmp_path, '{"a": [1, 2.5, "é", null, true]}')) == {"a": [1, 2.5, "é", None, True]}


def test_a_duplicate_among_very_many_keys_is_found_in_no_time(tmp_path: Path):
    path = write(tmp_path, "{" + ",".join(f'"k{i}":1' for i in range(100_000)) + ',"k99999":1}')
    start = time.process_time()
    with pytest.raises(ConfigError, match="duplicate key 'k99999'"):
        read_json(path)
    assert time.process_time() - start < 5  # it took minutes when every key was counted in turn


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, r"aliases \(\*name\) are not allowed"),
        ("a: &x 1\nb: *x\n", "aliases"),
        ("a: 1\nb: 2\na: 3\n", "duplicate key 'a'"),
        ("top:\n  a: 1\n  a: 1\n", "duplicate key 'a'"),
        ("[{a: 1, a: 2}]", "duplicate key 'a'"),
        ("a: 1\n<<: {a: 2}\n", "merge"),
        ("a: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        ("a: !!python/name:os.system\n", "could not determine a constructor"),
        ("a: [1\n", "not a valid YAML"),
        ("\tb: 1\n", "not a valid YAML"),
        ("a: 2020-13-45\n", "not a valid YAML.*month"),
        ("a: !!int x\n", "not a valid YAML"),
        ("? [1, 2]\n: 3\n", "unhashable"),
        ("a: " + "[" * 5000, "not a valid YAML.*recursion"),
        ("- 1\n", "expected a mapping of keys, got list"),
        ("", "expected a mapping of keys, got NoneType"),
        ("plain words", "got str"),
    ],
)
def test_hostile_yaml(tmp_path: Path, text: str, says: str):
    path = write(tmp_path, text)
    start = time.process_time()
    with pytest.raises(ConfigError, match=says) as e:
        read_yaml(path)
    assert str(path) in str(e.value)
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("a=2", {"a": 2}),
        ("a=", {"a": None}),
        ("a=x=y", {"a": "x=y"}),
        ("b.c=[1, 2]", {"b": {"c": [1, 2], "d": "e"}}),
        ("b.new=1e-4", {"b": {"c": 3, "d": "e", "new": "1e-4"}}),  # YAML 1.1: without a dot it is text
        ("b.new=1.0e-4", {"b": {"c": 3, "d": "e", "new": 1e-4}}),
        ("new.deep.key=true", {"new": {"deep": {"key": True}}}),
        ("b={c: 5}", {"b": {"c": 5}}),
    ],
)
def test_overrides(tmp_path: Path, override: str, changed: dict):
    path = write(tmp_path, "a: 1\nb: {c: 3, d: e}\n")
    assert read_yaml(path, [override]) == {"a": 1, "b": {"c": 3, "d": "e"}} | changed


def test_a_small_rate_may_be_written_without_a_dot(tmp_path: Path):
    """YAML 1.1 reads 1e-4 as text; a number field must still get the number."""
    assert read_record(Inner, read_yaml(write(tmp_path, "rate: 1e-4\n")), "x").rate == 1e-4


def test_the_last_override_wins(tmp_path: Path):
    assert read_yaml(write(tmp_path, "a: 1\n"), ["a=2", "a=3"]) == {"a": 3}


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("a", "expected key=value"),
        ("=1", "expected key=value"),
        (".=1", "expected key=value"),
        ("a..b=1", "expected key=value"),
        ("b.=1", "expected key=value"),
        ("", "expected key=value"),
        ("a.b=1", "a is not a mapping"),
        ("b.c.d=1", "c is not a mapping"),
        ("a=[1", "override 'a=\\[1'"),
        ("a=*x", "aliases"),
        ("a={b: 1, b: 2}", "duplicate key"),
        ("a=2020-13-45", "month"),
        ("a=" + "[" * 5000, "recursion"),
    ],
)
def test_wrong_overrides(tmp_path: Path, override: str, says: str):
    path = write(tmp_path, "a: 1\nb: {c: 3}\n")
    with pytest.raises(ConfigError, match=says):
        read_yaml(path, [override])


def test_an_override_reaches_into_a_list(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("cases: [{name: a}, {name: b, data: {root: x}}]\n")
    assert read_yaml(file, ["cases.1.data.root=/data"])["cases"][1] == {"name": "b", "data": {"root": "/data"}}
    for change in ("cases.2.name=c", "cases.b.name=c", "cases.0=c", "cases.-1.name=c"):
        with pytest.raises(ConfigError, match=r"is no item of a list of 2|is not a mapping"):
            read_yaml(file, [change])
