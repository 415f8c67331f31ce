import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eosfm.contracts import ConfigError
from eosfm.inference.tiling import Blend, TileGrid, any_valid, default_overlap, pad_edges

SIZES = [(1, 1), (31, 31), (32, 32), (33, 33), (64, 64), (65, 65), (100, 500), (500, 40)]


def tiled(x, run, grid, block):
    """The whole result of ``run`` on ``x`` ``(c, h, w)``, block by block, as `predict_scene` does it."""
    s = grid.stride
    result = torch.full((run(x[:, :1, :1].expand(-1, s, s)).shape[0], grid.out_height, grid.out_width), float("nan"))
    spread = torch.zeros(grid.out_height, grid.out_width)
    for b in grid.blocks(block):
        blend = Blend(result.shape[0], b.out_height, b.out_width, votes=False)
        for c in grid.cols_touching(b.left, b.left + b.width):
            for r in grid.rows_touching(b.top, b.top + b.height):
                top, left = grid.rows[r], grid.cols[c]
                tile = pad_edges(x[:, top : top + grid.chip, left : left + grid.chip], grid.chip, grid.chip)
                blend.add(run(tile), grid.weight, (top - b.top) // s, (left - b.left) // s)
        here = (slice(b.out_top, b.out_top + b.out_height), slice(b.out_left, b.out_left + b.out_width))
        result[(slice(None), *here)], spread[here] = blend.mean, blend.deviation
    return result, spread


def pointwise(x):
    return torch.stack([x[0] * 3 + x[1], x[0] - x[1]])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlap", [0, 1, 8, 16, 24, 28])
def test_pointwise_model_tiled_equals_whole(size, overlap):
    x = torch.rand(2, *size, generator=torch.Generator().manual_seed(1)) * 100
    got, spread = tiled(x, pointwise, TileGrid(*size, 32, overlap), 64)
    assert torch.equal(got, pointwise(x))  # to the last bit, so also to 1e-6
    assert spread.max() == 0.0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [4, 32])
def test_cellwise_model_with_stride_equals_whole(size, stride):
    def cellwise(y):
        return torch.nn.functional.avg_pool2d(y, stride)

    x = torch.rand(2, *size)
    grid = TileGrid(*size, 64, 32, stride)
    whole = cellwise(pad_edges(x, grid.out_height * stride, grid.out_width * stride))
    got, _ = tiled(x, cellwise, grid, 64)
    assert got.shape == whole.shape == (2, -(-size[0] // stride), -(-size[1] // stride))
    assert torch.allclose(got, whole, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    h=st.integers(1, 300), w=st.integers(1, 300), stride=st.sampled_from([1, 4, 8]), chip=st.sampled_from([32, 64]),
    cells=st.integers(0, 31), target=st.integers(1, 200),
)  # fmt: skip
def test_tiles_cover_and_blocks_partition(h, w, stride, chip, cells, target):
    grid = TileGrid(h, w, chip, cells * stride % chip, stride)
    seen = torch.zeros(grid.out_height, grid.out_width, dtype=torch.int64)
    for top in grid.rows:
        for left in grid.cols:
            assert top % stride == 0 and left % stride == 0
            assert top < h and left < w
            seen[top // stride : (top + chip) // stride, left // stride : (left + chip) // stride] += 1
    assert seen.min() >= 1
    blocks = list(grid.blocks(target))
    assert len(blocks) == grid.block_count(target)
    assert [b.index for b in blocks] == list(range(len(blocks)))
    assert sum(b.out_height * b.out_width for b in blocks) == seen.numel()
    for b in blocks:
        here = seen[b.out_top : b.out_top + b.out_height, b.out_left : b.out_left + b.out_width]
        assert torch.equal(grid.coverage(b), here)
        touching = [r for r, top in enumerate(grid.rows) if top < b.top + b.height and top + chip > b.top]
        assert list(grid.rows_touching(b.top, b.top + b.height)) == touching


def test_positions_have_a_global_pitch_and_the_last_tile_is_shifted_inwards():
    grid = TileGrid(100, 32, 32, 8)
    assert grid.rows == (0, 24, 48, 68)
    assert grid.cols == (0,)
    assert TileGrid(102, 7, 32, 8, 4).rows == (0, 24, 48, 72)  # aligned to the stride, two rows past the edge


def test_the_cut_into_blocks_does_not_change_the_blend():
    def wild(y):  # depends on the whole tile, as a network with global response normalisation does
        return y * y.mean() + torch.arange(y.shape[-1])

    x = torch.rand(2, 150, 170)
    grid = TileGrid(150, 170, 32, 8)
    results = [tiled(x, wild, grid, block) for block in (24, 48, 100, 1000)]
    for result, spread in results[1:]:
        assert torch.equal(result, results[0][0])
        assert torch.equal(spread, results[0][1])
    assert results[0][1].max() > 0


def test_blend_by_hand():
    blend = Blend(1, 1, 3, votes=False)
    blend.add(torch.tensor([[[2.0, 4.0]]]), torch.tensor([[1.0, 3.0]]), 0, 0)
    blend.add(torch.tensor([[[8.0, 1.0]]]), torch.tensor([[1.0, 1.0]]), 0, 1)
    assert blend.mean.tolist() == [[[2.0, 5.0, 1.0]]]  # (3 * 4 + 8) / 4
    assert blend.deviation.tolist() == [[0.0, pytest.approx(3**0.5), 0.0]]  # (3 * 1 + 1 * 9) / 4


def test_split_marks_where_the_classes_differ():
    blend = Blend(2, 1, 2, votes=True)
    blend.add(torch.tensor([[[0.9, 0.6]], [[0.1, 0.4]]]), torch.ones(1, 2), 0, 0)
    blend.add(torch.tensor([[[0.6, 0.1]], [[0.4, 0.9]]]), torch.ones(1, 2), 0, 0)
    assert blend.split.tolist() == [[False, True]]


@pytest.mark.parametrize("overlap", [0, 8, 16, 31])
def test_weights_are_positive_symmetric_and_cross_fade(overlap):
    w = TileGrid(100, 100, 32, overlap).weight
    assert w.shape == (32, 32)
    assert w.min() > 0 and w.max() <= 1
    assert torch.equal(w, w.flip(0)) and torch.equal(w, w.flip(1)) and torch.equal(w, w.T)
    if overlap == 8:  # neighbours' ramps add up to nearly 1 across the overlap
        line = w[16]
        assert torch.allclose(line[:8] + line[24:], torch.ones(8), atol=0.02)


@pytest.mark.parametrize(
    ("chip", "overlap", "stride", "says"),
    [
        (32, 32, 1, "overlap 32"), (32, 40, 1, "never advances"), (32, -4, 1, "gaps"), (32, 6, 4, "multiple"),
        (32, 8, 5, "divide"), (0, 0, 1, "at least 1"),
    ],
)  # fmt: skip
def test_contradictions_are_config_errors(chip, overlap, stride, says):
    with pytest.raises(ConfigError, match=says):
        TileGrid(100, 100, chip, overlap, stride)


def test_block_below_one_pixel_is_refused():
    with pytest.raises(ConfigError, match="block 0"):
        TileGrid(10, 10, 32, 8).block_side(0)


@pytest.mark.parametrize("chip", [32, 64, 224, 256, 512])
@pytest.mark.parametrize("stride", [1, 4, 8, 16, 32])
def test_default_overlap_is_always_legal(chip, stride):
    overlap = default_overlap(chip, stride)
    TileGrid(1000, 1000, chip, overlap, stride)
    assert overlap <= chip // 2


def test_pad_edges_repeats_the_rim_and_keeps_nan():
    assert pad_edges(torch.tensor([[[1.0, 2.0]]]), 2, 3).tolist() == [[[1.0, 2.0, 2.0], [1.0, 2.0, 2.0]]]
    assert pad_edges(torch.tensor([[[float("nan")]]]), 32, 32).isnan().all()


def test_any_valid_needs_one_pixel():
    valid = torch.zeros(5, 5, dtype=torch.bool)
    valid[4, 4] = True
    assert any_valid(valid, 4).tolist() == [[False, False], [False, True]]
    assert any_valid(valid, 1) is valid
