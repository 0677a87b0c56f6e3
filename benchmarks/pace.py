"""How fast the cores are while something is measured: what a loop that only counts takes of CPU, told when terminated.

On a shared machine the same instructions take twice the CPU at one time that they take at another, for all processes
alike and without a word of it in the load; most likely another's virtual machine works on the same core meanwhile.
"""

from __future__ import annotations

import signal
import statistics
import sys
import time

ROUNDS = 100_000


def counted() -> float:
    """ms of CPU for `ROUNDS` rounds."""
    count, began = 0, time.process_time()
    for number in range(ROUNDS):
        count += number
    return 1000 * (time.process_time() - began)


def main() -> None:
    found = [counted()]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(print(statistics.median(found))))
    print("ready", flush=True)
    while True:
        time.sleep(1.0)
        found.append(counted())


if __name__ == "__main__":
    main()
