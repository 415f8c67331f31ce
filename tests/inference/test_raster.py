import numpy as np
import pytest
import rasterio
import torch
from inference_fakes import RGB, WHERE
from inference_fakes import scene as random_scene
from rasterio.windows import Window

from eosfm.bands import BandSet
from eosfm.contracts import BandError, RasterError, UnitError
from eosfm.inference import raster
from eosfm.inference.raster import Georeference, Layout, RasterFile, georeference, write_cog, write_scene
from eosfm.inference.scene import SceneReader
from eosfm.statistics import BandStatistics
from helpers import full_disk

NAN = float("nan")
DN = BandSet.parse("sentinel-2-l2a:B04,B03,B02@dn-1e4")


@pytest.fixture
def tif(tmp_path):
    return tmp_path / "scène ü 東京.tif"  # spaces and non-ASCII everywhere


def plain(path, pixels, descriptions=None, **profile):
    """A GeoTIFF as other software writes it: no tag of ours."""
    profile = {"crs": WHERE.crs, "transform": WHERE.transform, **profile}
    size = dict(zip(("count", "height", "width"), pixels.shape, strict=True))
    with rasterio.open(path, "w", driver="GTiff", dtype=pixels.dtype, **size, **profile) as f:
        f.write(pixels)
        if descriptions:
            f.descriptions = descriptions


def full(reader):
    return reader.read(0, 0, reader.height, reader.width)


# ---------------------------------------------------------------- files that are not what they seem


VRT = """<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
<SourceFilename>{target}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"""


@pytest.mark.parametrize("target", ["/vsicurl/http://127.0.0.1:9/x.tif", "secret.tif", "/etc/passwd"])
def test_vrt_called_tif_is_refused_before_gdal_sees_it(tif, target, monkeypatch):
    tif.write_text(VRT.format(target=target))
    monkeypatch.setattr(rasterio, "open", lambda *a, **k: pytest.fail("reached GDAL"))
    with pytest.raises(RasterError, match=r"not a GeoTIFF: it begins with b'<VRTDataset"):
        SceneReader(tif, RGB, declared=RGB)


@pytest.mark.parametrize("suffix", [".ovr", ".msk"])
def test_vrt_beside_the_scene_is_refused(tif, suffix):
    random_scene(tif, 8, 8)
    tif.with_name(tif.name + suffix).write_text(VRT.format(target="/vsicurl/http://127.0.0.1:9/x.tif"))
    with pytest.raises(RasterError, match=rf"\{suffix} is not a GeoTIFF"):
        SceneReader(tif, RGB)


def test_side_file_of_metadata_is_not_read(tif):
    random_scene(tif, 8, 8)
    tif.with_name(tif.name + ".aux.xml").write_text(
        "<PAMDataset><PAMRasterBand band='1'><NoDataValue>0.5</NoDataValue></PAMRasterBand></PAMDataset>"
    )
    assert RasterFile(tif).nodata == (None, None, None)


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "empty"), (b"hello, I am a map", "hello"), (b"II*\0", "cannot open")]
)
def test_empty_text_and_stub_are_refused(tif, content, says):
    tif.write_bytes(content)
    with pytest.raises(RasterError, match=says) as e:
        SceneReader(tif, RGB)
    assert str(tif) in str(e.value)


@pytest.mark.parametrize("name", ["none.tif", "http://127.0.0.1:9/a.tif", "/vsicurl/http://127.0.0.1:9/a.tif", "."])
def test_missing_file_url_and_folder_are_refused(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RasterError, match="cannot open"):
        SceneReader(name, RGB)


def test_truncated_file_opens_but_fails_at_the_window_and_says_which(tif):
    random_scene(tif, 600, 600)
    whole = tif.read_bytes()
    tif.write_bytes(whole[: len(whole) * 2 // 3])
    with SceneReader(tif, RGB) as s, pytest.raises(RasterError) as e:
        s.read(512, 512, 88, 88)
    assert str(tif) in str(e.value)
    assert "rows 512..599, columns 512..599" in str(e.value)
    assert "see previous exception" not in str(e.value).lower()  # the reason itself, not a pointer to it


def test_truncated_striped_file_reads_until_the_damage(tif):
    plain(tif, np.random.default_rng(0).random((3, 300, 300), np.float32), nodata=NAN)
    with tif.open("rb+") as f:
        f.truncate(tif.stat().st_size // 3)
    with SceneReader(tif, RGB, declared=RGB) as s, pytest.raises(RasterError, match=r"rows 290\.\.299.*fetch it again"):
        s.read(290, 0, 10, 300)


def test_corrupt_block_is_an_error_with_its_window(tif):
    random_scene(tif, 300, 300)
    data = bytearray(tif.read_bytes())
    with rasterio.open(tif) as f:
        at = int(f.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    data[at : at + 64] = bytes(64)
    tif.write_bytes(data)
    with SceneReader(tif, RGB) as s, pytest.raises(RasterError, match=r"cannot read .* at rows 0\.\.9, columns 0\.\.9"):
        s.read(0, 0, 10, 10)


@pytest.mark.parametrize("window", [(0, 0, 9, 8), (5, 5, 4, 4), (-1, 0, 4, 4), (20, 20, 2, 2), (0, 0, 0, 3)])
def test_window_outside_is_an_error_not_a_smaller_array(tif, window):
    random_scene(tif, 8, 8)
    with SceneReader(tif, RGB) as s, pytest.raises(RasterError, match="has 8 rows and 8 columns; asked for rows"):
        s.read(*window)


def test_complex_values_are_refused(tif):
    plain(tif, np.ones((1, 8, 8), np.complex64))
    with pytest.raises(RasterError, match="complex64"):
        SceneReader(tif, RGB)


# ---------------------------------------------------------------- bands by name


def test_bands_are_found_by_name_in_any_order(tif):
    pixels = random_scene(tif, 8, 8, bands=BandSet.parse("sentinel-2-l2a:B08,B02,B03,B04@reflectance"))
    with SceneReader(tif, RGB) as s:
        assert torch.equal(full(s), torch.from_numpy(pixels[[3, 2, 1]]))


def test_products_of_one_family_share_bands(tif):
    pixels = random_scene(tif, 8, 8, bands=BandSet.parse("sentinel-2-l1c:all@reflectance"))
    with SceneReader(tif, RGB) as s:
        assert torch.equal(full(s)[0], torch.from_numpy(pixels[3]))


def test_missing_band_lists_what_the_file_has(tif):
    random_scene(tif, 8, 8)
    with pytest.raises(
        RasterError, match=r"lacks sentinel-2:B08 \(nir\).*it has sentinel-2-l2a:B04,B03,B02@reflectance"
    ):
        SceneReader(tif, BandSet.parse("sentinel-2-l2a:B04,B08@reflectance"))


@pytest.mark.parametrize(
    "declared", ["sentinel-2-l2a:B04,B03@reflectance", "sentinel-2-l2a:B04,B03,B02,B08@reflectance"]
)
def test_wrong_band_count_names_both(tif, declared):
    plain(tif, np.ones((3, 8, 8), np.float32))
    declared = BandSet.parse(declared)
    with pytest.raises(RasterError, match=rf"has 3 bands, but {len(declared)} are declared"):
        SceneReader(tif, RGB, declared=declared)


@pytest.mark.parametrize("names", [("B02", "B03", "B04"), ("blue", "green", "red"), ("B4", "B2", "B3")])
def test_descriptions_that_contradict_the_declared_order_are_an_error(tif, names):
    plain(tif, np.ones((3, 8, 8), np.float32), names)
    with pytest.raises(RasterError, match=r"band \d of .* is declared as B0\d .*describes it as"):
        SceneReader(tif, RGB, declared=RGB)


@pytest.mark.parametrize("names", [("B4", "B03", "blue"), ("Band 1", "Gray", "swath"), ("red", None, None)])
def test_descriptions_that_agree_or_say_nothing_pass(tif, names):
    plain(tif, np.ones((3, 8, 8), np.float32), names)
    SceneReader(tif, RGB, declared=RGB).close()


def test_declaration_against_our_own_tag_is_an_error(tif):
    random_scene(tif, 8, 8)
    with pytest.raises(RasterError, match=r"band 1 .* declared as .*B04@dn-1e4, but the file says .*B04@reflectance"):
        SceneReader(tif, RGB, declared=DN)


def test_undeclared_bands_and_units_are_errors(tif):
    plain(tif, np.ones((3, 8, 8), np.float32), ("B04", "B03", "B02"))
    with pytest.raises(BandError, match=r"does not say .* unit \(band descriptions: 'B04', 'B03', 'B02'\)"):
        SceneReader(tif, RGB)
    with rasterio.open(tif, "r+") as f:
        f.update_tags(EOSFM_BANDS="sentinel-2-l2a:B04,B03,B02")
    with pytest.raises(UnitError, match="no unit declared"):
        SceneReader(tif, RGB)


def test_complete_descriptions_declare_the_bands(tif):
    plain(tif, np.ones((3, 8, 8), np.float32), [f"sentinel-2-l2a:{n}@dn-1e4" for n in ("B02", "B03", "B04")])
    with SceneReader(tif, RGB) as s:
        assert s.bands == BandSet.parse("sentinel-2-l2a:B02,B03,B04@dn-1e4")


def test_duplicate_bands_are_an_error(tif):
    plain(tif, np.ones((3, 8, 8), np.float32))
    with pytest.raises(BandError, match="duplicate band sentinel-2:B04"):
        SceneReader(tif, RGB, declared=BandSet.parse("sentinel-2-l2a:B04,B04,B02@reflectance"))


# ---------------------------------------------------------------- units and validity


def test_units_are_converted_band_by_band(tif):
    bands = BandSet.parse("sentinel-2-l2a:B04@dn-1e4-offset-1000 + sentinel-1:VV@linear")
    write_scene(tif, np.array([[[3000.0]], [[0.1]]], np.float32), bands, WHERE)
    with SceneReader(tif, BandSet.parse("sentinel-1:VV@db + sentinel-2-l2a:B04@reflectance")) as s:
        assert full(s).flatten().tolist() == pytest.approx([-10.0, 0.2])


def test_impossible_conversion_is_refused_at_once(tif):
    random_scene(tif, 8, 8)
    with pytest.raises(UnitError, match="stores B04 as reflectance, which cannot be converted to the 8bit"):
        SceneReader(tif, BandSet.parse("sentinel-2-l2a:B04@8bit"))


@pytest.mark.parametrize(
    ("nodata", "dtype"), [(0, "uint16"), (-9999, "int16"), (-9999, "float32"), (NAN, "float32"), (0.1, "float32"),
                          (-3.4028234663852886e38, "float32"), (65535, "uint16")],
)  # fmt: skip
def test_nodata_makes_exactly_that_pixel_nan_in_all_channels(tif, nodata, dtype):
    pixels = np.full((3, 8, 8), 7, dtype)
    pixels[1, 2, 5] = nodata  # one band only
    plain(tif, pixels, nodata=nodata)
    with SceneReader(tif, DN, declared=DN) as s:
        x = full(s)
    assert x[:, 2, 5].isnan().all()
    assert int(x.isnan().sum()) == 3


def test_without_nodata_only_nan_and_infinity_are_invalid(tif):
    pixels = np.zeros((3, 8, 8), np.float32)
    pixels[0, 0, 0], pixels[2, 7, 7] = NAN, np.inf
    plain(tif, pixels)
    with SceneReader(tif, RGB, declared=RGB) as s:
        assert full(s).isnan().all(0).nonzero().tolist() == [[0, 0], [7, 7]]


def test_nodata_of_a_band_that_is_not_needed_does_not_matter(tif):
    pixels = np.ones((3, 8, 8), np.float32)
    pixels[2, 0, 0] = -9999
    plain(tif, pixels, nodata=-9999)
    with SceneReader(tif, BandSet.parse("sentinel-2-l2a:B03@reflectance"), declared=RGB) as s:
        assert not full(s).isnan().any()


def test_nodata_override_replaces_the_declared_value(tif):
    pixels = np.ones((3, 4, 4), np.uint16)
    pixels[:, 0, 0], pixels[:, 1, 1] = 0, 9
    plain(tif, pixels, nodata=9)
    with SceneReader(tif, DN, declared=DN, nodata=0) as s:
        assert full(s)[0].isnan().nonzero().tolist() == [[0, 0]]


@pytest.mark.parametrize("nodata", [-9999, 70000, 0.5, NAN])
def test_nodata_that_cannot_occur_is_an_error(tif, nodata):
    plain(tif, np.ones((3, 4, 4), np.uint16))
    with pytest.raises(RasterError, match=r"cannot occur in .*uint16 holds integers 0\.\.65535"):
        SceneReader(tif, DN, declared=DN, nodata=nodata)


def test_alpha_band_is_a_mask_and_not_a_channel(tif):
    pixels = np.full((4, 8, 8), 50, np.uint8)
    pixels[3] = 255
    pixels[3, 4, 4] = 0
    plain(tif, pixels, photometric="rgb", alpha="yes", nodata=0)
    rgb = BandSet.parse("rgb:R,G,B@8bit")
    with SceneReader(tif, rgb, declared=rgb) as s:
        assert full(s).isnan().all(0).nonzero().tolist() == [[4, 4]]
    four = BandSet.parse("aerial:R,G,B,N@8bit")  # near infrared that the writer mislabelled as alpha
    with SceneReader(tif, four, declared=four, nodata=77) as s:
        assert not full(s).isnan().any()


def test_internal_mask_and_nodata_both_count(tif):
    pixels = np.full((3, 8, 8), 50, np.uint16)
    pixels[0, 1, 1] = 0
    mask = np.full((8, 8), 255, np.uint8)
    mask[6, 6] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        plain(tif, pixels, nodata=0)
        with rasterio.open(tif, "r+") as f:
            f.write_mask(mask)
    with SceneReader(tif, DN, declared=DN) as s:
        assert full(s)[0].isnan().nonzero().tolist() == [[1, 1], [6, 6]]


def test_sparse_window_is_known_empty_only_if_what_gdal_invents_is_nodata(tif):
    for declared, override, empty in [
        (0, None, True),
        (None, None, False),
        (None, 0, True),
        (7, None, True),
        (7, 0, False),
    ]:
        profile = {"crs": WHERE.crs, "transform": WHERE.transform, "tiled": True, "sparse_ok": True}
        with rasterio.open(tif, "w", driver="GTiff", dtype="uint16", count=3, height=600, width=600, nodata=declared,
                           **profile) as f:  # fmt: skip
            f.write(np.ones((3, 16, 16), np.uint16), window=Window(0, 0, 16, 16))
        with SceneReader(tif, DN, declared=DN, nodata=override) as s:
            assert s.known_empty(300, 300, 200, 200) is empty
            assert not s.known_empty(0, 0, 600, 600)
            assert bool(s.read(300, 300, 200, 200).isnan().all()) is empty


# ---------------------------------------------------------------- georeferencing


def test_scene_without_a_place_is_refused_unless_allowed(tif):
    for crs, transform, lacks in [(None, None, "CRS and no transform"), (WHERE.crs, None, "no transform"),
                                  (None, WHERE.transform, "no CRS")]:  # fmt: skip
        write_scene(tif, np.ones((3, 4, 4), np.float32), RGB, Georeference(crs, transform))
        with pytest.raises(RasterError, match=f"{lacks}.*allow_no_crs"):
            SceneReader(tif, RGB)
        SceneReader(tif, RGB, allow_no_crs=True).close()


def test_rotation_survives_scaling():
    rotated = WHERE.transform * WHERE.transform.rotation(30)
    scaled = Georeference(WHERE.crs, rotated).scaled(4).transform
    assert scaled * (10, 20) == pytest.approx(rotated * (40, 80))


# ---------------------------------------------------------------- do the values look like their unit?


@pytest.mark.parametrize(
    ("bands", "low", "high", "says"),
    [
        ("sentinel-2-l2a:B04,B03@reflectance", 200, 4000, "They would fit dn-1e4"),
        ("sentinel-2-l2a:B04,B03@dn-1e4", 0.02, 0.4, "They would fit reflectance"),
        ("sentinel-2-l2a:B04,B03@dn-1e4", 1020, 4000, "dn-1e4-offset-1000"),
        ("sentinel-2-l2a:B04,B03@reflectance", 5, 250, "8bit"),
        ("sentinel-1:VV,VH@db", 0.001, 0.3, "no sampled value is below 0.*fit linear"),
        ("sentinel-1:VV,VH@linear", -25, -3, "outside 0..100.*fit db"),
        ("rgb:R,G,B@8bit", 0.0, 1.0, "fractions"),
        ("landsat-8:B4,B3@dn-landsat-c2", 0.02, 0.4, "fit reflectance"),
    ],
)
def test_wrong_unit_is_noticed(tif, bands, low, high, says):
    bands = BandSet.parse(bands)
    pixels = np.random.default_rng(0).uniform(low, high, (len(bands), 400, 300)).astype(np.float32)
    write_scene(tif, pixels, bands, WHERE, nodata=-9999)
    with SceneReader(tif, bands) as s:
        found = " ".join(s.unit_warnings())
    assert says.split(".*")[0] in found and says.split(".*")[-1] in found, found


@pytest.mark.parametrize(
    ("bands", "low", "high"),
    [
        ("sentinel-2-l2a:B04,B03@reflectance", 0.0, 0.9), ("sentinel-2-l2a:B04,B03@dn-1e4", 100, 9000),
        ("sentinel-2-l2a:B08@dn-1e4", 1100, 5000), ("sentinel-2-l2a:B04,B03@dn-1e4-offset-1000", 1020, 9000),
        ("sentinel-1:VV,VH@db", -25, 5), ("sentinel-1:VV,VH@linear", 0.001, 2), ("rgb:R,G,B@8bit", 0, 255),
        ("elevation:elevation@metre", -3, 4000), ("landsat-8:B4,B3@dn-landsat-c2", 7500, 20000),
    ],
)  # fmt: skip
def test_right_unit_is_silent(tif, bands, low, high):
    bands = BandSet.parse(bands)
    pixels = np.random.default_rng(0).uniform(low, high, (len(bands), 400, 300)).astype(np.float32)
    write_scene(tif, pixels, bands, WHERE, nodata=-9999)
    with SceneReader(tif, bands) as s:
        assert s.unit_warnings() == []


def test_zeros_without_nodata_are_noticed(tif):
    pixels = random_scene(tif, 300, 300, holes=[(slice(0, 150), slice(None))], nodata=0)
    write_scene(tif, pixels, RGB, WHERE, None)
    with SceneReader(tif, RGB) as s:
        assert "50% of the sampled pixels are 0 in every band" in s.unit_warnings()[0]
    with SceneReader(tif, RGB, nodata=0) as s:
        assert s.unit_warnings() == []


def test_nothing_valid_means_nothing_to_warn_about(tif):
    write_scene(tif, np.full((3, 8, 8), NAN, np.float32), RGB, WHERE)
    with SceneReader(tif, RGB) as s:
        assert s.unit_warnings() == []


# ---------------------------------------------------------------- writing


def layout(h=1200, w=1300, **changes):
    base = {"dtype": "uint8", "nodata": 255, "names": ("class",), "where": WHERE, "categorical": True, "tile": 400}
    return Layout(h, w, **{**base, **changes})


def pieces_of(array, step=400):
    def pieces():
        for top in range(0, array.shape[1], step):
            for left in range(0, array.shape[2], step):
                yield top, left, array[:, top : top + step, left : left + step]

    return pieces


def test_cog_is_valid_and_keeps_everything(tmp_path):
    path = tmp_path / "out é.tif"
    array = np.random.default_rng(0).integers(0, 3, (1, 1200, 1300), np.uint8)
    write_cog(
        path, layout(colours=[(1, 2, 3), (4, 5, 6), (7, 8, 9)], tags={"EOSFM_CLASSES": '["é"]'}), pieces_of(array)
    )
    with rasterio.open(path) as f:
        assert f.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert f.overviews(1) == [2, 4]
        assert np.array_equal(f.read(), array)
        assert (f.crs, f.transform, f.nodata, f.descriptions) == (WHERE.crs, WHERE.transform, 255, ("class",))
        assert f.colormap(1)[2] == (7, 8, 9, 255)
        assert f.tags()["EOSFM_CLASSES"] == '["é"]'
        half = f.read(1, out_shape=(600, 650))
    assert set(np.unique(half)) <= {0, 1, 2}  # most frequent class, never an average
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("tile", [400, 392, 1300])
def test_pieces_left_out_are_nodata(tmp_path, tile):
    array = np.random.default_rng(0).random((2, 1200, 1300), np.float32)
    path = tmp_path / "out.tif"
    some = layout(dtype="float32", nodata=NAN, names=("a", "b"), categorical=False, tile=tile)
    write_cog(path, some, lambda: list(pieces_of(array, tile)())[1:])
    with rasterio.open(path) as f:
        got = f.read()
        assert f.descriptions == ("a", "b")
    assert np.isnan(got[:, :tile, :tile]).all()
    got[:, :tile, :tile] = array[:, :tile, :tile]
    assert np.array_equal(got, array)


def test_same_pixels_give_the_same_bytes(tmp_path):
    array = np.random.default_rng(0).random((1, 1200, 1300), np.float32)
    for name in ("a.tif", "b.tif"):
        write_cog(tmp_path / name, layout(dtype="float32", nodata=NAN), pieces_of(array))
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


@pytest.mark.parametrize("limit", [1_000, 600_000, 1_400_000])
def test_full_disk_is_a_clear_error_and_leaves_nothing(tmp_path, limit):
    """The plain file is 1.56 MB: GDAL reports the first cuts itself, the last ones only by reading back."""
    array = np.random.default_rng(0).integers(0, 255, (1, 1200, 1300), np.uint8)
    with full_disk(limit), pytest.raises(RasterError, match="full"):
        write_cog(tmp_path / "out.tif", layout(), pieces_of(array))
    assert list(tmp_path.iterdir()) == []


def test_silent_damage_while_writing_is_noticed_by_reading_back(tmp_path, monkeypatch):
    """GDAL reports no error when closing a file fails (a quota, a network disk), and what is left opens."""
    real = raster.gdal_copy

    def truncating(source, path, **options):
        real(source, path, **options)
        with open(path, "rb+") as f:
            f.truncate(path.stat().st_size - 50_000)

    monkeypatch.setattr(raster, "gdal_copy", truncating)
    array = np.random.default_rng(0).integers(0, 255, (1, 1200, 1300), np.uint8)
    with pytest.raises(RasterError, match=r"read back.*Nothing was replaced"):
        write_cog(tmp_path / "out.tif", layout(), pieces_of(array))
    with pytest.raises(RasterError, match=r"does not read back as written at row 400, column 0"):
        monkeypatch.setattr(raster, "gdal_copy", real)
        once = iter([pieces_of(array)(), [(400, 0, array[:, :400, :400])]])
        write_cog(tmp_path / "out.tif", layout(), lambda: next(once))
    assert list(tmp_path.iterdir()) == []


def test_missing_folder_is_a_clear_error(tmp_path):
    with pytest.raises(RasterError, match="cannot write"):
        write_cog(tmp_path / "none" / "out.tif", layout(), pieces_of(np.zeros((1, 1200, 1300), np.uint8)))


def test_nodata_beyond_the_type_is_a_clear_error(tif):
    with pytest.raises(RasterError, match="beyond the valid range"):
        write_scene(tif, np.zeros((3, 4, 4), np.uint8), BandSet.parse("rgb:R,G,B@8bit"), WHERE, nodata=-9999)
    with pytest.raises(RasterError, match="2 channels, but 3 bands"):
        write_scene(tif, np.zeros((2, 4, 4), np.uint8), BandSet.parse("rgb:R,G,B@8bit"), WHERE)


def test_georeference_of_degrees(tif):
    where = georeference("EPSG:4326", 2.0, 48.0, 0.0001)
    write_scene(tif, np.ones((3, 4, 4), np.float32), RGB, where)
    with SceneReader(tif, RGB) as s:
        assert s.where == where


def test_a_scene_unlike_the_training_data_is_noticed(tif):
    """An undeclared offset of 1000 leaves every value plausible; only the training data tell that it is wrong."""
    bands = BandSet.parse("sentinel-2-l2a:B04,B03@dn-1e4")
    trained = BandStatistics(mean=(0.08, 0.07), std=(0.04, 0.04))
    wanted = BandSet.parse("sentinel-2-l2a:B03,B04@reflectance")
    for offset, expected in ((0, False), (1000, True)):
        values = np.random.default_rng(0).integers(100, 1500, (2, 64, 64)) + offset
        write_scene(tif, values.astype(np.uint16), bands, WHERE, nodata=0)
        with SceneReader(tif, wanted) as s:
            found = s.unit_warnings(trained)
        assert bool(found) is expected
        assert not expected or ("2 of 2 band means" in found[-1] and "trained on 0.08" in found[-1])
