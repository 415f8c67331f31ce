"""Synthetic worlds: reproducible, physically plausible, and neither trivial nor hopeless."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest

from eosfm.bands import SENSORS, BandSet
from eosfm.contracts import BandError, DataError
from eosfm.data.landscape import CLIMATES
from eosfm.data.sensing import LOOKS, NOISE_FLOOR_DB
from eosfm.data.spectra import ANCHORS_NM, CURVES, MATERIALS, Cover, reflectance_at
from eosfm.data.synthetic import IGNORE, TASKS, World, label, make_chips, make_scene, make_world, observe
from eosfm.units import Unit

HLS = BandSet.parse("hls:all@reflectance")
SPECIALIST_TASKS = [t for t in TASKS.values() if not t.downstream]


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    """Worlds of every climate without fire or clouds."""
    return [make_world(128, seed, climate=c) for c in CLIMATES for seed in range(4)]


@pytest.fixture(scope="module")
def burnt() -> list[World]:
    return [make_world(128, seed, burns=True) for seed in range(12)]


def median_of(worlds, spec, where):
    """Median of each band over the pixels ``where(world)`` of all worlds."""
    bands = BandSet.parse(spec)
    return np.median(np.concatenate([observe(w, bands)[:, where(w)] for w in worlds], axis=1), axis=1)


def arrays_of(world):
    return {k: v for k, v in vars(world).items() if isinstance(v, np.ndarray)}


# Reproducibility


def test_same_arguments_give_the_same_bytes():
    a, b = (make_chips("burn-scars", HLS, 9, seed=5) for _ in range(2))
    assert a.images.tobytes() == b.images.tobytes()
    assert a.labels.tobytes() == b.labels.tobytes()


def test_another_process_gives_the_same_bytes():
    code = (
        "import zlib; from eosfm.bands import BandSet; from eosfm.data.synthetic import make_chips;"
        "c = make_chips('burn-scars', BandSet.parse('hls:all@reflectance'), 2, size=32, seed=5);"
        "print(zlib.crc32(c.images.tobytes()))"
    )
    here = zlib.crc32(make_chips("burn-scars", HLS, 2, size=32, seed=5).images.tobytes())
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(there.stdout) == here


def test_a_band_does_not_depend_on_its_neighbours():
    world = make_world(64, 3, burns=True, clouds=True)
    together = observe(world, BandSet.parse("hls:all@reflectance + sentinel-1:VV,VH@db"))
    for i, alone in enumerate(["hls:BLUE@reflectance", "sentinel-1:VH@db"]):
        assert np.array_equal(observe(world, BandSet.parse(alone))[0], together[[0, 7][i]])


def test_another_overpass_differs_only_by_noise():
    world = make_world(64, 3)
    a, b = observe(world, HLS, seed=0), observe(world, HLS, seed=1)
    assert 0 < np.abs(a - b).mean() < 0.01


def test_fire_and_clouds_come_on_top_of_the_same_ground():
    plain, hit = make_world(96, 1), make_world(96, 1, burns=True, clouds=True)
    for name in ("cover", "height", "parcel", "density", "light"):
        assert np.array_equal(getattr(plain, name), getattr(hit, name))
    assert plain.severity.max() == plain.cloud.max() == plain.shadow.max() == 0
    assert any(make_world(96, s, burns=True).severity.max() > 0.5 for s in range(3))


def test_seeds_give_other_worlds_and_splits_share_none():
    train, test = (make_chips("water", HLS, 8, size=32, seed=s) for s in (1, 2))
    assert not set(train.seeds) & set(test.seeds)
    assert len(set(train.seeds)) == 2  # four chips to a world
    assert not np.array_equal(train.images, test.images)


# Shapes, units and labels


@pytest.mark.parametrize("sensor", list(SENSORS.values()), ids=lambda s: s.name)
def test_every_band_of_every_sensor_is_observable_in_every_unit(sensor):
    world = make_world((40, 56), 11, burns=True, clouds=True)
    for unit in set(sensor.units) - {Unit.DN}:  # counts of a detector are of no reflectance
        bands = BandSet.parse(f"{sensor.name}:all@{unit}")
        image = observe(world, bands)
        assert image.shape == (len(bands), 40, 56)
        assert image.dtype == np.float32
        low, high = unit.plausible
        inside = (image >= low) & (image <= high)
        # Digital numbers near zero are dark water in shadow; the range is for most pixels, not for all.
        assert inside.mean() > (0.98 if "cirrus" not in bands.commons else 0.7)


def test_digital_numbers_are_rounded_reflectance():
    world = make_world(48, 2)
    rho, dn, offset, landsat = (
        observe(world, BandSet.parse(f"{s}@{u}"))
        for s, u in [("sentinel-2-l2a:all", Unit.REFLECTANCE), ("sentinel-2-l2a:all", Unit.DN_1E4),
                     ("sentinel-2-l2a:all", Unit.DN_1E4_OFFSET), ("sentinel-2-l2a:all", Unit.DN_LANDSAT_C2)]
    )  # fmt: skip
    assert np.abs(dn - rho * 1e4).max() <= 0.51
    assert np.array_equal(dn, np.rint(dn))
    assert np.array_equal(offset, dn + 1000)
    assert np.abs(landsat * 2.75e-5 - 0.2 - rho).max() < 2e-5


def test_db_and_linear_are_the_same_power():
    world = make_world(48, 2)
    db, linear = (observe(world, BandSet.parse(f"sentinel-1:all@{u}")) for u in ("db", "linear"))
    assert np.allclose(linear, 10 ** (db / 10), rtol=1e-4)


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda t: t.name)
def test_labels_are_what_the_task_declares(task):
    chips = make_chips(task.name, HLS, 24, size=32, seed=4)
    y, k = chips.labels, len(task.classes)
    if task.kind == "regression":
        assert y.shape == (24, 32, 32)
        assert y.dtype == np.float32
        assert np.nanmin(y) >= 0
        assert np.nanmax(y) <= 1 + 1e-5
        return
    assert y.dtype == np.int64
    assert y.shape == {"segmentation": (24, 32, 32), "classification": (24,), "multilabel": (24, k)}[task.kind]
    assert set(np.unique(y)) <= set(range(2 if task.kind == "multilabel" else k)) | {IGNORE}


def test_specialists_never_see_what_the_downstream_tasks_ask():
    assert {t.name for t in TASKS.values() if t.downstream} == {"burn-scars", "cloud-cover"}
    for task in SPECIALIST_TASKS:
        assert not task.burns
        assert not task.clouds


def test_materials_fill_every_pixel_and_fields_stay_in_range(worlds, burnt):
    for w in [*worlds, *burnt]:
        assert np.allclose(w.material.sum(axis=0), 1, atol=1e-4)
        assert w.material.min() >= 0
        for name, array in arrays_of(w).items():
            assert np.isfinite(array).all(), name
            assert array.dtype in (np.float32, np.int64), name
        for name in ("moisture", "density", "severity", "cloud", "shadow"):
            assert 0 <= getattr(w, name).min() <= getattr(w, name).max() <= 1, name


def test_a_crop_answers_as_the_whole_does():
    world = make_world(64, 9)
    assert np.array_equal(label(world.crop(16, 8, 32), "land-cover"), label(world, "land-cover")[16:48, 8:40])


# Physics


def test_curves_are_reflectances():
    assert all(len(c) == len(ANCHORS_NM) and 0 <= min(c) <= max(c) < 1 for c in CURVES.values())
    assert reflectance_at(5000.0)[MATERIALS.index("char")] == np.float32(CURVES["char"][-1])


def test_optical_signatures(worlds):
    spec = "sentinel-2-l2a:B03,B04,B08,B11@reflectance"
    forest = median_of(worlds, spec, lambda w: w.cover == Cover.FOREST)
    water = median_of(worlds, spec, lambda w: w.cover == Cover.WATER)
    soil = median_of(worlds, spec, lambda w: w.cover == Cover.SOIL)
    snow = median_of([make_world(96, s, climate="boreal") for s in range(16)], spec, lambda w: w.cover == Cover.SNOW)
    assert (forest[2] - forest[1]) / (forest[2] + forest[1]) > 0.5
    assert water[2] < 0.1
    assert water[0] > water[2]
    assert soil[3] > soil[2] > soil[1] > soil[0]
    assert snow[0] > 0.5
    assert snow[3] < 0.25


def test_burnt_vegetation_loses_near_infrared_and_gains_short_wave(burnt):
    spec = "hls:NIR_NARROW,SWIR_2@reflectance"
    n, s = median_of(burnt, spec, lambda w: w.severity > 0.6)
    hn, hs = median_of(burnt, spec, lambda w: (w.severity == 0) & (w.cover == Cover.FOREST))
    assert (n - s) / (n + s) < (hn - hs) / (hn + hs) - 0.3
    assert n < hn
    assert s > hs


def test_radar_signatures(worlds):
    water, urban, forest, wetland, soil = (
        median_of(worlds, "sentinel-1:VV,VH@db", lambda w, c=c: w.cover == c)
        for c in (Cover.WATER, Cover.URBAN, Cover.FOREST, Cover.WETLAND, Cover.SOIL)
    )
    assert water[0] < soil[0] < urban[0]
    assert water[0] < urban[0] - 6
    assert forest[1] > soil[1] + 3
    assert wetland[0] > forest[0]


def test_speckle_of_a_uniform_target():
    world = make_world(128, 0)
    flat = dataclasses.replace(
        world,
        cover=np.full_like(world.cover, Cover.SOIL),
        material=np.full_like(world.material, 1 / len(MATERIALS)),
        height=np.zeros_like(world.height),
        moisture=np.full_like(world.moisture, 0.5),
        roughness=np.zeros_like(world.roughness),
    )
    for sensor, looks in LOOKS.items():
        power = observe(flat, BandSet.parse(f"{sensor}:VV@linear"))[0]
        assert power.std() / power.mean() == pytest.approx(looks**-0.5, rel=0.05)
        assert power.mean() > 10 ** (NOISE_FLOOR_DB / 10)


def test_radar_sees_through_clouds_and_optics_do_not():
    seed = next(s for s in range(20) if make_world(64, s, clouds=True).cloud.mean() > 0.1)
    clear, cloudy = make_world(64, seed), make_world(64, seed, clouds=True)
    radar = BandSet.parse("sentinel-1:VV@db")
    assert np.array_equal(observe(clear, radar), observe(cloudy, radar))
    thick, blue = cloudy.cloud > 0.9, BandSet.parse("hls:BLUE@reflectance")
    assert observe(cloudy, blue)[0][thick].mean() > observe(clear, blue)[0][thick].mean() + 0.3


def test_haze_brightens_the_blue_of_top_of_atmosphere_products(worlds):
    top, surface = (
        median_of(worlds, f"sentinel-2-{p}:B02,B12@reflectance", lambda w: w.cover == Cover.FOREST)
        for p in ("l1c", "l2a")
    )
    assert top[0] > surface[0] + 0.02
    assert top[1] == pytest.approx(surface[1], abs=0.01)


# Difficulty


def miou(predicted, truth):
    valid = truth != IGNORE
    p, y = predicted[valid], truth[valid]
    return np.mean([((p == k) & (y == k)).sum() / ((p == k) | (y == k)).sum() for k in (0, 1)])


def test_no_single_index_solves_burn_scars():
    chips = make_chips("burn-scars", HLS, 120, seed=1)
    red, nir, swir1, swir2 = (chips.images[:, i, ::2, ::2] for i in (2, 3, 4, 5))
    indices = {
        "NBR": (nir - swir2) / (nir + swir2),
        "NDVI": (nir - red) / (nir + red),
        "NDMI": (nir - swir1) / (nir + swir1),
        "NIR": nir,
    }
    truth = chips.labels[:, ::2, ::2]
    constant = miou(np.zeros_like(truth), truth)
    best = {
        name: max(miou((x < t).astype(np.int64), truth) for t in np.quantile(x, np.linspace(0.02, 0.6, 24)))
        for name, x in indices.items()
    }
    assert 0.3 < constant < 0.46
    assert constant + 0.03 < best["NBR"]
    assert max(best.values()) < 0.65
    assert 0.08 < (truth == 1).mean() < 0.35


@pytest.mark.parametrize("task", [t for t in TASKS.values() if t.kind == "segmentation"], ids=lambda t: t.name)
def test_every_class_occurs(task):
    y = make_chips(task.name, HLS, 100, size=32, seed=1).labels
    shares = np.bincount(y[y != IGNORE], minlength=len(task.classes)) / (y != IGNORE).sum()
    assert shares.min() > 0.02
    assert shares.max() < 0.95


def test_chips_are_quick():
    begin = time.process_time()
    make_chips("burn-scars", HLS, 100, seed=8)
    assert time.process_time() - begin < 2.0  # 400 in under 4 s on an idle core, with room for a busy one


# Scenes and errors


def test_a_scene_is_one_image_with_its_truth():
    image, truth, world = make_scene(HLS, size=(96, 128), seed=3)
    assert image.shape == (6, 96, 128)
    assert np.array_equal(truth, label(world, "burn-scars"))
    assert world.shape == (96, 128)


def test_mistakes_are_named():
    with pytest.raises(DataError, match="burn-scars"):
        make_chips("burn-scar", HLS, 4)
    with pytest.raises(DataError, match="temperate"):
        make_world(64, 0, climate="tropical-ish")
    with pytest.raises(DataError, match="seed"):
        make_world(64, -1)
    with pytest.raises(DataError, match="16 by 16"):
        make_world(8, 0)
    with pytest.raises(DataError, match="n >= 1"):
        make_chips("water", HLS, 0)
    with pytest.raises(BandError):
        observe(make_world(16, 0), BandSet.parse("sentinel-2:B04@reflectance"))
