"""What masked pretraining is for: linear probes on frozen features are better than with random weights. Minutes."""

import sys

import pytest
import torch
import torch.nn.functional as F

from eosfm.bands import BandSet
from eosfm.data.worlds import synthetic_splits
from eosfm.specialists.encoder import untrained_encoder
from eosfm.specialists.store import load_specialist
from eosfm.tasks.kinds import IGNORE
from eosfm.training.masked import MaskedConfig
from eosfm.training.pretrain import pretrain_masked
from eosfm.training.settings import FitConfig

S2 = BandSet.parse("sentinel-2-l2a:B02,B03,B04,B08,B11,B12@reflectance")
MASKED = MaskedConfig(patch=16, normalise=False)  # the level of a band says more here than its texture
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)


@torch.inference_mode()
def pyramids(encoder, statistics, chips):
    """The four levels ``(n, c, h, w)`` of every chip, standardised as in pretraining."""
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (statistics.mean, statistics.std))
    parts = [encoder.eval()((chips.batch(range(i, i + 20))[0] - mean) / std) for i in range(0, len(chips), 20)]
    return [torch.cat([p[level] for p in parts]) for level in range(4)]


def of_chips(levels):
    return torch.cat([level.mean((2, 3)) for level in levels], 1)


def of_cells(levels):
    """One row for each cell of stride 4, the coarser levels repeated."""
    size = levels[0].shape[-2:]
    return torch.cat([F.interpolate(level, size) for level in levels], 1).permute(0, 2, 3, 1).flatten(0, 2)


def accuracy(train, labels, test, truth, classes):
    """Ridge regression on one-hot labels; the penalty is chosen on the last quarter of the training rows."""
    mean, std = train.mean(0), train.std(0) + 1e-9
    train, test = (torch.cat([((x - mean) / std).double(), torch.ones(len(x), 1)], 1) for x in (train, test))
    wanted = F.one_hot(labels, classes).double()

    def solved(n, penalty):
        x, y = train[:n], wanted[:n]
        return torch.linalg.solve(x.T @ x + penalty * n * torch.eye(x.shape[1]).double(), x.T @ y)

    def right(x, y, weights):
        return float(((x @ weights).argmax(1) == y).double().mean())

    n = 3 * len(train) // 4
    best = max(PENALTIES, key=lambda p: right(train[n:], labels[n:], solved(n, p)))
    return right(test, truth, solved(len(train), best))


def probes(encoder, statistics, seed):
    """Accuracies of two linear probes on worlds that no pretraining saw."""
    chips = synthetic_splits("scene", S2, 400, 4, 400, seed=seed + 50, test_seed=77)
    a, b = (of_chips(pyramids(encoder, statistics, part)) for part in (chips.train, chips.test))
    scene = accuracy(a, chips.train.labels, b, chips.test.labels, len(chips.train.classes))
    pixels = synthetic_splits("land-cover", S2, 60, 4, 60, seed=seed + 60, test_seed=78)
    rows = []
    for part, count in ((pixels.train, 6000), (pixels.test, 10_000)):
        labels = part.labels[:, 2::4, 2::4].flatten()
        known = (labels != IGNORE).nonzero()[:, 0]
        drawn = known[torch.randperm(len(known), generator=torch.Generator().manual_seed(0))[:count]]
        rows += [of_cells(pyramids(encoder, statistics, part))[drawn], labels[drawn]]
    return {"scene": scene, "land-cover": accuracy(*rows, len(pixels.train.classes))}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_pretrained_encoder_beats_a_random_one_under_linear_probes(tmp_path, capsys):
    """Over three seeds, each with its own worlds and its own random start, which is what it is compared with."""
    gains = {"scene": [], "land-cover": []}
    for seed in (1, 2, 3):
        data = synthetic_splits("land-cover", S2, 512, 64, 1, seed=seed)
        config = FitConfig(epochs=24, batch_size=32, learning_rate=1e-3, warmup=0.1, augment=True, seed=seed)
        done = pretrain_masked(data, config, tmp_path, name=f"seed-{seed}", masked=MASKED)
        statistics = done.card.statistics
        before = probes(untrained_encoder(len(S2), seed), statistics, seed)
        after = probes(load_specialist(tmp_path / f"seed-{seed}")[0], statistics, seed)
        for task, gain in gains.items():
            gain.append(after[task] - before[task])
            with capsys.disabled():
                line = f"\nseed {seed}, {task}: random {before[task]:.3f}, masked {after[task]:.3f}"
                sys.stdout.write(f"{line} (reconstruction {done.fit.best:.3f}, {done.energy.seconds:.0f} s)")
    for task, gain in gains.items():
        assert min(gain) > 0, f"{task}: {gain}"
        assert sum(gain) / 3 > 0.03, f"{task}: {gain}"
