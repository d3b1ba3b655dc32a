"""Edit facts in rounds, then ask everything that can be measured: one table a scope.

    python benchmarks/quality.py                                  bundled facts, all scopes
    python benchmarks/quality.py --facts ../shared/data/counterfact-edit.json --count 50 --round 10
    python benchmarks/quality.py --scopes match --seeds 3 --orders 3
    python benchmarks/quality.py --scopes match --set covariance_weight=600 --set layers=3,4,5

Seed 0 takes the first facts of the file, each further seed draws others. Order 0 edits them as they
stand, each further order shuffles them. A fact's values of all runs are averaged, then come the
means over the facts with 95 % bootstrap intervals: of all prompts, of those that the unedited model
could answer ("known"), and of the others. All is asked at the end of a run; see `measure.metrics`.
"top kept" is the share of neighbour prompts whose next token is still the unedited model's,
"fluency before" the fluency of the unedited model.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import warnings
from typing import Any, get_args

import pandas as pd

import coachhook_viz as cv
from coachhook_viz.editing.config import ScopeKind
from coachhook_viz.editing.moments import cached_moments
from coachhook_viz.measure.judges import keeps_next, varies
from coachhook_viz.measure.metrics import ALL, Metric, edit_prompt, neighbours
from coachhook_viz.measure.summary import summary

TOP_KEPT = Metric("top kept", neighbours, keeps_next)
BEFORE = Metric(
    "fluency before",
    edit_prompt,
    lambda asked, edited, unedited, watch: varies(asked, unedited, unedited, watch),
)
HEADER = (
    "| scope | metric | by | all prompts | known | unknown | facts |\n"
    "| --- | --- | --- | --- | --- | --- | --- |"
)


def settings(given: list[str]) -> dict[str, Any]:
    """Parse NAME=VALUE pairs; values are JSON, several of them with commas, or words."""
    parsed: dict[str, Any] = {}
    for pair in given:
        name, _, value = pair.partition("=")
        try:
            values = tuple(json.loads(f"[{value}]"))
        except ValueError:
            parsed[name] = value
        else:
            parsed[name] = values if len(values) > 1 else values[0]
    return parsed


def drawn(total: int, count: int, seed: int, order: int) -> list[int]:
    """Which facts of `total` a run edits, in its order."""
    places = list(range(min(count, total)))
    if seed:
        places = sorted(random.Random(seed).sample(range(total), len(places)))
    if order:
        random.Random(f"{seed} {order}").shuffle(places)
    return places


def run(
    lm: cv.LanguageModel, facts: list[cv.Fact], places: list[int], size: int, config: cv.EditConfig
) -> pd.DataFrame:
    """Edit the facts at `places` in rounds of `size` and judge them, by tokens and by generation.

    The column `fact` is a place in the whole list, so that runs can stand below each other.
    """
    session = cv.Session(lm, config, cached_moments(lm, config.keyed_layers))
    session.apply_in_rounds([facts[place] for place in places], size)
    free = [name for name, metric in ALL.items() if metric.by_generation is not None]
    frames = [
        session.evaluate(metrics=[*ALL, BEFORE, TOP_KEPT]).assign(by="tokens"),
        session.evaluate(metrics=free, by="generation").assign(by="generation"),
    ]
    frame = pd.concat(frames, ignore_index=True)
    return frame.assign(fact=frame["fact"].map(dict(zip(session.facts, places, strict=True))))


def lines(scope: str, frame: pd.DataFrame) -> list[str]:
    """A row a metric: its means with intervals by what was known."""
    found = []
    for by, part in frame.groupby("by", sort=False):
        means = summary(part).set_index(["metric", "of"])
        for metric in means.index.get_level_values("metric").unique():
            own = means.loc[metric]
            digits = 0 if metric.startswith("fluency") else 3
            cells = [
                f"{row['mean']:.{digits}f} ({row['low']:.{digits}f} – {row['high']:.{digits}f})"
                if (row := own.loc[of] if of in own.index else None) is not None
                else "–"
                for of in ("all", "known", "unknown")
            ]
            facts = int(own.loc["all", "facts"])
            found.append(f"| {scope} | {metric} | {by} | {' | '.join(cells)} | {facts} |")
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--facts", help="file of facts; default: the bundled ones")
    parser.add_argument("--count", type=int, default=10, help="facts a run")
    parser.add_argument("--round", type=int, default=5, help="facts a round")
    parser.add_argument("--seeds", type=int, default=1, help="draws of facts")
    parser.add_argument("--orders", type=int, default=2, help="orders of each draw")
    parser.add_argument("--scopes", default=",".join(get_args(ScopeKind)))
    parser.add_argument("--lead", help="text before every prompt instead of the default's own")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    lm = cv.load_model(lead=arguments.lead)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        facts = cv.read_facts(arguments.facts) if arguments.facts else cv.bundled_facts()
    asked = {
        fact.text: fact for fact in reversed(facts)
    }  # two of one question cannot share a round
    facts = [fact for fact in facts if asked[fact.text] is fact]
    runs = [(seed, order) for seed in range(arguments.seeds) for order in range(arguments.orders)]
    print(HEADER)
    for scope in arguments.scopes.split(","):
        started = time.perf_counter()
        changes = {**settings(arguments.set), "scope": scope}
        config = cv.EditConfig.for_model(lm, **changes)
        frames = []
        for seed, order in runs:
            places = drawn(len(facts), arguments.count, seed, order)
            frames.append(run(lm, facts, places, arguments.round, config))
        name = " ".join([scope, *arguments.set])
        print("\n".join(lines(name, pd.concat(frames, ignore_index=True))))
        seconds = time.perf_counter() - started
        print(f"| {name} | time | | {seconds:.0f} s for {len(runs)} runs | | | |", flush=True)


if __name__ == "__main__":
    main()
