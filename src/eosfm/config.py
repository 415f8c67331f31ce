"""Records: frozen dataclasses that refuse unknown keys and contradictions, and the strict readers that fill them.

Cards, manifests and run configurations are all records, read from JSON or YAML through `read_record`; every error names
the file and the key path. JSON and YAML from outside are hostile: sizes are capped, duplicate keys, NaN, YAML aliases
(bombs) and absurd nesting are refused.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from eosfm.contracts import ConfigError, EosfmError

T = TypeVar("T")
MAX_BYTES = 2_000_000
"""No card or configuration is larger; a larger file is not one."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def record(cls: type[T]) -> type[T]:
    """A frozen, keyword-only dataclass whose reader refuses unknown keys and numbers that are not finite."""
    cls.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)  # type: ignore[attr-defined]
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def _adapter(cls: Any) -> TypeAdapter[Any]:
    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = TypeAdapter(cls)  # building one costs milliseconds
    return _ADAPTERS[cls]


def read_record(cls: type[T], data: object, where: str, *, error: type[EosfmError] = ConfigError) -> T:
    """``data`` (plain lists, dicts, numbers, strings) as a `record` of type ``cls``.

    Numbers may be written as text ("1e-4" is text in YAML 1.1), but true and false are no numbers.

    Raises:
        ConfigError: or ``error``; names ``where``, the key path, what was expected and what came.
    """
    try:
        value: T = _adapter(cls).validate_python(data)
    except ValidationError as e:
        lines = [f"{where}:"]
        for item in e.errors()[:8]:
            path = ".".join(str(p) for p in item["loc"]) or "in this file"
            message = item["msg"].removeprefix("Value error, ")
            if item["type"] == "unexpected_keyword_argument":
                names = _keys(cls, item["loc"][:-1])
                message = "unknown key" + (f"; known: {', '.join(names)}" if names else "")
            elif item["type"] not in ("missing", "missing_argument", "missing_keyword_only_argument"):
                message += "" if isinstance(item["input"], dict) else f" (got {str(item['input'])[:60]!r})"
            lines.append(f"  {path}: {message}")
        raise error("\n".join(lines)) from None
    except EosfmError as e:  # a record that contradicts itself
        raise error(f"{where}: {e}") from None
    if taken := _switches_taken(data, value):
        lines = [f"  {path}: expected {kind}, and this is a switch (got {came!r})" for path, kind, came in taken[:8]]
        raise error("\n".join([f"{where}:", *lines]))
    return value


_KINDS = {int: "a whole number", float: "a number"}


def _switches_taken(data: object, value: object, path: str = "") -> list[tuple[str, str, bool]]:
    """(key path, what was expected, what came) wherever true or false was read as 1 or 0, as pydantic does.

    >>> _switches_taken({"epochs": True}, {"epochs": 1})
    [('epochs', 'a whole number', True)]
    """
    if isinstance(data, bool) and not isinstance(value, bool):
        return [(path, _KINDS.get(type(value), type(value).__name__), data)]
    pairs: list[tuple[str, object, object]] = []
    if isinstance(data, dict) and dataclasses.is_dataclass(value):
        pairs = [(str(k), v, getattr(value, str(k))) for k, v in data.items()]
    elif isinstance(data, dict) and isinstance(value, dict):
        pairs = [(str(k), v, value[k]) for k, v in data.items() if k in value]
    elif isinstance(data, list | tuple) and isinstance(value, list | tuple):
        pairs = [(str(i), *both) for i, both in enumerate(zip(data, value, strict=True))]
    return [f for key, d, v in pairs for f in _switches_taken(d, v, f"{path}.{key}" if path else key)]


def _keys(cls: Any, path: Sequence[Any]) -> list[str]:
    """The keys of the record that lies at ``path`` inside ``cls``; none where that is not one record."""
    for name in path:
        if not dataclasses.is_dataclass(cls) or name not in {f.name for f in dataclasses.fields(cls)}:
            return []
        hint = typing.get_type_hints(cls)[name]
        records = [t for t in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(t)]
        if len(records) != 1:
            return []
        cls = records[0]
    return sorted(f.name for f in dataclasses.fields(cls)) if dataclasses.is_dataclass(cls) else []


def to_plain(value: object) -> Any:
    """Turn a record into plain JSON types, which `read_record` turns back into an equal record."""
    return _adapter(type(value)).dump_python(value, mode="json")


def absolute(config: T) -> T:
    """``config`` with every path in it, at any depth, made absolute: the same run wherever it is started."""
    assert dataclasses.is_dataclass(config)
    changed = {f.name: _absolute(getattr(config, f.name)) for f in dataclasses.fields(config)}
    return dataclasses.replace(config, **changed)  # type: ignore[type-var]


def _absolute(value: Any) -> Any:
    if isinstance(value, Path):
        return value.absolute()
    if isinstance(value, tuple):
        return tuple(map(_absolute, value))
    return absolute(value) if dataclasses.is_dataclass(value) else value


def paths_read(config: object) -> list[Path]:
    """Every path in ``config`` and in the records in it."""
    if isinstance(config, Path):
        return [config]
    if isinstance(config, tuple):
        return [p for item in config for p in paths_read(item)]
    if not dataclasses.is_dataclass(config):
        return []
    return [p for f in dataclasses.fields(config) for p in paths_read(getattr(config, f.name))]


def read_text(path: Path, *, error: type[EosfmError] = ConfigError, limit: int = MAX_BYTES) -> str:
    """The text of a small file; missing, unreadable, oversized or non-UTF-8 files are a named error."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise error(f"{path}: not a plain file")
        if size > limit:
            raise error(f"{path}: {size} bytes; a file of this kind has at most {limit}")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as e:
        raise error(f"{path}: cannot be read: {e}") from None


def read_json(path: Path, *, error: type[EosfmError] = ConfigError) -> Any:
    """Strict JSON: duplicate keys, NaN/Infinity and absurd nesting are errors that name the file."""

    def no_constant(name: str) -> float:
        raise ValueError(f"{name} is not a JSON number")

    try:
        return json.loads(read_text(path, error=error), object_pairs_hook=_distinct, parse_constant=no_constant)
    except (ValueError, RecursionError) as e:
        reason = "nested too deeply" if isinstance(e, RecursionError) else str(e)
        raise error(f"{path}: not a valid JSON file: {reason}") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        keys = [k for k, _ in pairs]
        raise ValueError(f"duplicate key {Counter(keys).most_common(1)[0][0]!r}")
    return out


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader without aliases (bombs) and without duplicate keys (the last would win silently)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(k, deep=True) for k, _ in node.value]
        twice = [k for k, n in Counter(map(str, keys)).items() if n > 1]
        if twice:
            raise yaml.YAMLError(f"duplicate key {twice[0]!r}")
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A YAML mapping with ``a.b=value`` overrides applied (values are parsed as YAML); ``a.0.b`` is in a list's first item.

    Raises:
        ConfigError: not a mapping, a bad override, or YAML that is not valid; names the file.
    """
    try:
        data = _parse_yaml(read_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as e:  # ValueError: the date 2020-13-45
        raise ConfigError(f"{path}: not a valid YAML file: {' '.join(str(e).split()) or 'nested too deeply'}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, got {type(data).__name__}")
    for text in overrides:
        key, eq, value = text.partition("=")
        if not eq or not all(key.split(".")):
            raise ConfigError(f"override {text!r}: expected key=value, for example data.root=/data/eurosat")
        node: Any = data
        *parents, leaf = key.split(".")
        for p in parents:
            if isinstance(node, list):
                if not p.isdecimal() or int(p) >= len(node):
                    raise ConfigError(
                        f"override {text!r}: {p} is no item of a list of {len(node)} in {path}, counted from 0"
                    )
                node = node[int(p)]
            else:
                node = node.setdefault(p, {})
            if not isinstance(node, dict | list) or (isinstance(node, list) and p == parents[-1]):
                raise ConfigError(f"override {text!r}: {p} is not a mapping in {path}")
        try:
            node[leaf] = _parse_yaml(value)
        except (yaml.YAMLError, ValueError, RecursionError) as e:
            raise ConfigError(f"override {text!r}: {' '.join(str(e).split())}") from None
    return data


def _parse_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_StrictLoader)  # a SafeLoader with more refusals
