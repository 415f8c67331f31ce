"""Which named baselines there are, and what each reads: the table of ``eosfm bench models`` and of docs/baselines.md."""

from __future__ import annotations

from dataclasses import dataclass

from eosfm.bands import BandSet
from eosfm.benchmark.readings import Reading
from eosfm.contracts import BandError, MissingExtra

TIMM = (
    "resnet18.a1_in1k", "resnet50.a1_in1k", "convnextv2_atto.fcmae", "convnextv2_base.fcmae", "convnext_large.fb_in22k",
    "swin_tiny_patch4_window7_224.ms_in1k", "vit_base_patch16_224.mae", "vit_small_patch14_dinov2.lvd142m",
    "vit_small_patch16_dinov3.lvd1689m", "vit_large_patch16_dinov3.sat493m",
)  # fmt: skip
"""some of more than a thousand; two of GEO-Bench-2's and those of torchgeo-bench's findings among them"""
EVERYTHING = BandSet.parse("sentinel-1:VV,VH@db + sentinel-2-l2a:all@dn-1e4")
"""what networks of any bands are shown, to say what they could read"""


@dataclass(frozen=True)
class Listed:
    """One named baseline, as far as it can be told without building it."""

    name: str
    bands: str
    normalisation: str
    unreadable: str = ""
    """why no data here can feed it"""


def listing() -> tuple[list[Listed], list[str]]:
    """All baselines of the installed libraries; and what is not installed, with the repair."""
    from eosfm.benchmark.named import terratorch_models, timm_models, torchgeo_models
    from eosfm.specialists.encoder import published_input

    out = [_listed(f"timm:{n}", [timm_models.reading_of(published_input(n))]) for n in TIMM]
    missing = []
    try:
        for label, entry in torchgeo_models.entries().items():
            try:
                out.append(_listed(f"torchgeo:{label}", torchgeo_models.readings(entry, EVERYTHING)))
            except BandError as e:
                out.append(Listed(f"torchgeo:{label}", "", "", " ".join(str(e).split("; known")[0].split())))
    except MissingExtra as e:
        missing.append(str(e))
    try:
        for model in terratorch_models.entries():
            out.append(_listed(f"terratorch:{model}", terratorch_models.readings(model, EVERYTHING)))
    except MissingExtra as e:
        missing.append(str(e))
    return out, missing


def _listed(name: str, readings: list[Reading]) -> Listed:
    first = readings[0]
    if first.own == "always":
        how = "the data's own mean and std" + (f"; {first.note}" if first.spread != 1 else "")
    elif set(first.mean) == {0.0}:
        how = f"divided by {' or '.join(f'{s:g}' for s in dict.fromkeys(first.std))}"
        how = "raw values" if set(first.std) == {1.0} else how
    else:
        how = "z-score of its own mean and std"
    how += "; other units: the data's own" if first.own == "other units" else ""
    bands = " or ".join(str(r.bands) for r in readings)
    anything = first.own == "always" and first.bands[0].key in {b.key for b in EVERYTHING} and not first.kind
    return Listed(name, "any that it can be told of, by wavelength" if anything else bands, how)
