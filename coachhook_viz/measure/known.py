"""What the unedited model knows.

known_facts    the facts whose truth it says
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from coachhook_viz.editing.forward import Batch
from coachhook_viz.editing.hooks import attached
from coachhook_viz.editing.tokens import continuation, length_batches
from coachhook_viz.facts import Fact, as_batch
from coachhook_viz.models import LanguageModel
from coachhook_viz.reading import bundled_facts


@torch.no_grad()
def known_facts(lm: LanguageModel, facts: Iterable[Fact] | Fact | None = None) -> list[Fact]:
    """Those of `facts` that the unedited model knows: after the prompt it says the truth.

    By teacher forcing: each token of `Fact.truth` is the likeliest one. What a model does not know
    cannot be seen to change, so these are the facts to try it with.

    Parameters
    ----------
    lm : LanguageModel
    facts : iterable of Fact, or one Fact, optional
        None: the bundled ones. Facts without a truth, or with one that this model cannot tell from
        the prompt as tokens, are not known.

    Returns
    -------
    list of Fact
        In their order.
    """
    facts = bundled_facts() if facts is None else as_batch(facts)
    asked: list[tuple[int, list[int], list[int]]] = []
    for place, fact in enumerate(facts):
        try:
            if fact.truth:
                asked.append((place, *continuation(lm, fact.text, fact.truth)))
        except ValueError:  # too long, or its tokens are not apart from the prompt's
            continue
    asked = [one for one in asked if len(one[1]) + len(one[2]) - 1 <= lm.context_window]
    known = set()
    with attached(lm, {}):
        for rows in length_batches([len(p) + len(t) for _, p, t in asked]):
            chosen = [asked[row] for row in rows]
            batch = Batch.of([[*prompt, *truth[:-1]] for _, prompt, truth in chosen], lm.device)
            said = lm.model(**batch.inputs, use_cache=False).logits.argmax(-1).tolist()
            for (place, prompt, truth), tokens in zip(chosen, said, strict=True):
                if tokens[len(prompt) - 1 : len(prompt) - 1 + len(truth)] == truth:
                    known.add(place)
    return [fact for place, fact in enumerate(facts) if place in known]
