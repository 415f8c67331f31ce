"""A part of a scene to look at: the middle of a GeoTIFF, as the model reads it."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from eosfm.contracts import ConfigError
from eosfm.ensemble import Ensemble
from eosfm.inference.scene import SceneReader
from eosfm.tasks.model import TaskModel

SIDE = 512


def middle(path: Path, model: TaskModel) -> Tensor:
    """``(1, c, h, w)`` of the middle of the scene at ``path``, at most `SIDE` pixels, in the model's bands and units.

    Raises:
        RasterError, BandError: see `SceneReader`.
        ConfigError: a scene of fewer pixels than the encoders can see.
    """
    assert isinstance(model.encoder, Ensemble)
    with SceneReader(path, model.encoder.bands, declared=None, allow_no_crs=True) as scene:
        h, w = min(SIDE, scene.height) // 32 * 32, min(SIDE, scene.width) // 32 * 32
        if not h or not w:
            raise ConfigError(f"{path}: {scene.height} x {scene.width} pixels; expected at least 32 x 32")
        return scene.read((scene.height - h) // 2, (scene.width - w) // 2, h, w)[None]
