"""The bench of real checkpoints: makes them, runs every quantized export of each, and prints what was measured."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs import JOBS
from recipes import DESCRIPTIONS


def folder_of(variable: str) -> Path:
    """Return the folder that an environment variable names."""
    value = os.environ.get(variable, "")
    if not value or not Path(value).is_dir():
        raise SystemExit(f"error: {variable} is {value!r}, which is not a folder. Set it to the folder it stands for.")
    return Path(value)


def make(options: argparse.Namespace) -> int:
    """Make the checkpoints."""
    from making import make_all

    make_all(options.folder, folder_of("BGE_EXPORT_MODELS"), folder_of("BGE_EXPORT_EVAL"))
    return 0


def run(options: argparse.Namespace) -> int:
    """Run jobs on checkpoints."""
    from running import run_all

    found = {path.parent.name: path.parent for path in options.folder.glob("*/config.json")}
    wanted = options.only or sorted(found, key=lambda name: ([*DESCRIPTIONS, name].index(name), name))
    if missing := [name for name in wanted if name not in found]:
        raise SystemExit(
            f"error: {options.folder} holds no checkpoint {missing[0]!r}, only: {', '.join(sorted(found))}"
        )

    checkpoints = [found[name] for name in wanted]
    run_all(checkpoints, options.results, options.jobs or list(JOBS), threads=options.threads, keep=options.keep)
    return 0


def table(options: argparse.Namespace) -> int:
    """Print the records."""
    from table import page

    print(page(options.results), end="")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sub-command and return the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/int8_bench", description=__doc__)
    commands = parser.add_subparsers(required=True)

    making = commands.add_parser("make", help="write the checkpoints; those that stand there are left as they are")
    making.add_argument("folder", type=Path)
    making.set_defaults(command=make)

    running = commands.add_parser("run", help="export each checkpoint by each job; what is recorded is left out")
    running.add_argument("folder", type=Path, help="of checkpoints")
    running.add_argument("results", type=Path, help="where records go")
    running.add_argument("--only", nargs="+", metavar="NAME", help="checkpoints [default: all of the folder]")
    running.add_argument("--jobs", nargs="+", choices=list(JOBS), metavar="JOB", help=f"of: {', '.join(JOBS)}")
    running.add_argument("--threads", type=int, help="of each command [default: all cores]")
    running.add_argument("--keep", action="store_true", help="leave the exported folders in the results")
    running.set_defaults(command=run)

    printing = commands.add_parser("table", help="print the records as Markdown")
    printing.add_argument("results", type=Path)
    printing.set_defaults(command=table)

    options = parser.parse_args(arguments)
    return int(options.command(options))


if __name__ == "__main__":
    sys.exit(main())
