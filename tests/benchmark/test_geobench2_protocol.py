"""GEO-Bench-2's protocol: frozen and fully fine-tuned, trials that never see the test split, five seeds, one page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eosfm import commands_bench
from eosfm.bands import BandSet
from eosfm.benchmark import measuring, run
from eosfm.benchmark.adapting import settings_of, task_spec, train, with_probabilities
from eosfm.benchmark.geobench2_published import RANGES, published
from eosfm.benchmark.intervals import Interval
from eosfm.benchmark.leaderboard import Board, Standing, boards
from eosfm.benchmark.ledger import Ledger
from eosfm.benchmark.measuring import Data, Job, attempt
from eosfm.benchmark.protocol import GeoBench2
from eosfm.benchmark.run import plan, plan_trials, run_suite
from eosfm.benchmark.scores import METRICS
from eosfm.benchmark.suite import Case, Suite, read_suite
from eosfm.benchmark.tasks import GEO_BENCH_2
from eosfm.benchmark.trials import best, hyper
from eosfm.contracts import ConfigError, TrainingError
from eosfm.data.chips import Splits
from eosfm.data.streams import StreamedChips
from eosfm.ensemble import Ensemble
from eosfm.explain.board_totals import runs_of, totals
from eosfm.specialists.backbone import FrozenBackbone, plan_pyramid
from eosfm.specialists.store import save_specialist
from eosfm.training.energy import EnergyMeter
from eosfm.training.finetune import Trainable, fine_tune
from helpers import equal, image, make_card, make_encoder, make_specialist, tree

FILE = """
name: geo
zoo: {zoo}
output: {out}
cases:
  - name: burn
    protocol: geobench2
    task: geobench2/burn_scars
    trials: 2
    data: {{kind: synthetic, task: water, bands: "sentinel-2-l2a:B04,B03,B02@dn-1e4", size: [4, 2, 4], chip_size: 32}}
    fit: {{epochs: 1, batch_size: 4, learning_rate: 1.0e-3}}
  - name: burn-full
    protocol: geobench2
    task: geobench2/burn_scars
    mode: full
    data: {{kind: synthetic, task: water, bands: "sentinel-2-l2a:B04,B03,B02@dn-1e4", size: [4, 2, 4], chip_size: 32}}
    fit: {{epochs: 1, batch_size: 4, learning_rate: 1.0e-3}}
models: [constant, ensemble]
seeds: [0, 1]
"""
RGB = BandSet.parse("sentinel-2-l2a:B04,B03,B02@dn-1e4")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    card = make_card("rgb", "sentinel-2-l2a:B04,B03,B02@reflectance")
    save_specialist(make_encoder(3, 0), card, folder)
    return folder


@pytest.fixture(scope="module")
def measured(zoo, tmp_path_factory) -> Suite:
    folder = tmp_path_factory.mktemp("suite")
    (folder / "suite.yaml").write_text(FILE.format(zoo=zoo, out=folder / "out"))
    before = tree(zoo)
    outcome = commands_bench.bench(folder / "suite.yaml")
    assert not outcome.failed, outcome.lines
    assert tree(zoo) == before, "fine-tuning leaves the zoo alone"
    return read_suite(folder / "suite.yaml")


def trials_of(suite: Suite) -> list[dict]:
    return Ledger(suite.folder, "trials.jsonl").rows()


def test_every_seed_runs_with_what_two_trials_chose(measured):
    rows = Ledger(measured.folder).rows()
    models = {(c, m) for c in ("burn", "burn-full") for m in ("constant", "ensemble")}
    assert {(r["case"], r["model"]) for r in rows} == models
    assert sorted({r["seed"] for r in rows}) == [0, 1] and len(rows) == 8
    five = plan(replace(measured, seeds=None))
    assert sorted({j.seed for j in five}) == [0, 1, 2, 3, 4], "the protocol's, where the suite names none"
    assert {r["key"] for r in rows} < {j.key for j in five}
    tried = trials_of(measured)
    assert [(t["case"], t["model"], t["seed"], t["trial"]) for t in tried] == [
        ("burn", "ensemble", 0, n) for n in (0, 1)
    ]
    assert tried[0]["hyper"] == {"learning_rate": 1e-3, "weight_decay": 0.05, "batch_size": 4}
    winner = max(tried, key=lambda t: t["validation"])["hyper"]
    for r in rows:
        mine = r["model"] == "ensemble" and r["case"] == "burn"
        assert (r["hyper"], r["trials"]) == ((winner, 2) if mine else (None, 0))
        assert r["mode"] == ("full" if r["case"] == "burn-full" else "frozen")
        assert r["metrics"][0]["name"] == "miou"
    trained = {r["case"]: r["trained_parameters"] for r in rows if r["model"] == "ensemble"}
    encoder = sum(t.numel() for t in make_encoder(3, 0).tensors().values())
    assert trained["burn-full"] - trained["burn"] == encoder


def test_more_trials_keep_those_that_were_made_and_a_killed_search_goes_on(measured, tmp_path, monkeypatch):
    more = replace(
        measured, cases=(replace(measured.cases[0], trials=3),), output=tmp_path, models=("ensemble",), seeds=(0,)
    )
    (tmp_path / "trials.jsonl").write_bytes((measured.folder / "trials.jsonl").read_bytes())
    whole, asked = run.attempt, []

    def once(job, *rest):
        asked.append(job.trial)
        if job.trial is None:
            raise KeyboardInterrupt
        return whole(job, *rest)

    monkeypatch.setattr(run, "attempt", once)
    with pytest.raises(KeyboardInterrupt):
        run_suite(more)
    assert asked == [2, None], "trials 0 and 1 were there"
    with pytest.raises(KeyboardInterrupt):
        run_suite(more)
    assert asked == [2, None, None] and len(trials_of(more)) == 3
    changed = {j.key for j in plan(more)} & {j.key for j in plan(measured)}
    assert not changed, "a row depends on how many trials chose it"


def test_a_trial_never_looks_at_the_test_split(measured, monkeypatch):
    suite = replace(measured, seeds=(0,))
    splits = Data().of(plan(suite)[0])

    own = type(splits.test).batch

    def watched(chips, indices):
        if chips is splits.test:
            pytest.fail("looked at the test split")
        return own(chips, indices)

    monkeypatch.setattr(type(splits.test), "batch", watched)
    job = next(t for t in plan_trials(suite) if t.trial == 1)
    data = Data()
    monkeypatch.setattr(data, "of", lambda _: splits)
    done = attempt(job, suite, data, EnergyMeter())
    assert done.table is None and done.row is not None and np.isfinite(done.row["validation"])
    with pytest.raises(pytest.fail.Exception, match="test split"):
        attempt(plan(suite)[0], suite, data, EnergyMeter())


def test_trials_that_diverge_are_told_and_the_best_of_the_others_wins(measured, tmp_path, monkeypatch):
    def diverges(*args, **options):
        raise TrainingError("loss is nan")

    monkeypatch.setattr(measuring, "train", diverges)
    suite = replace(measured, cases=measured.cases[:1], models=("ensemble",), seeds=(0,), output=tmp_path)
    done = run_suite(suite)
    assert not done.rows and len(done.problems) == 1 and "its trials: loss is nan" in done.problems[0]
    rows = [{"kind": "segmentation", "trial": n, "validation": v} for n, v in enumerate([None, 0.2, 0.4, 0.4])]
    assert best(rows)["trial"] == 2 and best(rows[:1]) is None
    assert best([{**r, "kind": "regression"} for r in rows])["trial"] == 1


def test_the_search_space_is_the_protocol_s_and_the_same_for_all(measured):
    p, base = GeoBench2(), settings_of(measured.cases[0], 0)
    drawn = [hyper(n, base, p) for n in range(64)]
    assert drawn == [hyper(n, base, p) for n in range(64)] and len(set(map(repr, drawn))) == 64
    for h in drawn[1:]:
        assert p.search_learning_rate[0] <= h.learning_rate <= p.search_learning_rate[1]
        assert h.weight_decay == base.weight_decay  # the published runs did not search it
        assert h.batch_size in p.search_batch_size
        assert h.of(base).learning_rate == h.learning_rate and h.of(base).epochs == base.epochs
    rates = np.log([h.learning_rate for h in drawn[1:]])
    assert (rates < np.log(1e-3)).sum() > 20 and (rates > np.log(1e-4)).sum() > 20, "spread over the decades"


def test_heads_and_metrics_are_the_protocol_s(measured):
    case = replace(measured.cases[0], head=None)
    splits = Data().of(plan(measured)[0])
    assert (task_spec(case, splits).head.decoder, task_spec(case, splits).join) == ("unet", "mean")
    logits = np.stack([np.array([[-1.0, 2.0], [3.0, -4.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])], 1)
    table = with_probabilities(logits)
    np.testing.assert_allclose(table[:, 0], 1 / (1 + np.exp(-logits[:, 0])))
    assert METRICS["f1-multilabel-macro"].statistic(table) == 1.0


def rgb_ensemble(*more) -> Ensemble:
    specialist = make_specialist("rgb", "sentinel-2-l2a:B04,B03,B02@reflectance", 0)
    return Ensemble([specialist, *more], RGB, seed=1)


def test_what_is_fine_tuned_starts_as_the_ensemble_and_leaves_it_alone(measured, tmp_path):
    ens, splits = rgb_ensemble(), Data().of(plan(measured)[0])
    before = {k: v.clone() for k, v in ens.state_dict().items()}
    x = splits.test.batch(range(2))[0]
    with torch.no_grad():
        assert equal(Trainable(ens).eval()(x), ens.eval()(x))
    case = replace(measured.cases[1], fit=replace(measured.cases[1].fit, learning_rate=1e-2))
    model, _ = fine_tune(ens, splits, task_spec(case, splits), settings_of(case, 0), run=tmp_path)
    assert all(torch.equal(v, before[k]) for k, v in ens.state_dict().items()), "the frozen one is untouched"
    moved = [
        not torch.equal(p, q)
        for p, q in zip(model.encoder.members[0].parameters(), ens.encoders[0].parameters(), strict=True)
    ]
    assert np.mean(moved) > 0.9
    frozen = train("ensemble", replace(case, mode="frozen"), lambda: ens, splits, settings_of(case, 0))
    kept = {k: v for k, v in frozen.model.encoder.state_dict().items() if k.startswith("encoders.")}
    assert kept and all(torch.equal(v, before[k]) for k, v in kept.items())
    assert not any(p.requires_grad for p in frozen.model.encoder.encoders.parameters())


def test_another_architecture_is_fine_tuned_too():
    pyramid = plan_pyramid("resnet18", 3, 64)
    frozen = FrozenBackbone("resnet18", 3, 64, pyramid)
    card = make_card("net", "sentinel-2-l2a:B04,B03,B02@reflectance", architecture="resnet18", pyramid=pyramid)
    body = Trainable(rgb_ensemble((frozen, card))).train()
    sum(m.square().mean() for m in body(image(RGB, 2, 32))).backward()
    assert all(p.grad is not None for p in body.parameters())
    assert body.members[1].training and not frozen.train().training


class Read:
    def __call__(self, key: str) -> tuple[torch.Tensor, torch.Tensor]:
        g = torch.Generator().manual_seed(int(key))
        x, y = 3000 * torch.rand(9, 32, 32, generator=g), torch.zeros(32, 32, dtype=torch.long)
        y[8:24, 8:24] = 1
        return x, y


def series(name: str, first: int) -> StreamedChips:
    ids = tuple(str(i) for i in range(first, first + 4))
    return StreamedChips(Read(), ids, (32, 32), RGB, "segmentation", ("no", "yes"), name, dates=3)


@pytest.mark.parametrize(
    ("name", "mode"), [("constant", "frozen"), ("scratch", "frozen"), ("ensemble", "frozen"), ("ensemble", "full")]
)
def test_a_series_of_three_dates_in_every_mode(measured, name, mode):
    case = replace(measured.cases[1], mode=mode)
    splits = Splits(series("a", 0), series("b", 10), series("c", 20))
    done = train(name, case, rgb_ensemble, splits, settings_of(case, 0))
    assert done.model.eval()(splits.test.batch([0])[0]).shape == (1, 2, 32, 32)


def test_the_page_has_capabilities_modes_trials_and_energy(measured):
    outcome = commands_bench.bench_report(measured.folder.parent / "suite.yaml")
    page = (measured.folder / "report.html").read_text()
    for said in ("full fine-tuning (encoders trained, too)", "frozen encoders", "What trials chose",
                 "own range (The-AI-Alliance", "Score over energy", "Capabilities (GEO-Bench-2)", "Published by"):  # fmt: skip
        assert said in page, said
    assert not outcome.failed


def standing(model: str, values: list[float]) -> Standing:
    rows = tuple({"seed": s, "kwh": None} for s in range(len(values)))
    whole = Interval(float(np.mean(values)), 0.0, 1.0, 4, len(values))
    return Standing(model, whole, tuple(values), None, None, 1, 1, 0.0, None, rows)


def geo_case(name: str, task: str, mode: str) -> Case:
    return Case(name=name, data=read_suite_data(), protocol="geobench2", task=f"geobench2/{task}", mode=mode)  # type: ignore[arg-type]


def test_capabilities_are_scaled_by_the_leaderboard_and_stand_beside_its_rows():
    cases = (geo_case("a", "burn_scars", "frozen"), geo_case("b", "pastis", "frozen"), geo_case("c", "burn_scars", "full"),
             geo_case("d", "pastis", "full"))  # fmt: skip
    low, high = [0.2, 0.25, 0.3, 0.35, 0.4], [0.6, 0.65, 0.7, 0.75, 0.8]
    made = [
        Board("a", "miou", True, (standing("ensemble", high), standing("constant", low)), None),
        Board(
            "b",
            "miou",
            True,
            (standing("ensemble", low), standing("constant", [0.1] * 5), standing("odd", low[:4])),
            None,
        ),
        Board("c", "miou", True, (standing("ensemble", [v + 0.1 for v in high]),), None),
        Board("d", "miou", True, (standing("ensemble", low),), None),
    ]
    (section,) = totals(Suite(name="x", cases=cases), made)
    table, *notes = section.items
    head = [c.name for c in table.columns]
    rows = {r[0]: dict(zip(head, r, strict=True)) for r in table.rows}

    def scaled(task: str, values: list[float]) -> list[float]:
        least, most = RANGES[task]
        return [(v - least) / (most - least) for v in values]

    middle = sorted(scaled("burn_scars", high) + scaled("pastis", low))[2:-2]
    assert rows["ensemble"]["core (2 of 12)"].startswith(f"{np.mean(middle):.3f} (")
    multi = f"{np.mean(sorted(scaled('pastis', low))[1:-1]):.3f}"
    assert rows["ensemble, fine-tuned"]["multi-temporal (1 of 4)"].startswith(multi)
    theirs = [r.score for r in published("frozen") if r.backbone == "dofa_large_patch16_224" and r.dataset == "pastis"]
    said = rows["PUBLISHED: frozen, dofa_large_patch16_224"]["multi-temporal (1 of 4)"]
    assert said.startswith(f"{np.mean(sorted(scaled('pastis', theirs))[1:-1]):.3f} (")
    assert sum(n.startswith("PUBLISHED: frozen") for n in rows) == 10 and sum("PUBLISHED: full" in n for n in rows) == 3
    order = list(rows)
    assert max(order.index(n) for n in ("ensemble", "constant")) < min(
        i for i, n in enumerate(order) if "PUBLISHED" in n
    )
    assert not notes and "odd" not in rows, "four seeds are too few"
    few = replace(made[1], standings=(standing("odd", low[:4]), standing("even", low[:3])))
    (again,) = totals(Suite(name="x", cases=cases[1:2]), [few])
    assert again.items and all("no model has 5 seeds on each of pastis" in n.text for n in again.items)


def test_an_error_in_tonnes_becomes_the_leaderboard_s_score():
    """Its RMSE is of biomass divided by 289.89: in t/ha the same formula would give scores of -10."""
    board = Board("a", "rmse", False, (standing("ensemble", [52.0] * 5),), None)
    run = runs_of([("biomassters", "frozen", board)])[0]
    assert run.score == pytest.approx(1 - 52.0 / 289.89 * 0.2537951171398163)
    assert RANGES["biomassters"][0] < run.score < RANGES["biomassters"][1]


def test_published_rows_lie_in_the_published_ranges():
    """The full submission is one of the two that the ranges are made of: it must not leave them, and has some of their ends."""
    full, frozen = published("full"), published("frozen")
    assert len(full) == 3 * 19 * 5 and len(frozen) == 10 * 15 * 5 and set(RANGES) == set(GEO_BENCH_2)
    for r in full:
        assert RANGES[r.dataset][0] - 5e-6 <= r.score <= RANGES[r.dataset][1] + 5e-6, r
    ends = {r.dataset for r in full if any(abs(r.score - end) < 6e-6 for end in RANGES[r.dataset])}
    nine = "dynamic_earthnet fotw burn_scars pastis benv2 kuro_siwo spacenet7 biomassters so2sat"
    assert ends == set(nine.split())
    for runs in (full, frozen):
        assert len({(r.backbone, r.dataset, r.seed) for r in runs}) == len(runs)


def test_detection_trains_in_batches_of_eight_which_no_trial_changes():
    case = replace(geo_case("a", "everwatch", "frozen"), fit=None)
    config = settings_of(case, 0)
    assert config.batch_size == 8 and settings_of(replace(case, task="geobench2/pastis"), 0).batch_size == 16
    tried = [hyper(n, config, GeoBench2(), things=True) for n in range(12)]
    assert {h.batch_size for h in tried} == {8} and len({h.learning_rate for h in tried}) == 12


def test_distance_to_best_is_among_the_models_measured_here(measured):
    renamed = replace(measured, cases=(replace(measured.cases[0], task="pangaea/mados"), *measured.cases[1:]))
    found = boards(renamed, Ledger(measured.folder).rows(), Ledger(measured.folder))
    (section,) = [s for s in totals(renamed, found) if "Distance" in s.title]
    rows = {r[0]: r for r in section.items[0].rows}
    gap = {s.model: 100 * s.score.value for s in found[0].standings}
    top = max(gap.values())
    assert {m: float(r[-1]) for m, r in rows.items()} == pytest.approx({m: top - v for m, v in gap.items()}, abs=1e-3)
    assert not any("EoS-FM" in m for m in rows)


@pytest.mark.parametrize(("change", "says"), [
    ("cases.0.trials=-1", "trials \\(0 or more\\)"), ("cases.0.task=nothing", "unknown task 'nothing'"),
    ("cases.0.protocol=pangaea", "mode full and trials"),
])  # fmt: skip
def test_a_wrong_case_is_refused(measured, change, says):
    with pytest.raises(ConfigError, match=says):
        read_suite(measured.folder.parent / "suite.yaml", [change])


def test_defaults_are_each_protocol_s():
    data = measured_data = read_suite_data()
    seeds = {
        p: Suite(name="x", cases=(Case(name="c", data=data, protocol=p),))
        for p in ("geobench2", "pangaea", "frozen-probe")
    }  # type: ignore[arg-type]
    assert {p: s.seeds_of(s.cases[0]) for p, s in seeds.items()} == {
        "geobench2": (0, 1, 2, 3, 4), "pangaea": (234,), "frozen-probe": (0,)}  # fmt: skip
    known = replace(measured_data, kind="dataset", dataset="mados", root=Path("x"))
    assert Case(name="c", data=known, protocol="pangaea").benchmark_task == "pangaea/mados"
    assert Job(Case(name="c", data=data, protocol="geobench2"), "m", 1, "k", 2).__str__() == "c, m, seed 1, trial 2"


def read_suite_data():
    from eosfm.data.files import DataConfig

    return DataConfig(kind="synthetic", task="water", bands=str(RGB))
