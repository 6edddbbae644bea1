"""The CUTEst benchmark on three problems whose solutions are published."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

NEEDED = ("sif2jax", "optimistix", "scipy", "matplotlib", "tqdm")
MISSING = [name for name in NEEDED if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")

ROOT = Path(__file__).parents[2]
# Beale 1958; Hock & Schittkowski 1981, problem 5; LIARWHD has 5,000 variables.
KNOWN = {"BEALE": (14.203125, 0.0), "HS5": (1.0, -1.9132229549810367)}


def test_three_problems_in_float64_and_one_in_float32(run_in_turn, tmp_path):
    raw, counts = tmp_path / "raw.jsonl", tmp_path / "counts.json.gz"
    arguments = ("--problems", "BEALE", "HS5", "LIARWHD", "--evaluations", 300, "--out", raw)
    single = tmp_path / "float32.jsonl"
    short = ("--problems", "HS5", "--optimizers", "irprop_minus", "--evaluations", 50)
    _, table, _, beale, again, added, odd, even = run_in_turn(
        "cutest",
        # The first, as importing sif2jax as a whole would switch to float64.
        (*short, "--dtype", "float32", "--out", single, "--plot", tmp_path / "single.png"),
        (*arguments, "--json", counts, "--plot", tmp_path / "first.png"),
        (*arguments, "--plot", tmp_path / "plot.png"),
        ("--from", counts, "--problems", "BEALE"),
        ("--from", counts, "--plot", tmp_path / "again.png"),
        ("--from", counts, single, "--plot", tmp_path / "added.png"),
        ("--from", counts, "--half", "odd", "--plot", tmp_path / "odd.png"),
        ("--from", counts, "--half", "even", "--plot", tmp_path / "even.png"),
    )
    assert "more than 2,000 variables (1): LIARWHD" in table

    lines = raw.read_text().splitlines()
    assert len(lines) == 3  # nothing was run again
    records = {record["problem"]: record for record in map(json.loads, lines)}
    for problem, (start, least) in KNOWN.items():
        assert records[problem]["f0"] == start
        ends = {optimizer: losses[-1] for optimizer, losses in records[problem]["best"].items()}
        for optimizer in ("rprop_momentum", "irprop_minus", "irprop_plus", "SciPy L-BFGS-B"):
            assert ends[optimizer] == pytest.approx(least, abs=1e-6), optimizer
        assert min(ends.values()) > least - 1e-9
        # These know nothing of bounds.
        assert ("optax.lbfgs" in ends) is ("optimistix.BFGS" in ends) is (problem == "BEALE")

    assert beale.startswith("\nBEALE: 2 variables, scaled condition")
    assert "SciPy L-BFGS-B" in beale
    assert again.splitlines()[:-1] == table.splitlines()[:-1]
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "plot.png").read_bytes()

    assert "float32, 1 problems with bounds" in added
    assert "float64, 1 problems with bounds" in added

    # The first problem has no bounds, the second has.
    assert ("without bounds" in odd, "with bounds" in odd) == (True, False)
    assert ("without bounds" in even, "with bounds" in even) == (False, True)

    losses = json.loads(single.read_text())["best"]["irprop_minus"]
    assert losses == [float(f"{np.float32(loss):.12g}") for loss in losses]


def test_the_documented_counts_are_those_of_the_code(run_in_turn, tmp_path):
    """A row that was run before the code changed would stay as it is, unnoticed."""
    documented, raw = "docs/data/cutest.json.gz", tmp_path / "raw.jsonl"
    problem = ("--problems", "DEVGLA1B")
    rules = ("rprop_momentum", "rprop_lbfgs", "irprop_minus")
    told = (*problem, "--out", raw, "--plot", tmp_path / "plot.png", "--optimizers", *rules)
    *_, before, after = run_in_turn(
        "cutest",
        told,
        ("--from", documented, *problem),
        ("--from", documented, raw, *problem),
    )

    def counts(text):
        rows = re.findall(r"^(\S.*?)((?: +(?:\d+|-)){3}) +(float64.*)$", text, re.MULTILINE)
        return {(name, section): found.split() for name, found, section in rows}

    before, after = counts(before), counts(after)
    assert len({name for name, _ in after} & {*rules}) == 3
    for row, found in after.items():
        kept = [int(count) for count in before[row] if count != "-"]
        # Counts are kept about 5% apart, and another processor may round otherwise.
        assert [int(count) for count in found if count != "-"] == pytest.approx(kept, rel=0.1), row


def test_the_pages_have_the_documented_figures(run_in_turn):
    (printed,) = run_in_turn("cutest", ("--from", "docs/data/cutest.json.gz"))
    table = printed.split("float64, 133 problems without bounds")[1].split("\n\n")[0]
    rows = re.findall(r"^(\S.*?)((?: +[01]\.\d\d){8})$", table, re.MULTILINE)
    found = {name: [round(100 * float(share)) for share in shares.split()] for name, shares in rows}
    for page, columns in (("README.md", (0, 3, 5, 6, 7)), ("docs/evidence.md", (0, 2, 3, 5, 6, 7))):
        table = (ROOT / page).read_text().split("| to 1e-1 in 20 |")[1].split("\n\n")[0]
        rows = re.findall(r"^\| (\S.*?) \|(.*)$", table, re.MULTILINE)
        rows = {re.sub(r"[*`)]|\(\)", "", name).replace("(", " "): row for name, row in rows}
        assert len(rows) >= 5, page
        for name, row in rows.items():
            known = found["adam, best of 4 rates" if name.startswith("Adam") else name]
            shares = [int(share) for share in re.findall(r"\d+", row)]
            assert shares == [known[column] for column in columns], (page, name)
