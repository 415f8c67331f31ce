"""Pictures pick channels by name, survive missing values, and class colours stay apart."""

import itertools

import numpy as np
import pytest

from eosfm.bands import BandSet
from eosfm.contracts import BandError, DataError
from eosfm.report.pictures import (
    NODATA,
    Kind,
    agreement_map,
    best_picture,
    class_colours,
    colour_map,
    false_colour,
    picture,
    possible_pictures,
    sar_composite,
    true_colour,
)

HLS = BandSet.parse("hls:all@reflectance")
S1 = BandSet.parse("sentinel-1:VV,VH@db")
GREY = tuple(int(NODATA[i : i + 2], 16) for i in (1, 3, 5))


def image(bands: BandSet, *lead: int, seed: int = 0, size: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.02, 0.5, (*lead, len(bands), size, size)).astype(np.float32)


@pytest.mark.parametrize("kind", ["true-colour", "false-colour", "sar", "grey"])
def test_permuting_the_bands_gives_the_same_picture(kind: Kind) -> None:
    bands = BandSet.parse(
        "sentinel-2-l2a:B02,B03,B04,B8A,B12@reflectance + sentinel-1:VV,VH@db + hls:RED,GREEN,BLUE@reflectance"
    )
    x = image(bands)
    order = [9, 4, 2, 6, 0, 8, 5, 1, 7, 3]
    shuffled = BandSet(tuple(bands[i] for i in order))
    a, b = picture(x, bands, kind), picture(x[order], shuffled, kind)
    assert a.label == b.label
    np.testing.assert_array_equal(a.pixels, b.pixels)


def test_red_green_and_blue_come_from_the_bands_of_those_names() -> None:
    for i, name in enumerate(("RED", "GREEN", "BLUE")):
        x = np.full((len(HLS), 10, 10), 0.1, np.float32)
        x[HLS.names.index(name), :, :5] = 0.3
        rgb = true_colour(x, HLS)
        others = [c for c in range(3) if c != i]
        assert (rgb[:, :5, i] > rgb[:, 5:, i]).all()
        assert (rgb[:, :5, others] == rgb[:, 5:, others]).all()


def test_labels_say_which_bands() -> None:
    s2 = BandSet.parse("sentinel-2-l2a:B02,B03,B04,B8A,B12@reflectance")
    assert best_picture(image(s2), s2).label == "true colour (B04, B03, B02)"
    assert picture(image(s2), s2, "false-colour").label == "SWIR2–NIR–red (B12, B8A, B04)"
    assert best_picture(image(S1), S1).label == "SAR (VV, VH, VV−VH in dB)"
    dem = BandSet.parse("elevation:elevation@metre")
    assert best_picture(image(dem), dem).label == "elevation (elevation), grey"
    assert possible_pictures(HLS) == ["true-colour", "false-colour", "grey"]
    spot = BandSet.parse("spot-5:all@reflectance")  # no blue
    assert possible_pictures(spot) == ["false-colour", "grey"]


def test_the_unit_does_not_change_the_picture() -> None:
    x = image(HLS)
    dn = BandSet.parse("hls:all@dn-1e4")
    close = np.abs(true_colour(x, HLS).astype(int) - true_colour(x * 10000, dn).astype(int))
    assert close.max() <= 1
    power = BandSet.parse("sentinel-1:VV,VH@linear")
    db = 10 * np.log10(image(S1))
    assert np.abs(sar_composite(db, S1).astype(int) - sar_composite(10 ** (db / 10), power).astype(int)).max() <= 1


def test_eight_bit_pictures_are_shown_as_they_are() -> None:
    rgb = BandSet.parse("rgb:R,G,B@8bit")
    x = np.random.default_rng(0).integers(0, 256, (3, 9, 9))
    np.testing.assert_array_equal(true_colour(x, rgb), x.transpose(1, 2, 0))


def test_one_stretch_for_all_chips_of_a_call() -> None:
    x = image(HLS, 2)
    x[1] *= 0.3
    together = true_colour(x, HLS)
    assert together.shape == (2, 12, 12, 3)
    assert together[1].mean() < 0.7 * together[0].mean()  # the darker chip looks darker


def test_clouds_do_not_leave_the_ground_black() -> None:
    x = image(HLS, size=40) * 0.2
    clear = true_colour(x, HLS)[20:].mean()
    x[:, :8] = 0.9  # a fifth of the chip
    assert true_colour(x, HLS)[20:].mean() > 0.4 * clear


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_without_a_value_are_grey_and_change_nothing_else(value: float) -> None:
    x = image(HLS, size=40)
    broken = x.copy()
    broken[2, 0, 0] = value
    rgb = true_colour(broken, HLS)
    assert tuple(rgb[0, 0]) == GREY
    assert np.abs(rgb[1:].astype(int) - true_colour(x, HLS)[1:].astype(int)).max() <= 2
    assert x[2, 0, 0] != value  # the input is left alone


@pytest.mark.filterwarnings("error")
def test_an_image_without_any_value_is_grey() -> None:
    for bands, kind in ((HLS, "true-colour"), (S1, "sar"), (HLS, "grey")):
        rgb = picture(np.full((len(bands), 8, 8), np.nan, np.float32), bands, kind).pixels  # type: ignore[arg-type]
        assert (rgb == GREY).all()
    flat = true_colour(np.full((6, 8, 8), 0.2, np.float32), HLS)
    assert flat.std() == 0


def test_impossible_pictures_say_what_is_missing() -> None:
    with pytest.raises(BandError, match="needs red, green, blue"):
        true_colour(image(S1), S1)
    with pytest.raises(BandError, match="swir22 or swir16"):
        false_colour(image(S1), S1)
    with pytest.raises(BandError, match="VV and VH"):
        sar_composite(image(HLS), HLS)
    with pytest.raises(BandError, match="6 channels"):
        true_colour(np.zeros((3, 8, 8)), HLS)


def test_known_classes_get_the_colours_of_a_map() -> None:
    names = ["SeaLake", "Forest", "Pasture", "AnnualCrop", "unburnt", "burnt", "dense urban"]
    water, forest, grass, crop, unburnt, burnt, urban = (
        tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in class_colours(names)
    )
    assert water[2] == max(water) and forest[1] == max(forest) and grass[1] == max(grass)
    assert burnt[0] > 180 and burnt[0] > 2 * burnt[1]
    assert min(unburnt) > 200  # pale: the interesting class stands out
    assert sum(forest) < sum(grass) < 600 and urban[0] == max(urban) and crop[0] > crop[2]
    assert class_colours(["unburnt", "burnt"])[0] != class_colours(["burnt"])[0]


@pytest.mark.parametrize(
    "names",
    [
        ["a", "b", "c"], [f"class {i}" for i in range(30)], ["water", "flood water", "river", "lake", "sea"],
        ["forest", "water", "other", "background", "xyz"], ["", "<script>", "$x$"],
    ],
)  # fmt: skip
def test_colours_differ_and_are_the_same_every_time(names: list[str]) -> None:
    colours = class_colours(names)
    assert colours == class_colours(names)
    assert all(len(c) == 7 and c[0] == "#" for c in colours)
    assert all(a != b for a, b in itertools.combinations(colours, 2))
    assert NODATA not in colours


def test_colour_map_shows_ignored_pixels_grey_and_refuses_unknown_labels() -> None:
    labels = np.array([[0, 1], [255, 1]])
    rgb = colour_map(labels, ["#000000", "#ff8000"])
    assert rgb.tolist() == [[[0, 0, 0], [255, 128, 0]], [list(GREY), [255, 128, 0]]]
    with pytest.raises(DataError, match="labels 2 have no colour"):
        colour_map(np.array([[0, 2]]), ["#000000", "#ffffff"])
    with pytest.raises(DataError, match="-1"):
        colour_map(np.array([[-1]]), ["#000000"])


def test_agreement_map_leaves_ignored_pixels_out() -> None:
    rgb = agreement_map(np.array([[0, 1, 1]]), np.array([[0, 0, 255]]))
    assert len({tuple(p) for p in rgb[0]}) == 3
    assert tuple(rgb[0, 2]) == GREY
