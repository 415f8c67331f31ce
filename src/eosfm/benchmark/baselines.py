"""Baselines that every score is shown beside: a constant, an untrained ensemble, a U-Net or ConvNeXt trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eosfm.bands import BandSet
from eosfm.contracts import ConfigError, Pyramid, missing_extra
from eosfm.data.chips import ChipSet
from eosfm.ensemble import Specialist
from eosfm.seeding import purpose_seed, seeded
from eosfm.specialists.backbone import encoder_of, plan_pyramid
from eosfm.specialists.encoder import other_architecture
from eosfm.statistics import BandStatistics
from eosfm.tasks.boxes import CELLS, things
from eosfm.tasks.kinds import IGNORE, OBJECTS
from eosfm.tasks.model import TaskModel, TaskSpec


class ConstantPredictor(nn.Module):
    """Predicts what is most frequent in the training labels, everywhere (regression: their mean)."""

    def __init__(self, train: ChipSet) -> None:
        super().__init__()
        self.kind, k = train.kind, len(train.classes)
        y = train.labels
        if self.kind in OBJECTS:
            self.register_buffer("value", _usual_things(self.kind, y, k))
            return
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
        if self.kind in OBJECTS:
            return self.value.expand(len(x), -1, -1)
        if self.kind in ("segmentation", "regression"):
            return self.value.view(1, -1, 1, 1).expand(len(x), -1, *x.shape[-2:])
        return self.value.view(1, -1).expand(len(x), -1)


def _usual_things(kind: str, labels: Tensor, classes: int) -> Tensor:
    """``(1, m, 6)`` or with full masks: of each class that occurs, the box of median corners, as sure as it is frequent."""
    found = [things(y)[:2] for y in labels]
    boxes, of = torch.cat([b for b, _ in found]), torch.cat([c for _, c in found])
    rows = [
        torch.cat([torch.tensor([float(c), (of == c).float().mean().item()]), boxes[of == c].median(0).values])
        for c in range(classes)
        if bool((of == c).any())
    ]
    out = torch.stack(rows) if rows else torch.zeros(0, 6)
    return torch.cat([out, torch.ones(len(out), CELLS**2)], 1)[None] if kind == "instances" else out[None]


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


def scratch(architecture: str, train: ChipSet, task: TaskSpec, seed: int) -> nn.Module:
    """A network that learns from the case's labels only: timm's ``architecture`` under the case's head; "" for our own choice.

    Raises:
        ConfigError: an architecture that timm does not have, or that gives no pyramid; several dates.
    """
    scenes = task.kind in ("classification", "multilabel")
    if not architecture and task.kind in OBJECTS:
        architecture = "resnet18"  # a U-Net's map has no things
    if not architecture:
        return (scene_network if scenes else unet)(
            train.bands, len(task.classes), train.statistics(), seed, train.dates
        )
    if train.dates != 1:
        raise ConfigError(f"scratch:{architecture} reads one date; {train.name} has {train.dates}: take scratch")
    pyramid = plan_pyramid(architecture, len(train.bands), task.chip_size)
    with seeded(purpose_seed(seed, "scratch")):
        body = other_architecture(architecture, len(train.bands), task.chip_size, pyramid.levels)
        return TaskModel(Scratch(body, list(pyramid.channels), train.statistics()), task)


class Scratch(nn.Module):
    """A timm network that gives a pyramid of standardised input; all of it trains. Satisfies the `Encoder` protocol."""

    def __init__(self, body: nn.Module, channels: list[int], statistics: BandStatistics) -> None:
        super().__init__()
        self.input, self.out_channels = FromScratch(body, statistics), channels
        self._last = getattr(body, "output_fmt", "NCHW") == "NHWC"

    def forward(self, x: Tensor) -> Pyramid:
        """Maps at strides 4/8/16/32 of ``x`` in declared units."""
        return [m.permute(0, 3, 1, 2) if self._last else m for m in self.input(x)]


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
