"""``terratorch:BACKBONE``: Prithvi, TerraMind and Clay from TerraTorch's registry, with the statistics that TerraTorch carries.

TerraTorch reads weights with ``weights_only``. Backbones that it takes from TorchGeo are left to ``torchgeo:``, because there it
would unpickle. Importing it takes half a minute, so this module is its only door and imports it when a name asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pickle import UnpicklingError  # the error only
from typing import Any

import torch
from torch import Tensor

from eosfm.bands import BandSet
from eosfm.benchmark.backbones import Body, Built, grid_of, spread
from eosfm.benchmark.readings import Name, Reading, choose
from eosfm.contracts import BandError, ConfigError, known, missing_extra
from eosfm.seeding import seeded
from eosfm.statistics import BandStatistics

HLS = "hls:BLUE,GREEN,RED,NIR_NARROW,SWIR_1,SWIR_2@dn-1e4"
S2 = "B01,B02,B03,B04,B05,B06,B07,B08,B8A,B09,{}B11,B12@dn-1e4"
INPUTS = {
    "S2L2A": ("untok_sen2l2a@224", "sentinel-2-l2a:" + S2.format("")),
    "S2L1C": ("untok_sen2l1c@224", "sentinel-2-l1c:" + S2.format("B10,")),
    "S1GRD": ("untok_sen1grd@224", "sentinel-1:VV,VH@db"),
    "RGB": ("untok_sen2rgb@224", "rgb:R,G,B@8bit"),
}
"""TerraMind's inputs: TerraTorch's name, key of its statistics, bands and unit. Radar is its ground range detected product"""
COMBINED = (("S2L2A", "S1GRD"), ("S2L1C", "S1GRD"), ("S2L2A",), ("S2L1C",), ("S1GRD",), ("RGB",))
"""in this order: both sensors where the data have both; tokens of several inputs are averaged (TerraTorch's ``mean``)"""
CLAY = "clay_v1_base"


@dataclass(frozen=True)
class Family:
    """Backbones of one kind."""

    begins: str
    side: int
    about: str


FAMILIES = (
    Family("prithvi_eo_", 224, "Prithvi-EO: six HLS bands"),
    Family("terramind_v1_", 224, "TerraMind: Sentinel-2, Sentinel-1, or a colour picture"),
    Family("terramind_v01_", 224, "TerraMind 0.1: Sentinel-2 L2A"),
    Family(CLAY, 256, "Clay: any bands of known wavelength"),
)


def entries() -> tuple[str, ...]:
    """Backbones of TerraTorch's registry that can be baselines here.

    Raises:
        MissingExtra: TerraTorch is not installed.
    """
    try:
        from terratorch.registry import TERRATORCH_BACKBONE_REGISTRY as registry
    except ImportError:
        raise missing_extra("TerraTorch", "terratorch") from None
    named = [
        str(n) for n in registry if family_of(str(n)) and not str(n).endswith("_tim") and "tokenizer" not in str(n)
    ]
    return (*sorted(named), CLAY)


def family_of(model: str) -> Family | None:
    """The family that ``model`` belongs to."""
    return next((f for f in FAMILIES if model.startswith(f.begins)), None)


def build(name: Name, available: BandSet, statistics: BandStatistics, size: tuple[int, int], seed: int) -> Built:
    """The network of ``name`` for this input.

    Raises:
        BandError: bands that it wants and the data lack.
        ConfigError: not in the registry, or weights that cannot be had.
        MissingExtra: TerraTorch is not installed.
    """
    table = entries()
    family = family_of(name.model)
    if name.model not in table or family is None:
        raise ConfigError(
            f"TerraTorch has no baseline {name.model!r} that can be fed here; {known(table)}. Others of its names are weights of "
            "TorchGeo and timm: torchgeo:NAME, timm:NAME"
        )
    reading, plan = choose(name, readings(name.model, available), available, statistics)
    gsd = min((g for i in plan.index if (g := available[i].gsd_m)), default=1.0)
    resolution = gsd * size[0] / (max(1, round(size[0] / family.side)) * family.side)
    return Built(TerraTorchBody(name, family, reading, resolution, seed), reading)


def readings(model: str, available: BandSet) -> list[Reading]:
    """How ``model`` reads, with the statistics that TerraTorch carries."""
    if model == CLAY:
        return [_clay(available)]
    if model.startswith("prithvi"):
        from terratorch.models.backbones.prithvi_vit import prithvi_cfgs

        cfg = prithvi_cfgs[model]
        note = "one date, no coordinates or time told"
        return [Reading(BandSet.parse(HLS), tuple(cfg["mean"]), tuple(cfg["std"]), note=note)]
    from terratorch.models.backbones.terramind.model import terramind_register as register

    v1 = model.startswith("terramind_v1_")
    means = register.v1_pretraining_mean if v1 else register.v01_pretraining_mean
    stds = register.v1_pretraining_std if v1 else register.v01_pretraining_std
    out = []
    for inputs in COMBINED if v1 else (("S2L2A",),):
        keys = [INPUTS[i][0] for i in inputs]
        mean, std = (tuple(float(v) for k in keys for v in table[k]) for table in (means, stds))
        bands = BandSet.parse(" + ".join(INPUTS[i][1] for i in inputs))
        out.append(
            Reading(bands, mean, std, own="other units" if inputs == ("RGB",) else "never", kind="+".join(inputs),
                    note=f"input {'+'.join(inputs)}")
        )  # fmt: skip
    return out


def _clay(available: BandSet) -> Reading:
    kept = tuple(b for b in available if b.wavelength_nm)
    if not kept:
        raise BandError(f"Clay reads bands of known wavelength; none of {available} has one")
    lost = [b.name for b in available if b not in kept]
    note = "place and time not told" + (f"; {', '.join(lost)} left out: no wavelength" if lost else "")
    return Reading(BandSet(kept), (0.0,) * len(kept), (1.0,) * len(kept), own="always", note=note)


class TerraTorchBody(Body):
    """A backbone of TerraTorch, which gives the tokens of every block."""

    def __init__(self, name: Name, family: Family, reading: Reading, resolution: float, seed: int) -> None:
        super().__init__()
        from terratorch.registry import BACKBONE_REGISTRY

        self.source = f"TerraTorch {version('terratorch')} {name.model}"
        self.side, self.resolution = family.side, resolution
        self._inputs, self._told = [], {}
        options: dict[str, Any] = {}
        if name.model == CLAY:
            options = {"bands": list(reading.bands.commons), "features_only": True}
            waves = [(b.wavelength_nm or 0.0) / 1000 for b in reading.bands]
            self._told = {"waves": torch.tensor(waves), "gsd": resolution}
        elif name.model.startswith("terramind"):
            self._inputs = reading.kind.split("+")
            options = {"modalities": list(self._inputs), "merge_method": "mean"}
        else:
            options = {"num_frames": 1}
        try:
            with seeded(seed):
                self.network = BACKBONE_REGISTRY.build(name.model, pretrained=not name.random, **options)
        except (OSError, RuntimeError, ValueError, AssertionError, KeyError, UnpicklingError) as e:
            raise ConfigError(
                f"TerraTorch could not make {name.model}: {type(e).__name__}: {' '.join(str(e).split())[:240]}. Its weights come "
                "from the Hugging Face Hub: on a machine with network build it once, and copy its cache (HF_HOME) here"
            ) from None
        self.measure(len(reading.bands))

    def maps(self, x: Tensor) -> list[Tensor]:
        if self._inputs:
            counts = [2 if i == "S1GRD" else 3 if i == "RGB" else 13 if i == "S2L1C" else 12 for i in self._inputs]
            tokens = self.network(dict(zip(self._inputs, torch.split(x, counts, 1), strict=True)))
        else:
            tokens = self.network(x, **self._told)
        which = spread(len(tokens))
        self.how = f"blocks {', '.join(map(str, which))} of {len(tokens)}, from 0"
        return [grid_of(tokens[i]) for i in which]
