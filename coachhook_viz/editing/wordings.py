"""Other wordings of what a fact asks, and foils, which ask for anything else.

worded       facts with the wordings that an edit takes for them, each a relation key of its own
proposed     wordings for one fact: those known for its relation, else made of its prompt
written_for  whether a fact is what an edit has made of another
relation_of  what a fact's prompt asks for, in a word
foil_keys    keys of prompts about a fact's subject that its relation must not take in
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from coachhook_viz.editing.forward import Batch
from coachhook_viz.editing.hooks import attached
from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.sites import Site
from coachhook_viz.editing.tokens import FactTokens, length_batches
from coachhook_viz.facts import Fact, alike, find_problems
from coachhook_viz.models import LanguageModel
from coachhook_viz.reading import bundled_foils, bundled_wordings, known_relation


def worded(lm: LanguageModel, site: Site, facts: Sequence[Fact]) -> list[Fact]:
    """The facts as an edit at `site` takes them: their own wordings, then the proposed ones.

    Facts that have a problem stay as they are, and so do all where the site takes no wordings.
    """
    return [
        replace(fact, wordings=(*fact.wordings, *proposed(lm, fact)))
        if site.takes_wordings and not find_problems([fact])
        else fact
        for fact in facts
    ]


def proposed(lm: LanguageModel, fact: Fact) -> tuple[str, ...]:
    """Further prompts with one ``{}`` that ask what `fact` does, beside those that it has.

    Known ones if its relation, given or seen by its prompt, is one of `reading.bundled_wordings`;
    else its prompt within other text. A question is also put as a user of a chat would, where the
    model has a chat template.
    """
    known = bundled_wordings().get(relation_of(fact))
    texts = list(known.prompts) if known is not None else [f"Question: {fact.prompt} what? Answer:"]
    asked = known.questions if known is not None else (fact.prompt,)
    if lm.has_chat:
        texts += [lm.chat_text([{"role": "user", "content": question}]) for question in asked]
    own = {alike(text) for text in (fact.prompt, *fact.wordings)}
    return tuple(t for t in dict.fromkeys(texts) if t.count("{}") == 1 and alike(t) not in own)


def written_for(asked: Fact, written: Fact) -> bool:
    """Whether `written` is what an edit has made of `asked`: the same and proposed wordings."""
    own = written.wordings[: len(asked.wordings)]
    return replace(written, wordings=own) == asked


def relation_of(fact: Fact) -> str:
    """Its relation as given, or if that is no known one as its prompt asks for; "" if unknown.

    A Wikidata property that means a known one goes by the name of that.
    """
    known = bundled_wordings()
    own = known.get(fact.relation)
    if own is not None:
        return next(name for name, wordings in known.items() if wordings == own)
    return known_relation(fact.prompt) or fact.relation


@torch.no_grad()
def foil_keys(
    lm: LanguageModel,
    layers: Sequence[int],
    facts: Sequence[Fact],
    columns: Sequence[FactTokens],
    watch: Watch,
) -> Mapping[int, list[Tensor]]:
    """Keys at the last token of foils: about a fact's subject, but not asking for its relation.

    After a chat's question, say, keys are much alike whatever was asked. What tells a relation from
    the others of its subject is seen only beside them. First come the fact's own. One that is not,
    and after which the unedited model says the same as after the fact's prompt, asks the same and
    is left out.

    Parameters
    ----------
    lm : LanguageModel
    layers : sequence of int
    facts : sequence of Fact
        The b facts.
    columns : sequence of FactTokens
        Theirs.
    watch : Watch
        Asked before each batch whether to stop.

    Returns
    -------
    mapping of int to list of Tensor
        By layer and fact, (d_key, foils).
    """
    own = {column.fact: column.bare.ids for column in reversed(columns)}
    sequences, owners, given = [], [], []
    for i, fact in enumerate(facts):
        foils = bundled_foils(relation_of(fact))
        asked = [*fact.foils, *foils.prompts]
        if lm.has_chat:
            asked += [lm.chat_text([{"role": "user", "content": q}]) for q in foils.questions]
        about = [lm.token_ids(text.replace("{}", fact.subject)) for text in asked]
        sequences += [ids[-lm.context_window :] for ids in (own[i], *about)]
        owners += [i] * (1 + len(asked))
        given += [0 < place <= len(fact.foils) for place in range(1 + len(asked))]
    keys: dict[int, list[Tensor]] = {layer: [torch.empty(0)] * len(sequences) for layer in layers}
    said = [0] * len(sequences)
    caught: dict[int, Tensor] = {}

    def catch(layer: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda module, args: caught.update({layer: args[0].to(lm.device)})

    with attached(lm, {}):
        handles = [lm.down_projection(at).register_forward_pre_hook(catch(at)) for at in layers]
        try:
            for rows in length_batches([len(ids) for ids in sequences]):
                watch.stop_if_asked("layers", 0, len(layers))
                batch = Batch.of([sequences[row] for row in rows], lm.device)
                last = batch.mask.sum(1) - 1
                places = last.unique()
                logits = lm.model(
                    **batch.inputs, use_cache=False, logits_to_keep=places.tolist()
                ).logits
                at = torch.searchsorted(places, last)
                for i, row in enumerate(rows):
                    said[row] = int(logits[i, at[i]].argmax())
                    for layer in layers:
                        keys[layer][row] = caught[layer][i, last[i]].double()
        finally:
            for handle in handles:
                handle.remove()
    first = {i: owners.index(i) for i in range(len(facts))}
    kept = [
        [
            row
            for row, owner in enumerate(owners)
            if owner == i and (given[row] or said[row] != said[first[i]])
        ]
        for i in range(len(facts))
    ]
    none = torch.empty(lm.d_key, 0, dtype=torch.float64, device=lm.device)
    return {
        layer: [torch.stack([found[row] for row in rows], 1) if rows else none for rows in kept]
        for layer, found in keys.items()
    }
