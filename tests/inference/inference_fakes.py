"""Models and scenes with known answers, shared by the tests here and by the processes they start."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

import numpy as np
import torch

from eosfm.bands import BandSet
from eosfm.inference.raster import georeference, write_scene

torch.set_num_threads(1)

RGB = BandSet.parse("sentinel-2-l2a:B04,B03,B02@reflectance")
WHERE = georeference("EPSG:32631", 500000.0, 4800000.0, 10.0)


@dataclass
class Fake:
    """A model that looks at one pixel (stride 1) or one cell (stride > 1) at a time, so tiling must not matter."""

    bands: BandSet = RGB
    chip_size: int = 32
    stride: int = 1
    kind: str = "values"
    names: tuple[str, ...] = ("sum", "difference")
    fingerprint: str = "fake-1"
    delay: float = 0.0
    calls: list[int] = field(default_factory=list)

    def chips(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1:] == (len(self.bands), self.chip_size, self.chip_size), x.shape
        assert x.dtype == torch.float32
        assert not x.isnan().flatten(1).all(1).any(), "an all-invalid tile reached the model"
        self.calls.append(len(x))
        time.sleep(self.delay)
        return self.whole(x)

    def whole(self, x: torch.Tensor) -> torch.Tensor:
        """The answer for an image of any size that is a multiple of the stride."""
        x = x.nan_to_num(0.0)
        if self.stride > 1:
            x = torch.nn.functional.avg_pool2d(x, self.stride)
        total, difference = x.sum(1), x[:, 0] - x[:, -1]
        if self.kind == "classes":
            return torch.stack([total, difference, total * 0 + 0.5], 1).softmax(1)
        return torch.stack([total, difference], 1)


@dataclass
class Positional(Fake):
    """Answers with the position inside the tile: overlapping tiles contradict each other everywhere."""

    def whole(self, x: torch.Tensor) -> torch.Tensor:
        ramp = torch.arange(x.shape[-1], dtype=torch.float32).expand(x.shape[0], *x.shape[-2:])
        if self.kind == "classes":
            p = ramp / x.shape[-1]
            return torch.stack([p, 1 - p], 1)
        return torch.stack([ramp, ramp], 1)


def classes(**changes) -> Fake:
    return Fake(kind="classes", names=("water", "land", "other"), **changes)


def scene(path, height, width, *, bands=RGB, seed=0, holes=(), nodata=None, dtype="float32", where=WHERE):
    """A random scene, its ``(b, h, w)`` array returned; ``holes`` are slices written with the nodata value."""
    rng = np.random.default_rng(seed)
    pixels = rng.random((len(bands), height, width), dtype=np.float32)
    if dtype != "float32":
        pixels = (pixels * 9000 + 100).astype(dtype)
    for hole in holes:
        pixels[(slice(None), *hole)] = np.nan if nodata is None else nodata
    write_scene(path, pixels, bands, where, nodata)
    return pixels


if __name__ == "__main__":  # python inference_fakes.py SOURCE OUTPUT DELAY: a run to be killed
    import sys

    from eosfm.inference.predict import predict_scene

    source, output, delay = sys.argv[1], sys.argv[2], float(sys.argv[3])
    model = classes(delay=delay)
    os.write(1, b"started\n")
    predict_scene(model, source, output, overlap=8, block=48, batch_size=2, probabilities=True, progress=False)
