"""How long a report takes and how large it is.

    python benchmarks/report.py [--facts 50] [--rounds 10] [--out report.html]

Bundled facts, the default model. Nothing has been measured before the first report; the second is
of the same session, which remembers.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import coachhook_viz as cv
from coachhook_viz.editing.progress import Progress
from coachhook_viz.html_report import render


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, help="where to keep the page")
    given = parser.parse_args()
    session = cv.Session(cv.load_model())
    facts = cv.bundled_facts()[: given.facts]
    size = -(-len(facts) // given.rounds)
    for start in range(0, len(facts), size):
        session.apply(facts[start : start + size])
    begun: dict[str, float] = {}
    start = time.perf_counter()

    def note(progress: Progress) -> None:
        begun.setdefault(progress.stage, time.perf_counter() - start)

    page = render(session, note)
    ends = [*list(begun.values())[1:], time.perf_counter() - start]
    print(f"{len(facts)} facts in {session.position} rounds")
    print(f"report  {ends[-1]:.1f} s")
    for (stage, since), end in zip(begun.items(), ends, strict=True):
        print(f"  {stage:<8}{end - since:6.1f} s")
    start = time.perf_counter()
    render(session)
    print(f"again   {time.perf_counter() - start:.1f} s")
    print(f"size    {len(page.encode()) / 1e6:.2f} MB")
    if given.out is not None:
        given.out.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
