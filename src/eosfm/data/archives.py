"""Zip archives and pictures from strangers: looked over before anything is read, never unpacked to disk.

`scan_zip` judges an archive by its table of contents; `ImageSource` reads members of an archive or files of a folder by
the same names; `decode_image` turns bytes into uint8 pixels. Every refusal is a `DataError` that names file and member.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from eosfm.contracts import DataError, missing_extra

Pixels = NDArray[np.uint8]
Mode = Literal["L", "RGB"]
"""one grey channel, or red, green and blue"""

MAX_PIXELS = 4096 * 4096
"""More pixels than any chip has: a larger picture is refused from its header, before it is decoded."""

_END_RECORD = struct.Struct("<4s4H2LH")  # end of central directory: APPNOTE.TXT 4.3.16
_ENTRY_BYTES = 1024  # generous: 46 bytes and a name for each member's line in the table of contents
_BLOCK = 64  # pictures that one thread decodes at a time


@dataclass(frozen=True)
class ZipLimits:
    """What an archive may claim to hold. The defaults fit every data set that `eosfm.data.real` reads."""

    members: int = 60_000
    total_bytes: int = 4 * 1024**3
    """uncompressed, all members together"""
    ratio: float = 200.0
    """uncompressed over compressed, for members above ``ratio_floor`` bytes and for the archive as a whole"""
    ratio_floor: int = 10 * 1024**2


def scan_zip(path: Path, limits: ZipLimits | None = None) -> tuple[str, ...]:
    """Names of the files in ``path``, after the whole table of contents was found harmless. No member is read.

    Raises:
        DataError: not a zip archive, damaged, or it has encrypted members, names that are absolute, climb out with
            ``..``, use backslashes or occur twice, links or devices, or more members or bytes than ``limits`` allow.
    """
    limits = limits or ZipLimits()
    _require_small_contents(path, limits)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as e:
        raise DataError(f"{path}: not a readable zip archive ({e}). It may be cut short: fetch it again.") from e
    if len(members) > limits.members:
        raise DataError(f"{path}: {len(members)} members; at most {limits.members} are expected. {_DISTRUST}")
    for m in members:
        problem = _problem(m, limits)
        if problem:
            raise DataError(f"{path}: member {m.filename!r} {problem}. {_DISTRUST}")
    names = [m.filename for m in members]
    twice, times = Counter(names).most_common(1)[0] if names else ("", 0)
    if times > 1:
        raise DataError(f"{path}: member {twice!r} occurs twice, so its content is ambiguous. {_DISTRUST}")
    total, packed = sum(m.file_size for m in members), sum(m.compress_size for m in members)
    if total > limits.total_bytes:
        raise DataError(f"{path}: {total} bytes unpacked; at most {limits.total_bytes} are expected. {_DISTRUST}")
    if total > limits.ratio_floor and total > limits.ratio * max(packed, 1):
        raise DataError(f"{path}: {packed} bytes unpack to {total}, which is a zip bomb. {_DISTRUST}")
    return tuple(m.filename for m in members if not m.is_dir())


_DISTRUST = "Nothing was read; fetch the archive again from where it was published."


def _require_small_contents(path: Path, limits: ZipLimits) -> None:
    """Refuse a table of contents too long to be held in memory: `zipfile` would parse all of it before we could count."""
    try:
        with path.open("rb") as f:
            size = f.seek(0, os.SEEK_END)
            f.seek(max(0, size - _END_RECORD.size - 0xFFFF))
            tail = f.read()
    except OSError as e:
        raise DataError(f"{path}: cannot be opened ({e.strerror}). Expected a zip archive there.") from e
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END_RECORD.size > len(tail):
        raise DataError(f"{path}: not a zip archive, or cut short ({size} bytes, no end record): fetch it again.")
    contents = _END_RECORD.unpack_from(tail, at)[5]
    if contents > limits.members * _ENTRY_BYTES:  # also catches 0xFFFFFFFF, which stands for a 64-bit length
        raise DataError(
            f"{path}: a table of contents of {contents} bytes; expected at most {limits.members} members. {_DISTRUST}"
        )


def _problem(member: zipfile.ZipInfo, limits: ZipLimits) -> str:
    """Why ``member`` must not be read, or an empty string."""
    name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
    if not name or "\\" in name or ":" in name or name.startswith("/") or ".." in PurePosixPath(name).parts:
        return "has a name that is empty, absolute, or leads out of the archive"
    if not name.isprintable():
        return "has unprintable characters in its name"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if member.flag_bits & 0x1:
        return "is encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is compressed by method {member.compress_type}; only stored and deflated members are read"
    if member.file_size > limits.ratio_floor and member.file_size > limits.ratio * max(member.compress_size, 1):
        return f"unpacks from {member.compress_size} to {member.file_size} bytes, which is a zip bomb"
    return ""


class ImageSource:
    """Files of a zip archive or of a folder, by the same relative names (``2750/Forest/Forest_1.jpg``); thread-safe.

    A folder is read as if it were an archive: links that lead out of it are refused. Nothing is written to disk.

    Attributes:
        names: every file, in no particular order of meaning; sorted.

    Raises:
        DataError: neither a folder nor an archive that passes `scan_zip`.
    """

    def __init__(self, path: Path, limits: ZipLimits | None = None) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        if path.is_dir():
            files = (Path(folder, f) for folder, _, here in os.walk(path) for f in here)
            self.names = tuple(sorted(f.relative_to(path).as_posix() for f in files))
        else:
            self.names = tuple(sorted(scan_zip(path, limits)))
            self._zip = zipfile.ZipFile(path)  # closed by close(); reading from several threads is allowed
        self._known = frozenset(self.names)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the archive; reading afterwards is an error."""
        if self._zip is not None:
            self._zip.close()

    def read(self, name: str) -> bytes:
        """The bytes of ``name``.

        Raises:
            DataError: no such member, or its data is damaged, naming archive and member.
        """
        if name not in self._known:
            raise DataError(f"{self.path}: no member {name!r} among {len(self.names)}. Is the download complete?")
        try:
            if self._zip is not None:
                return self._zip.read(name)
            file = self.path / name
            if not file.resolve().is_relative_to(self.path.resolve()):
                raise DataError(f"{file}: a link that leads out of {self.path}; expected a file inside it.")
            return file.read_bytes()
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError) as e:
            raise DataError(f"{self.path}: member {name!r} is damaged ({e}): fetch the archive again.") from e


def decode_image(data: bytes, mode: Mode, where: str, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Pixels of a JPEG or PNG: uint8 ``(3, h, w)`` for mode "RGB", ``(1, h, w)`` for mode "L". Never resampled.

    Raises:
        DataError: no JPEG or PNG, cut short or damaged, of another mode, or of more than ``max_pixels`` (judged by its
            header, before decoding). The message begins with ``where``.
        MissingExtra: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as e:
        raise missing_extra("pillow", "report") from e
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise DataError(f"{where}: {width} x {height} pixels; at most {max_pixels} are expected of one chip.")
            if image.mode != mode:
                raise DataError(f"{where}: a picture of mode {image.mode}; expected {mode}. Convert it and say so.")
            pixels = np.array(image)  # decodes; a copy that can be written to
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise DataError(f"{where}: more than {max_pixels} pixels, expected a chip ({e}).") from e
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error) as e:
        raise DataError(f"{where}: not a complete JPEG or PNG ({e}): fetch it again.") from e
    return pixels[None] if mode == "L" else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def decode_images(
    source: ImageSource,
    names: Sequence[str],
    mode: Mode,
    shape: tuple[int, int],
    prepare: Callable[[Pixels, str], Pixels] | None = None,
) -> Pixels:
    """The pictures ``names`` as one uint8 array ``(n, c, *shape)``, in that order, decoded by a few threads.

    Args:
        source: where they lie.
        names: which, in the order wanted.
        mode: "L" or "RGB".
        shape: height and width that every picture must have.
        prepare: crops or resizes ``(c, h, w)`` to ``shape``; gets the picture's name for its errors.

    Raises:
        DataError: a picture that is missing, damaged, or not of ``shape`` (after ``prepare``); the first in order.
        MissingExtra: Pillow is not installed.
    """
    out = np.empty((len(names), 1 if mode == "L" else 3, *shape), np.uint8)

    def fill(start: int) -> None:
        for i in range(start, min(start + _BLOCK, len(names))):
            where = f"{source.path}: {names[i]}"
            pixels = decode_image(source.read(names[i]), mode, where)
            pixels = pixels if prepare is None else prepare(pixels, where)
            if pixels.shape != out.shape[1:]:
                got, want = " x ".join(map(str, pixels.shape[1:])), " x ".join(map(str, shape))
                raise DataError(f"{where}: {got} pixels; expected {want}.")
            out[i] = pixels

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        jobs = [pool.submit(fill, start) for start in range(0, len(names), _BLOCK)]
        try:
            for job in jobs:
                job.result()
        finally:
            for job in jobs:
                job.cancel()  # after a failure: do not decode the rest first
    return out


def centre_crop(pixels: Pixels, size: int, where: str) -> Pixels:
    """The middle ``size`` x ``size`` of ``(c, h, w)``; where the margin is odd, the extra row and column go below and right.

    Raises:
        DataError: the picture is smaller than ``size``.
    """
    height, width = pixels.shape[1:]
    if min(height, width) < size:
        raise DataError(f"{where}: {height} x {width} pixels cannot be cropped to {size} x {size}; ask for less.")
    top, left = (height - size) // 2, (width - size) // 2
    return pixels[:, top : top + size, left : left + size]
