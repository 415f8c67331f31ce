"""A scene becomes a map: tiles through the model, blended block by block, resumable, as a cloud-optimised GeoTIFF.

    scene --read--> columns of tiles --model--> blend one block --> <output>.part/12.map.npy
                                                                        all blocks --> COG --> output

Memory is bounded by the block and the model's outputs on it, never by the scene.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosfm.bands import BandSet
from eosfm.contracts import MAX_CHIP, ConfigError, RasterError, known
from eosfm.inference.parts import PartFolder, claim, publish
from eosfm.inference.raster import Layout, write_cog
from eosfm.inference.scene import SceneReader
from eosfm.inference.sweep import KINDS, NO_CLASS, SceneModel, Sweep
from eosfm.inference.tiling import TileGrid, default_overlap

__all__ = ["NO_CLASS", "SceneModel", "SceneReport", "predict_scene"]

Colours = Sequence[tuple[int, int, int]]


@dataclass(frozen=True)
class SceneReport:
    """What a prediction did and what it found. Shares are in 0..1; counts include blocks that an earlier run finished."""

    outputs: tuple[Path, ...]
    tiles: int
    skipped_tiles: int
    """tiles without a valid pixel, never shown to the model"""
    pixels: int
    """output pixels"""
    valid_share: float
    class_shares: dict[str, float]
    """of the valid pixels; empty unless the model gives classes"""
    tile_disagreement: float | None
    """mean standard deviation between the tiles over pixels that several see, in output units; None if none are"""
    split_share: float | None
    """share of those pixels where some tile's class is not the map's; None unless the model gives classes"""
    seconds: float
    warnings: tuple[str, ...]


def predict_scene(
    model: SceneModel,
    source: Path | str,
    output: Path | str,
    *,
    bands: BandSet | None = None,
    overlap: int | None = None,
    batch_size: int = 8,
    block: int = 1024,
    nodata: float | None = None,
    overwrite: bool = False,
    allow_no_crs: bool = False,
    probabilities: bool = False,
    progress: bool = True,
    colours: Colours | None = None,
) -> SceneReport:
    """Run ``model`` over the GeoTIFF ``source`` and write ``output``, a COG of the scene's size divided by the stride.

    A killed run continues where it was when called again with the same arguments, and gives the same bytes. An output
    pixel is nodata exactly where all its input pixels are invalid.

    Args:
        model: classes give a uint8 map (255 is nodata), values and features float32 bands (NaN is nodata).
        source: a local GeoTIFF holding at least the model's bands.
        output: the file to make; work in progress lies in ``<output>.part`` beside it.
        bands: what the bands of ``source`` are, in file order with units; None if the file says so itself.
        overlap: pixels that neighbouring tiles share; None is about a quarter of the chip.
        batch_size: tiles per model call; does not belong to the job, so a rerun may lower it.
        block: side of the pieces that are computed and stored as one, in input pixels; bounds the memory.
        nodata: the scene's invalid value, in place of the one it declares.
        overwrite: replace ``output`` and any other job's unfinished blocks.
        allow_no_crs: accept a scene without CRS or transform.
        probabilities: also write ``<stem>_probabilities.tif``, float32, one band per class.
        progress: show on stderr how far it is, see `eosfm.progress.bars`.
        colours: one (red, green, blue) in 0..255 per class, for the map's colour table.

    Raises:
        ConfigError: the model or the arguments contradict themselves.
        RasterError, BandError, UnitError: see `SceneReader`; or ``output`` exists or cannot be written.
        EosfmError: the model gave another shape than it promises, or NaN on valid pixels, or ran out of memory.
    """
    started, source, output = time.monotonic(), Path(source), Path(output)
    _check(model, Path(output), probabilities=probabilities, colours=colours, batch_size=batch_size)
    if output.exists() and source.exists() and output.samefile(source):
        raise RasterError(f"{output} is the scene itself: choose another name for the output")
    if overlap is None:
        overlap = default_overlap(model.chip_size, model.stride)
    with SceneReader(source, model.bands, declared=bands, nodata=nodata, allow_no_crs=allow_no_crs) as scene:
        grid = TileGrid(scene.height, scene.width, model.chip_size, overlap, model.stride)
        side = grid.block_side(block)
        also = _beside(output) if probabilities else ()
        job = _job(model, scene, grid, block=side, nodata=nodata, probabilities=probabilities, colours=colours)
        with claim(output, job, overwrite=overwrite, also=also) as part:
            warnings = scene.unit_warnings(getattr(model, "statistics", None))  # not every model knows them
            Sweep(model, scene, grid, part, batch_size, probabilities).run(block, show=progress)
            outputs = _assemble(model, scene, grid, part, block, output, probabilities=probabilities, colours=colours)
            report = _report(model, grid, part, outputs, warnings, time.monotonic() - started)
            part.remove()
    return report


def _assemble(
    model: SceneModel, scene: SceneReader, grid: TileGrid, part: PartFolder, block: int, output: Path, *,
    probabilities: bool, colours: Colours | None,
) -> tuple[Path, ...]:  # fmt: skip
    """All finished blocks as one COG, or two; the map is moved to its place last, so that it means "done"."""
    classes = model.kind == "classes"
    tags = {"EOSFM_MODEL": model.fingerprint, "EOSFM_INPUT_BANDS": str(model.bands), "EOSFM_KIND": model.kind}
    if classes:
        tags["EOSFM_CLASSES"] = json.dumps(model.names, ensure_ascii=False)
    base = Layout(
        grid.out_height, grid.out_width, "float32", float("nan"), tuple(model.names), scene.where.scaled(grid.stride),
        tags, tile=grid.block_side(block) // grid.stride,
    )  # fmt: skip
    plan = {"map": (output, base)}
    if classes:
        only = replace(base, dtype="uint8", nodata=NO_CLASS, names=("class",), categorical=True, colours=colours)
        plan = {"map": (output, only)}
        if probabilities:
            plan = {"probabilities": (_beside(output)[0], base), **plan}

    def pieces(name: str, count: int) -> Iterator[tuple[int, int, NDArray[Any]]]:
        for b in grid.blocks(block):
            array = part.load(b.index, name, (count, b.out_height, b.out_width))
            if array is not None:
                yield b.out_top, b.out_left, array

    for name, (_, layout) in plan.items():
        write_cog(part.path / f"{name}.tif", layout, partial(pieces, name, len(layout.names)))
    for name, (final, _) in plan.items():
        publish(part.path / f"{name}.tif", final)
    return tuple(final for final, _ in reversed(plan.values()))


def _beside(output: Path) -> tuple[Path, ...]:
    return (output.with_name(f"{output.stem}_probabilities.tif"),)


def _check(model: SceneModel, output: Path, *, probabilities: bool, colours: Colours | None, batch_size: int) -> None:
    if output.suffix.lower() not in ("", ".tif", ".tiff"):
        raise ConfigError(f"{output} would be a GeoTIFF; give it a name that ends in .tif")
    if model.kind not in KINDS:
        raise ConfigError(f"unknown kind of model {model.kind!r}; {known(KINDS)}")
    if not 32 <= model.chip_size <= MAX_CHIP or model.chip_size % 32:
        raise ConfigError(
            f"chip_size {model.chip_size} must be a multiple of 32, the coarsest stride, and at most {MAX_CHIP}"
        )
    if not model.names or len(set(model.names)) < len(model.names):
        raise ConfigError(f"the model must name each output channel once; its names are {model.names}")
    if batch_size < 1:
        raise ConfigError(f"batch_size {batch_size} must be at least 1")
    classes = model.kind == "classes"
    if classes and len(model.names) > NO_CLASS:
        raise ConfigError(f"{len(model.names)} classes do not fit a uint8 map: at most {NO_CLASS}")
    if probabilities and not classes:
        raise ConfigError(f"probabilities=True needs a model of kind 'classes', not {model.kind!r}: leave it out")
    if colours is not None and (not classes or len(colours) != len(model.names)):
        expected = f"{len(model.names)}, one per class" if classes else f"none for a model of kind {model.kind!r}"
        raise ConfigError(f"{len(colours)} colours given; expected {expected}")
    if any(len(c) != 3 or not all(0 <= v <= 255 for v in c) for c in colours or ()):
        raise ConfigError(f"colours must be (red, green, blue) in 0..255; got {list(colours or ())}")


def _job(
    model: SceneModel, scene: SceneReader, grid: TileGrid, *, block: int, nodata: float | None, probabilities: bool,
    colours: Colours | None,
) -> dict[str, Any]:  # fmt: skip
    """What makes two runs the same job, as JSON values. The batch size is left out: it may be lowered to go on."""
    about = scene.path.stat()
    return {
        "format": 1,
        "source": str(scene.path.resolve()),
        "source_bytes": about.st_size,
        "source_modified_ns": about.st_mtime_ns,
        "source_bands": str(scene.bands),
        "nodata": str(nodata),
        "model": model.fingerprint,
        "model_bands": str(model.bands),
        "kind": model.kind,
        "names": list(model.names),
        "chip": grid.chip,
        "stride": grid.stride,
        "overlap": grid.overlap,
        "block": block,
        "probabilities": probabilities,
        "colours": None if colours is None else [list(c) for c in colours],
    }


def _report(
    model: SceneModel, grid: TileGrid, part: PartFolder, outputs: tuple[Path, ...], warnings: list[str], seconds: float
) -> SceneReport:
    shown = np.zeros((len(grid.rows), len(grid.cols)), dtype=bool)  # a tile on a block edge is met twice, counted once
    counts = np.zeros(len(model.names), dtype=np.int64)
    totals = dict.fromkeys(("valid", "several", "spread", "split"), 0.0)
    for _, stats in sorted(part.done.items()):
        for r, c in stats.get("shown", ()):
            shown[r, c] = True
        counts += np.asarray(stats.get("classes", 0))
        for name in totals:
            totals[name] += stats.get(name, 0)
    pixels, several, classes = grid.out_height * grid.out_width, totals["several"], model.kind == "classes"
    shares = {n: float(k / max(1, counts.sum())) for n, k in zip(model.names, counts, strict=True)}
    return SceneReport(
        outputs=outputs,
        tiles=grid.tiles,
        skipped_tiles=grid.tiles - int(shown.sum()),
        pixels=pixels,
        valid_share=totals["valid"] / pixels,
        class_shares=shares if classes else {},
        tile_disagreement=totals["spread"] / several if several else None,
        split_share=totals["split"] / several if several and classes else None,
        seconds=seconds,
        warnings=tuple(warnings),
    )
