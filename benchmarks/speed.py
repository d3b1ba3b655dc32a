"""Ten edits in one round, beside a plain implementation of the published procedure.

    python benchmarks/speed.py [--facts FILE] [--count 10] [--device cuda]

Both start from the same model, moments and contexts, with the hook at every token so that they
compute the same thing; the ratio of the two times in one run is the figure to quote.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import replace

import torch
from plain import plain_round

import coachhook_viz as cv
from coachhook_viz.editing.moments import cached_moments
from coachhook_viz.editing.progress import Progress


def main() -> None:
    """Run both and print times, ratio and agreement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--facts", help="file of facts; default: the bundled ones")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--device")
    parser.add_argument("--ours-only", action="store_true")
    arguments = parser.parse_args()
    lm = cv.load_model(device=arguments.device)
    facts = cv.read_facts(arguments.facts) if arguments.facts else cv.bundled_facts()
    facts = facts[: arguments.count]
    config = cv.EditConfig.for_model(lm, scope="off")
    moments = cached_moments(lm, config.layers)
    session = cv.Session(lm, config, moments)

    started = time.perf_counter()
    stages: Counter[str] = Counter()
    last = ["prepare", started]

    def clock(progress: Progress | None) -> None:
        now = time.perf_counter()
        stages[last[0]] += now - last[1]
        last[:] = [progress.stage if progress else "", now]

    round_ = session.apply(facts, progress=clock)
    clock(None)
    ours = time.perf_counter() - started
    spent = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in stages.items())
    print(f"coachhook_viz  {ours:7.1f} s   ({spent})", flush=True)
    if arguments.ours_only:
        return

    started = time.perf_counter()
    config = replace(config, context_templates=session.config.context_templates)
    targets, delta_weights = plain_round(lm, config, facts, moments)
    plain = time.perf_counter() - started
    print(f"plain          {plain:7.1f} s")
    print(f"ratio          {plain / ours:7.2f}")
    difference = torch.linalg.norm(round_.targets - targets) / torch.linalg.norm(targets)
    print(f"z, relative difference      {difference:.1e}")
    for layer, expected in delta_weights.items():
        found = session.delta_weight(layer)
        difference = torch.linalg.norm(found - expected) / torch.linalg.norm(expected)
        print(f"ΔW {layer}, relative difference   {difference:.1e}")


if __name__ == "__main__":
    main()
