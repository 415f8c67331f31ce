"""The demo as a whole: a smoke test on tiny data, and (slow) the paper's claim on the embedded worlds."""

import re
from pathlib import Path

import pytest

from eosfm.benchmark.compare import CONSTANT, ENSEMBLE, UNTRAINED
from eosfm.benchmark.results import headline, load_comparison, paired_difference, summarise
from eosfm.contracts import DataError
from eosfm.data.real import real_root
from eosfm.demo.run import run_demo

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def test_quick_demo_writes_a_report_and_continues(tmp_path):
    """Everything is made once; a second call finds it and computes nothing again."""
    first = run_demo(data=None, out=tmp_path / "out", report=tmp_path / "r.html", workers=1, quick=True)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "SMOKE TEST" in page and len(re.findall(r"<img ", page)) >= 4
    assert not re.findall(r'(?:src|href)="(?!data:|#|https://arxiv)', page), (
        "the page must not ask anything of the network"
    )
    for card in first.cards:
        assert card.name in page
    stored = sorted((tmp_path / "out" / "results").iterdir())
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.safetensors")}
    again = run_demo(data=None, out=tmp_path / "out", report=tmp_path / "r2.html", workers=1, quick=True)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.safetensors")} == before
    assert [c.weights.sha256 for c in again.cards] == [c.weights.sha256 for c in first.cards]
    rows = [r.method for part in stored for r in load_comparison(part).rows]
    assert {ENSEMBLE, UNTRAINED, CONSTANT} <= set(rows)


@pytest.mark.slow
def test_a_broken_specialist_is_trained_again(tmp_path):
    first = run_demo(data=None, out=tmp_path / "out", report=tmp_path / "r.html", workers=1, quick=True)
    weights = first.zoo / first.cards[0].name / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    again = run_demo(data=None, out=tmp_path / "out", report=tmp_path / "r.html", workers=1, quick=True)
    assert again.cards[0].weights.sha256 == first.cards[0].weights.sha256


@pytest.mark.slow
def test_the_ensemble_beats_its_parts_on_the_embedded_world(tmp_path):
    """The paper's claim in miniature over three seeds. How far the intervals are apart: docs/results.md."""
    result = run_demo(data=None, out=tmp_path / "out", report=tmp_path / "r.html")
    done = result.comparisons["burn-scars"]
    top = headline(summarise(done, "segmentation"))
    for name in (CONSTANT, UNTRAINED, "best single specialist"):
        assert top[ENSEMBLE].low > top[name].high, f"ensemble {top[ENSEMBLE]} against {name}: {top[name]}"
        _, low, _ = paired_difference(done, "segmentation", ENSEMBLE, top[name].method)
        assert low > 0, f"ensemble {top[ENSEMBLE]} against {name}: {top[name]}"


@pytest.mark.slow
def test_quick_demo_on_real_data(tmp_path):
    try:
        real_root(SHARED)
    except DataError:
        pytest.skip(f"no real data in {SHARED}")
    result = run_demo(data=SHARED, out=tmp_path / "out", report=tmp_path / "r.html", quick=True)
    assert len(result.cards) == 12 and set(result.comparisons) == {"eurosat-unseen", "uc-merced", "sen1floods11"}
