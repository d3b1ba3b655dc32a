"""The match scope beside the z-score scope: what carries over, what is kept, what interferes.

    python benchmarks/match.py [--tune] [--groups 5] [--size 8]
    python benchmarks/match.py --rounds 10 --size 10

Groups of bundled facts of many relations, each group one round of a session of its own, or with
`--rounds` all of them in one session. Every scope looks at the same edits. `--tune` takes the
relations that the calibration was chosen on, see `two_key.TUNED_ON`; what is quoted is the run
without it. A paraphrase counts twice: all of them, and those that the unedited model answers.
Neighbours ask the same of other subjects, none of which the calibration reads.

"own columns" is the match scope where only the columns of the facts that match are added.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import torch
from torch import Tensor
from two_key import TUNED_ON, following, right

import coachhook_viz as cv
from coachhook_viz.editing import scopes
from coachhook_viz.editing.hooks import Hook
from coachhook_viz.editing.scope import Tokens

FIXED = 0.5


@dataclass(frozen=True)
class OwnColumns:
    """The match scope's hook, but only of the columns that match."""

    unit_directions: Tensor
    thresholds: Tensor
    residuals: Tensor
    directions: Tensor
    carries = False

    def __call__(self, layer: int, keys: Tensor, output: Tensor, tokens: Tokens) -> Tensor:
        """See `Hook`."""
        speaks = keys @ self.unit_directions >= self.thresholds
        tokens.spoke[layer] = speaks.any(-1)
        delta = ((keys @ self.directions) * speaks) @ self.residuals.T
        return torch.where(tokens.spoke[layer].unsqueeze(-1), output + delta, output)


class OwnColumnsScope(scopes.MatchScope):
    """Hangs `OwnColumns` in place of the product's hook."""

    def validated(self, at, config, dtype) -> Hook:  # type: ignore[no-untyped-def]
        """See `scopes.EditingScope`."""
        columns = at.columns
        parts = (
            columns.unit_directions, at.match_thresholds(config.match_threshold),
            columns.residuals, columns.directions,
        )  # fmt: skip
        return OwnColumns(*(part.to(dtype) for part in parts))


def facts_of(tune: bool, count: int) -> list[cv.Fact]:
    """The first facts of each relation in turn."""
    by_relation: dict[str, list[cv.Fact]] = {}
    for fact in cv.bundled_facts():
        if (fact.relation in TUNED_ON) == tune:
            by_relation.setdefault(fact.relation, []).append(fact)
    turns = [fact for turn in zip_longest(*by_relation.values()) for fact in turn if fact]
    return turns[:count]


def looks(state: cv.EditState) -> dict[str, cv.EditState]:
    """The same edits as each scope looks at them."""
    return {
        "z-score": state.judged("zscore"),
        f"match, τ {FIXED} for all": state.judged("match", FIXED),
        "match, τ calibrated": state.judged("match"),
        "off": state.judged("off"),
    }


def counts(
    lm: cv.LanguageModel, state: cv.EditState, base: cv.EditState, facts: Sequence[cv.Fact]
) -> Counter[str]:
    """How many of how many, by what is measured."""
    asked = [(prompt, fact) for fact in facts for prompt in fact.paraphrases]
    known = right(lm, base, [(prompt, str(fact.truth)) for prompt, fact in asked])
    takes = right(lm, state, [(prompt, fact.target) for prompt, fact in asked])
    edited = {fact.text for fact in facts}
    near = list(dict.fromkeys(n.prompt for fact in facts for n in fact.neighbors))
    near = [prompt for prompt in near if prompt not in edited]
    now, before = following(lm, state, near), following(lm, base, near)
    holds = right(lm, state, [(fact.text, fact.target) for fact in facts])
    return Counter(
        {
            "reliability": sum(holds),
            "of reliability": len(holds),
            "paraphrases": sum(takes),
            "of paraphrases": len(takes),
            "known paraphrases": sum(k and t for k, t in zip(known, takes, strict=True)),
            "of known paraphrases": sum(known),
            "neighbours kept": sum(a == b for a, b in zip(now, before, strict=True)),
            "of neighbours kept": len(near),
        }
    )


def main() -> None:
    """Edit, look at it under each scope, and print one row a scope."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--groups", type=int, default=5)
    parser.add_argument("--size", type=int, default=8, help="facts a round")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of one session")
    arguments = parser.parse_args()
    lm = cv.load_model()
    facts = facts_of(arguments.tune, arguments.size * (arguments.rounds or arguments.groups))
    size = len(facts) if arguments.rounds else arguments.size
    groups = [facts[start : start + size] for start in range(0, len(facts), size)]
    total: dict[str, Counter[str]] = {}
    for number, group in enumerate(groups, start=1):
        session = cv.Session(lm, cv.EditConfig.for_model(lm, scope="match"))
        session.apply_in_rounds(group, arguments.size)
        base = session.state_at(0)
        for name, state in looks(session.state).items():
            total.setdefault(name, Counter()).update(counts(lm, state, base, group))
        product = scopes.SCOPES["match"]
        scopes.SCOPES["match"] = OwnColumnsScope()  # type: ignore[index]
        found = counts(lm, replace(session.state), base, group)
        scopes.SCOPES["match"] = product  # type: ignore[index]
        total.setdefault("match, τ calibrated, own columns", Counter()).update(found)
        names = [name for name in found if not name.startswith("of ")]
        print(f"after {number} of {len(groups)} groups, {number * size} facts")
        print(f"| scope | {' | '.join(names)} |\n| --- |{' --- |' * len(names)}")
        for name, seen in total.items():
            cells = [f"{seen[what]} / {seen[f'of {what}']}" for what in names]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
