"""Tiny copies of published satellite data sets, in their exact layouts: names, folders, types, encodings, split files.

`MINIATURES` maps a recipe's name to the function that writes its data set. Pixels are random but plausible; chips of one
class are brighter than those of another, so that something can be learnt.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin

from eosfm.data.real_chips import EUROSAT_CLASSES

BIGEARTHNET_S2 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
EUROSAT_TIF = Path("ds/images/remote_sensing/otherDatasets/sentinel_2/tif")


def write_tif(path: Path, values: NDArray[np.generic], nodata: float | None = None, *, placed: bool = True) -> None:
    """A plain TIFF ``(c, h, w)`` without band names, as the published files are; without a place if not ``placed``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    place = {"crs": "EPSG:32632", "transform": from_origin(500_000.0, 5_400_000.0, 10.0, 10.0)} if placed else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", height=height, width=width, count=count, dtype=values.dtype, nodata=nodata,
            interleave="pixel", **place,
        ) as file:  # fmt: skip
            file.write(values)


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """A text file of ``lines``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def digital(rng: np.random.Generator, bands: int, side: int, level: int = 1000) -> NDArray[np.uint16]:
    """Sentinel-2 digital numbers ``(bands, side, side)`` about ``level``, another level for each band."""
    values = rng.normal(level, 150, (bands, side, side)) + 100 * np.arange(bands)[:, None, None]
    return values.clip(1, 10_000).astype(np.uint16)


def patchwork(rng: np.random.Generator, values: Sequence[int], side: int, cell: int = 32) -> NDArray[np.uint8]:
    """Labels ``(side, side)``: squares of ``cell`` pixels, each of one of ``values``; all of them occur."""
    n = -(-side // cell)
    coarse = rng.permutation(np.resize(np.array(values, np.uint8), n * n)).reshape(n, n)
    return np.kron(coarse, np.ones((cell, cell), np.uint8))[:side, :side]


def write_eurosat_s2(folder: Path, seed: int = 0) -> None:
    """EuroSAT, 13 bands: a chip of each class in each split, 64 x 64 pixels, uint16, and TorchGeo's two sets of lists."""
    rng = np.random.default_rng(seed)
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for c, name in enumerate(EUROSAT_CLASSES):
        for n, split in enumerate(("train", "val", "test"), start=1):
            write_tif(folder / EUROSAT_TIF / name / f"{name}_{n}.tif", digital(rng, 13, 64, 600 + 200 * c))
            lists[split].append(f"{name}_{n}.jpg")
    for split, names in lists.items():
        write_lines(folder / f"eurosat-{split}.txt", names)
        write_lines(folder / f"eurosat-spatial-{split}.txt", names)


def write_sen12ms(folder: Path, seed: int = 0) -> None:
    """SEN12MS: three training scenes and one hold-out scene of two patches, 256 x 256; radar dB, DN and IGBP layers."""
    rng = np.random.default_rng(seed)
    lists: dict[str, list[str]] = {"train": [], "test": []}
    scenes = [("ROIs1158_spring", 1, "train"), ("ROIs1868_summer", 1, "train"), ("ROIs1970_fall", 30, "train"),
              ("ROIs2017_winter", 146, "test")]  # fmt: skip
    for season, scene, split in scenes:
        for patch in ("p30", "p31"):
            igbp = patchwork(rng, (0, 1, 7, 9, 10, 12, 13, 14, 16, 17), 256)
            cover = np.stack([igbp, igbp, igbp, igbp]).astype(np.uint16)
            radar = np.stack([rng.normal(-11, 1, (256, 256)), rng.normal(-18, 1, (256, 256))]) - (igbp == 17) * 6
            optical = digital(rng, 13, 256) + 80 * igbp.astype(np.uint16)
            layers = {"s1": radar.astype(np.float32), "s2": optical, "lc": cover}
            for source, values in layers.items():
                write_tif(folder / season / f"{source}_{scene}" / f"{season}_{source}_{scene}_{patch}.tif", values)
            lists[split].append(f"{season}_s2_{scene}_{patch}.tif")
    for split, names in lists.items():
        write_lines(folder / f"{split}_list.txt", names)


def write_bigearthnet_v2(folder: Path, seed: int = 0) -> None:
    """BigEarthNet v2: eight pairs, one file a band (120, 60 and 20 pixels), and metadata.csv; see `as_published`."""
    rng = np.random.default_rng(seed)
    rows = ["patch_id,labels,split,country,s1_name,s2v1_name,contains_seasonal_snow,contains_cloud_or_shadow"]
    for i, split in enumerate(("train",) * 4 + ("validation",) * 2 + ("test",) * 2):
        s2_scene, s1_scene = "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP", "S1A_IW_GRDH_1SDV_20170613T165043"
        patch, s1 = f"{s2_scene}_26_{i}", f"{s1_scene}_33UUP_26_{i}"
        labels = [["Arable land", "Pastures"], ["Marine waters"], ["Transitional woodland, shrub", "Inland waters"]][
            i % 3
        ]
        level = (1500, 400, 900)[i % 3]
        for name in BIGEARTHNET_S2:
            side = 20 if name in ("B01", "B09") else 120 if name in ("B02", "B03", "B04", "B08") else 60
            write_tif(
                folder / "BigEarthNet-S2" / s2_scene / patch / f"{patch}_{name}.tif", digital(rng, 1, side, level)
            )
        for name, mean in (("VV", -11.0), ("VH", -18.0)):
            radar = rng.normal(mean - 4 * (level == 400), 1, (1, 120, 120)).astype(np.float32)
            write_tif(folder / "BigEarthNet-S1" / s1_scene / s1 / f"{s1}_{name}.tif", radar)
        rows.append(f'{patch},"{"|".join(labels)}",{split},Austria,{s1},{patch},False,False')
    write_lines(folder / "metadata.csv", rows)


def as_published(folder: Path) -> None:
    """Replace metadata.csv by the metadata.parquet that BigEarthNet v2 ships, whose labels are lists."""
    import pandas

    frame = pandas.read_csv(folder / "metadata.csv")
    frame["labels"] = [v.split("|") for v in frame["labels"]]
    frame.to_parquet(folder / "metadata.parquet")
    (folder / "metadata.csv").unlink()


def write_bigearthnet_v2_published(folder: Path, seed: int = 0) -> None:
    """BigEarthNet v2 exactly as it is published."""
    write_bigearthnet_v2(folder, seed)
    as_published(folder)


def write_png(path: Path, values: NDArray[np.uint8], *, colours: bool = False) -> None:
    """A PNG ``(h, w)`` of one channel, or of three equal ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.repeat(values[..., None], 3, axis=2) if colours else values).save(path)


def write_etci2021(folder: Path, seed: int = 0) -> None:
    """ETCI 2021: two training regions and one for testing, 256 x 256; radar as three equal channels, empty tiles too."""
    rng = np.random.default_rng(seed)
    scenes = {
        "train/bangladesh_20170314t115609": 5,
        "train/nebraska_20170309t002110": 3,
        "test/florence_20180510t231343": 3,
    }
    for scene, n in scenes.items():
        tiles = folder / scene / "tiles"
        for i in range(n):
            stem = f"{scene.split('/')[1]}_x-{i}_y-0"
            flood = patchwork(rng, (0, 0, 255), 256)
            water = patchwork(rng, (0, 0, 0, 255), 256)
            vv, vh = (
                (rng.normal(mean, 20, (256, 256)) - 60.0 * (flood > 0)).clip(0, 255).astype(np.uint8)
                for mean in (130, 90)
            )
            if i == n - 1:  # beyond the swath
                vv, vh, flood = np.full_like(vv, 255 * (n == 3)), np.zeros_like(vh), np.zeros_like(flood)
            write_png(tiles / "vv" / f"{stem}_vv.png", vv, colours=True)
            write_png(tiles / "vh" / f"{stem}_vh.png", vh, colours=True)
            write_png(tiles / "flood_label" / f"{stem}.png", flood)
            write_png(tiles / "water_body_label" / f"{stem}.png", water)


def write_caffe(folder: Path, seed: int = 0) -> None:
    """CaFFe: eight patches of 512 x 512 from five scenes, with zones and fronts."""
    rng = np.random.default_rng(seed)
    scenes = {
        "train": ("Crane_2002-11-09_ERS_20_2_061", "JAC_2015-12-23_TSX_6_1_005"),
        "val": ("SI_2013-08-14_TSX_7_1_125",),
        "test": ("Mapple_2011-07-18_TSX_7_1_104", "Columbia_2013-05-16_TDX_7_1_114"),
    }
    for split, names in scenes.items():
        for scene in names:
            for patch in ("_0_0_0", "_1_0_256")[: 1 if split == "test" else 2]:
                zones = patchwork(rng, (0, 64, 127, 127, 254), 512, 64)
                grey = rng.normal(60 + zones / 3.0, 15).clip(1, 255).astype(np.uint8)
                fronts = np.zeros((512, 512), np.uint8)
                fronts[:, 250:256] = 255
                data = folder / "caffe"
                write_png(
                    data / "sar_images" / split / f"{scene}_{patch}.png", np.where(zones == 0, 0, grey).astype(np.uint8)
                )
                write_png(data / "zones" / split / f"{scene}_zones_{patch}.png", zones)
                write_png(data / "fronts" / split / f"{scene}_front_{patch}.png", fronts)


def write_cloud_cover(folder: Path, seed: int = 0) -> None:
    """Cloud cover: three training locations and one for testing, two chips of 512 x 512 each, one file a band."""
    rng = np.random.default_rng(seed)
    for part, places in {"train": ("Chifunfu", "Lusaka", "Jaipur"), "test": ("Lagos",)}.items():
        rows = ["chip_id,location,datetime,cloudpath"]
        for place in places:
            for i in range(2):
                chip = f"{place[:3].lower()}{i}"
                cloud = patchwork(rng, (0, 0, 1), 512, 64)
                optical = (digital(rng, 4, 512) + np.uint16(3000) * cloud).astype(np.uint16)
                for name, band in zip(("B02", "B03", "B04", "B08"), optical, strict=True):
                    write_tif(folder / part / f"{part}_features" / chip / f"{name}.tif", band[None])
                write_tif(folder / part / f"{part}_labels" / f"{chip}.tif", cloud[None])
                rows.append(f"{chip},{place},2020-04-29T08:20:47Z,az://./{part}_features/{chip}")
        write_lines(folder / part / f"{part}_metadata.csv", rows)


KENYA_DATES = ("20190606", "20190825")
"""the second one is the clearer one"""


def write_kenya(folder: Path, seed: int = 0) -> None:
    """Kenya crop types: four tiles of 200 x 192 pixels (really 3035 x 2016), two dates, 12 bands, clouds, crops, fields."""
    rng = np.random.default_rng(seed)
    for tile in "0123":
        data = folder / "data" / tile
        crops = np.zeros((200, 192), np.uint8)
        crops[:192, :192] = patchwork(rng, (0, 1, 2, 3, 4, 5, 6, 7), 192, 24)
        write_tif(data / f"{tile}_label.tif", crops[None], placed=False)
        write_tif(
            data / f"{tile}_field_id.tif",
            np.arange(crops.size, dtype=np.int32).reshape(1, *crops.shape) // 24,
            placed=False,
        )
        for date, cloud in zip(KENYA_DATES, ((20, 101), (0, 11)), strict=True):
            for b, name in enumerate(BIGEARTHNET_S2):
                band = rng.normal(800 + 100 * b + 150.0 * crops, 60).clip(1, 10_000).astype(np.uint16)
                write_tif(data / date / f"{tile}_{name}_{date}.tif", band[None], placed=False)
            write_tif(
                data / date / f"{tile}_CLD_{date}.tif",
                rng.integers(*cloud, (1, 200, 192)).astype(np.uint8),
                placed=False,
            )
    write_lines(folder / "FieldIds.csv", ["fieldid", *map(str, range(1, 9))])


def write_oscd(folder: Path, seed: int = 0) -> None:
    """OSCD: three training cities and two for testing, 150 x 140 pixels, 13 bands of two dates each; changed squares."""
    rng = np.random.default_rng(seed)
    stem = "Onera Satellite Change Detection dataset - "
    for part, cities in {"Train": ("abudhabi", "beirut", "bercy"), "Test": ("brasilia", "montpellier")}.items():
        for city in cities:
            change = patchwork(rng, (0, 0, 0, 255), 160, 20)[:150, :140]
            ground = rng.normal(1000, 200, (150, 140))
            for date in (1, 2):
                for name in ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"):
                    seen = ground + (date == 2) * 1500.0 * (change > 0) + rng.normal(0, 50, ground.shape)
                    write_tif(folder / f"{stem}Images" / city / f"imgs_{date}_rect" / f"{name}.tif",
                              seen.clip(1, 10_000).astype(np.uint16)[None])  # fmt: skip
            write_lines(folder / f"{stem}Images" / city / "dates.txt", ["date_1: 20160301", "date_2: 20171030"])
            labels = folder / f"{stem}{part} Labels" / city / "cm"
            write_png(labels / "cm.png", change, colours=city == "bercy")
            write_tif(labels / f"{city}-cm.tif", (1 + (change > 0)).astype(np.uint8)[None])


MINIATURES: dict[str, Callable[[Path], None]] = {
    "bigearthnet": write_bigearthnet_v2_published,
    "bigearthnet-rgb": write_bigearthnet_v2_published,
    "bigearthnet-s1": write_bigearthnet_v2_published,
    "caffe": write_caffe,
    "cloud-cover": write_cloud_cover,
    "etci2021": write_etci2021,
    "eurosat-s2": write_eurosat_s2,
    "kenya-croptype": write_kenya,
    "oscd": write_oscd,
    "sen12ms-all": write_sen12ms,
    "sen12ms-rgb": write_sen12ms,
    "sen12ms-s1": write_sen12ms,
    "sen12ms-s2": write_sen12ms,
}
"""recipe name -> writer of its data set"""
