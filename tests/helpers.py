"""What the tests share: random specialists, plausible images, and ways to damage a file on purpose."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eosfm.bands import Band, BandSet
from eosfm.ensemble import Ensemble
from eosfm.specialists.card import DataInfo, SpecialistCard, TaskInfo, TrainingInfo, WeightsInfo, card_bands
from eosfm.specialists.encoder import FrozenEncoder
from eosfm.statistics import BandStatistics
from eosfm.units import Quantity, Unit

TINY = {
    "aerial-rgb": "aerial:R,G,B@8bit",
    "s1-sar": "sentinel-1:VV,VH,VH@db",
    "s2-rgb": "sentinel-2-l2a:B04,B03,B02@reflectance",
    "s2-six": "sentinel-2-l2a:B02,B03,B04,B8A,B11,B12@dn-1e4",
}
"""the specialists of the ``tiny_zoo`` fixture"""

PAPER = {
    "eurosat-s2": "sentinel-2-l1c:all@dn-1e4",
    "caffe": "sar:HH,HH,HH@8bit",
    "sen12ms-s1": "sentinel-1:VV,VH,VH@db",
    "sen12ms-s2": "sentinel-2-l1c:all@dn-1e4",
    "deepglobe-lcc": "rgb:R,G,B@8bit",
    "bigearthnet-s1": "sentinel-1:VV,VH,VH@db",
    "eurosat": "sentinel-2-l1c:B04,B03,B02@dn-1e4",
    "bigearthnet": "sentinel-1:VV,VH@db + sentinel-2-l2a:all@dn-1e4",
    "firerisk": "naip:R,G,B@8bit",
    "bigearthnet-rgb": "sentinel-2-l2a:B04,B03,B02@dn-1e4",
    "sen12ms-rgb": "sentinel-2-l1c:B04,B03,B02@dn-1e4",
    "imagenet": "rgb:R,G,B@8bit",
    "minifrance": "aerial:R,G,B@8bit",
    "etc2021": "sentinel-1:VV,VH,VH@8bit",
}
"""the 14 specialists of the paper's Table 2"""

RANGE = {
    Unit.REFLECTANCE: (0.0, 0.6),
    Unit.DN_1E4: (0.0, 6000.0),
    Unit.DN_1E4_OFFSET: (1000.0, 7000.0),
    Unit.DN_LANDSAT_C2: (7300.0, 29000.0),
    Unit.DB: (-25.0, 0.0),
    Unit.LINEAR: (0.003, 1.0),
    Unit.EIGHT_BIT: (0.0, 255.0),
    Unit.DN: (0.0, 2047.0),
    Unit.METRE: (0.0, 900.0),
}
"""values a sensor can give, by unit"""


def random_weights(in_channels: int, seed: int) -> dict[str, Tensor]:
    """Weights of an encoder in which every parameter counts (timm starts GRN at 0, where it does nothing)."""
    g = torch.Generator().manual_seed(seed)
    own = _blank(in_channels).tensors()
    out = {}
    for k, v in own.items():
        noise = torch.randn(v.shape, generator=g)
        out[k] = noise / v[0].numel() ** 0.5 if v.ndim > 1 and v.shape[0] > 1 else v + 0.1 * noise
    return out


@cache
def _blank(in_channels: int) -> FrozenEncoder:
    return FrozenEncoder(in_channels)


@cache
def make_encoder(in_channels: int, seed: int = 0) -> FrozenEncoder:
    """A frozen encoder with random weights. Cached, so do not change it; ``copy.deepcopy`` it first."""
    with torch.device("cpu"):
        encoder = FrozenEncoder(in_channels)
    encoder.load_tensors(random_weights(in_channels, seed), "test")
    return encoder


def make_card(name: str, bands: str | BandSet, **changes: Any) -> SpecialistCard:
    """A card whose statistics differ from channel to channel, so that a wrong order shows."""
    bandset = BandSet.parse(bands) if isinstance(bands, str) else bands
    card = SpecialistCard(
        name=name,
        bands=card_bands(bandset),
        statistics=statistics_of(bandset),
        chip_size=64,
        task=TaskInfo(kind="segmentation", classes=("no", "yes")),
        data=DataInfo(name="noise", licence="CC0-1.0"),
        training=TrainingInfo(),
        licence="CC0-1.0",
        weights=WeightsInfo(sha256="0" * 64, bytes=0, parameters=0),
        eosfm_version="0",
        created="2026-01-01T00:00:00+00:00",
    )
    return dataclasses.replace(card, **changes)


def make_specialist(name: str, bands: str | BandSet, seed: int = 0) -> tuple[FrozenEncoder, SpecialistCard]:
    """A frozen encoder with random weights and its card, as `load_specialist` would give them."""
    card = make_card(name, bands)
    return make_encoder(len(card.bands), seed), card


def ghost(name: str, bands: str) -> tuple[FrozenEncoder, SpecialistCard]:
    """A specialist without memory (meta device): for counting parameters and planning views, not for running."""
    card = make_card(name, bands)
    with torch.device("meta"):
        return FrozenEncoder(len(card.bands)), card


def statistics_of(bands: BandSet) -> BandStatistics:
    """Plausible statistics that depend on the band and its unit, never on its position."""
    pairs = [_moments(b) for b in bands]
    return BandStatistics(mean=tuple(m for m, _ in pairs), std=tuple(s for _, s in pairs))


def _moments(b: Band) -> tuple[float, float]:
    low, high = RANGE[b.unit]
    u = int(hashlib.sha256(f"{b.family}{b.name}".encode()).hexdigest(), 16) % 997 / 997
    return low + (0.3 + 0.4 * u) * (high - low), (0.1 + 0.2 * u) * (high - low)


def image(bands: str | BandSet, n: int = 2, size: int | tuple[int, int] = 64, seed: int = 0) -> Tensor:
    """Random pixels ``(n, c, h, w)`` in the units of ``bands``; a band's values do not depend on its position."""
    bandset = BandSet.parse(bands) if isinstance(bands, str) else bands
    h, w = (size, size) if isinstance(size, int) else size
    out = []
    for b in bandset:
        low, high = RANGE[b.unit]
        g = torch.Generator().manual_seed(seed * 1000 + int(hashlib.md5(str(b.key).encode()).hexdigest()[:6], 16))
        out.append(low + (high - low) * torch.rand(n, h, w, generator=g))
    return torch.stack(out, 1)


def full_ensemble(bands: str, **changes: Any) -> Ensemble:
    """All of `TINY` reading ``bands``, with a fusion whose biases are not 0."""
    b = BandSet.parse(bands)
    specialists = [make_specialist(n, TINY[n], i) for i, n in enumerate(TINY)]
    ens = Ensemble(specialists, b, statistics=statistics_of(b), **changes).eval()
    with torch.no_grad():
        for p in ens.fusion.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return ens


def worst_level(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Relative error of the worst level."""
    return max(float((x - y).norm() / x.norm()) for x, y in zip(a, b, strict=True))


def in_unit(bands: BandSet, unit: Unit) -> BandSet:
    """``bands`` with every optical band declared in ``unit``."""
    same = [b.unit.quantity is Quantity.REFLECTANCE for b in bands]
    return BandSet(tuple(dataclasses.replace(b, unit=unit) if s else b for b, s in zip(bands, same, strict=True)))


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    """Two pyramids, bit by bit."""
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def assert_close(a: list[Tensor], b: list[Tensor], tolerance: float = 1e-5) -> None:
    """Two pyramids up to rounding, relative to the largest value of each level."""
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=tolerance * max(1.0, float(y.detach().abs().max())))


def edit_json(path: Path, **changes: Any) -> None:
    """Change top-level keys of a JSON file; ``None`` removes one."""
    data = json.loads(path.read_text())
    data.pop("digest", None)  # as a user would who means it; `test_card.py` edits without
    data.update(changes)
    path.write_text(json.dumps({k: v for k, v in data.items() if v is not None}))


def forge_weights(folder: Path, data: bytes) -> None:
    """Replace a specialist's weights and make its card agree: what a hostile author can do."""
    (folder / "model.safetensors").write_bytes(data)
    card = json.loads((folder / "card.json").read_text())
    card.pop("digest", None)
    card["weights"] |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (folder / "card.json").write_text(json.dumps(card))


@contextmanager
def full_disk(size: int = 100_000) -> Iterator[None]:
    """Inside the block no file can grow beyond ``size`` bytes; the write fails as on a full disk.

    The limit holds for every file of the process, also for a log that pytest's own output goes to: keep the block
    around the one call that must fail.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def tree(folder: Path) -> dict[str, str]:
    """Every file below ``folder`` with its hash: two equal trees are equal bytes."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }
