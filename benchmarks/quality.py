"""Edit many facts in rounds, then re-score all of them: one line a setting.

    python benchmarks/quality.py                                  bundled facts, both scopes
    python benchmarks/quality.py --facts ../shared/data/counterfact-edit.json
    python benchmarks/quality.py --scopes match --set covariance_weight=600 --set layers=3,4,5

Columns: reliability, generality, locality as in `measure.quality`, all at the end of the run; "top
kept", the share of neighbour prompts whose next token is still the unedited model's.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from typing import Any

import coachhook_viz as cv
from coachhook_viz.editing.moments import cached_moments
from coachhook_viz.editing.state import EditState
from coachhook_viz.measure.answers import Question, ask
from coachhook_viz.measure.quality import quality

HEADER = (
    "| setting | reliability | generality | locality | top kept | time |\n"
    "| --- | --- | --- | --- | --- | --- |"
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


def run(lm: cv.LanguageModel, facts: list[cv.Fact], size: int, changes: dict[str, Any]) -> str:
    """Edit `facts` in rounds of `size` and score them at the end."""
    config = cv.EditConfig.for_model(lm, **changes)
    session = cv.Session(lm, config, cached_moments(lm, config.layers))
    started = time.perf_counter()
    for start in range(0, len(facts), size):
        session.apply(facts[start : start + size])
    seconds = time.perf_counter() - started
    means = quality(lm, session.state, facts).groupby("metric")["value"].mean()
    prompts = list(dict.fromkeys(n.prompt for fact in facts for n in fact.neighbors))
    asked = [Question.of(lm, prompt) for prompt in prompts]
    before = ask(lm, EditState.of(lm, config), asked)
    after = ask(lm, session.state, asked)
    kept = sum(a.top == b.top for a, b in zip(before, after, strict=True))
    return (
        f"{means['reliability']:.3f} | {means['generality']:.3f} | {means['locality']:.3f}"
        f" | {kept} / {len(prompts)} | {seconds:.0f} s"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--facts", help="file of facts; default: the bundled ones")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--round", type=int, default=10, help="facts a round")
    parser.add_argument("--scopes", default="zscore,match")
    parser.add_argument("--lead", help="text before every prompt instead of the default's own")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    lm = cv.load_model(lead=arguments.lead)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        facts = cv.read_facts(arguments.facts) if arguments.facts else cv.bundled_facts()
    print(HEADER)
    for scope in arguments.scopes.split(","):
        changes = {**settings(arguments.set), "scope": scope}
        name = " ".join([scope, *arguments.set])
        print(
            f"| {name} | {run(lm, facts[: arguments.count], arguments.round, changes)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
