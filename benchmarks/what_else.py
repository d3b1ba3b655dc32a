"""What the edits changed beside what was asked for: how long it takes to ask.

    python benchmarks/what_else.py [--budget 600] [--facts 8]

One round of facts, then `Session.what_else` on all of them, before anything was asked, and again
after another round, when the unedited answers are known. Processor time beside wall time, since
other programs may run; the load is that of the last minute.
"""

from __future__ import annotations

import argparse
import os
import time
from itertools import zip_longest

import coachhook_viz as cv
from coachhook_viz.measure.what_else import headline


def of_many_relations(count: int) -> list[cv.Fact]:
    """The first bundled facts of each relation in turn."""
    by_relation: dict[str, list[cv.Fact]] = {}
    for fact in cv.bundled_facts():
        by_relation.setdefault(fact.relation, []).append(fact)
    turns = [fact for turn in zip_longest(*by_relation.values()) for fact in turn if fact]
    return turns[:count]


def main() -> None:
    """Print one row a scope and try."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=int, default=600)
    parser.add_argument("--facts", type=int, default=8)
    parser.add_argument("--scopes", default="zscore,match,two-key")
    arguments = parser.parse_args()
    lm = cv.load_model()
    print("| scope | tried | prompts | seconds | processor seconds | load | |")
    print("| --- | --- | ---: | ---: | ---: | ---: | --- |")
    for scope in arguments.scopes.split(","):
        session = cv.Session(lm, cv.EditConfig.for_model(lm, scope=scope))
        facts = of_many_relations(arguments.facts + 1)
        for tried, batch in (("first", facts[:-1]), ("after one more edit", facts[-1:])):
            session.apply(batch)
            wall, worked = time.perf_counter(), time.process_time()
            frame = session.what_else(budget=arguments.budget)
            wall, worked = time.perf_counter() - wall, time.process_time() - worked
            load = os.getloadavg()[0]
            print(
                f"| {scope} | {tried} | {len(frame)} | {wall:.1f} | {worked:.1f} | {load:.1f} |"
                f" {headline(frame)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
