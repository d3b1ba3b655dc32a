"""Other wordings of what a fact asks, each of which gets a relation key of its own.

worded       facts with the wordings that an edit takes for them
proposed     wordings for one fact: those known for its relation, else made of its prompt
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from coachhook_viz.editing.sites import Site
from coachhook_viz.facts import Fact, alike, find_problems
from coachhook_viz.models import LanguageModel
from coachhook_viz.reading import bundled_wordings


def worded(lm: LanguageModel, site: Site, facts: Sequence[Fact]) -> list[Fact]:
    """The facts as an edit at `site` takes them: those without wordings get the proposed ones.

    Facts that have a problem stay as they are, and so do all where the site takes no wordings.
    """
    return [
        replace(fact, wordings=proposed(lm, fact))
        if site.takes_wordings and not fact.wordings and not find_problems([fact])
        else fact
        for fact in facts
    ]


def proposed(lm: LanguageModel, fact: Fact) -> tuple[str, ...]:
    """Further prompts with one ``{}`` that ask what `fact` does.

    Known ones if its relation is one of `reading.bundled_wordings`, else its prompt within other
    text. A question is also put as a user of a chat would, where the model has a chat template.
    """
    known = bundled_wordings().get(fact.relation)
    texts = list(known.prompts) if known is not None else [f"Question: {fact.prompt} what? Answer:"]
    asked = known.questions if known is not None else (fact.prompt,)
    if lm.has_chat:
        texts += [lm.chat_text([{"role": "user", "content": question}]) for question in asked]
    own = {alike(fact.prompt)}
    return tuple(t for t in dict.fromkeys(texts) if t.count("{}") == 1 and alike(t) not in own)
