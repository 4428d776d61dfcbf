"""What correcting a noisy teacher gains over plain soft distillation, by its error and the labels.

`python benchmarks/noisy_pool.py --json` prints one flat object: for every arm, error of the planted
teacher and number of validation samples the mean gain in points of accuracy on AG News over plain
soft pseudo-labels, and the half width of its 95 % interval over seeds (paired t). The data must be
in `$LIMBECK_DATA`; 240 trainings of a small network take half an hour on a busy core.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import warnings
from pathlib import Path

from scipy.stats import t as student_t

from limbeck.reproduce.claims import Scale
from limbeck.reproduce.noisy_pool import Case, run_cases
from limbeck.reproduce.parallel import one_thread

ERRORS, SIZES = (0.05, 0.1, 0.2, 0.3), (100, 300, 1_000)
ARMS = ("slam_auto", "slam_soft_constant", "weighted")
BASE = "plain_soft"


def cases(data: str, epochs: int) -> dict[str, Case]:
    """Every setting by its key."""
    return {
        f"{data}.error{round(100 * error)}.val{size}": Case(
            data, "margin", (BASE, *ARMS), error=error, val=size, epochs=epochs
        )
        for error in ERRORS
        for size in SIZES
    }


def interval(values: list[float]) -> float:
    """Half the width of the 95 % interval of the mean."""
    count = len(values)
    deviation = statistics.stdev(values) if count > 1 else 0.0
    return float(student_t.ppf(0.975, max(count - 1, 1)) * deviation / count**0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one flat JSON object")
    parser.add_argument("--data", default="agnews", choices=["agnews", "fashion"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    one_thread()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        scale = Scale(Path(folder), workers=options.workers)
        found = run_cases(cases(options.data, options.epochs), options.seeds, scale)
    figures: dict[str, float] = {}
    for name, gains in found.items():
        figures[f"{name}.{BASE}_accuracy"] = statistics.fmean(gains.accuracy[BASE])
        for arm in ARMS:
            values = gains.over(arm, BASE)
            figures[f"{name}.{arm}_over_{BASE}"] = statistics.fmean(values)
            figures[f"{name}.{arm}_over_{BASE}_ci95"] = interval(values)
    if options.json:
        print(json.dumps(figures))
    else:
        for key, value in figures.items():
            print(f"{key:64} {value:8.3f}")


if __name__ == "__main__":
    main()
