"""Recipes on real files, laid out as the full data sets are published: what a miniature gets wrong, these do not.

The real files are looked for in $EOSFM_SHARED_DATA, else in ../shared/data beside the repository. BigEarthNet v1's examples
are linked as they are, one file a band in its own resolution. BigEarthNet v2 and CaFFe are there as GEO-Bench-2 repacked
them: pixels, labels and splits are real, and what it dropped (file names, grey values of zones, coarse grids) is put back.
EuroSAT RGB is read as published by `test_recipes.py`; its multispectral files are not there.
"""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch

from eosfm.commands import train
from eosfm.data.bigearthnet import CLASSES, bigearthnet_s1, bigearthnet_s2, to_19
from eosfm.data.catalogue import open_dataset
from eosfm.data.folders import read_raster, read_rows
from eosfm.data.published.satellite_files import window_of
from eosfm.data.real_scenes import caffe
from eosfm.specialists.store import load_specialist
from miniatures.real_ones import SHARED
from miniatures.satellite import BIGEARTHNET_S2, write_png, write_tif

RECIPES = Path(__file__).parents[2] / "recipes"
COARSE = {"B01": 6, "B09": 6, **dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 2)}
"""pixels of 10 m along a pixel of the band"""
TEN_METRES = [b for b in BIGEARTHNET_S2 if b not in COARSE]
GREY = np.array((0, 64, 127, 254), np.uint8)
GLACIERS = {"Jakobshavn": "JAC", "Dinsmoor": "DBE", "Jorum": "Jorum", "Columbia": "Columbia"}
SENSORS = {"TerraSAR-X": "TSX_6_1_005", "TanDEM-X": "TDX_7_1_114"}

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")


def parts(splits):
    return splits.train, splits.validation, splits.test


def lay_out_bigearthnet(root: Path) -> None:
    """BigEarthNet v2 as published, from nine patches of version 2 and six of version 1."""
    rows, split_of = [], {}
    folder = SHARED / "geobench2_samples" / "benv2"
    for row in read_rows(folder / "samples.csv", ("tortilla:id", "tortilla:data_split", "labels", "patch_id")):
        patch = row["patch_id"]
        scene, date, tile, at = re.fullmatch(r"(S2._MSIL2A_(\w{15})_\w+_T(\w{5}))_(\d+_\d+)", patch).groups()
        s1_scene = f"S1A_IW_GRDH_1SDV_{date}"
        s1 = f"{s1_scene}_{tile}_{at}"
        for name, band in zip(BIGEARTHNET_S2, read_raster(folder / row["tortilla:id"] / "s2.tif")[0], strict=True):
            n = COARSE.get(name, 1)
            path = root / "BigEarthNet-S2" / scene / patch / f"{patch}_{name}.tif"
            write_tif(path, band[None, n // 2 :: n, n // 2 :: n].astype(np.uint16))
        for name, band in zip(("VH", "VV"), read_raster(folder / row["tortilla:id"] / "s1.tif")[0], strict=True):
            write_tif(root / "BigEarthNet-S1" / s1_scene / s1 / f"{s1}_{name}.tif", band[None])
        split_of[tile] = row["tortilla:data_split"]
        rows.append((patch, re.findall(r"'([^']+)'", row["labels"]), split_of[tile], s1))
    examples = SHARED / "bigearthnet_v1_examples"
    for source in sorted((examples / "BigEarthNet-S1-Example").iterdir()):
        facts = json.loads((source / f"{source.name}_labels_metadata.json").read_text())
        patch, labels = facts["corresponding_s2_patch"], to_19(facts["labels"], source.name)
        if labels:
            for sensor, folder in (("S1", source), ("S2", examples / "BigEarthNet-S2-Example" / patch)):
                scene = re.sub(r"_\d+_\d+$" if sensor == "S2" else r"_\w{5}_\d+_\d+$", "", folder.name)
                (root / f"BigEarthNet-{sensor}" / scene).mkdir(parents=True, exist_ok=True)
                (root / f"BigEarthNet-{sensor}" / scene / folder.name).symlink_to(folder)
            split = split_of.get(source.name.split("_")[-3], "train")  # no tile is in two splits
            rows.append((patch, list(labels), split, source.name))
    pandas.DataFrame(rows, columns=["patch_id", "labels", "split", "s1_name"]).to_parquet(root / "metadata.parquet")


def lay_out_caffe(root: Path) -> None:
    """CaFFe in TorchGeo's layout: each sample as a patch of a scene whose glacier, day and satellite are those of the sample."""
    folder = SHARED / "geobench2_samples" / "caffe"
    columns = ("tortilla:id", "tortilla:data_split", "glacier_name", "sensor", "stac:time_start")
    for i, row in enumerate(read_rows(folder / "samples.csv", columns)):
        glacier = next(short for name, short in GLACIERS.items() if row["glacier_name"].startswith(name))
        day = datetime.fromtimestamp(float(row["stac:time_start"]), UTC).date()
        scene, patch = f"{glacier}_{day}_{SENSORS[row['sensor']]}", f"_{i}_0_{256 * i}"
        split = row["tortilla:data_split"].replace("validation", "val")
        image, zones = (read_raster(folder / row["tortilla:id"] / f)[0][0] for f in ("img.tif", "mask.tif"))
        write_png(root / "caffe" / "sar_images" / split / f"{scene}_{patch}.png", image.astype(np.uint8))
        write_png(root / "caffe" / "zones" / split / f"{scene}_zones_{patch}.png", GREY[zones.astype(int)])


LAYOUTS = {"bigearthnet": lay_out_bigearthnet, "caffe": lay_out_caffe}


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("real")
    for name, write in LAYOUTS.items():
        write(root / name)
    return root


@pytest.mark.parametrize("name", ["bigearthnet", "bigearthnet-rgb", "bigearthnet-s1", "caffe"])
def test_a_recipe_trains_on_the_real_files(name, laid_out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = [f"data.root={laid_out / name.split('-')[0]}", "data.limit=4", "fit.epochs=1", "fit.batch_size=2"]
    outcome = train([str(RECIPES / f"{name}.yaml"), *small, *(["data.tile=128"] if name == "caffe" else [])])
    encoder, card = load_specialist(tmp_path / "zoo" / name)
    assert outcome.value.card == card and encoder.in_channels == len(card.bands)
    assert all(0 <= m.value <= 1 for m in card.metrics) and not outcome.value.warnings
    mean = dict(zip((b.name for b in card.bands), card.statistics.mean, strict=False))
    if name.startswith("bigearthnet") and "VV" in mean:
        assert -40 < mean["VH"] < mean["VV"] < 0


def test_bigearthnet_is_what_the_reader_of_the_samples_reads(laid_out):
    full = open_dataset("bigearthnet-v2", laid_out / "bigearthnet")
    assert sum(map(len, parts(full))) == 15
    for part, optical, radar in zip(
        parts(full), *(parts(f(SHARED)) for f in (bigearthnet_s2, bigearthnet_s1)), strict=True
    ):
        where = {k.split("/")[-1].split("#")[0]: i for i, k in enumerate(optical.ids)}
        assert {k.split("|")[0] for k in part.ids} == set(where)
        for i, key in enumerate(part.ids):
            x, y = part.chip(i)
            other = where[key.split("|")[0]]
            (theirs,), (labels,) = optical.batch([other])
            names = list(optical.bands.names)
            ten = [names.index(b) for b in TEN_METRES]
            assert torch.equal(x[2:][ten], theirs[ten].float())
            assert torch.equal(x[:2], radar.batch([other])[0][0][:2])
            assert torch.equal(y, labels) and len(y) == len(CLASSES)
            coarse = [c for c in range(len(names)) if c not in ten]
            bands = (x[2:][coarse].mean((1, 2)) / theirs[coarse].float().mean((1, 2))).tolist()
            assert bands == pytest.approx([1.0] * len(coarse), abs=0.1)


def test_caffe_is_what_the_reader_of_the_samples_reads(laid_out):
    full, samples = open_dataset("caffe-full", laid_out / "caffe"), caffe(SHARED, chip=512, composite=True)
    assert [len(p) for p in parts(full)] == [5, 2, 2]
    for part, theirs in zip(parts(full), parts(samples), strict=True):
        order = sorted(range(len(part)), key=lambda i: int(window_of(part.ids[i])[0].split("_")[-3]))
        for i, j in zip(order, range(len(theirs)), strict=True):
            x, y = part.chip(i)
            (other,), (labels,) = theirs.batch([j])
            assert torch.equal(x, other.float()) and torch.equal(y, labels)
