"""Optimizers on fits that users bring: how much is left after so many gradients?

Every problem has real data or a published model, two starts, and one number of gradient
evaluations for all; those of line searches count. The gap left is
(best so far - best known) / (first - best known). The best known loss is the least that any
contender finds from that start, or that ten times as many evaluations of SciPy's L-BFGS-B and
of `rprop_momentum` find from there. Adam has the best of three rates, chosen for each problem.
Adam's steps are clipped to bounds; `optax.lbfgs` moves logits there.

The docs quote docs/data/applications.json.gz, which the first command reads. The second runs
everything anew; the third runs one optimizer anew and keeps the others.

    python benchmarks/applications --from docs/data/applications.json.gz
    python benchmarks/applications --json docs/data/applications.json.gz
    python benchmarks/applications --json docs/data/applications.json.gz --optimizers rprop_lbfgs
    python benchmarks/applications --problems logistic horseshoe
"""

import argparse
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

sys.path.append(str(Path(__file__).parents[1]))
import contenders
import report
from _common import read, write
from problems import PROBLEMS


def run_all(options):
    """Runs the problems in several processes, and saves what there is after each."""
    records = read(options.json) if options.json.exists() else {}
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # its threads slow a small matrix a hundredfold
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, spawn) as pool:
        tasks = {}
        for name in options.problems:
            arguments = name, options.optimizers, records.get(name), options.evaluations
            tasks[pool.submit(contenders.run, *arguments)] = name
        for task in tqdm(as_completed(tasks), total=len(tasks), unit="problem"):
            name = tasks[task]
            try:
                records[name] = task.result()
            except ImportError as missing:
                tqdm.write(f"left out, as a package is missing: {name} ({missing.name})")
            records = {name: records[name] for name in PROBLEMS if name in records}
            write(options.json, records)
    return records


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    figures = Path("figures")
    parser.add_argument("--from", dest="kept", type=Path, help="show this file, run nothing")
    parser.add_argument("--json", type=Path, default=figures / "applications.json.gz")
    parser.add_argument("--plot", type=Path, default=figures / "applications.png")
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=[*PROBLEMS])
    parser.add_argument("--optimizers", nargs="+", help="only these; the file keeps the others")
    parser.add_argument("--evaluations", type=int, help="another budget for every problem")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    records = read(options.kept) if options.kept else run_all(options)
    records = {name: record for name, record in records.items() if name in options.problems}
    report.table(records)
    report.plot(records, options.plot)


if __name__ == "__main__":
    main()
