"""Import backbones of other architectures that others trained, as specialists: any of timm's that gives a pyramid.

    import_backbone(Path("resnet18_sentinel2_all_moco.pth"), "resnet18", Description(...), Path("zoo"))
    import_backbone("timm:resnet18.a1_in1k", "", Description(...), Path("zoo"))

TorchGeo's ResNets and ViTs are timm's; TerraTorch and Lightning put a prefix before the names. The user describes bands, unit and
statistics. Every tensor of the pyramid must be there in its shape; what lies outside it (a classifier) is listed; a file that
holds more of the same network (a ResNet-34 for a ResNet-18) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from eosfm.contracts import PYRAMID_STRIDES, CardError, ConfigError, ZooError
from eosfm.files import require_place, sha256_file
from eosfm.specialists.backbone import encoder_of, loaded, plan_pyramid, stages, weights
from eosfm.specialists.encoder import published_tensors
from eosfm.specialists.foreign import read_content, require_plain, state_of
from eosfm.specialists.store import save_specialist
from eosfm.specialists.upstream import Description, Imported, card_of, require_finite

TABLES = ("num_batches_tracked", "attn_mask", "relative_position_index", "relative_coords_table")
"""counters, and tables that timm computes itself: older files hold them too"""


def import_backbone(
    source: Path | str,
    architecture: str,
    own: Description,
    zoo: Path,
    *,
    prefix: str | None = None,
    resample: bool = False,
    overwrite: bool = False,
) -> Imported:
    """Store the backbone in ``source`` in ``zoo``. All is checked before anything is written.

    Args:
        source: a file of safetensors or `torch.save` with a state dict, or "timm:NAME" for weights that timm publishes.
        architecture: as timm calls it: "resnet18". Ignored for "timm:NAME", which says it.
        own: describes the encoder; ``chip_size`` is also the image size that position tables are for.
        zoo: folder of specialists; made where it is missing.
        prefix: where the backbone lies in a file that holds several.
        resample: make four levels of a network with a single stride.
        overwrite: replace a specialist of this name.

    Raises:
        ConfigError: an architecture that timm does not have or that gives no pyramid, or a negative std.
        CorruptArtifact: a malformed or hostile file; nothing in it is run.
        CardError: tensors that are missing, of another shape, not finite, or of a larger network.
        ZooError: several backbones and no ``prefix``.
        OutputError: a specialist of that name exists.
    """
    require_place(zoo / own.name, overwrite=overwrite)
    statistics, signs = own.standardisation()
    if -1.0 in signs:
        raise ConfigError(
            f"{own.name}: a negative std can be folded into ConvNeXtV2-Atto only; negate that channel of the first "
            "convolution's weights in the file, and give the std without its sign"
        )
    if isinstance(source, str):
        architecture = source.removeprefix("timm:").partition(".")[0]
    pyramid = plan_pyramid(architecture, len(own.bandset()), own.chip_size, resample=resample)
    card = replace(card_of(own, statistics, ""), architecture=architecture, pyramid=pyramid)
    if isinstance(source, str):
        where, tensors = f"timm {source.removeprefix('timm:')}", _from_timm(source.removeprefix("timm:"))
    else:
        where = f"{source.name} (sha256 {sha256_file(source)[:16]})" if source.is_file() else source.name
        tensors = state_of(source, read_content(source))
    with torch.device("meta"):
        body = encoder_of(card).body
        wanted, strides = weights(body), [stages(body)[i][0] for i in pyramid.levels]
    mine, left = select(tensors, wanted, architecture, where, prefix)
    whose = f"{own.name} ({where}), described as {architecture} of {len(card.bands)} bands and {own.chip_size} pixels"
    encoder = loaded(card, mine, whose)
    require_finite(encoder, whose)
    taken = f"{architecture}: its maps {', '.join(map(str, pyramid.levels))} (from 0) at strides " + (
        f"{strides[0]}, resampled (bilinear) to {', '.join(map(str, PYRAMID_STRIDES))}, which adds no detail"
        if resample
        else ", ".join(map(str, strides))
    )
    card = replace(card, description=f"Imported from {where}. {taken}.")
    notes = (taken, *((f"left out of the file: {', '.join(left[:8])}",) if left else ()))
    return Imported(save_specialist(encoder, card, zoo, overwrite=overwrite), notes)


def _from_timm(name: str) -> dict[str, Tensor]:
    return published_tensors(name, f"{name.partition('.')[0]}.*")


def select(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], architecture: str, where: str, prefix: str | None
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors called ``wanted`` under their names, copied; and what was left out. See `import_backbone` for errors."""
    places = _places(tensors, wanted)
    whole = {p: found for p, found in places.items() if len(found) == len(wanted)}
    if prefix is not None:
        asked = prefix if not prefix or prefix.endswith(".") else prefix + "."
        if asked not in places:
            raise ZooError(f"{where}: no {architecture} at {asked!r}; there is one at: {_listed(whole)}")
        places = whole = {asked: places[asked]}
    if not places:
        some = ", ".join(repr(n[:60]) for n in list(tensors)[:3])
        raise CardError(
            f"{where}: none of its {len(tensors)} tensors ({some} ...) is called as in timm's {architecture}, whose names "
            f"are {', '.join(map(repr, list(wanted)[:3]))} ...: another architecture, or another library's"
        )
    if len({tuple(sorted(found.values())) for found in whole.values()}) > 1:
        raise ZooError(f"{where}: several {architecture}, at {_listed(whole)}; say which one: --prefix PREFIX")
    place = max(whole or places, key=lambda p: (len(places[p]), -len(p)))
    found = places[place]
    left = [n for n in tensors if n not in set(found.values())]
    parts = {_part(n, place) for n in found.values()}
    more = [n for n in left if n.startswith(place) and _part(n, place) in parts and not n.endswith(TABLES)]
    if more:
        raise CardError(
            f"{where}: {len(more)} tensors in the same parts of the network that timm's pyramid of {architecture} does not "
            f"have ({more[0][:80]!r} ...): probably a larger architecture; say which"
        )
    for name in found.values():
        require_plain(f"{where}: {name[:80]}", tensors[name])
    depth = place.count(".") + 1
    outside = {".".join(n.split(".")[:depth])[:80] for n in left if not n.endswith(TABLES)}
    return {ours: tensors[n].detach().clone().contiguous() for ours, n in found.items()}, tuple(sorted(outside))


def _places(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, dict[str, str]]:
    """Per prefix in the file, which wanted tensor is called what there."""
    ours: dict[str, str] = {}
    for name in wanted:
        for spelling in _spellings(name):
            ours.setdefault(spelling, name)
    out: dict[str, dict[str, str]] = {}
    torn = set()
    for name in tensors:
        for start in (0, *(m.end() for m in re.finditer(r"\.", name))):
            if name[start:] in ours:
                found, key = out.setdefault(name[:start], {}), ours[name[start:]]
                if key in found:
                    torn.add(name[:start])  # two spellings side by side are two networks
                found[key] = name
    return {p: found for p, found in out.items() if p not in torn}


def _spellings(name: str) -> tuple[str, ...]:
    """How a whole model calls a tensor of timm's ``features_only`` model.

    >>> _spellings("layers_0.blocks.1.norm1.weight"), _spellings("model.cls_token")
    (('layers_0.blocks.1.norm1.weight', 'layers.0.blocks.1.norm1.weight'), ('model.cls_token', 'cls_token'))
    """
    bare = name.removeprefix("model.")
    first, dot, rest = bare.partition(".")  # timm joins the names of a sequence and its members by "_"
    split = [f"{first[: m.start()]}.{first[m.end() :]}{dot}{rest}" for m in re.finditer("_", first)] if dot else []
    return tuple(dict.fromkeys((name, bare, *split)))


def _part(name: str, place: str) -> str:
    """The part of the network that a tensor of the file belongs to: "layer1" of "model.encoder.layer1.0.conv1.weight"."""
    return name[len(place) :].partition(".")[0]


def _listed(places: Mapping[str, object]) -> str:
    return ", ".join(map(repr, sorted(places))) or "none"
