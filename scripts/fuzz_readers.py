"""Feeds wrong files to every reader until the time is up; the exit status is 1 where one ends in anything unforeseen.

scripts/fuzz --minutes 10
scripts/fuzz --minutes 1 --reader vectors --seed 5000
"""

import argparse
import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from fuzz.hunt import hunt
from fuzz.readers import READERS


def cases(readers: Sequence[str], seed: int, seconds: float) -> Iterator[tuple[str, int]]:
    """Yield one case a reader in turn, each round with the next seed."""
    end = time.monotonic() + seconds
    for number in itertools.count(seed):
        for reader in readers:
            if time.monotonic() > end:
                return
            yield reader, number


def main() -> int:
    """Print each kind of finding once, and how often each came."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (default 1)")
    parser.add_argument("--reader", action="append", choices=sorted(READERS), help="only this one; may be repeated")
    parser.add_argument("--seed", type=int, default=1_000_000, help="the first case's number (default 1000000)")
    options = parser.parse_args()

    readers = options.reader or list(READERS)
    done: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for reader, seed, problem in hunt(cases(readers, options.seed, options.minutes * 60), readers):
        done[reader] += 1
        if problem:
            last = problem.strip().splitlines()[-1]
            kinds[f"{reader}: {last[:100]}"] += 1
            if kinds[f"{reader}: {last[:100]}"] == 1:
                print(f"--- {reader} {seed}\n{problem.strip()}\n", flush=True)
    print(f"{done.total()} cases: {', '.join(f'{name} {count}' for name, count in done.items())}")
    for kind, count in kinds.most_common():
        print(f"{count:6} {kind}")
    return 1 if kinds else 0


if __name__ == "__main__":
    sys.exit(main())
