"""Energy and CO2 of a run, by codecarbon's offline tracker: no network, and an estimate where no meter can be read."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from eosfm.contracts import missing_extra

MOST_TIMES = 10
"""how many times its own length a session's power may stand for"""


@dataclass
class Energy:
    """What a block of work cost; filled in when the block ends."""

    seconds: float = 0.0
    kwh: float | None = None
    co2_kg: float | None = None
    method: str = ""

    def after(self, earlier: float) -> Energy:
        """This session's cost and that of ``earlier`` seconds before the run was killed, at this session's power."""
        if not earlier or not self.seconds:
            return self
        times = (self.seconds + earlier) / self.seconds
        if times > MOST_TIMES:
            return Energy(self.seconds + earlier, None, None, "unknown: most was spent in sessions that were killed")
        kwh, co2 = (None if v is None else v * times for v in (self.kwh, self.co2_kg))
        method = f"{self.method}; {earlier:.0f} s of earlier sessions at the last one's power"
        return Energy(self.seconds + earlier, kwh, co2, method)


class EnergyMeter:
    """One codecarbon tracker for a whole command; `measure` gives the share of each part.

    Args:
        country: ISO 3166 alpha-3 code, which decides the CO2 of a kWh; ``EOSFM_COUNTRY`` or France, where the paper's
            specialists were trained.
        share: of the machine's energy that is this process's, where several work side by side.
    """

    def __init__(self, country: str | None = None, share: float = 1.0) -> None:
        try:
            from codecarbon import OfflineEmissionsTracker
        except ImportError:
            raise missing_extra("codecarbon", "train") from None
        self.country = country or os.environ.get("EOSFM_COUNTRY", "FRA")
        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
        self._tracker = OfflineEmissionsTracker(
            country_iso_code=self.country, save_to_file=False, log_level="critical", allow_multiple_runs=True,
            measure_power_secs=5,
        )  # fmt: skip
        self._count, self.share = 0, share
        self.method = f"codecarbon, offline, {self.country}; an estimate from constant power where no meter is readable"

    @contextmanager
    def measure(self, name: str) -> Iterator[Energy]:
        """Measure the block; its `Energy` is complete after it. Blocks do not nest."""
        self._count += 1
        task = f"{name}-{self._count}"
        energy = Energy(method=self.method)
        start = time.perf_counter()
        self._tracker.start_task(task)
        try:
            yield energy
        finally:
            data = self._tracker.stop_task(task)
            energy.seconds = time.perf_counter() - start
            energy.kwh, energy.co2_kg = self.share * float(data.energy_consumed), self.share * float(data.emissions)
