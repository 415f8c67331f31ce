"""FCMAE, ConvNeXt V2's masked autoencoder (Woo et al. 2023, arXiv:2301.00808): hide patches, predict them from the rest.

The published encoder is sparse: it computes at visible positions only. This is its dense equivalent, position by position
(``tests/training/test_masked.py`` holds both against a plain loop): a map is zero wherever nothing is visible, before each
convolution looks at it and before the response norm sums it up.

Which cell of a deeper map is visible: one that covers at least one visible pixel, as the strided convolution of a sparse
tensor has it. With patches of 32 pixels or multiples, a cell at any stride lies in one patch, and visible and hidden are the
same at all depths. With patches of 8 or 16 pixels a deep cell can be partly hidden: it then holds what its visible part says,
because the hidden cells below it are zeroed before they are merged. No hidden pixel reaches any feature in either case.

Where this differs from the published code: the response norm sums over one image as in timm's encoder (there: over all
visible positions of the batch); pixels are standardised per band, and in each patch *per band* (there: all bands together);
decoder weights start at a standard deviation of 0.02 (there: 1); pixels that are not finite count nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eosfm.bands import BandSet
from eosfm.config import record
from eosfm.contracts import BandError, ConfigError, Pyramid, UnitError
from eosfm.specialists.encoder import MIN_SIZE, ConvNeXtV2Atto, ResponseNorm
from eosfm.statistics import BandStatistics

EPS = 1e-6


@record
class MaskedConfig:
    """What is hidden and how it is predicted; the defaults are those of ConvNeXt V2."""

    patch: int = 32
    """side of the squares that are hidden or shown, in pixels: 8, 16 or a multiple of 32"""
    ratio: float = 0.6
    """share of the patches that is hidden; the number shown is rounded down, but at least one is"""
    width: int = 512
    """channels of the decoder"""
    depth: int = 1
    """ConvNeXt V2 blocks of the decoder"""
    normalise: bool = True
    """predict each patch with mean 0 and standard deviation 1 per band, instead of its standardised pixels"""

    def __post_init__(self) -> None:
        if self.patch not in (8, 16) and (self.patch < MIN_SIZE or self.patch % MIN_SIZE):
            raise ValueError(f"patch {self.patch}; expected 8, 16, 32 or a multiple of 32 pixels")
        if not 0 < self.ratio < 1:
            raise ValueError(f"ratio {self.ratio} is the share of hidden patches, between 0 and 1")
        if self.width < 1 or self.depth < 1:
            raise ValueError(f"width {self.width}, depth {self.depth}; expected 1 or more")

    def grid(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """``(rows, columns, shown)``: the patches of images of ``size`` ``(h, w)`` and how many of them are shown.

        >>> MaskedConfig().grid((224, 224))
        (7, 7, 19)

        Raises:
            ConfigError: fewer than two patches, so that either nothing is shown or nothing is hidden.
        """
        rows, columns = (-(-s // math.lcm(MIN_SIZE, self.patch)) * math.lcm(MIN_SIZE, self.patch) for s in size)
        rows, columns = rows // self.patch, columns // self.patch
        if rows * columns < 2:
            raise ConfigError(
                f"chips of {size[0]} x {size[1]} pixels are one patch of {self.patch}: with it hidden nothing is seen. "
                "Use larger chips, or masked.patch: 8 or 16."
            )
        shown = max(1, int(rows * columns * (1 - self.ratio) + EPS))  # 10 * (1 - 0.7) is 3.0000000000000004
        return rows, columns, min(shown, rows * columns - 1)


@dataclass(frozen=True)
class Target:
    """Bands to predict, with a linear head and a weight of their own (MP-MAE: several modalities from one encoder)."""

    bands: BandSet
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not (self.weight > 0 and math.isfinite(self.weight)):
            raise ConfigError(f"target {self.bands}: weight {self.weight}; expected a number above 0")


def draw_visible(n: int, rows: int, columns: int, shown: int, seed: int) -> Tensor:
    """``(n, 1, rows, columns)`` bool, ``shown`` patches of each image True, drawn by ``seed`` on the CPU."""
    g = torch.Generator().manual_seed(seed)
    rank = torch.rand(n, rows * columns, generator=g).argsort(1).argsort(1)
    return (rank < shown).view(n, 1, rows, columns)


def stage_masks(visible: Tensor, patch: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """1 where a cell covers a visible pixel and 0 elsewhere, ``(n, 1, h/s, w/s)`` at strides 4, 8, 16 and 32."""
    mask = _enlarged(visible.to(dtype), patch // 4)
    masks = [mask]
    for _ in range(3):
        masks.append(mask := F.max_pool2d(mask, 2))
    return masks


def masked_features(encoder: ConvNeXtV2Atto, x: Tensor, masks: Sequence[Tensor]) -> Pyramid:
    """The pyramid of the visible part of ``x``, 0 where nothing is visible; with masks of ones, ``encoder(x)``.

    Args:
        encoder: its weights are used as they are, under their own names.
        x: ``(b, c, h, w)`` standardised, 0 where hidden.
        masks: see `stage_masks`.
    """
    body = encoder.body
    x = body.get_submodule("stem_1")(body.get_submodule("stem_0")(x)) * masks[0]
    levels: Pyramid = []
    for i, mask in enumerate(masks):
        stage = body.get_submodule(f"stages_{i}")
        if i:
            norm, merge = stage.get_submodule("downsample").children()
            x = merge(norm(x) * masks[i - 1]) * mask  # the norm of a zero is its bias, which must not be merged
        for block in stage.get_submodule("blocks").children():
            mlp = block.get_submodule("mlp")
            h = block.get_submodule("norm")(block.get_submodule("conv_dw")(x))
            h = mlp.get_submodule("act")(mlp.get_submodule("fc1")(h)) * mask
            x = x + mlp.get_submodule("fc2")(mlp.get_submodule("grn")(h)) * mask
        levels.append(x)
    return levels


class DecoderBlock(nn.Module):
    """A ConvNeXt V2 block, the same function as timm's: depthwise 7 x 7, layer norm, 4 times wider, GELU, GRN, back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.expand = nn.Conv2d(width, 4 * width, 1)
        self.grn = ResponseNorm(4 * width, channels_last=False)
        self.reduce = nn.Conv2d(4 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` ``(b, width, h, w)``; the shape stays."""
        h = self.norm(self.depthwise(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        out: Tensor = x + self.reduce(self.grn(F.gelu(self.expand(h))))
        return out


class MaskedAutoencoder(nn.Module):
    """An encoder of the visible patches, and a decoder that predicts the hidden ones and is thrown away afterwards.

    Args:
        encoder: reads ``inputs``.
        bands: the channels of the images.
        statistics: of ``bands``, in their units; encoder and targets are standardised with them.
        inputs: the bands that the encoder reads.
        targets: what is predicted.
        config: see `MaskedConfig`.

    Raises:
        BandError, UnitError: an input or a target that is not among ``bands``, or is declared in another unit.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        encoder: ConvNeXtV2Atto,
        bands: BandSet,
        statistics: BandStatistics,
        inputs: BandSet,
        targets: Sequence[Target],
        config: MaskedConfig,
    ) -> None:
        super().__init__()
        if not targets:
            raise ConfigError("a masked autoencoder needs at least one target")
        statistics.require_channels(len(bands), "masked autoencoder")
        self.encoder, self.config = encoder, config
        self.inputs = channels(inputs, bands)
        self.targets = [channels(t.bands, bands) for t in targets]
        if len(self.inputs) != encoder.in_channels:
            raise BandError(
                f"the encoder reads {encoder.in_channels} channels, the inputs are {len(self.inputs)}: {inputs}"
            )
        self.weights = [t.weight for t in targets]
        self.register_buffer("mean", torch.tensor(statistics.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(statistics.std).view(1, -1, 1, 1), persistent=False)
        self.project = nn.Conv2d(encoder.out_channels[-1], config.width, 1)
        self.token = nn.Parameter(torch.empty(config.width))
        self.decoder = nn.Sequential(*(DecoderBlock(config.width) for _ in range(config.depth)))
        self.heads = nn.ModuleList(nn.Conv2d(config.width, len(t) * MIN_SIZE**2, 1) for t in self.targets)
        nn.init.normal_(self.token, std=0.02)
        for part in (self.project, self.decoder, self.heads):
            for m in part.modules():
                if isinstance(m, nn.Conv2d):
                    nn.init.trunc_normal_(m.weight, std=0.02)
                    nn.init.zeros_(m.bias)  # type: ignore[arg-type]  # there is one

    def forward(self, x: Tensor, visible: Tensor) -> list[Tensor]:
        """The predicted pixels ``(b, len(target), h, w)`` of each target, from the visible patches only.

        Args:
            x: ``(b, c, h, w)`` standardised, NaN where nodata, ``h`` and ``w`` multiples of 32 and of the patch.
            visible: see `draw_visible`.
        """
        pixels = _enlarged(visible, self.config.patch)
        seen = x[:, self.inputs].nan_to_num(0.0, 0.0, 0.0).where(pixels, 0.0)
        masks = stage_masks(visible, self.config.patch, seen.dtype)
        z = self.project(masked_features(self.encoder, seen, masks)[-1])
        z = self.decoder(torch.where(masks[-1] > 0, z, self.token.view(1, -1, 1, 1).to(z.dtype)))
        return [F.pixel_shuffle(head(z), MIN_SIZE) for head in self.heads]

    def errors(self, x: Tensor, seed: int) -> Tensor:
        """``(b, targets, 2)``: of each image and target, the sum of squared errors and the number of pixels it is over.

        Args:
            x: images ``(b, c, h, w)`` in the declared units, of any size; what is missing to whole patches is nodata.
            seed: which patches are hidden.
        """
        rows, columns, shown = self.config.grid((x.shape[-2], x.shape[-1]))
        down, right = rows * self.config.patch - x.shape[-2], columns * self.config.patch - x.shape[-1]
        # not the repeated border of `pad`: hidden pixels would be repeated into a visible patch
        z = F.pad((x - self.mean) / self.std, (0, right, 0, down), value=float("nan"))
        visible = draw_visible(len(x), rows, columns, shown, seed).to(x.device)
        hidden = ~_enlarged(visible, self.config.patch)
        out = []
        for index, predicted in zip(self.targets, self(z, visible), strict=True):
            truth = z[:, index].float()
            counted = hidden & truth.isfinite()
            wanted = patch_normalised(truth, self.config.patch) if self.config.normalise else truth
            error = (predicted.float() - wanted.where(counted, 0.0)).square().where(counted, 0.0)
            out.append(torch.stack([error.sum((1, 2, 3)), counted.sum((1, 2, 3)).float()], 1))
        return torch.stack(out, 1)

    def own_loss(self, x: Tensor, seed: int) -> Tensor:
        """The weighted mean over targets of the mean squared error on hidden pixels; exactly 0 where none is finite."""
        error, count = self.errors(x, seed).sum(0).unbind(1)
        weight = error.new_tensor(self.weights) * (count > 0)
        return (weight * error / count.clamp_min(1)).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)


def patch_normalised(x: Tensor, patch: int) -> Tensor:
    """``x`` ``(b, c, h, w)`` with mean 0 and variance 1 over the finite pixels of each patch and band; NaN stays."""
    ok = x.isfinite()
    share = F.avg_pool2d(ok.to(x.dtype), patch).clamp_min(EPS)
    mean = F.avg_pool2d(x.where(ok, 0.0), patch) / share
    centred = (x - _enlarged(mean, patch)).where(ok, 0.0)
    variance = F.avg_pool2d(centred.square(), patch) / share
    return (centred / (_enlarged(variance, patch) + EPS).sqrt()).where(ok, float("nan"))


def channels(wanted: BandSet, bands: BandSet) -> list[int]:
    """Where the bands ``wanted`` lie in ``bands``, by name; a band of another unit is refused, never converted silently.

    Raises:
        BandError: a band that is not there.
        UnitError: a band that is there in another unit.
    """
    out = []
    for band in wanted.require_distinct():
        i = bands.index_of(band.key)
        if i is None:
            raise BandError(f"{band} is not among the data's bands: {bands}")
        if bands[i].unit != band.unit:
            raise UnitError(f"{band}: the data hold it as {bands[i]}; declare it in that unit")
        out.append(i)
    return out


def _enlarged(cells: Tensor, times: int) -> Tensor:
    return cells.repeat_interleave(times, -2).repeat_interleave(times, -1)
