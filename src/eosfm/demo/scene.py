"""The demo's scene: a GeoTIFF with known truth, mapped by the adapted ensemble through the same code as `eosfm predict`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosfm.bands import BandSet
from eosfm.data import synthetic
from eosfm.inference.predict import SceneReport, predict_scene
from eosfm.inference.raster import RasterFile, georeference, write_scene
from eosfm.inference.scene import SceneReader
from eosfm.report.pictures import class_colours
from eosfm.tasks.scene import SceneTaskModel
from eosfm.tasks.stored import load_task_model

SIDE_NODATA = 48
"""a corner of the synthetic scene without data, to show that nodata in is nodata out"""


@dataclass(frozen=True)
class Mapped:
    """A mapped scene for the report."""

    image: NDArray[np.float32]
    """``(c, h, w)`` in ``bands``; NaN where nodata"""
    bands: BandSet
    truth: NDArray[Any]
    """255 where unknown"""
    prediction: NDArray[np.uint8]
    classes: tuple[str, ...]
    pixel_m: float | None
    report: SceneReport
    where: str


def map_scene(model: Path, folder: Path, *, data: Path | None, seed: int, size: int) -> Mapped:
    """Write the scene to ``folder/scene.tif``, map it to ``folder/map.tif``, and read both back for pictures.

    Args:
        model: folder of the task model.
        folder: for the files.
        data: None draws a synthetic scene; otherwise Sen1Floods11's chip is stacked from its files.
        seed: of the synthetic scene.
        size: side of the synthetic scene in pixels.
    """
    loaded, card = load_task_model(model)
    bands: BandSet = loaded.encoder.bands
    folder.mkdir(parents=True, exist_ok=True)
    source, target = folder / "scene.tif", folder / "map.tif"
    if data is None:
        image, truth, _ = synthetic.make_scene(bands, size=size, seed=seed + 99, task=model.name)
        image[:, :SIDE_NODATA, :SIDE_NODATA] = np.nan
        where = georeference("EPSG:32631", 500_000.0, 4_800_000.0, 10.0)
        write_scene(source, image, bands, where, nodata=float("nan"))
        pixel, place = 10.0, f"synthetic scene of {size} x {size} pixels"
    else:
        from eosfm.data.real_scenes import flood_scene

        image, truth, place_at = flood_scene(data)
        write_scene(source, image, bands, place_at, nodata=float("nan"))
        pixel, place = 10.0, "Sen1Floods11, Spain_7370579 (training, validation and test stripes lie inside this chip)"
    colours = [(int(c[1:3], 16), int(c[3:5], 16), int(c[5:], 16)) for c in class_colours(card.task.classes)]
    report = predict_scene(
        SceneTaskModel(loaded, card.weights.sha256), source, target, overwrite=True, colours=colours, progress=False
    )  # fmt: skip
    with SceneReader(source, bands) as scene:
        shown = scene.read(0, 0, scene.height, scene.width).numpy()
    result = RasterFile(target)
    try:
        prediction = result.read(0, 0, result.height, result.width, [0])[0]
    finally:
        result.close()
    return Mapped(shown, bands, truth, prediction, card.task.classes, pixel, report, place)
