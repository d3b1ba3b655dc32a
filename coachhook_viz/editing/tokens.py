"""From facts to token ids: subjects, targets, context templates, batches by length.

tokenize            a prompt's ids, with the model's leading text, checked
subject_tokens      where a subject's tokens stand
Prompt              a tokenised prompt that knows where its subject ends, and where it is edited
FactTokens          everything of one fact's column that editing runs through the model
readable            tokens as texts, parts of characters too
prepare             the FactTokens of a batch of facts, or a FactError that says what to change
sample_contexts     context templates sampled from the model itself
length_batches      which sequences to run together
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from coachhook_viz.editing.hooks import attached
from coachhook_viz.editing.method import ContextTemplates
from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.sites import SITES, Site
from coachhook_viz.errors import FirstTokenWarning as FirstTokenWarning
from coachhook_viz.facts import Fact, FactError, Problem
from coachhook_viz.models import LanguageModel
from coachhook_viz.texts import BREAKS, alike, joined
from coachhook_viz.warned import warn

KL_PROMPT = "{} is a"
_BARE: ContextTemplates = (("{}",),)
_CONTEXT_OPENERS = ("The", "Therefore", "Because", "I", "You")
_CONTEXT_TOKENS = 10
_CONTEXT_SEED = 0
_OVERHEAD = 25  # tokens that one more batch costs: reading every weight once more


@dataclass(frozen=True)
class Prompt:
    """Token ids of a prompt, and the positions of its subject's last token and of the edit."""

    ids: tuple[int, ...]
    subject_last: int
    edited: int


@dataclass(frozen=True)
class FactTokens:
    """One column of a fact, tokenised: its prompt or, at the answer site, one of its wordings.

    Attributes
    ----------
    fact : int
        Place of the fact in its batch.
    groups : tuple of tuple of Prompt
        The prompt in each context template, in the templates' groups; the first is the bare one.
    target : tuple of int
        Target token ids, as `continuation` has them after the prompt.
    essence : Prompt
        The KL prompt, "{subject} is a".
    preserved : tuple of Prompt
        Prompts about the subject after which the model is to go on as it did.
    """

    fact: int
    groups: tuple[tuple[Prompt, ...], ...]
    target: tuple[int, ...]
    essence: Prompt
    preserved: tuple[Prompt, ...] = ()

    @property
    def bare(self) -> Prompt:
        """The edit prompt itself, in no context."""
        return self.groups[0][0]

    @property
    def contexts(self) -> list[Prompt]:
        """The prompt in every context, bare one first."""
        return [prompt for group in self.groups for prompt in group]


def tokenize(lm: LanguageModel, text: str) -> list[int]:
    """Token ids of a prompt that the model can read.

    Raises
    ------
    ValueError
        If it has no token, or more than the model's context window.
    """
    ids = lm.token_ids(text)
    if not ids:
        raise ValueError("the prompt has no token")
    if len(ids) > lm.context_window:
        raise ValueError(
            f"the prompt {text[:40]!r}… has {len(ids)} tokens, but {lm.name} reads at most"
            f" {lm.context_window}: shorten it"
        )
    return ids


def continuation(lm: LanguageModel, prompt: str, answer: str) -> tuple[list[int], list[int]]:
    """Token ids of `prompt`, and of `answer` after it, as `texts.joined` puts them together.

    Raises
    ------
    ValueError
        If the answer has no token of its own after this prompt, or the prompt is too long.
    """
    before = tokenize(lm, prompt)
    text = joined(prompt, answer)
    if text == f"{prompt} {answer.strip()}":
        whole = lm.token_ids(text)
        after = whole[len(before) :] if whole[: len(before)] == before else []
    else:
        after = _ids_from(lm, text, len(prompt))
        if not after and not prompt.endswith(BREAKS):  # a token holds the end of the prompt, too
            after = _ids_from(lm, f"\n{answer.strip()}", 1)
    if not after:
        raise ValueError(f"{answer!r} cannot be told apart from the prompt {prompt!r} as tokens")
    return before, after


def _ids_from(lm: LanguageModel, text: str, start: int) -> list[int]:
    """Ids of the tokens of ``text[start:]``; none if a token stands on both sides of `start`.

    By place, since two line breaks can be one token at a prompt's end and two before an answer.
    """
    start += len(lm.lead)
    encoding = lm.tokenizer(lm.lead + text, return_offsets_mapping=True)
    places = zip(encoding["input_ids"], encoding["offset_mapping"], strict=True)
    found = [(token, first) for token, (first, last) in places if last > start]
    return [token for token, _ in found] if all(first >= start for _, first in found) else []


def readable(lm: LanguageModel, ids: Sequence[int]) -> tuple[str, ...]:
    """Each token as text; a part of a character as the character, and which part it is.

    As in "国 (1/2)", "国 (2/2)". A part whose other ones are not there is shown as its bytes.
    """
    texts = [str(lm.tokenizer.decode([token])) for token in ids]
    start = 0
    while start < len(texts):
        stop = start + 1
        if _PART in texts[start]:
            ends = range(start + 2, min(start + _MOST_PARTS, len(ids)) + 1)
            wholes = ((end, str(lm.tokenizer.decode(list(ids[start:end])))) for end in ends)
            stop, whole = next((one for one in wholes if _PART not in one[1]), (stop, ""))
            for place in range(start, stop):
                part = f"{whole} ({place - start + 1}/{stop - start})"
                texts[place] = part if whole else _bytes_of(lm, ids[place]) or texts[place]
        start = stop
    return tuple(texts)


_PART = "\ufffd"  # what a tokenizer decodes a part of a character to
_MOST_PARTS = 8  # tokens that some characters are made of together


def _bytes_of(lm: LanguageModel, token: int) -> str:
    """The bytes of a token, as in "<0xE5><0x9B>"; empty if it has none of its own."""
    piece = str(lm.tokenizer.convert_ids_to_tokens(token))
    if re.fullmatch(r"(<0x[0-9A-F]{2}>)+", piece):
        return piece
    found = [_LETTERS.get(letter) for letter in piece]
    return "" if None in found else "".join(f"<0x{byte:02X}>" for byte in found)


def _byte_letters() -> dict[str, int]:
    """The bytes by the letters that byte-level tokenizers write them as, as GPT-2's does."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


_LETTERS = _byte_letters()


def subject_tokens(lm: LanguageModel, text: str, start: int, stop: int) -> list[int]:
    """Positions of the tokens that hold characters of ``text[start:stop]``.

    The text's own offsets decide, so merges with what stands before or after do not matter.
    """
    shift = len(lm.lead)
    encoding = lm.tokenizer(lm.lead + text, return_offsets_mapping=True)
    return [
        position
        for position, (first, last) in enumerate(encoding["offset_mapping"])
        if first < stop + shift and last > max(first, start + shift)
    ]


def subject_last_token(lm: LanguageModel, text: str, start: int, stop: int) -> int | None:
    """The last of the `subject_tokens`; None if no token holds any of the subject's characters."""
    inside = subject_tokens(lm, text, start, stop)
    return inside[-1] if inside else None


def prepare(
    lm: LanguageModel,
    facts: Sequence[Fact],
    templates: ContextTemplates,
    site: Site = SITES["subject"],
    preserve: Sequence[str] = (),
) -> list[FactTokens]:
    """Tokenise `facts`, their prompts in every context template, and what to `preserve` of them.

    Returns
    -------
    list of FactTokens
        One for each fact; where the site takes wordings, one more for each of them, after that
        of its fact's prompt and in no context but its own.

    Raises
    ------
    FactError
        Naming each fact and field whose tokens cannot be edited: a subject or target without a
        token, a prompt longer than the model's context window, a paraphrase or neighbour that
        could not be measured.

    Warns
    -----
    FirstTokenWarning
        If a subject is the very first token of its prompt.
    """
    problems: list[Problem] = []
    prepared: list[FactTokens] = []
    for index, fact in enumerate(facts):
        wordings = fact.wordings if site.takes_wordings else ()
        fields = [("prompt", fact.prompt, templates), *(("wordings", w, _BARE) for w in wordings)]
        for field, prompt, contexts in fields:
            try:
                column = _column(lm, index, fact, (field, prompt), contexts, site, preserve)
                prepared.append(column)
            except _Unfit as unfit:
                problems.append(unfit.problem)
        if any(problem.index == index for problem in problems):
            continue
        for field, prompt, answer in [
            *(("paraphrases", paraphrase, fact.target) for paraphrase in fact.paraphrases),
            *(("neighbors", n.prompt, n.answer) for n in fact.neighbors),
            *(("probes", probe.prompt, probe.answer) for probe in fact.probes),
        ]:
            try:
                tokenize(lm, prompt) if answer is None else continuation(lm, prompt, answer)
            except ValueError as error:
                problems.append(Problem(index, field, str(error)))
    if problems:
        raise FactError(problems, facts)
    first = dict.fromkeys(facts[t.fact].subject for t in prepared if not t.bare.subject_last)
    if first:
        warn(
            f"the subject of {', '.join(map(repr, first))} is the prompt's first token, where keys"
            " are nearly the same for every word: such an edit neither takes nor stays local."
            ' Load the model with a lead, e.g. load_model(name, lead="\\n")',
            FirstTokenWarning,
            stacklevel=2,
        )
    return prepared


class _Unfit(Exception):
    """A column whose tokens cannot be edited."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem


def _column(
    lm: LanguageModel,
    index: int,
    fact: Fact,
    worded: tuple[str, str],
    templates: ContextTemplates,
    site: Site,
    preserve: Sequence[str],
) -> FactTokens:
    """One prompt of a fact, given with the name of its field, in the context templates."""
    field, prompt = worded

    def located(template: str, prompt: str) -> Prompt:
        text = template.replace("{}", prompt)
        start = text.index("{}", len(template) - len("{}"))
        text = text[:start] + fact.subject + text[start + len("{}") :]
        last = subject_last_token(lm, text, start, start + len(fact.subject))
        if last is None:
            reason = f"{fact.subject!r} has no token in this model"
            raise _Unfit(Problem(index, "subject", reason))
        ids = tuple(lm.token_ids(text))
        return Prompt(ids, last, site.place(ids, last))

    groups = tuple(tuple(located(t, prompt) for t in group) for group in templates)
    essence = located("{}", KL_PROMPT)
    preserved = tuple(located("{}", p) for p in preserve if alike(p) != alike(prompt))
    prompts = [*preserved, *(prompt for group in groups for prompt in group)]
    longest = max(len(prompt.ids) for prompt in prompts)
    room = lm.context_window - longest
    text = prompt.replace("{}", fact.subject)
    try:
        target = continuation(lm, text, fact.target)[1] if room >= 0 else []
    except ValueError as error:
        raise _Unfit(Problem(index, "target", str(error))) from None
    if len(target) > room:
        reason = (
            f"{longest + len(target)} tokens with its context and target, but {lm.name} reads"
            f" at most {lm.context_window}: shorten it"
        )
        raise _Unfit(Problem(index, field, reason))
    return FactTokens(index, groups, tuple(target), essence, preserved)


def sample_contexts(lm: LanguageModel, watch: Watch) -> ContextTemplates:
    """The method's context templates: the bare prompt, and five prefixes of the model's own.

    Sampled with a fixed seed, so a model always gets the same ones.
    """
    watch("contexts", 0, 1)
    by_length: dict[int, list[list[int]]] = {}
    for opener in _CONTEXT_OPENERS:
        ids = lm.token_ids(opener)
        by_length.setdefault(len(ids), []).append(ids)
    texts: list[str] = []
    with attached(lm, {}), torch.random.fork_rng([lm.device] if lm.device.type == "cuda" else []):
        torch.manual_seed(_CONTEXT_SEED)
        for group in by_length.values():  # equal lengths: no pads to generate after
            openers = torch.tensor(group, device=lm.device)
            sampled = lm.generate(
                input_ids=openers,
                attention_mask=torch.ones_like(openers),
                max_new_tokens=_CONTEXT_TOKENS,
                do_sample=True,
                top_k=5,
            )
            decoded = lm.tokenizer.batch_decode(sampled, skip_special_tokens=True)
            texts += [text.removeprefix(lm.lead) for text in decoded]
    words = (" ".join(text.replace("{", " ").replace("}", " ").split()) for text in texts)
    return (("{}",), tuple(f"{text.rstrip(' .')}. {{}}" for text in words))


def length_batches(lengths: Sequence[int], overhead: int = _OVERHEAD) -> list[list[int]]:
    """Split sequences into batches of similar length.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each sequence.
    overhead : int
        What one more batch costs, in tokens: pads are paid for until a batch is cheaper.

    Returns
    -------
    list of list of int
        Indices into `lengths`; the split that minimises tokens run, pads and overhead included.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    ends = [
        stop
        for stop in range(1, len(order) + 1)
        if stop == len(order) or lengths[order[stop]] > lengths[order[stop - 1]]
    ]  # a batch ends where the length changes
    best: dict[int, tuple[int, list[int]]] = {0: (0, [])}
    for stop in ends:
        longest = lengths[order[stop - 1]]
        best[stop] = min(
            (cost + (stop - start) * longest + overhead, [*cuts, stop])
            for start, (cost, cuts) in best.items()
        )
    cuts = [0, *best[len(order)][1]]
    return [order[start:stop] for start, stop in pairwise(cuts)]
