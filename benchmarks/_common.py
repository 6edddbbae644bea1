"""What the benchmarks share: their arguments, their files, and how a table is printed."""

import argparse
import gzip
import json
from pathlib import Path


def arguments(description, **options):
    """Reads --json, and an option for each of `options`, a default and its meaning."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="where all numbers go")
    for name, (default, text) in options.items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=type(default), default=default, help=text)
    return parser.parse_args()


def write(path, numbers):
    """As JSON, packed if the name ends in .gz; nothing where there is no path."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(numbers).encode()
        path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


def read(path):
    """What `write` packed."""
    return json.loads(gzip.decompress(path.read_bytes()))


def print_table(title, columns, rows):
    """Prints a line for each of `rows`, which hold numbers by key: name -> {key: number}.

    `columns` gives, by heading, the key, what the number is multiplied by, and its format.
    """
    lines = [["", *columns]]
    for name, row in rows.items():
        known = ((row.get(key), factor, form) for key, factor, form in columns.values())
        lines.append([name, *("-" if x is None else format(x * f, form) for x, f, form in known)])
    first, *widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"\n{title}")
    for name, *cells in lines:
        cells = (own.rjust(width + 2) for own, width in zip(cells, widths, strict=True))
        print(name.ljust(first) + "".join(cells), flush=True)
