"""``torchgeo:WEIGHTS``: the weights that TorchGeo lists, by the name of their enum, and its networks of any set of bands.

TorchGeo's builders would unpickle what they fetch. So a network is built without weights, and the file is read by torch.hub
with ``weights_only`` and, where its name ends in a hash, compared with that; then it goes through TorchGeo's own builder, which
knows what may be missing. `eosfm.benchmark.named.torchgeo_readings` says what the networks read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pickle import UnpicklingError  # the error only
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from eosfm.bands import BandSet
from eosfm.benchmark.backbones import Body, Built, Seen, grid_of, spread
from eosfm.benchmark.named.torchgeo_readings import AnyBands, any_bands, fixed_readings
from eosfm.benchmark.readings import Name, Reading, choose
from eosfm.contracts import ConfigError, missing_extra
from eosfm.seeding import seeded
from eosfm.statistics import BandStatistics

NO_BACKBONE = ("aurora_swin_unet", "unet")
"""a weather model; and whole segmentation networks of two dates or of chips of 1024 pixels"""
FAMILIES = {
    "resnet": "ResNet", "vit": "ViT", "swin": "Swin", "dofa": "DOFA", "croma": "CROMA", "scalemae": "ScaleMAE",
    "copernicusfm": "Copernicus-FM", "panopticon": "Panopticon", "earthloc": "EarthLoc",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One of TorchGeo's weights."""

    builder: str
    weights: Any

    @property
    def family(self) -> str:
        return next((f for f in FAMILIES if self.builder.startswith(f)), "")


def entries() -> dict[str, Entry]:
    """All backbones by the name of their weights, "ResNet50_Weights.SENTINEL2_ALL_MOCO"; those of other kinds left out."""
    try:
        from torchgeo.models import get_model_weights, list_models
    except ImportError:
        raise missing_extra("TorchGeo", "baselines") from None
    out = {}
    for builder in list_models():
        if builder in NO_BACKBONE:
            continue
        try:
            listed = list(get_model_weights(builder))
        except KeyError:  # a builder without published weights
            continue
        out.update({str(w): Entry(builder, w) for w in listed})
    return {n: e for n, e in out.items() if e.family}


def entry_of(name: Name) -> Entry:
    """Raises `ConfigError` for what TorchGeo does not list as a backbone."""
    table = entries()
    if name.model not in table:
        word = re.split(r"[_.]", name.model)[0].lower()
        near = [n for n in table if n.lower().startswith(word)] or [n for n in table if n.endswith("MOCO")]
        raise ConfigError(f"TorchGeo lists no backbone weights {name.model!r}; among others {', '.join(near[:12])}")
    return table[name.model]


def readings(entry: Entry, available: BandSet) -> list[Reading]:
    """How the network reads; for one of any bands, as many of ``available`` as it can.

    Raises:
        BandError: it can read none of them.
    """
    if entry.family in ("dofa", "copernicusfm", "panopticon"):
        return [any_bands(entry.family, available)]
    return fixed_readings(entry.family, entry.weights)


def build(name: Name, available: BandSet, statistics: BandStatistics, size: tuple[int, int], seed: int) -> Built:
    """The network of ``name`` for this input.

    Raises:
        BandError: bands that the network wants and the data lack.
        ConfigError: unknown to TorchGeo, or weights that cannot be had or are not what they should be.
        MissingExtra: TorchGeo is not installed.
    """
    entry = entry_of(name)
    reading, plan = choose(name, readings(entry, available), available, statistics)
    gsd = {available[i].gsd_m for i in plan.index}
    resolution = next(iter(gsd)) if len(gsd) == 1 else min((g for g in gsd if g), default=None)
    return Built(TorchGeoBody(name, entry, reading, size, resolution, seed), reading)


class TorchGeoBody(Body):
    """One of TorchGeo's networks, seen through hooks on its stages or blocks."""

    def __init__(
        self, name: Name, entry: Entry, reading: Reading, size: tuple[int, int], resolution: float | None, seed: int
    ) -> None:
        super().__init__()
        import torchgeo

        family, meta = entry.family, entry.weights.meta
        self.source, self.side = f"TorchGeo {torchgeo.__version__} {name.model}", None
        options: dict[str, Any] = {}
        if family == "scalemae":
            self.side = 224
            self.resolution = (resolution or 1.0) * size[0] / (max(1, round(size[0] / 224)) * 224)
            options["res"] = self.resolution
        elif family == "croma":
            self.side = 120
            options["modalities"] = {"joint": ["sar", "optical"]}.get(reading.kind, [reading.kind])
        elif family == "earthloc":
            options["pretrained"] = False
        elif family in ("vit", "dofa", "copernicusfm", "panopticon"):
            self.side = int(meta.get("img_size", 224))
        with seeded(seed):
            network = _network(entry, options, random=name.random)
        self._seen, self._tokens = Seen(), family not in ("resnet", "swin", "earthloc")
        self._kind, self._channels_last = reading.kind, family == "swin"
        self._call: tuple[Callable[[Tensor], object]] = (network,)  # in a tuple: no child module
        self.network = self._tap(family, network, reading)
        self.measure(len(reading.bands))

    def maps(self, x: Tensor) -> list[Tensor]:
        self._seen.take()
        self._call[0](x)
        found = self._seen.take()
        if self._tokens:
            return [grid_of(t) for t in found]
        found = [m.permute(0, 3, 1, 2) for m in found] if self._channels_last else found
        return found + found[-1:] * (4 - len(found))  # EarthLoc has three stages: the last is pooled to stride 32

    def _tap(self, family: str, network: Any, reading: Reading) -> nn.Module:
        """Watch four places, and say how the network is called; what is returned holds the weights in use."""
        if family in ("resnet", "earthloc"):
            body = network.backbone if family == "earthloc" else network
            body.reset_classifier(0)
            stages = [m for n in ("layer1", "layer2", "layer3", "layer4")[: 3 if family == "earthloc" else 4]
                      if (m := getattr(body, n))]  # fmt: skip
            return self._watch(body, stages, f"stages 1-{len(stages)}", body.forward_features)
        if family == "swin":
            stages = [network.features[i] for i in (1, 3, 5, 7)]
            return self._watch(network.features, stages, "stages 1-4", network.features)
        if family in ("vit", "scalemae"):
            network.reset_classifier(0)
            return self._blocks(network, network.blocks, network.forward_features)
        if family == "croma":
            return self._croma(network)
        known = AnyBands.of(family, reading.bands)
        if family == "dofa":
            network.head = nn.Identity()
            return self._blocks(network, network.blocks, lambda x: network.forward_features(x, list(known.wavelengths)))
        if family == "copernicusfm":
            unknown = float("nan")  # place, time and area: the network has tokens of its own for not knowing them
            return self._blocks(network, network.blocks, lambda x: network.forward_features(
                x, x.new_full((len(x), 4), unknown), known.wavelengths, known.widths, kernel_size=16))  # fmt: skip
        inner = network.model
        return self._blocks(inner, inner.blocks, lambda x: inner.forward_features(
            {"imgs": x, "chn_ids": x.new_tensor(known.wavelengths).repeat(len(x), 1)}))  # fmt: skip

    def _croma(self, network: Any) -> nn.Module:
        """The residual stream after a layer is what the next one's attention gets, or the last norm."""
        if self._kind == "joint":
            transformer, split = network.joint_encoder, 2
            self._call = (lambda x: network(x_sar=x[:, :split], x_optical=x[:, split:]),)
        else:
            encoder = network.s1_encoder if self._kind == "sar" else network.s2_encoder
            transformer = encoder.transformer
            self._call = (lambda x: encoder(imgs=x, attn_bias=network.attn_bias),)
        layers, which = transformer.layers, spread(len(transformer.layers))
        after = [layers[i + 1][0] if i + 1 < len(layers) else transformer.norm_out for i in which]
        self._seen.watch(after, before=True)
        self.how = f"{self._kind} encoder, layers {', '.join(map(str, which))} of {len(layers)}, from 0"
        return nn.ModuleList([network])

    def _blocks(self, network: nn.Module, blocks: Sequence[nn.Module], run: Callable[[Tensor], object]) -> nn.Module:
        which = spread(len(blocks))
        how = f"blocks {', '.join(map(str, which))} of {len(blocks)}, from 0"
        return self._watch(network, [blocks[i] for i in which], how, run)

    def _watch(
        self, network: nn.Module, modules: Sequence[nn.Module], how: str, run: Callable[[Tensor], object]
    ) -> nn.Module:
        self._seen.watch(modules)
        self.how, self._call = how, (run,)
        return nn.ModuleList([network])


def _network(entry: Entry, options: dict[str, Any], *, random: bool) -> Any:
    """Random, or by TorchGeo's own builder from a file that was read safely."""
    from torchgeo.models import get_model

    meta = entry.weights.meta
    if not random:
        given = SimpleNamespace(meta=meta, get_state_dict=lambda **_: _state(entry.weights))
        try:
            return get_model(entry.builder, weights=given, **options)
        except (AssertionError, RuntimeError, KeyError) as e:
            raise ConfigError(
                f"{entry.weights}: the file is not of this network: {' '.join(str(e).split())[:300]}"
            ) from None
    if entry.family in ("resnet", "vit"):
        options = {**options, "in_chans": meta["in_chans"]} | (
            {"img_size": meta["img_size"]} if "img_size" in meta else {}
        )
    network = get_model(entry.builder, **options)
    if entry.family == "swin":  # its builders change the first convolution with the weights only
        old = network.features[0][0]
        network.features[0][0] = nn.Conv2d(meta["in_chans"], old.out_channels, old.kernel_size, old.stride)
    return network


def _state(weights: Any) -> dict[str, Any]:
    """The state dict, fetched into torch.hub's cache if need be; nothing in it is run."""
    hashed = re.search(r"-[0-9a-f]{8,}\.\w+$", weights.url) is not None  # torch.hub's own convention
    try:
        state: dict[str, Any] = torch.hub.load_state_dict_from_url(
            weights.url, map_location="cpu", progress=False, check_hash=hashed, weights_only=True
        )
    except (OSError, RuntimeError, UnpicklingError, EOFError, ValueError) as e:
        file = f"{torch.hub.get_dir()}/checkpoints/{weights.url.rsplit('/', 1)[-1]}"
        raise ConfigError(
            f"{weights} could not be had: {type(e).__name__}: {' '.join(str(e).split())[:200]}. On a machine with network "
            f"fetch {weights.url} - and put it at {file}"
        ) from None
    return state
