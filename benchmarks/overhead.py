"""What the hook layers cost a generated token: the same greedy text length with and without them.

    python benchmarks/overhead.py [--repeats 15]

Runs alternate, so that whatever else the machine does falls on both alike; the ratio of the medians
is the figure to quote.
"""

from __future__ import annotations

import argparse
import statistics
import time

import coachhook_viz as cv

TOKENS = 50


def main() -> None:
    """Print the median time a token for each scope, and its ratio to no hooks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--facts", type=int, default=10)
    arguments = parser.parse_args()
    lm = cv.load_model()
    prompt = lm.encode(["The history of the city began when"])
    print(f"| scope | {arguments.facts} facts in force, ms a token | without | ratio |")
    print("| --- | --- | --- | --- |")
    for scope in ("zscore", "match", "off"):
        config = cv.EditConfig.for_model(lm, scope=scope, steps=1)
        session = cv.Session(lm, config)
        session.apply(cv.bundled_facts()[: arguments.facts])
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for repeat in range(arguments.repeats + 1):
            for edited in (True, False):
                with session.hooked(edited):
                    started = time.perf_counter()
                    lm.generate(
                        **prompt, min_new_tokens=TOKENS, max_new_tokens=TOKENS, do_sample=False
                    )
                    if repeat:  # the first pair warms up
                        seconds[edited].append((time.perf_counter() - started) / TOKENS)
        on, off = (1000 * statistics.median(seconds[edited]) for edited in (True, False))
        print(f"| {scope} | {on:.2f} | {off:.2f} | {on / off:.3f} |", flush=True)


if __name__ == "__main__":
    main()
