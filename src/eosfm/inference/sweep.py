"""One pass of a model over a scene: columns of tiles in, finished blocks out. `predict.py` starts it and collects them.

   columns of tiles          A block needs every tile that touches it. Sweeping a row of blocks from left to
  +--+--+--+--+--+           right, the columns it shares with the next block are handed over; the rows of
  |  |  |  |  |  |           tiles it shares with the blocks below are computed again there. So memory is
  +--+--+--+--+--+           bounded by the block, and nothing but finished blocks needs to be stored.
block 0 --> block 1 -->
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eosfm.bands import BandSet
from eosfm.contracts import EosfmError
from eosfm.inference.parts import PartFolder, Stats
from eosfm.inference.scene import SceneReader
from eosfm.inference.tiling import Blend, Block, TileGrid, any_valid, pad_edges
from eosfm.progress import bar

KINDS = ("classes", "values", "features")
NO_CLASS = 255
"""Value of a class map where the scene is invalid."""


class SceneModel(Protocol):
    """What `predict_scene` needs of a model. It fills NaN itself; outputs where the input is NaN are not used."""

    @property
    def bands(self) -> BandSet:
        """The channels it wants, in order, each with its unit."""

    @property
    def chip_size(self) -> int:
        """Tile side in input pixels, a multiple of 32: the model always sees exactly this size."""

    @property
    def stride(self) -> int:
        """Input pixels per output pixel along an axis: 1 for maps, 4 to 32 for features."""

    @property
    def kind(self) -> str:
        """One of `KINDS`: class probabilities, values with their own units, or features."""

    @property
    def names(self) -> tuple[str, ...]:
        """One name per output channel; the class names for "classes"."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever weights or configuration do, so that a killed job resumes with the same model or not."""

    def chips(self, x: Tensor) -> Tensor:
        """``(b, c, chip, chip)``, NaN in all channels where invalid -> ``(b, k, chip / stride, chip / stride)``."""


@dataclass
class _Column:
    """A column of tiles over the rows of one row of blocks: what the model made of it, and which pixels are valid."""

    left: int
    outs: dict[int, Tensor]
    """by index of the tile row; ``(k, n, n)``; no entry for a tile without a valid pixel"""
    valid: Tensor


class Sweep:
    """Computes the blocks of one scene that are not in ``part`` yet; ``batch`` tiles per model call."""

    def __init__(
        self, model: SceneModel, scene: SceneReader, grid: TileGrid, part: PartFolder, batch: int, probabilities: bool
    ) -> None:
        self.model, self.scene, self.grid, self.part = model, scene, grid, part
        self.batch, self.probabilities = batch, probabilities
        self.ran = 0
        self._columns: dict[int, _Column] = {}

    def run(self, target: int, *, show: bool) -> None:
        """Compute and store every block that is not finished yet."""
        started, top = time.monotonic(), -1
        name, count = self.scene.path.name, self.grid.block_count(target)
        with bar(name, short=True) if show else nullcontext() as tell, torch.inference_mode():
            for number, block in enumerate(self.grid.blocks(target)):
                if tell:
                    tell(number / count, f"{name}, {self.ran / max(time.monotonic() - started, 1e-6):.1f} tiles/s")
                if block.top != top:
                    top, self._columns = block.top, {}
                if block.index not in self.part.done:
                    if self.scene.known_empty(block.top, block.left, block.height, block.width):
                        self.part.save(block.index, {}, {})
                    else:
                        self.part.save(block.index, *self._compute(block))

    def _compute(self, block: Block) -> tuple[dict[str, NDArray[Any]], Stats]:
        """The block's arrays by name (none if it has no valid pixel) and its statistics."""
        grid, classes = self.grid, self.model.kind == "classes"
        rows = grid.rows_touching(block.top, block.top + block.height)
        needed = grid.cols_touching(block.left, block.left + block.width)
        self._columns = {c: column for c, column in self._columns.items() if c in needed}
        new = [c for c in needed if c not in self._columns]
        pixels = self._read(rows, new)
        blend = Blend(len(self.model.names), block.out_height, block.out_width, votes=classes)
        valid = torch.zeros(block.height, block.width, dtype=torch.bool)
        shown: list[tuple[int, int]] = []
        for c in needed:
            if c in new:
                offset = grid.cols[c] - grid.cols[new[0]]
                self._columns[c] = self._column(pixels[..., offset : offset + grid.chip], rows, c)
            column = self._columns[c]
            _paste(valid, column.valid, grid.rows[rows[0]] - block.top, column.left - block.left)
            for r, out in column.outs.items():
                corner = grid.rows[r] - block.top, column.left - block.left
                blend.add(out, grid.weight, corner[0] // grid.stride, corner[1] // grid.stride)
                shown.append((r, c))
            if grid.cols[c] + grid.chip <= block.left + block.width:
                del self._columns[c]  # the next block does not reach it
        return self._finish(block, blend, any_valid(valid, grid.stride), shown)

    def _read(self, rows: range, cols: Sequence[int]) -> Tensor:
        """Input pixels under the tiles ``rows`` x ``cols``, edges repeated where tiles reach past the scene."""
        grid = self.grid
        if not cols:
            return torch.empty(0)
        top, bottom = grid.rows[rows[0]], grid.rows[rows[-1]] + grid.chip
        left, right = grid.cols[cols[0]], grid.cols[cols[-1]] + grid.chip
        x = self.scene.read(top, left, min(bottom, grid.height) - top, min(right, grid.width) - left)
        return pad_edges(x, bottom - top, right - left)

    def _column(self, pixels: Tensor, rows: range, c: int) -> _Column:
        """Run the tiles of one column. Batches never mix columns, so a resumed run forms the same ones."""
        grid = self.grid
        valid = ~pixels[0].isnan()
        spans = {
            r: slice(grid.rows[r] - grid.rows[rows[0]], grid.rows[r] - grid.rows[rows[0]] + grid.chip) for r in rows
        }
        todo = [r for r in rows if bool(valid[spans[r]].any())]
        outs: dict[int, Tensor] = {}
        for i in range(0, len(todo), self.batch):
            chosen = todo[i : i + self.batch]
            outs.update(zip(chosen, self._call(torch.stack([pixels[:, spans[r]] for r in chosen])), strict=True))
        self.ran += len(todo)
        return _Column(grid.cols[c], outs, valid)

    def _call(self, chips: Tensor) -> Tensor:
        side = self.grid.chip // self.grid.stride
        try:
            out = self.model.chips(chips)
        except torch.OutOfMemoryError as e:
            raise EosfmError(
                f"out of device memory with {len(chips)} tiles at a time: run again with a smaller batch_size "
                "(--batch-size); the finished blocks are kept"
            ) from e
        expected = (len(chips), len(self.model.names), side, side)
        if tuple(out.shape) != expected:
            raise EosfmError(f"the model returned {tuple(out.shape)} for {tuple(chips.shape)}; it promises {expected}")
        return out.to("cpu", torch.float32)

    def _finish(
        self, block: Block, blend: Blend, valid: Tensor, shown: list[tuple[int, int]]
    ) -> tuple[dict[str, NDArray[Any]], Stats]:
        count = int(valid.sum())
        if count == 0:
            return {}, {"shown": shown}
        broken = int((~blend.mean.isfinite().all(0) & valid).sum())
        if broken:
            raise EosfmError(
                f"the model gave NaN or infinity at {broken} valid pixels of {self.scene.path}, in the block of rows "
                f"{block.top}..{block.top + block.height - 1}, columns {block.left}..{block.left + block.width - 1}: "
                "it must replace the NaN of invalid pixels before it computes with them"
            )
        several = valid & (self.grid.coverage(block) > 1)
        stats: Stats = {
            "shown": shown,
            "valid": count,
            "several": int(several.sum()),
            "spread": float(blend.deviation[several].double().sum()),
            "split": int((blend.split & several).sum()),
        }
        floats = blend.mean.masked_fill_(~valid, float("nan")).numpy()
        if self.model.kind != "classes":
            return {"map": floats}, stats
        best = np.where(valid.numpy(), np.nan_to_num(floats, nan=-np.inf).argmax(0), NO_CLASS).astype(np.uint8)
        stats["classes"] = np.bincount(best[valid.numpy()], minlength=len(self.model.names)).tolist()
        return ({"map": best[None], "probabilities": floats} if self.probabilities else {"map": best[None]}), stats


def _paste(target: Tensor, source: Tensor, top: int, left: int) -> None:
    """Copy ``source`` into ``target`` with its corner at (``top``, ``left``), which may be negative, cut to fit."""
    (h, w), (sh, sw) = target.shape, source.shape
    y0, y1, x0, x1 = max(0, top), min(h, top + sh), max(0, left), min(w, left + sw)
    target[y0:y1, x0:x1] = source[y0 - top : y1 - top, x0 - left : x1 - left]
