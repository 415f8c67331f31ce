"""Maps side by side without a copy: only where they really are neighbours, in order, in one tensor."""

from __future__ import annotations

import pytest
import torch

from eosfm.fusion.fuse import side_by_side

WHOLE = torch.randn(3, 12, 4, 5, generator=torch.Generator().manual_seed(0))
CASES = {
    "neighbours": [WHOLE[:, :4], WHOLE[:, 4:6], WHOLE[:, 6:12]],
    "one": [WHOLE[:, 2:5]],
    "wrong order": [WHOLE[:, 4:8], WHOLE[:, :4]],
    "a gap": [WHOLE[:, :4], WHOLE[:, 5:8]],
    "the same twice": [WHOLE[:, :4], WHOLE[:, :4]],
    "other rows": [WHOLE[:2, :4], WHOLE[1:, 4:8]],
    "turned": [WHOLE[:, :4], WHOLE[:, 4:8].flip(-1)],
    "another tensor": [WHOLE[:, :4], WHOLE.clone()[:, 4:8]],
    "channels last": list(WHOLE.contiguous(memory_format=torch.channels_last).split(4, 1)),
    "trained": [WHOLE[:, :4].clone().requires_grad_(), WHOLE[:, 4:8]],
}


@pytest.mark.parametrize("name", CASES)
def test_always_what_cat_gives(name: str):
    together = side_by_side(CASES[name])
    assert torch.equal(together, torch.cat(CASES[name], 1))
    copied = together.data_ptr() != CASES[name][0].data_ptr()
    assert copied == (name not in ("neighbours", "one", "channels last"))
