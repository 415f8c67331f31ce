"""Baselines that every score is shown beside: a constant, an untrained ensemble, a U-Net or ConvNeXt trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eosfm.bands import BandSet
from eosfm.contracts import missing_extra
from eosfm.data.chips import ChipSet
from eosfm.ensemble import Specialist
from eosfm.seeding import purpose_seed, seeded
from eosfm.specialists.backbone import encoder_of
from eosfm.statistics import BandStatistics
from eosfm.tasks.kinds import IGNORE


class ConstantPredictor(nn.Module):
    """Predicts what is most frequent in the training labels, everywhere (regression: their mean)."""

    def __init__(self, train: ChipSet) -> None:
        super().__init__()
        self.kind, k = train.kind, len(train.classes)
        y = train.labels
        if self.kind == "regression":
            value = y[y.isfinite()].mean().view(1)
        elif self.kind == "multilabel":
            share = y.float().mean(0).clamp(1e-4, 1 - 1e-4)
            value = (share / (1 - share)).log()
        else:
            value = torch.bincount(y[y != IGNORE].flatten().long(), minlength=k).float()
        self.register_buffer("value", value)

    def forward(self, x: Tensor) -> Tensor:
        """The same logits for every image and pixel of ``x`` ``(b, c, h, w)``."""
        assert isinstance(self.value, Tensor)
        if self.kind in ("segmentation", "regression"):
            return self.value.view(1, -1, 1, 1).expand(len(x), -1, *x.shape[-2:])
        return self.value.view(1, -1).expand(len(x), -1)


def untrained(specialists: Sequence[Specialist], seed: int) -> list[Specialist]:
    """The same specialists with random weights: same bands, rules and statistics, nothing learnt."""
    out = []
    for n, (_, card) in enumerate(specialists):
        with seeded(purpose_seed(seed, "untrained", n)):
            out.append((encoder_of(card), card))
    return out


class FromScratch(nn.Module):
    """A network of segmentation-models-pytorch or timm on standardised input, all of it trained on the task's labels.

    Several dates are so many times the bands, read at once.
    """

    def __init__(self, network: nn.Module, statistics: BandStatistics, dates: int = 1) -> None:
        super().__init__()
        self.network = network
        for name, values in (("mean", statistics.mean), ("std", statistics.std)):
            self.register_buffer(name, torch.tensor(values).repeat(dates).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits for ``x`` in declared units; pixels that are not finite become the mean."""
        assert isinstance(self.mean, Tensor) and isinstance(self.std, Tensor)
        out: Tensor = self.network(((x - self.mean) / self.std).nan_to_num(0.0, 0.0, 0.0))
        return out


def unet(bands: BandSet, outputs: int, statistics: BandStatistics, seed: int, dates: int = 1) -> FromScratch:
    """A U-Net with a ResNet-18 encoder, random weights (14 M parameters)."""
    try:
        import segmentation_models_pytorch as smp
    except ImportError:
        raise missing_extra("segmentation-models-pytorch", "train") from None
    with seeded(purpose_seed(seed, "unet")):
        net = smp.Unet("resnet18", encoder_weights=None, in_channels=dates * len(bands), classes=outputs)
    return FromScratch(net, statistics, dates)


def scene_network(bands: BandSet, outputs: int, statistics: BandStatistics, seed: int, dates: int = 1) -> FromScratch:
    """The specialists' own architecture trained from scratch on a scene task: ConvNeXtV2-Atto with a linear head."""
    from eosfm.specialists.encoder import ConvNeXtV2Atto
    from eosfm.tasks.heads import SceneHead

    with seeded(purpose_seed(seed, "scene-network")):
        encoder = ConvNeXtV2Atto(dates * len(bands))
        return FromScratch(nn.Sequential(encoder, SceneHead(encoder.out_channels, outputs)), statistics, dates)
