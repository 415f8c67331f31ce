"""What every room agrees on: the pyramid, the encoder protocol and the error classes (one root: `EosfmError`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

Pyramid: TypeAlias = "list[Tensor]"
"""Feature maps ``(b, c, h, w)``, fine to coarse; for ConvNeXtV2-Atto strides 4/8/16/32, channels 40/80/160/320."""

PYRAMID_CHANNELS: tuple[int, ...] = (40, 80, 160, 320)
PYRAMID_STRIDES: tuple[int, ...] = (4, 8, 16, 32)
MAX_CHIP = 8192
"""side of the largest image that is shown to a model at once; more than that is a slip, and would ask for terabytes"""


class Encoder(Protocol):
    """What decoders, benchmarks and TerraTorch rely on: `out_channels` and a list of NCHW maps."""

    @property
    def out_channels(self) -> list[int]: ...

    def __call__(self, x: Tensor) -> Pyramid: ...


class EosfmError(Exception):
    """Root of all errors a user can cause or repair. The command line prints the message and exits with 2."""


class BandError(EosfmError):
    """An unknown, ambiguous, missing or duplicated band or sensor."""


class UnitError(EosfmError):
    """A unit that is not declared, unknown, impossible for the sensor, or not convertible."""


class AdaptationError(EosfmError):
    """A specialist that cannot read the declared input."""


class CardError(EosfmError):
    """A specialist card that is malformed or contradicts itself."""


class CorruptArtifact(EosfmError):
    """A file whose bytes are not what its card or manifest says."""


class ZooError(EosfmError):
    """A specialist that is not in the zoo, or two that contradict each other."""


class ConfigError(EosfmError):
    """A configuration with an unknown key, a wrong type or a contradiction."""


class DataError(EosfmError):
    """Images or labels that are missing, empty, mis-paired or outside their declared range."""


class RasterError(EosfmError):
    """A raster file that cannot be read or written as asked."""


class TrainingError(EosfmError):
    """A training run that cannot go on (a loss that is not finite, a checkpoint of another run)."""


class ExportError(EosfmError):
    """An export that a runtime cannot run, or that does not give what its source gives."""


class MissingExtra(EosfmError):
    """An optional dependency that this command needs is not installed."""


def missing_extra(what: str, extra: str) -> MissingExtra:
    """The one wording for an optional dependency that is not installed."""
    return MissingExtra(f"{what} is not installed. Install it with: pip install 'eosfm[{extra}]'")


def known(names: object) -> str:
    """``known(["a", "b"]) == "known: a, b"``: the list that every unknown-name error shows."""
    return "known: " + ", ".join(sorted(str(n) for n in names))  # type: ignore[attr-defined]
