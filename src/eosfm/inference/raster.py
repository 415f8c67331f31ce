"""GeoTIFF windows in, cloud-optimised GeoTIFFs out. The only door to rasterio; what the numbers mean is `scene.py`'s.

What GDAL does quietly is refused here: a `.tif` that is really a VRT pointing elsewhere, a window cut short at the edge,
a file truncated by a full disk that still opens. Every error is a `RasterError` that names the file.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # rasterio.shutil.copy raises it bare, and it has no public name
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.session import DummySession  # or cloud credentials in the environment would be looked up
from rasterio.shutil import copy as gdal_copy
from rasterio.transform import from_origin
from rasterio.windows import Window

from eosfm.bands import BandSet
from eosfm.contracts import RasterError

BANDS_TAG = "EOSFM_BANDS"
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # classic and BigTIFF, both byte orders
_GDAL = {
    "GDAL_PAM_ENABLED": "NO",  # an .aux.xml beside the scene can name other files, URLs included
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",  # nothing here reads over the network
    "GDAL_CACHEMAX": 128,  # MB; the default is 5 % of the machine and would break the promise of bounded memory
}


@dataclass(frozen=True)
class Georeference:
    """Where pixels lie: the coordinate reference system and the affine transform, as rasterio holds them."""

    crs: Any = None
    transform: Any = None

    @property
    def missing(self) -> tuple[str, ...]:
        """What is needed to place the pixels on Earth and is not there: "CRS", "transform"."""
        placed = self.transform is not None and not self.transform.is_identity
        return tuple(n for n, there in (("CRS", self.crs), ("transform", placed)) if not there)

    def scaled(self, stride: int) -> Georeference:
        """The same place with pixels ``stride`` times as large; rotation and shear are kept."""
        if stride == 1 or self.transform is None:
            return self
        return Georeference(self.crs, self.transform * self.transform.scale(stride))


@dataclass(frozen=True)
class Layout:
    """Everything about a raster file but its pixels. ``tile`` is the side of the finished blocks, in output pixels."""

    height: int
    width: int
    dtype: str
    nodata: float | None
    names: tuple[str, ...]
    where: Georeference = field(default_factory=Georeference)
    tags: Mapping[str, str] = field(default_factory=dict)
    categorical: bool = False
    colours: Sequence[tuple[int, int, int]] | None = None
    tile: int = 512


class RasterFile:
    """One local GeoTIFF, open for reading windows as they are stored.

    Attributes:
        descriptions: band descriptions, None where a band has none.
        nodata: the nodata value of each band, None where it has none.
        alpha: whether the last band is an alpha band.

    Raises:
        RasterError: no file, no GeoTIFF (whatever it is called), damaged, or complex values.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        _refuse_disguised(self.path)
        with _gdal(f"cannot open {self.path}", "Is it a complete GeoTIFF?"):
            self._file = rasterio.open(self.path.absolute(), driver="GTiff")
        self.height, self.width, self.count = int(self._file.height), int(self._file.width), int(self._file.count)
        self.where = Georeference(self._file.crs, self._file.transform)
        self.dtype = np.dtype(self._file.dtypes[0])
        self.descriptions: tuple[str | None, ...] = tuple(self._file.descriptions)
        self.nodata: tuple[float | None, ...] = tuple(self._file.nodatavals)
        self.alpha = self._file.colorinterp[-1] is ColorInterp.alpha
        flags = self._file.mask_flag_enums[0]
        self.has_mask = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
        if self.dtype.kind not in "uif":
            self.close()
            raise RasterError(f"{self.path} stores {self.dtype} values; expected integers or real numbers")

    def close(self) -> None:
        """Close the file; reading afterwards is an error."""
        self._file.close()

    def tag(self, name: str) -> str | None:
        """The text stored under ``name`` for the whole file, or None."""
        return self._file.tags().get(name)  # type: ignore[no-any-return]

    def read(self, top: int, left: int, height: int, width: int, bands: Sequence[int]) -> NDArray[Any]:
        """Values as stored ``(len(bands), height, width)`` of the bands at 0-based positions ``bands``.

        Raises:
            RasterError: the window leaves the file (GDAL would return a smaller array), or its data is corrupt.
        """
        window, place = self._window(top, left, height, width)
        with _gdal(f"cannot read {self.path} at {place}", "The file is truncated or corrupt there: fetch it again."):
            values: NDArray[Any] = self._file.read([i + 1 for i in bands], window=window)
        if values.shape != (len(bands), height, width):
            raise RasterError(f"{self.path} at {place}: expected {height} x {width} pixels, got {values.shape[1:]}")
        return values

    def mask(self, top: int, left: int, height: int, width: int) -> NDArray[np.bool_] | None:
        """Which pixels a stored mask (internal or a .msk file) declares valid, ``(height, width)``; None without one."""
        if not self.has_mask:
            return None
        window, place = self._window(top, left, height, width)
        with _gdal(f"cannot read the mask of {self.path} at {place}", "The file is truncated or corrupt there."):
            return np.asarray(self._file.read_masks(1, window=window) > 0, dtype=bool)

    def is_sparse(self, top: int, left: int, height: int, width: int, band: int) -> bool:
        """Whether no block of ``band`` that the window touches is stored, so that GDAL invents its values.

        It invents the nodata value where the file declares one, else 0.
        """
        tall, wide = self._file.block_shapes[band]
        with rasterio.Env(DummySession(), **_GDAL):
            return not any(
                self._file.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=band + 1)
                for y in range(top // tall, -(-(top + height) // tall))
                for x in range(left // wide, -(-(left + width) // wide))
            )

    def _window(self, top: int, left: int, height: int, width: int) -> tuple[Window, str]:
        place = f"rows {top}..{top + height - 1}, columns {left}..{left + width - 1}"
        if min(top, left) < 0 or min(height, width) < 1 or top + height > self.height or left + width > self.width:
            raise RasterError(f"{self.path} has {self.height} rows and {self.width} columns; asked for {place}")
        return Window(left, top, width, height), place


def write_cog(path: Path, layout: Layout, pieces: Callable[[], Iterable[tuple[int, int, NDArray[Any]]]]) -> None:
    """Write ``path`` as a cloud-optimised GeoTIFF with overviews, then read it back and compare.

    Goes through a plain tiled file beside ``path`` because the COG driver alone would hold the whole raster in memory.
    ``path`` must be a temporary name: moving the finished file to its place is the caller's one atomic step.

    Args:
        path: where to write; its folder needs room for the raster twice.
        layout: size, type, names and place.
        pieces: yields ``(top, left, (bands, h, w))`` in output pixels, the same each time; the rest is nodata.

    Raises:
        RasterError: the disk is full, the folder cannot be written, or what was written does not read back the same.
    """
    plain = path.with_name(f"{path.name}.plain")
    try:
        with _gdal(f"cannot write {path}", "Is the disk full or the folder read-only? Nothing was replaced."):
            with _create(plain, layout) as file:
                for top, left, pixels in pieces():
                    file.write(pixels, window=Window(left, top, pixels.shape[2], pixels.shape[1]))
            with rasterio.open(plain, driver="GTiff") as file:
                gdal_copy(file, path, driver="COG", strict=False, **_cog_options(layout))
        _compare(path, pieces())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        for leftover in path.parent.glob(f"{path.name}.*"):
            leftover.unlink(missing_ok=True)


def _compare(path: Path, pieces: Iterable[tuple[int, int, NDArray[Any]]]) -> None:
    """Raise if ``path`` does not hold ``pieces``: GDAL is silent when closing a file fails, and the file still opens."""
    hint = "Is the disk full? Nothing was replaced."
    with _gdal(f"cannot read back {path}", hint), rasterio.open(path, driver="GTiff") as file:
        for top, left, pixels in pieces:
            found = file.read(window=Window(left, top, pixels.shape[2], pixels.shape[1]))
            if not np.array_equal(found, pixels, equal_nan=pixels.dtype.kind == "f"):
                raise RasterError(f"{path} does not read back as written at row {top}, column {left}. {hint}")


def write_scene(
    path: Path | str, pixels: NDArray[Any], bands: BandSet, where: Georeference, nodata: float | None = None
) -> None:
    """Write an array ``(bands, h, w)`` as a GeoTIFF that says what its bands are, so that it is read without declaring.

    For synthetic scenes and examples: not atomic, and the whole array is in memory.

    Raises:
        RasterError: the file cannot be written, or ``nodata`` does not fit the array's type.
    """
    path = Path(path)
    if len(pixels) != len(bands):
        raise RasterError(f"cannot write {path}: {len(pixels)} channels, but {len(bands)} bands: {bands}")
    size, kind = pixels.shape[1:], str(pixels.dtype)
    layout = Layout(size[0], size[1], kind, nodata, bands.names, where, {BANDS_TAG: str(bands)}, tile=256)
    with _gdal(f"cannot write {path}", "Is the folder there and writable?"), _create(path, layout) as file:
        file.write(pixels)


def georeference(crs: str, west: float, north: float, pixel: float) -> Georeference:
    """North-up pixels of side ``pixel`` from the corner (``west``, ``north``), in the units of ``crs`` ("EPSG:32631")."""
    return Georeference(rasterio.CRS.from_string(crs), from_origin(west, north, pixel, pixel))


def _create(path: Path, layout: Layout) -> Any:
    aligned = layout.tile % 16 == 0  # then every finished block is exactly one tile, compressed once
    file = rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=layout.height,
        width=layout.width,
        count=len(layout.names),
        dtype=layout.dtype,
        nodata=layout.nodata,
        crs=layout.where.crs,
        transform=layout.where.transform,
        tiled=True,
        blockxsize=layout.tile if aligned else 512,
        blockysize=layout.tile if aligned else 512,
        interleave="band",
        compress="deflate" if aligned else "none",
        zlevel=1,
        bigtiff="yes",
        sparse_ok=True,
        photometric="palette" if layout.colours else "minisblack",
    )
    file.descriptions = layout.names
    file.update_tags(**layout.tags)
    if layout.colours:
        file.write_colormap(1, {i: (*rgb, 255) for i, rgb in enumerate(layout.colours)})
    return file


def _cog_options(layout: Layout) -> dict[str, str]:
    depth = len(layout.names) * np.dtype(layout.dtype).itemsize  # GDAL holds a block of all bands at once
    return {
        "BLOCKSIZE": "512" if depth <= 64 else "256" if depth <= 256 else "128",
        "COMPRESS": "DEFLATE",
        "PREDICTOR": "NO" if layout.categorical else "YES",
        "OVERVIEW_RESAMPLING": "MODE" if layout.categorical else "AVERAGE",
        "BIGTIFF": "IF_SAFER",
        "SPARSE_OK": "YES",
        "NUM_THREADS": "ALL_CPUS",
    }


def _refuse_disguised(path: Path) -> None:
    """Refuse whatever is no TIFF before GDAL sees it, and files beside it that GDAL would open by their name alone."""
    try:
        with path.open("rb") as f:
            start = f.read(64)
    except OSError as e:
        raise RasterError(f"cannot open {path}: {e.strerror or e}. Expected a local GeoTIFF file.") from e
    if start[:4] not in _TIFF_MAGIC:
        seen = f"it begins with {start[:24]!r}" if start else "the file is empty"
        raise RasterError(f"{path} is not a GeoTIFF: {seen}. Convert it to GeoTIFF (virtual rasters are not followed).")
    for suffix in (".ovr", ".msk"):
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            _refuse_disguised(beside)


@contextmanager
def _gdal(doing: str, hint: str) -> Iterator[None]:
    """Run GDAL calls without network or side files; its errors become `RasterError`."""
    try:
        with warnings.catch_warnings(), rasterio.Env(DummySession(), **_GDAL):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # refused, or allowed by name, by the caller
            yield
    except (RasterioError, CPLE_BaseError, OSError, ValueError) as e:
        reason = str(e.__cause__ or e).rstrip(".")  # rasterio's own text may only say "see previous exception"
        raise RasterError(f"{doing}: {reason}. {hint}") from e
