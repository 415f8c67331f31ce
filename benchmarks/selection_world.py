"""A world in which it is known which specialists matter: twelve read one band each, three bands make the label.

splits, specialists, informative = selection_world(seed=0)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eosfm.bands import BandSet
from eosfm.data.chips import Chips, Splits
from eosfm.ensemble import Specialist
from eosfm.seeding import purpose_seed
from eosfm.specialists.card import DataInfo, SpecialistCard, TaskInfo, TrainingInfo, WeightsInfo, card_bands
from eosfm.specialists.encoder import FrozenEncoder, untrained_encoder
from eosfm.statistics import BandStatistics

BANDS = BandSet.parse("sentinel-2-l2a:B01,B02,B03,B04,B05,B06,B07,B08,B8A,B09,B11,B12@reflectance")
MEAN, STD = 0.25, 0.08


def selection_world(
    seed: int, *, train: int = 32, validation: int = 16, test: int = 32, size: int = 64, informative: int = 3
) -> tuple[Splits, list[Specialist], list[str]]:
    """Chips whose classes are which of ``informative`` bands is largest, an untrained specialist per band, and whose they are.

    Every band is a smooth field of its own with noise; nothing but its name tells an informative one from the others.
    """
    g = torch.Generator().manual_seed(purpose_seed(seed, "selection world"))
    chosen = sorted(torch.randperm(len(BANDS), generator=g)[:informative].tolist())

    def chips(n: int, name: str) -> Chips:
        coarse = torch.randn(n, len(BANDS), size // 8, size // 8, generator=g)
        fields = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
        noise = 0.2 * torch.randn(fields.shape, generator=g)
        labels = fields[:, chosen].argmax(1)
        classes = tuple(f"{BANDS[c].name} is largest" for c in chosen)
        return Chips(MEAN + STD * (fields + noise), labels, BANDS, "segmentation", classes, name, "CC0-1.0")

    splits = Splits(chips(train, "train"), chips(validation, "validation"), chips(test, "test"), "drawn by seed")
    names = [f"only-{b.name.lower()}" for b in BANDS]
    specialists = [_specialist(name, i, seed) for i, name in enumerate(names)]
    return splits, specialists, [names[c] for c in chosen]


def _specialist(name: str, band: int, seed: int) -> Specialist:
    encoder = FrozenEncoder(1)
    tensors: dict[str, Tensor] = untrained_encoder(1, purpose_seed(seed, name)).tensors()
    encoder.load_tensors(tensors, name)
    card = SpecialistCard(
        name=name,
        bands=card_bands(BandSet((BANDS[band],))),
        statistics=BandStatistics(mean=(MEAN,), std=(STD,)),
        chip_size=64,
        task=TaskInfo(kind="segmentation", classes=("nothing", "at all")),
        data=DataInfo(name="none", licence="CC0-1.0"),
        training=TrainingInfo(),
        licence="CC0-1.0",
        weights=WeightsInfo(sha256="0" * 64, bytes=0, parameters=0),
        eosfm_version="0",
        created="2026-01-01T00:00:00+00:00",
    )
    return encoder, card
