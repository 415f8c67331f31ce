"""Every plot is a valid PNG of a sensible size, equal for equal input, and survives awkward input."""

import io
import math
import struct

import numpy as np
import pytest

pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")

from eosfm.bands import BandSet  # noqa: E402
from eosfm.contracts import DataError, MissingExtra  # noqa: E402
from eosfm.report import plots  # noqa: E402
from eosfm.report.plots import Panel, RouteView, ScoreBar  # noqa: E402
from eosfm.report.style import FULL, HALF, sheet, spread  # noqa: E402

NASTY = "<b>$x_1$ & \\alpha ünï"
NAN = math.nan


def bars() -> list[ScoreBar]:
    return [
        ScoreBar(NASTY, 0.4),
        ScoreBar("U-Net", 0.76, 0.74, 0.78, (0.75, 0.77)),
        ScoreBar("ensemble", 0.82, 0.81, 0.83, (0.82,), True),
    ]


def panel(seed: int = 0, h: int = 16, w: int = 16, **more: object) -> Panel:
    return Panel(np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8), **more)  # type: ignore[arg-type]


def views(n: int) -> list[RouteView]:
    return [
        RouteView(f"specialist-{i // 2}", "true-colour", ("B04", "B03", "B02"), ("specialist", "input")[i % 2])
        for i in range(n)
    ]


def route(n: int = 11) -> bytes:
    return plots.route_diagram(["B02 blue", "B03 green", "B04 red", "VV"], views(n), [("other", "no SAR " * 80)])


PLOTS = {
    "score_bars": lambda: plots.score_bars(bars(), label="mIoU"),
    "score_bars half": lambda: plots.score_bars(bars(), label="mIoU", width="half"),
    "curve": lambda: plots.curve([1, 2, 3], [0.5, 0.6, 0.65], [0.4, 0.5, 0.6], [0.6, 0.7, 0.7], xlabel="n", ylabel=NASTY,
                                 references={NASTY: 0.55, "U-Net": 0.551}, runs=[[0.5, 0.6, 0.7]]),
    "confusion": lambda: plots.confusion([[90, 10], [0, 0]], [NASTY, "burnt"]),
    "training": lambda: plots.training_curves({NASTY: [(1, 0.2), (2, 0.5)], "one": [(1, 0.3)]}),
    "gallery": lambda: plots.gallery(
        ["in", NASTY], [[panel(0), panel(1, classes=True, note="0.81")]] * 2, row_labels=["a", NASTY],
        legend={"water": "#1f6fb8", NASTY: "#ffffff"}),
    "scene": lambda: plots.scene_panels(
        {"input": panel(0, 60, 90), "map": panel(1, 60, 90)}, legend={"water": "#1f6fb8"}, metres_per_pixel=10),
    "route": route,
}  # fmt: skip


def size(data: bytes) -> tuple[int, int]:
    w, h = struct.unpack(">II", data[16:24])
    return w, h


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_a_sharp_png_on_white_without_a_date(name: str) -> None:
    data = PLOTS[name]()
    image = Image.open(io.BytesIO(data))
    image.load()
    assert image.format == "PNG" and image.mode == "RGB"
    assert not image.info, "metadata would make equal input give unequal bytes"
    w, h = image.size
    assert 600 <= w <= 2 * FULL and h >= 250
    assert image.getpixel((w - 1, 0)) == (255, 255, 255) or name == "gallery"
    assert np.asarray(image).std() > 3, "something is drawn"


@pytest.mark.parametrize("name", ["score_bars", "curve", "gallery", "route"])
def test_equal_input_gives_equal_bytes(name: str) -> None:
    assert PLOTS[name]() == PLOTS[name]()


def test_widths() -> None:
    assert size(plots.score_bars(bars(), label="x"))[0] == 2 * FULL
    assert size(plots.score_bars(bars(), label="x", width="half"))[0] == 2 * HALF


def test_the_style_is_left_as_it_was() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.confusion(np.eye(2), ["a", "b"])
    assert dict(matplotlib.rcParams) == before


def test_scores_without_interval_seeds_or_value() -> None:
    plots.score_bars([ScoreBar("a", 0.5), ScoreBar("failed", NAN)], label="mIoU")
    plots.score_bars([ScoreBar("only", 0.0)], label="mIoU")
    plots.score_bars([ScoreBar("rmse", -3.0, -4.0, -2.0)], label="gain")
    with pytest.raises(DataError, match="finite"):
        plots.score_bars([ScoreBar("a", NAN)], label="mIoU")


def test_the_highlighted_row_is_coloured_and_its_marker_visible() -> None:
    data = np.asarray(Image.open(io.BytesIO(plots.score_bars(bars(), label="mIoU"))).convert("RGB")).astype(int)
    accent = (np.abs(data - [0x0B, 0x5F, 0x8F]).sum(-1) < 12).sum()
    assert accent > 150


def test_curves_refuse_unequal_lengths_and_accept_one_point() -> None:
    with pytest.raises(DataError, match="equally many"):
        plots.curve([1, 2], [0.5], [0.4], [0.6], xlabel="n", ylabel="y")
    with pytest.raises(DataError, match="equally many"):
        plots.curve([1, 2], [0.5, 0.6], [0.4, 0.5], [0.6, 0.7], xlabel="n", ylabel="y", runs=[[0.5]])
    plots.curve([1], [0.5], [NAN], [NAN], xlabel="n", ylabel="y", references={"flat": 0.5})
    with pytest.raises(DataError):
        plots.training_curves({"empty": []})
    plots.training_curves({"nan": [(1, NAN), (2, NAN)]})


def test_confusion_of_many_classes() -> None:
    names = [f"class with a long name {i}" for i in range(20)]
    w, _ = size(plots.confusion(np.eye(20), names))
    assert w <= 2 * HALF + 2
    with pytest.raises(DataError, match="expected a matrix"):
        plots.confusion(np.eye(3), ["a", "b"])


def test_gallery_repeats_every_pixel_equally_often() -> None:
    checker = np.indices((16, 16)).sum(0) % 2 * 255
    p = Panel(np.repeat(checker[..., None], 3, -1).astype(np.uint8))
    data = np.asarray(Image.open(io.BytesIO(plots.gallery(["a", "b"], [[p, p]]))))
    assert set(np.unique(data[80:200, 20:200])) == {0, 255}, "nearest neighbour: no blending"
    row = data[120, :, 0] < 128
    edges = np.flatnonzero(np.diff(row.astype(int)))
    assert len(set(np.diff(edges)[2:12])) == 1


def test_gallery_and_scene_refuse_what_does_not_match() -> None:
    with pytest.raises(DataError, match="2 columns"):
        plots.gallery(["a", "b"], [[panel()]])
    with pytest.raises(DataError, match="row labels"):
        plots.gallery(["a"], [[panel()]], row_labels=["x", "y"])
    with pytest.raises(DataError, match="one size"):
        plots.scene_panels({"a": panel(0, 16, 16), "b": panel(0, 20, 16)})
    with pytest.raises(DataError, match="one size"):
        plots.scene_panels({})
    with pytest.raises(DataError, match="uint8"):
        Panel(np.zeros((4, 4, 3)))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="uint8"):
        Panel(np.zeros((4, 4), np.uint8))


def test_panels_of_other_shapes_and_sizes() -> None:
    plots.gallery(
        ["wide", "tall", "large", "one pixel"], [[panel(0, 8, 30), panel(0, 30, 8), panel(0, 500, 500), panel(0, 1, 1)]]
    )
    plots.scene_panels({str(i): panel(i, 90, 60, classes=True) for i in range(5)}, metres_per_pixel=0.3)


def test_a_shrunk_class_map_has_no_new_colours() -> None:
    colours = ["#000000", "#ff0000"]
    labels = np.random.default_rng(0).integers(0, 2, (1200, 1200))
    big = Panel.of_classes(labels, colours)
    data = np.asarray(Image.open(io.BytesIO(plots.scene_panels({"map": big}))))[80:400, 20:400].reshape(-1, 3)
    assert {tuple(c) for c in np.unique(data, axis=0).tolist()} == {(0, 0, 0), (255, 0, 0)}


@pytest.mark.parametrize("n", [1, 30])
def test_route_diagram_grows_with_the_views(n: int) -> None:
    w, h = size(route(n))
    assert w == 2 * FULL
    assert h > 2 * (20 * n + 150)


def test_route_diagram_with_pictures_and_many_bands() -> None:
    bands = BandSet.parse("sentinel-2-l2a:all@reflectance + sentinel-1:VV,VH@db")
    labels = plots.band_labels(bands)
    assert labels[:2] == ["B01 coastal", "B02 blue"] and labels[-1] == "VH"
    everything = RouteView("all", "identity", bands.names)
    picture = np.zeros((20, 30, 3), np.uint8)
    plots.route_diagram(labels, [everything], input_picture=picture, output_picture=picture)
    with pytest.raises(DataError, match="read B99"):
        plots.route_diagram(labels, [RouteView("a", "r", ("B99",))])
    with pytest.raises(DataError, match="at least one view"):
        plots.route_diagram(labels, [])


def test_labels_at_the_end_of_lines_do_not_overlap() -> None:
    placed = spread([50, 51, 52, 10], 15, 0, 100)
    assert sorted(placed) == sorted(placed, key=lambda p: p) and min(np.diff(sorted(placed))) >= 15 - 1e-9
    assert placed[3] == 10 and placed[0] < placed[1] < placed[2]
    assert max(spread([99, 100], 20, 0, 100)) <= 100


def test_without_matplotlib_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"eosfm\[report\]"), sheet(100, 100):
        pass
