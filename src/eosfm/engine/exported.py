"""An exported folder, read back: checked against its card and its hashes, then run.

folder/model.json + model.onnx (or model.xml and model.bin) + parity.json + infer.py, which is for people and never run here
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from eosfm._version import __version__
from eosfm.bands import BandSet
from eosfm.composition import FileInfo, Reference
from eosfm.config import read_json, read_record, record, to_plain
from eosfm.contracts import MAX_CHIP, PYRAMID_STRIDES, BandError, CorruptArtifact, EosfmError, ExportError, known
from eosfm.engine.runtime import FILES, inference_hint, open_session
from eosfm.specialists.card import digest_of
from eosfm.specialists.encoder import MIN_SIZE
from eosfm.specialists.store import require_file
from eosfm.statistics import BandStatistics
from eosfm.tasks.kinds import KINDS, require_colours

CARD, PARITY, SCRIPT = "model.json", "parity.json", "infer.py"
FEATURES = "features"
MAX_CHANNELS = 65_535
"""of an output: what a GeoTIFF holds"""
NODATA = "NaN or infinity in a band is replaced by that band's mean inside the graph; outputs where the input is NaN mean nothing"


@record
class Output:
    """One output of the graph."""

    name: str
    channels: int
    stride: int | None
    """input pixels per output pixel along an axis; None: one vector per image"""


@record
class ExportCard:
    """``model.json``: what goes in, what comes out, and from what it was made."""

    schema_version: Literal[1] = 1
    eosfm_version: str = __version__
    name: str
    format: Literal["onnx", "openvino"]
    precision: Literal["fp32", "bf16", "int8"]
    inference_precision: str
    """OpenVINO's hint, which must be given: it computes in bf16 by itself on CPUs that can"""
    bands: tuple[str, ...]
    """channel by channel: SENSOR:BAND@UNIT"""
    statistics: BandStatistics | None = None
    """of the data the model was adapted to, in those units"""
    nodata: str = NODATA
    chip_size: int
    """the side of the images it was trained on; features depend on it"""
    multiple_of: Literal[32] = 32
    """height and width of an input must be multiples of it; the batch is free"""
    kind: str
    """of the task, or "features" """
    classes: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    outputs: tuple[Output, ...]
    specialists: tuple[Reference, ...]
    source_sha256: str
    """`eosfm.tasks.model.fingerprint` of the source"""
    versions: dict[str, str]
    files: tuple[FileInfo, ...]
    digest: str = ""

    def __post_init__(self) -> None:
        if tuple(f.file for f in self.files) != FILES[self.format]:
            raise ValueError(f"files {[f.file for f in self.files]}; expected {list(FILES[self.format])}")
        if self.inference_precision != inference_hint(self.precision):
            raise ValueError(f"inference_precision {self.inference_precision!r} for {self.precision}")
        if self.kind not in (*KINDS, FEATURES):
            raise ValueError(f"kind {self.kind!r}; {known((*KINDS, FEATURES))}")
        if not MIN_SIZE <= self.chip_size <= MAX_CHIP or self.chip_size % MIN_SIZE:
            raise ValueError(f"chip_size {self.chip_size}; expected a multiple of {MIN_SIZE}, at most {MAX_CHIP}")
        if self.statistics is not None:
            self.statistics.require_channels(len(self.bands), "this export")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes {', '.join(self.classes)}: one is there twice")
        require_colours(self.colours, self.classes)
        if (self.kind == FEATURES) != (not self.classes):
            raise ValueError(f"kind {self.kind} with {len(self.classes)} classes")
        if self.kind != FEATURES and [o.channels for o in self.outputs] != [len(self.classes)]:
            raise ValueError(f"{len(self.classes)} classes, but outputs {[(o.name, o.channels) for o in self.outputs]}")
        if not self.outputs or len({o.name for o in self.outputs}) != len(self.outputs):
            raise ValueError("expected outputs, each with a name of its own")
        of_task: tuple[int | None, ...] = (None,) if self.kind in ("classification", "multilabel") else (1,)
        allowed = PYRAMID_STRIDES if self.kind == FEATURES else of_task
        for o in self.outputs:
            if not 1 <= o.channels <= MAX_CHANNELS or o.stride not in allowed:
                raise ValueError(
                    f"output {o.name}: {o.channels} channels, stride {o.stride}; expected 1 to {MAX_CHANNELS}, and of "
                    f"{self.kind} stride {' or '.join(map(str, allowed))}"
                )

    def bandset(self) -> BandSet:
        """What channel ``i`` of the input is."""
        return BandSet.parse(" + ".join(self.bands)).require_distinct()

    def sealed(self) -> ExportCard:
        """This card with its digest."""
        return dataclasses.replace(self, digest=digest_of(to_plain(self)))


class Exported:
    """An exported model, ready to run. Made by `open_export`."""

    def __init__(self, folder: Path, card: ExportCard) -> None:
        self.folder, self.card, self.bands = folder, card, card.bandset()
        self.session = open_session(folder, card.format, card.precision)
        names = tuple(o.name for o in card.outputs)
        if self.session.channels != len(self.bands) or self.session.outputs != names:
            raise CorruptArtifact(
                f"{folder}: its graph reads {self.session.channels} channels and gives {', '.join(self.session.outputs)}; "
                f"{CARD} says {len(self.bands)} channels and {', '.join(names)}. Export the model again."
            )

    @property
    def fingerprint(self) -> str:
        """Changes whenever the graph or anything on the card does."""
        return self.card.digest

    def __call__(self, x: Tensor) -> list[Tensor]:
        """The outputs for ``x`` ``(b, c, h, w)`` in the declared units; maps of classes are cut to ``(h, w)``.

        Sides that are no multiple of 32 are padded for a task by repeating the border, as `TaskModel` does.

        Raises:
            BandError: another number of channels, or (features) sides that are no multiple of 32.
            ExportError: the runtime fails.
        """
        if x.ndim != 4 or x.shape[1] != len(self.bands):
            raise BandError(f"expected (batch, {len(self.bands)}, h, w) for {self.bands}; got {tuple(x.shape)}")
        h, w = x.shape[-2:]
        down, right = -h % MIN_SIZE, -w % MIN_SIZE
        if (down or right) and self.card.kind == FEATURES:
            raise BandError(f"image size ({h}, {w}) is no multiple of {MIN_SIZE}; pad it to ({h + down}, {w + right})")
        image = np.pad(x.float().cpu().numpy(), ((0, 0), (0, 0), (0, down), (0, right)), mode="edge")
        try:
            arrays = self.session.run(image)
        except RuntimeError as e:
            raise ExportError(f"{self.folder}: the runtime failed on an input of {tuple(image.shape)}: {e}") from e
        outputs = [self._checked(o, a, image.shape) for o, a in zip(self.card.outputs, arrays, strict=True)]
        return [o[..., :h, :w] if o.ndim == 4 and self.card.kind != FEATURES else o for o in outputs]

    def _checked(self, output: Output, array: np.ndarray[Any, Any], shape: tuple[int, ...]) -> Tensor:
        """An output as a tensor; `CorruptArtifact` if it is not what the card promises of an image of ``shape``."""
        step = output.stride
        want = (shape[0], output.channels, *((side // step for side in shape[2:]) if step else ()))
        if array.shape != want or array.dtype.kind != "f":
            raise CorruptArtifact(
                f"{self.folder}: its graph gives {output.name} as {array.dtype} {array.shape} for {shape}; {CARD} promises "
                f"real numbers {want}. Export the model again."
            )
        return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def is_export(folder: Path) -> bool:
    """Whether ``folder`` looks like an exported model."""
    return (folder / CARD).exists()


def read_export_card(folder: Path) -> ExportCard:
    """The card in ``folder``, refused if it was edited, with the hash of every file of the graph checked.

    Raises:
        CorruptArtifact: the card or a file is missing, malformed or changed, or the card contradicts itself.
    """
    path = folder / CARD
    if path.is_symlink():
        raise CorruptArtifact(f"{path}: not a plain file")
    data: Any = read_json(path, error=CorruptArtifact)
    try:
        card = read_record(ExportCard, data, str(path), error=CorruptArtifact)
    except CorruptArtifact as e:
        who = str(data.get("eosfm_version"))[:40] if isinstance(data, dict) else "?"
        raise CorruptArtifact(
            f"{e}\nIt says eosfm {who} wrote it, this is {__version__}. Export the model again."
        ) from None
    if card.digest != digest_of(data):
        raise CorruptArtifact(
            f"{path}: was edited after eosfm wrote it, so the model may be fed with wrong bands or units. Export it again."
        )
    try:
        card.bandset()
    except EosfmError as e:
        raise CorruptArtifact(f"{path}: bands: {e}") from None
    for info in card.files:
        require_file(folder / info.file, info.sha256, info.bytes)
    return card


def open_export(folder: Path) -> Exported:
    """The exported model in ``folder``, after every check of `read_export_card`; its runtime must be installed."""
    return Exported(folder, read_export_card(folder))
