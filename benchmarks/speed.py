"""Ten edits in one round, beside a plain implementation of the published procedure.

    python benchmarks/speed.py [--facts FILE] [--count 10] [--device cuda]
    python benchmarks/speed.py --methods [--count 10] [--repeats 3]     rounds of all methods

Both start from the same model, moments and contexts, with the hook at every token so that they
compute the same thing; the ratio of the two times in one run is the figure to quote.

With --methods, rounds of every method on the unedited model by turns, none with a scope, their
base inverses known. Methods that edit one fact at a time are held against CoachHooK doing so.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections import Counter, defaultdict
from dataclasses import replace

import torch
from plain import plain_round

import coachhook_viz as cv
from coachhook_viz.editing.methods import METHODS
from coachhook_viz.editing.moments import cached_moments
from coachhook_viz.editing.progress import Progress


def stages_of(session: cv.Session, facts: list[cv.Fact]) -> Counter[str]:
    """Processor time of the stages of a round, or of rounds of one."""
    stages: Counter[str] = Counter()
    last = ["prepare", time.process_time()]

    def clock(progress: Progress | None) -> None:
        now = time.process_time()
        stages[last[0]] += now - last[1]
        last[:] = [progress.stage if progress else "", now]

    session.apply(facts, progress=clock)
    clock(None)
    return stages


def rounds_of_methods(lm: cv.LanguageModel, facts: list[cv.Fact], repeats: int) -> None:
    """Print processor time a fact of every method's round, and its ratio to CoachHooK's."""
    coachhook = METHODS["coachhook"].title
    sessions: dict[str, cv.Session] = {}
    first: dict[str, float] = {}
    for name, kind in METHODS.items():
        config = cv.EditConfig.for_model(lm, method=name, scope="off")
        sessions[kind.title] = session = cv.Session(lm, config)
        started = time.process_time()
        for layer in config.layers:
            session._setup.preserved.base[layer]
        first[kind.title] = time.process_time() - started
    spent: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for _ in range(repeats):
        for title, session in sessions.items():
            batches = {f"{title}, one fact": facts[:1], title: facts}
            if session.config.method.one_by_one:
                del batches[title]
            elif title != coachhook:
                del batches[f"{title}, one fact"]
            for name, batch in batches.items():
                session.go_to(0)
                stages = stages_of(session, batch)
                whole = sum(stages.values()) / len(batch)
                spent[name].append((whole, whole - stages["targets"] / len(batch)))
    print("| round of | a fact, s | without its targets, s | ratio | base inverse, once, s |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, times in spent.items():
        title = name.removesuffix(", one fact")
        beside = coachhook + name.removeprefix(title)
        pairs = zip(times, spent[beside], strict=True)
        ratio = statistics.median(a / b for (a, _), (b, _) in pairs)
        whole, rest = (statistics.median(of) for of in zip(*times, strict=True))
        print(f"| {name} | {whole:.2f} | {rest:.2f} | {ratio:.2f} | {first[title]:.1f} |")


def main() -> None:
    """Run both and print times, ratio and agreement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--facts", help="file of facts; default: the bundled ones")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--device")
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--methods", action="store_true", help="rounds of all methods instead")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of each method")
    arguments = parser.parse_args()
    lm = cv.load_model(device=arguments.device)
    facts = cv.read_facts(arguments.facts) if arguments.facts else cv.bundled_facts()
    facts = facts[: arguments.count]
    if arguments.methods:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rounds_of_methods(lm, facts, arguments.repeats)
        return
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
