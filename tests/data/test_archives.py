"""Hostile and damaged archives and pictures, made on the spot. Faults F8 and F9, and D7 for pictures."""

import io
import stat
import struct
import zipfile
import zlib

import numpy as np
import pytest

from eosfm.contracts import DataError
from eosfm.data.archives import ImageSource, ZipLimits, centre_crop, decode_image, decode_images, scan_zip

Image = pytest.importorskip("PIL.Image", reason="Pillow is an extra")


def picture(kind="JPEG", mode="RGB", size=(8, 6), value=100):
    out = io.BytesIO()
    Image.new(mode, size, value if mode == "L" else (value,) * len(mode)).save(out, kind)
    return out.getvalue()


def make_zip(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as z:
        for name, data in members:
            z.writestr(name, data)
    return path


def png_header(width, height):
    """A PNG that claims a size and holds no pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def test_an_honest_archive_passes_and_folders_are_no_members(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("2750/", b""), ("2750/Forest/Forest_1.jpg", b"x"), ("ü 1.jpg", b"y")])
    assert scan_zip(path) == ("2750/Forest/Forest_1.jpg", "ü 1.jpg")


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/etc/passwd", "C:/evil", "..", "a\nb", "a/..", "file:x", "//server/x"]
)
def test_names_that_lead_out_of_the_archive_are_refused(tmp_path, name):
    path = make_zip(tmp_path / "a.zip", [("fine.jpg", b"x"), (name, b"evil")])
    with pytest.raises(DataError, match=r"member .* (leads out|unprintable)"):
        ImageSource(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip"]  # nothing was unpacked


def test_backslashes_are_refused(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("a/b", b"x")])
    path.write_bytes(path.read_bytes().replace(b"a/b", b"a\\b"))
    with pytest.raises(DataError, match="leads out"):
        scan_zip(path)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(tmp_path, kind):
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = (kind | 0o777) << 16
    with pytest.raises(DataError, match=r"member 'link\.jpg' is a link or a device"):
        scan_zip(make_zip(tmp_path / "a.zip", [(link, "/etc/passwd")]))


def test_a_bomb_is_refused_by_its_ratio_before_reading(tmp_path, monkeypatch):
    path = make_zip(tmp_path / "a.zip", [("bomb.jpg", bytes(11 * 1024**2))])
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *a, **k: pytest.fail("a member was opened"))
    with pytest.raises(DataError, match=r"member 'bomb\.jpg' unpacks from .* zip bomb"):
        ImageSource(path)


def test_a_bomb_of_many_small_members_is_refused(tmp_path):
    path = make_zip(tmp_path / "a.zip", [(f"{i}.jpg", bytes(2 * 1024**2)) for i in range(6)])
    with pytest.raises(DataError, match="zip bomb"):
        scan_zip(path)


@pytest.mark.parametrize(
    ("limits", "why"),
    [(ZipLimits(members=2), "3 members; at most 2"), (ZipLimits(total_bytes=29), "30 bytes unpacked; at most 29")],
)
def test_budgets(tmp_path, limits, why):
    path = make_zip(tmp_path / "a.zip", [(f"{i}.jpg", b"0123456789") for i in range(3)])
    assert len(scan_zip(path)) == 3
    with pytest.raises(DataError, match=why):
        scan_zip(path, limits)


def test_a_table_of_contents_that_fills_the_memory_is_refused_before_it_is_parsed(tmp_path, monkeypatch):
    path = make_zip(tmp_path / "a.zip", [(f"{i}.jpg", b"") for i in range(50)])
    monkeypatch.setattr(zipfile, "ZipFile", lambda *a, **k: pytest.fail("the table of contents was parsed"))
    with pytest.raises(DataError, match="table of contents of"):
        scan_zip(path, ZipLimits(members=2))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_occurs_twice_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"'a\.jpg' occurs twice"):
        scan_zip(make_zip(tmp_path / "a.zip", [("a.jpg", b"x"), ("b.jpg", b"x"), ("a.jpg", b"y")]))


def test_encrypted_and_oddly_compressed_members_are_refused(tmp_path):
    with pytest.raises(DataError, match="compressed by method 12"):
        scan_zip(make_zip(tmp_path / "b.zip", [("a.jpg", b"x" * 99)], zipfile.ZIP_BZIP2))
    path = make_zip(tmp_path / "a.zip", [("a.jpg", b"x")])
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the table of contents
    path.write_bytes(data)
    with pytest.raises(DataError, match="is encrypted"):
        scan_zip(path)


@pytest.mark.parametrize("data", [b"", b"PK", b"no zip at all" * 99, b"PK\x05\x06", b"PK\x05\x06" + b"\xff" * 18])
def test_what_is_no_archive_is_an_error_that_names_the_file(tmp_path, data):
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.zip"):
        scan_zip(tmp_path / "a.zip")
    with pytest.raises(DataError, match="cannot be opened"):
        scan_zip(tmp_path / "absent.zip")


def test_a_truncated_archive_is_an_error(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("a.jpg", b"x" * 5000)])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="cut short"):
        scan_zip(path)


def test_a_damaged_member_is_named_and_the_others_are_read(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("good.jpg", b"good"), ("bad.jpg", b"0123456789")], zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"0123456789", b"01234X6789"))
    with ImageSource(path) as source:
        assert source.read("good.jpg") == b"good"
        with pytest.raises(DataError, match=r"'bad\.jpg' is damaged"):
            source.read("bad.jpg")
        with pytest.raises(DataError, match=r"no member 'other\.jpg' among 2"):
            source.read("other.jpg")


def test_a_folder_is_read_like_an_archive_but_links_do_not_lead_out(tmp_path):
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "1.jpg").write_bytes(b"one")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "data" / "link.jpg").symlink_to(tmp_path / "secret")
    with ImageSource(tmp_path / "data") as source:
        assert source.names == ("a/1.jpg", "link.jpg")
        assert source.read("a/1.jpg") == b"one"
        for name in ("../secret", "link.jpg"):
            with pytest.raises(DataError):
                source.read(name)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_pictures_decode_to_channels_first(kind):
    assert decode_image(picture(kind), "RGB", "here").shape == (3, 6, 8)
    grey = decode_image(picture(kind, "L"), "L", "here")
    assert (grey.shape, grey.dtype, int(grey[0, 0, 0])) == ((1, 6, 8), np.uint8, 100)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not a complete JPEG or PNG"),
        (b"some text that is no picture", "not a complete JPEG or PNG"),
        (picture(size=(64, 64))[:-200], "not a complete JPEG or PNG"),
        (picture("PNG", size=(64, 64))[:70], "not a complete JPEG or PNG"),
        (picture("GIF", "L"), "not a complete JPEG or PNG"),
        (picture("PNG", "RGBA"), "mode RGBA; expected RGB"),
        (picture(mode="L"), "mode L; expected RGB"),
        (png_header(5000, 5000), "5000 x 5000 pixels; at most"),
        (png_header(12_000, 10_000), "more than|at most"),
        (png_header(200_000, 200_000), "more than"),
        (png_header(64, 64), "not a complete JPEG or PNG"),
    ],
    ids=["empty", "text", "cut-jpeg", "cut-png", "gif", "rgba", "grey", "large", "larger", "bomb", "hollow"],
)
def test_damaged_wrong_and_huge_pictures_are_refused_by_name(data, why):
    with pytest.raises(DataError, match=rf"^zip: member 7: .*({why})"):
        decode_image(data, "RGB", "zip: member 7")


def test_many_pictures_come_in_the_order_asked_for(tmp_path):
    names = [f"{i}.png" for i in range(200)]
    path = make_zip(tmp_path / "a.zip", [(n, picture("PNG", "L", value=i)) for i, n in enumerate(names)])
    with ImageSource(path) as source:
        pixels = decode_images(source, names[::-1], "L", (6, 8))
        assert pixels[:, 0, 0, 0].tolist() == list(range(200))[::-1]
        with pytest.raises(DataError, match=r"0\.png: 6 x 8 pixels; expected 8 x 8"):
            decode_images(source, names, "L", (8, 8))


def test_one_bad_picture_among_many_is_named(tmp_path):
    members = [(f"{i}.png", picture("PNG", "L")) for i in range(150)]
    members[70] = ("70.png", b"broken")
    with (
        ImageSource(make_zip(tmp_path / "a.zip", members)) as source,
        pytest.raises(DataError, match=r": 70\.png: not a"),
    ):
        decode_images(source, [n for n, _ in members], "L", (6, 8))


def test_centre_crop_keeps_the_middle():
    x = np.arange(6 * 7, dtype=np.uint8).reshape(1, 6, 7)
    assert centre_crop(x, 2, "here").tolist() == [[[16, 17], [23, 24]]]
    with pytest.raises(DataError, match="here: 6 x 7 pixels cannot be cropped to 7 x 7"):
        centre_crop(x, 7, "here")
