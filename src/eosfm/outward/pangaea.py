"""PANGAEA (pangaea-bench, Marsocci et al. 2024): an encoder for its decoders, and the YAML that names it.

The class has the face of ``pangaea.encoders.base.Encoder`` without deriving from it. PANGAEA hands over one map per
modality, standardised by the data set's mean and std in its default preprocessing; `EosEncoder` undoes that with the very
numbers of the data set's configuration, which the YAML passes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from logging import Logger
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from eosfm.bands import BandSet
from eosfm.contracts import PYRAMID_STRIDES, BandError, ConfigError, Pyramid
from eosfm.files import atomic_file, require_place
from eosfm.outward.guest import Guest, Normalised, assemble, require_members, require_normalised
from eosfm.outward.inputs import named_bands, statistics_of


class EosEncoder(nn.Module):
    """An ensemble as a PANGAEA encoder of one date: a pyramid of all views side by side, which the decoder's own 1x1 fuse.

    PANGAEA runs frozen encoders without gradients, so no fusion could be trained in here; a stored ensemble with a trained
    fusion keeps it. Several dates go one by one through its multi-temporal decoders.

    Args:
        zoo: a zoo, a stored ensemble, or a list of specialists' folders.
        inputs: modality -> "SENSOR@UNIT" ({"optical": "hls-s30@reflectance", "sar": "sentinel-1@db"}).
        input_bands: modality -> band names, in order: the data set's own, so that nothing is padded.
        data_mean: modality -> mean per band, of the data set's configuration.
        data_std: modality -> std per band.
        normalised: "mean-std" with PANGAEA's default preprocessing, "none" with one without normalisation.
        input_size: side of the images; PANGAEA crops to it.
        rename: a band's name in PANGAEA -> what it is.
        specialists: names, where not all of the zoo.
        leave_out: names of specialists that saw the data set.
        check_values: whether the first batch must look like its units.

    Raises:
        ConfigError: modalities or numbers that do not fit each other, or an ``input_size`` that is no multiple of 32.
    """

    def __init__(
        self,
        *,
        zoo: str | Sequence[str],
        inputs: Mapping[str, str],
        input_bands: Mapping[str, Sequence[str]],
        data_mean: Mapping[str, Sequence[float]],
        data_std: Mapping[str, Sequence[float]],
        normalised: Normalised,
        input_size: int,
        rename: Mapping[str, str] | None = None,
        specialists: Sequence[str] | None = None,
        leave_out: Sequence[str] = (),
        check_values: bool = True,
    ) -> None:
        super().__init__()
        if not input_bands.keys() == data_mean.keys() == data_std.keys():
            raise ConfigError(
                f"modalities {', '.join(input_bands)} with means of {', '.join(data_mean)} and stds of {', '.join(data_std)}; "
                "take all three from the data set's configuration"
            )
        if input_size < 1 or input_size % PYRAMID_STRIDES[-1]:
            raise ConfigError(
                f"input_size {input_size}: expected a multiple of {PYRAMID_STRIDES[-1]}; PANGAEA crops to it"
            )
        self.channels = {m: len(names) for m, names in input_bands.items()}
        bands = named_bands([(m, name) for m, names in input_bands.items() for name in names], inputs, rename)
        for m, n in self.channels.items():
            if len(data_mean[m]) != n or len(data_std[m]) != n:
                raise ConfigError(f"{m}: {n} bands, {len(data_mean[m])} means and {len(data_std[m])} stds")
        statistics = statistics_of(
            [v for m in input_bands for v in data_mean[m]],
            [v for m in input_bands for v in data_std[m]],
            "data_mean, data_std",
        )
        ensemble = assemble(zoo, bands, statistics, specialists=specialists, leave_out=leave_out)
        self.guest = Guest(ensemble, normalised, statistics, check_values=check_values)
        self.model_name, self.encoder_weights, self.download_url = "eosfm", str(zoo), ""
        self.input_bands = {m: list(names) for m, names in input_bands.items()}
        self.input_size, self.output_layers = input_size, list(range(len(PYRAMID_STRIDES)))
        self.output_dim = ensemble.out_channels
        self.embed_dim = self.output_dim[-1]
        self.multi_temporal = self.multi_temporal_output = False
        self.pyramid_output = True

    def forward(self, x: Mapping[str, Tensor]) -> Pyramid:
        """Four maps at strides 4/8/16/32 of ``x``: modality -> ``(b, c, h, w)``, or ``(b, c, 1, h, w)``.

        Raises:
            BandError: a modality is missing, has other channels than declared, or several dates.
            UnitError: the first batch does not look like its units once the normalisation is undone.
        """
        parts = []
        for modality, channels in self.channels.items():
            if modality not in x:
                raise BandError(f"no {modality!r} among {', '.join(x)}; expected {', '.join(self.channels)}")
            part = x[modality]
            if part.ndim == 5 and part.shape[2] == 1:
                part = part[:, :, 0]
            if part.ndim != 4 or part.shape[1] != channels:
                raise BandError(
                    f"{modality}: expected (batch, {channels}, h, w) of one date, got {tuple(part.shape)}; for several dates "
                    "use PANGAEA's multi-temporal decoders, which call the encoder once per date"
                )
            parts.append(part)
        maps: Pyramid = self.guest(torch.cat(parts, 1))
        return maps

    def load_encoder_weights(self, logger: Logger) -> None:
        """`Encoder.load_encoder_weights`: they are there, checked by hash; says who takes part and who is left out."""
        ensemble = self.guest.ensemble
        logger.info("eosfm: %s", ", ".join(v.name for v in ensemble.views))
        for skipped in ensemble.skipped:
            logger.warning("eosfm: left out: %s: %s", skipped.specialist, skipped.reason)

    def enforce_single_temporal(self) -> None:
        """`Encoder.enforce_single_temporal`: it is."""

    def freeze(self) -> None:
        """`Encoder.freeze`."""
        self.requires_grad_(False)


def encoder_config(
    zoo: Path,
    inputs: Mapping[str, str],
    *,
    normalised: str = "mean-std",
    rename: Mapping[str, str] | None = None,
    leave_out: Sequence[str] = (),
) -> str:
    """The text of ``configs/encoder/eosfm.yaml``; bands, mean and std follow whichever data set the run names.

    Raises:
        EosfmError: no zoo, an unknown specialist, a declaration that does not parse, or a normalisation without a name.

    >>> print(encoder_config(Path("/zoo"), {"optical": "hls-s30@reflectance"}).splitlines()[1])
    _target_: eosfm.outward.pangaea.EosEncoder
    """
    require_normalised(normalised)
    require_members(zoo, None, leave_out)
    for text in inputs.values():
        sensor, at, unit = text.partition("@")
        BandSet.parse(f"{sensor}:all{at}{unit}")
    from_data = {k: f"${{dataset.{v}}}" for k, v in (
        ("input_bands", "bands"), ("data_mean", "data_mean"), ("data_std", "data_std"), ("input_size", "img_size"))}  # fmt: skip
    config: dict[str, object] = {
        "_target_": f"{EosEncoder.__module__}.{EosEncoder.__name__}",
        "_convert_": "all",
        "zoo": str(zoo.resolve()),
        "inputs": dict(inputs),
        "normalised": normalised,
        **from_data,
    }
    if rename:
        config["rename"] = dict(rename)
    if leave_out:
        config["leave_out"] = list(leave_out)
    fitting = "seg_default or another with NormalizeMeanStd" if normalised == "mean-std" else "seg_wo_norm"
    return f"# for preprocessing={fitting}\n" + yaml.safe_dump(config, sort_keys=False)


def write_encoder_config(text: str, path: Path) -> Path:
    """Write `encoder_config`; `OutputError` if ``path`` exists."""
    require_place(path)
    with atomic_file(path) as tmp:
        tmp.write_text(text, encoding="utf-8")
    return path
