"""τ of the match scope, by fact and layer: between a fact's own subject and those like it.

Likes     prompts about the subjects of a batch and about subjects like them; where τ lies
others    subjects like that of a fact
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from coachhook_viz.editing.seen import read, relays_of, subject_place
from coachhook_viz.editing.tokens import FactTokens, Prompt, subject_last_token
from coachhook_viz.editing.wordings import proposed, relation_of
from coachhook_viz.facts import Fact, alike
from coachhook_viz.models import LanguageModel
from coachhook_viz.reading import bundled_facts

_OTHERS = 16  # subjects that one fact is told apart from
_QUARTILE = 0.25  # of the own matches: some wordings begin with the subject, whose key is no one's
_WAY = 1 / 3  # from the others to the own; found by benchmarks/match.py --tune
_LOWEST = 0.2
_MARGIN = 0.1  # below the match of the edit prompt, and above none at all


class Likes:
    """Where a batch's own subjects, and subjects like them, are read layer after layer.

    A fact's own prompts are its edit prompt in all contexts, the bare one first, and other
    wordings; those of others are the edit prompt with another subject.

    Parameters
    ----------
    lm : LanguageModel
    facts : sequence of Fact
        The b facts.
    columns : sequence of FactTokens
        Theirs, one each.
    """

    def __init__(
        self, lm: LanguageModel, facts: Sequence[Fact], columns: Sequence[FactTokens]
    ) -> None:
        own = [
            [
                *column.contexts,
                *_located(lm, [(w, fact.subject) for w in (*fact.wordings, *proposed(lm, fact))]),
            ]
            for fact, column in zip(facts, columns, strict=True)
        ]
        other = [_located(lm, [(f.prompt, s) for s in others(f)]) for f in facts]
        self._sizes = [(len(mine), len(theirs)) for mine, theirs in zip(own, other, strict=True)]
        flat = [p for pair in zip(own, other, strict=True) for prompts in pair for p in prompts]
        self._relays = relays_of(lm, flat)

    def thresholds(self, layer: int, unit_directions: Tensor) -> Tensor:
        """(b,) τ of each fact at a layer, with the hooks that hang on those before it.

        A third of the way from the highest match of another subject to the lower quartile of the
        fact's own, and low enough for its edit prompt.

        Parameters
        ----------
        layer : int
        unit_directions : Tensor
            (d_key, b), as in `state.Factors`.
        """
        keys = read(self._relays, lambda relay: relay.advance(layer), subject_place)
        of_facts = keys.split([mine + theirs for mine, theirs in self._sizes])
        found = []
        for of_fact, unit, (mine, theirs) in zip(
            of_facts, unit_directions.T, self._sizes, strict=True
        ):
            matches = of_fact @ unit
            own, other = matches[:mine], matches[mine:]
            highest = float(other.max()) if theirs else 0.0
            tau = highest + (float(own.quantile(_QUARTILE)) - highest) * _WAY
            tau = min(max(tau, _LOWEST), float(own[0]) - _MARGIN)  # own[0]: of the edit prompt
            found.append(max(tau, _MARGIN))
        return keys.new_tensor(found)


def others(fact: Fact) -> list[str]:
    """Subjects of bundled facts of the same relation or, if it is unknown, of one each of all."""
    relation, bundled = relation_of(fact), bundled_facts()
    same = [other.subject for other in bundled if other.relation == relation]
    one_each = {other.relation: other.subject for other in reversed(bundled)}
    found = dict.fromkeys(same or [*one_each.values()])
    return [subject for subject in found if alike(subject) != alike(fact.subject)][:_OTHERS]


def _located(lm: LanguageModel, asked: Sequence[tuple[str, str]]) -> list[Prompt]:
    """Prompts with one ``{}`` as tokens, the subject's last token found; too long ones left out."""
    found = []
    for prompt, subject in asked:
        text, start = prompt.replace("{}", subject), prompt.index("{}")
        last = subject_last_token(lm, text, start, start + len(subject))
        ids = tuple(lm.token_ids(text))
        if last is not None and len(ids) <= lm.context_window:
            found.append(Prompt(ids, last, last))
    return found
