"""Colour augmentation, of optical bands only: radar backscatter and elevation have no brightness that the sun could change.

Per image, with numbers drawn at random within the amounts that are asked for:

    contrast     value -> mean + (1 +- contrast) * (value - mean), around each band's own mean in this image
    brightness   reflectance -> (1 +- brightness) * reflectance, the same for all bands: sun angle, haze, gain of the camera
    band_gain    reflectance -> (1 +- band_gain) * reflectance, of each band its own: calibration, path radiance

Gains are of the physical quantity, not of standardised values: light acts on reflectance, whose zero is that of the unit (1000 in
dn-1e4-offset-1000), while zero after standardisation is the data set's mean, and a gain there would be contrast. So the result
is the same in whichever unit the image is declared. 8-bit pictures are scaled around 0; nothing is clipped.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eosfm.bands import BandSet, Modality
from eosfm.contracts import ConfigError
from eosfm.units import Quantity, Unit, affine


@dataclass(frozen=True)
class Colour:
    """How far colours may change, each as a share from 0 (not at all) to below 1."""

    brightness: float = 0.0
    contrast: float = 0.0
    band_gain: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.brightness or self.contrast or self.band_gain)


def optical_channels(bands: BandSet) -> list[int]:
    """The channels that have a colour.

    Raises:
        ConfigError: there is none.
    """
    found = [i for i, b in enumerate(bands) if b.modality is Modality.OPTICAL]
    if not found:
        raise ConfigError(
            f"brightness, contrast and band_gain change optical bands, and {bands} has none; set them to 0 (radar and elevation "
            "are measurements that no light changes)"
        )
    return found


def recoloured(x: Tensor, bands: BandSet, colour: Colour, g: torch.Generator) -> Tensor:
    """``x`` ``(b, dates * c, h, w)`` in the units of ``bands`` (``c``) with other colours; each date is an image of its own.

    Channels that are not optical, and pixels that are not finite (nodata), stay the same to the last bit.

    Raises:
        ConfigError: no optical band.
    """
    channels = optical_channels(bands)
    images = x.reshape(-1, len(bands), *x.shape[-2:]).clone()

    def around_one(amount: float, columns: int) -> Tensor:
        return 1 + amount * (2 * torch.rand(len(images), columns, 1, 1, generator=g) - 1)

    contrast, brightness = around_one(colour.contrast, 1), around_one(colour.brightness, 1)
    gain = brightness * around_one(colour.band_gain, len(channels))
    old = images[:, channels]
    valid = old.isfinite()
    count = valid.sum((2, 3), keepdim=True).clamp_min(1)
    mean = torch.where(valid, old, 0.0).sum((2, 3), keepdim=True) / count
    zero = torch.tensor([_zero(bands[i].unit) for i in channels]).view(1, -1, 1, 1)
    new = zero + gain * (mean + contrast * (old - mean) - zero)
    images[:, channels] = torch.where(valid, new, old)
    return images.view_as(x)


def _zero(unit: Unit) -> float:
    """What ``unit`` stores where nothing is reflected."""
    if unit.quantity is not Quantity.REFLECTANCE:
        return 0.0
    step = affine(Unit.REFLECTANCE, unit)
    assert step is not None  # all units of reflectance are affine
    return step[1]
