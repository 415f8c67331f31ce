"""Bands: a name means one measurement of one sensor, or it is an error that lists what it could be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eosfm.bands import SENSORS, Band, BandSet, Modality, sensor_named
from eosfm.contracts import BandError, UnitError
from eosfm.units import Quantity, Unit

EVERY_CHANNEL = [(s.name, c) for s in SENSORS.values() for c in s.channels]


@pytest.mark.parametrize(
    ("sensor", "name", "canonical", "common"),
    [
        ("sentinel-2-l2a", "B4", "B04", "red"),
        ("sentinel-2-l2a", "b04", "B04", "red"),
        ("sentinel-2-l2a", "red", "B04", "red"),
        ("sentinel-2-l2a", "B8", "B08", "nir"),
        ("sentinel-2-l2a", "nir", "B08", "nir"),
        ("sentinel-2-l2a", "B8A", "B8A", "nir08"),
        ("sentinel-2-l2a", "B08A", "B8A", "nir08"),
        ("sentinel-2-l2a", "swir1", "B11", "swir16"),
        ("sentinel-2-l1c", "cirrus", "B10", "cirrus"),
        ("landsat-5", "B4", "B4", "nir08"),  # near infrared on the Thematic Mapper ...
        ("landsat-7", "B4", "B4", "nir08"),
        ("landsat-8", "B4", "B4", "red"),  # ... red on OLI
        ("landsat-9", "SR_B4", "B4", "red"),
        ("landsat-5", "red", "B3", "red"),
        ("landsat-5", "SR_B7", "B7", "swir22"),
        ("landsat-8", "nir", "B5", "nir08"),
        ("hls", "nir", "NIR_NARROW", "nir08"),
        ("hls", "SWIR 1", "SWIR_1", "swir16"),
        ("hls-l30", "B05", "NIR_NARROW", "nir08"),
        ("hls-l30", "B5", "NIR_NARROW", "nir08"),
        ("hls-s30", "B8A", "NIR_NARROW", "nir08"),
        ("hls-s30", "B11", "SWIR_1", "swir16"),
        ("naip", "NIR", "N", "nir"),
        ("spot-6-7", "B0", "blue", "blue"),
        ("spot-5", "XS1", "green", "green"),
        ("planetscope-4b", "B1", "blue", "blue"),
        ("planetscope-8b", "B1", "coastal_blue", "coastal"),
        ("worldview-3", "B7", "nir1", "nir"),
        ("sentinel-1", "vv", "VV", "vv"),
        ("elevation", "DSM", "elevation", "elevation"),
    ],
)
def test_alias(sensor: str, name: str, canonical: str, common: str):
    channel = sensor_named(sensor).resolve(name)
    assert (channel.name, channel.common) == (canonical, common)


@pytest.mark.parametrize(("sensor", "channel"), EVERY_CHANNEL, ids=lambda v: getattr(v, "name", v))
def test_every_name_and_alias_leads_to_its_channel_or_is_ambiguous(sensor: str, channel):
    s = sensor_named(sensor)
    assert s.resolve(channel.name) is channel
    assert s.resolve(channel.name.lower()) is channel
    for alias in (channel.common, *channel.aliases):
        try:
            assert s.resolve(alias) is channel, alias
        except BandError as e:
            assert "ambiguous" in str(e)
            assert channel.name in str(e)


@pytest.mark.parametrize("sensor", list(SENSORS.values()), ids=lambda s: s.name)
def test_a_sensor_names_each_channel_once(sensor):
    assert len({c.name.lower() for c in sensor.channels}) == len(sensor.channels)
    assert len({c.common for c in sensor.channels}) == len(sensor.channels)  # rules look channels up by common name


def test_ambiguous_band_lists_the_candidates():
    with pytest.raises(BandError, match=r"ambiguous.*B05.*B06.*B07"):
        sensor_named("sentinel-2-l2a").resolve("rededge")


def test_unknown_band_lists_the_known_and_guesses_what_was_meant():
    with pytest.raises(BandError, match=r"unknown band 'B13'.*known:.*B04 \(red, 665 nm\)"):
        Band.of("sentinel-2-l2a", "B13", "reflectance")
    with pytest.raises(BandError, match=r"did you mean NIR_NARROW"):
        Band.of("hls", "nir_narow", "reflectance")


@pytest.mark.parametrize(
    ("sensor", "band"), [("sentinel-2-l2a", "B10"), ("landsat-5", "B6"), ("hls", "B05"), ("rgb", "nir"), ("rgb", "")]
)
def test_a_band_the_product_does_not_have_is_never_replaced(sensor: str, band: str):
    with pytest.raises(BandError, match="unknown band"):
        Band.of(sensor, band, SENSORS[sensor].units[0])


@pytest.mark.parametrize("family", ["sentinel-2", "landsat", "planetscope", "spot", "landsat-oli"])
def test_a_family_is_ambiguous_and_lists_its_products(family: str):
    with pytest.raises(BandError, match=r"ambiguous; say which product: .*,"):
        sensor_named(family)


def test_unknown_sensor_lists_the_known():
    with pytest.raises(BandError, match=r"unknown sensor 'modis'; known: .*sentinel-1"):
        sensor_named("modis")


def test_sensor_names_forgive_case_and_underscores():
    assert sensor_named(" Sentinel_2_L2A ").name == "sentinel-2-l2a"


@pytest.mark.parametrize(("sensor", "channel"), EVERY_CHANNEL, ids=lambda v: getattr(v, "name", v))
def test_wavelength_is_none_where_there_is_none_and_nanometres_elsewhere(sensor: str, channel):
    if SENSORS[sensor].modality is not Modality.OPTICAL or sensor == "rgb":
        assert channel.wavelength_nm is None
    else:
        assert 400 < channel.wavelength_nm < 2600


def test_products_of_a_family_share_keys_and_others_do_not():
    assert Band.of("sentinel-2-l1c", "red", "dn-1e4").key == Band.of("sentinel-2-l2a", "B04", "reflectance").key
    assert Band.of("hls-l30", "B05", "dn-1e4").key == Band.of("hls-s30", "B8A", "dn-1e4").key
    assert Band.of("landsat-5", "B4", "dn-landsat-c2").key != Band.of("landsat-8", "B4", "dn-landsat-c2").key
    assert Band.of("landsat-5", "B4", "dn-landsat-c2").key != Band.of("landsat-7", "B4", "dn-landsat-c2").key
    assert Band.of("sar", "VV", "db").key != Band.of("sentinel-1", "VV", "db").key


@pytest.mark.parametrize(
    ("modality", "allowed"),
    [
        (Modality.OPTICAL, {Quantity.REFLECTANCE, Quantity.BRIGHTNESS, Quantity.COUNTS}),
        (Modality.SAR, {Quantity.BACKSCATTER, Quantity.BRIGHTNESS}),
        (Modality.ELEVATION, {Quantity.HEIGHT, Quantity.BRIGHTNESS}),
    ],
)
def test_units_are_refused_per_modality(modality: Modality, allowed: set[Quantity]):
    for sensor in SENSORS.values():
        if sensor.modality is modality:
            name = sensor.channels[0].name
            for unit in Unit:
                if unit.quantity in allowed:
                    assert Band.of(sensor.name, name, unit).unit is unit
                else:
                    with pytest.raises(UnitError, match="makes no sense"):
                        Band.of(sensor.name, name, unit)


@st.composite
def band_sets(draw) -> BandSet:
    bands: list[Band] = []
    for _ in range(draw(st.integers(1, 4))):
        sensor = draw(st.sampled_from(list(SENSORS.values())))
        unit = draw(st.sampled_from(sensor.units))
        for c in draw(st.lists(st.sampled_from(sensor.channels), min_size=1, max_size=5)):
            bands.append(Band.of(sensor.name, c.name, unit))
    return BandSet(tuple(bands))


@given(band_sets())
def test_the_text_form_parses_back(bands: BandSet):
    assert BandSet.parse(str(bands)) == bands
    assert str(BandSet.parse(str(bands))) == str(bands)


@given(band_sets(), st.randoms(use_true_random=False))
def test_the_text_form_forgives_spaces_and_case(bands: BandSet, random):
    text = "".join(c + " " * random.randrange(3) if c in ":,@+" else c for c in str(bands))
    assert BandSet.parse(f"  {text.upper()} ") == bands


def test_all_is_every_band_in_file_order():
    bands = BandSet.parse("sentinel-2-l2a:all@dn-1e4")
    assert bands.names == ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
    assert len(BandSet.parse("sentinel-2-l1c:ALL@dn-1e4")) == 13


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("", BandError, "SENSOR:BAND,BAND@UNIT"),
        ("sentinel-1", BandError, "SENSOR:BAND"),
        ("sentinel-1:@db", BandError, "cannot read"),
        ("sentinel-1: @db", BandError, "unknown band ''"),
        ("sentinel-1:VV,@db", BandError, "unknown band ''"),
        ("sentinel-1:VV@db@db", BandError, "cannot read"),
        ("sentinel-1:VV@db +", BandError, "cannot read"),
        ("sentinel-1:VV;VH@db", BandError, "cannot read"),
        ("sentinel-1:VV", UnitError, "append @UNIT; known: 8bit, db, linear"),
        ("sentinel-1:VV,VH@db + sentinel-2-l2a:B04", UnitError, "no unit declared"),
        ("sentinel-1:VV@reflectance", UnitError, "makes no sense"),
        ("sentinel-1:VV@decibel", UnitError, "unknown unit"),
        ("sentinel-2:B04@reflectance", BandError, "ambiguous"),
        ("sentinel-2-l2a:3@reflectance", BandError, "unknown band '3'"),
        ("sentinel-2-l2a:all,B01@reflectance", BandError, "unknown band 'all'"),
    ],
)
def test_text_that_does_not_parse(text: str, error: type[Exception], says: str):
    with pytest.raises(error, match=says):
        BandSet.parse(text)


def test_an_empty_band_set_is_refused():
    with pytest.raises(BandError, match="at least one"):
        BandSet(())


@pytest.mark.parametrize(
    "text",
    [
        "sentinel-1:VV,VH,VH@db",
        "sentinel-2-l1c:B04@dn-1e4 + sentinel-2-l2a:red@reflectance",  # one measurement in two products
        "hls-l30:B05@dn-1e4 + hls-s30:B8A@dn-1e4",
    ],
)
def test_an_input_with_one_measurement_twice_is_refused(text: str):
    with pytest.raises(BandError, match="duplicate band"):
        BandSet.parse(text).require_distinct()


def test_distinct_bands_pass():
    bands = BandSet.parse("landsat-5:B4@dn-landsat-c2 + landsat-8:B4@dn-landsat-c2 + sentinel-1:VV@db + sar-x:VV@db")
    assert bands.require_distinct() is bands


def test_index_of_finds_a_band_by_measurement():
    bands = BandSet.parse("sentinel-1:VH,VV@db + sentinel-2-l2a:B04@reflectance")
    assert bands.index_of(("sentinel-2", "B04")) == 2
    assert bands.index_of(("sentinel-1", "VV")) == 1
    assert bands.index_of(("sar", "VV")) is None
