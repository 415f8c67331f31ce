"""Work side by side: one thread each, in order, errors told."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from eosfm.engine.streams import each


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_each_stream_has_one_thread_also_after_its_first_operation(two_threads):
    """A thread's first parallel operation used to take over the process's number, and streams fought for the cores."""

    def work(_: int) -> int:
        F.linear(torch.ones(64, 64), torch.ones(64, 64))
        torch.ones(1 << 17).add_(1)
        return torch.get_num_threads()

    assert each(work, range(6)) == [1] * 6
    assert torch.get_num_threads() == 2


def test_results_keep_their_order_and_errors_are_told(two_threads):
    assert each(lambda i: i * i, range(7)) == [i * i for i in range(7)]

    def fails(i: int) -> int:
        if i == 3:
            raise ValueError("three")
        return i

    with pytest.raises(ValueError, match="three"):
        each(fails, range(5))


def test_gradients_are_off(two_threads):
    w = torch.ones(2, requires_grad=True)
    assert not any(t.requires_grad for t in each(lambda i: w * i, range(4)))
