"""The gates between an edit and an answer, in their order: each a number and a state.

Gate        one of them
Case        what they all look at: a prompt, its target, a fact, and the readings of both
subject, hook, facts, reached, blocks, others    takes one each
without     a state with some facts' columns dropped
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from coachhook_viz.editing.editor import check
from coachhook_viz.editing.forward import Batch, run_to
from coachhook_viz.editing.hooks import attached
from coachhook_viz.editing.inspect import Scope, read_scope
from coachhook_viz.editing.reach import share
from coachhook_viz.editing.sites import site_of
from coachhook_viz.editing.state import EditState, Round
from coachhook_viz.editing.tokens import FactTokens, FirstTokenWarning
from coachhook_viz.facts import Fact
from coachhook_viz.measure.about import stands
from coachhook_viz.measure.answers import Question, ask
from coachhook_viz.measure.lens import read, said
from coachhook_viz.models import LanguageModel
from coachhook_viz.warned import heard

State = Literal["open", "warns", "broken", "unknown"]
HALF = 0.5  # of the way to z: less than that is little
_HARDLY = 0.1  # a share of what speaks that is next to none
_PUSHES = 0.25  # a gain in probability that one other edit is blamed for
_OTHERS = 4  # other edits that are tried


@dataclass(frozen=True)
class Gate:
    """One link of the chain from an edit to an answer.

    Attributes
    ----------
    name : str
        "subject", "hook", "facts", "reached", "blocks" or "others".
    state : {"open", "warns", "broken", "unknown"}
        "unknown" where an earlier gate leaves nothing to look at.
    said : str
        What was found, in words.
    value : float or None
        Place of the subject's last token; z or match of the layer that comes closest; share of
        what speaks; share of the way to z; the block from which on the target is ahead; what the
        target's probability would gain without the one other edit.
    limit : float or None
        α, τ or ½, where there is such a bound.
    by_layer : tuple of (int, float, float, bool)
        Of the hook: each hooked layer, its score and bound, and whether it spoke.
    fact : int or None
        Place, among the facts in force, of the other fact that it names.
    """

    name: str
    state: State
    said: str
    value: float | None = None
    limit: float | None = None
    by_layer: tuple[tuple[int, float, float, bool], ...] = ()
    fact: int | None = None


@dataclass(frozen=True, eq=False)
class Case:
    """A prompt and its target under a state, and the fact that should have given it.

    Attributes
    ----------
    lm : LanguageModel
    state : EditState
    prompt, target : str
    place : int
        The fact's, among those in force.
    """

    lm: LanguageModel
    state: EditState
    prompt: str
    target: str
    place: int

    @property
    def fact(self) -> Fact:
        """The fact."""
        return self.state.facts[self.place]

    @cached_property
    def question(self) -> Question:
        """The prompt with the target after it."""
        return Question.of(self.lm, self.prompt, self.target)

    @cached_property
    def top(self) -> tuple[int, ...]:
        """The model's own tokens where the target's stand."""
        return ask(self.lm, self.state, [self.question])[0].top

    @property
    def holds(self) -> bool:
        """Whether the model says the whole target."""
        return self.top == self.question.answer

    @property
    def wrong(self) -> int:
        """Which token of the target is the first that the model does not say; 0 if it says all."""
        pairs = zip(self.top, self.question.answer, strict=True)
        return next((i for i, (one, other) in enumerate(pairs) if one != other), 0)

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """The prompt's tokens and those of the target before the first wrong one."""
        return self.question.prompt + self.question.answer[: self.wrong]

    @property
    def wanted(self) -> int:
        """The target's token that counts."""
        return self.question.answer[self.wrong]

    @property
    def named(self) -> str:
        """The subject as it stands in the prompt; empty if it does not."""
        start, stop = stands(self.prompt, self.fact.subject) or (0, 0)
        return self.prompt[start:stop]

    @cached_property
    def scope(self) -> Scope:
        """Where the hooks speak on the prompt."""
        return read_scope(self.lm, self.state, self.prompt, self.named or None)

    @property
    def at(self) -> int | None:
        """The token that the edit is written at; None if the prompt does not have it."""
        at_subject = site_of(self.state.config).at_subject
        return self.scope.subject_last if at_subject else len(self.question.prompt) - 1

    @cached_property
    def round(self) -> tuple[int, Round, int]:
        """The fact's round: its place, itself, and the fact's place in it."""
        place = self.place
        for number, round_ in enumerate(self.state.rounds):
            if place < len(round_.facts):
                return number, round_, place
            place -= len(round_.facts)
        raise IndexError(self.place)

    def token(self, place: int) -> str:
        """A token of the prompt, in a sentence."""
        text = self.scope.tokens[place]
        return f"“{text.strip() or repr(text)[1:-1]}”"

    def word(self, token: int) -> str:
        """A token of the vocabulary, in a sentence."""
        text = self.lm.tokenizer.decode([token])
        return f"“{text.strip() or repr(text)[1:-1]}”"

    def chances(self, state: EditState) -> Tensor:
        """Probabilities (vocabulary,) where the first wrong token stands, under `state`."""
        hooks = state.hook_layers(self.lm.dtype)
        found = read(self.lm, hooks, self.ids, [-1], prompt_length=len(self.question.prompt))
        return said(self.lm, found.states[-1], found.form).softmax(-1)[0]


def named(fact: Fact) -> str:
    """A fact, in a sentence."""
    return f"“{fact.subject} → {fact.target}”"


def without(lm: LanguageModel, state: EditState, ids: Collection[int]) -> EditState:
    """`state` with the columns of some facts dropped; thresholds stay as they are judged."""
    rounds = [round_.without(ids) for round_ in state.rounds]
    return EditState.of(lm, state.config, rounds).judged(alphas=state.alphas)


def subject(case: Case) -> Gate:
    """Whether the prompt names the fact's subject, and where."""
    fact, place = case.fact, case.scope.subject_last
    if not case.named or place is None:
        opened = case.scope.opened
        seen = opened is not None and opened[case.place] is not None
        said = f"“{fact.subject}” does not stand in the prompt"
        said += ", but the model takes something there for it" if seen else ""
        return Gate("subject", "warns" if seen else "broken", f"{said}.")
    said = f"“{case.named}” ends at token {place}, {case.token(place)}."
    if not place:
        said += " It is the first token, where keys are nearly the same for every word."
    elif case.named != fact.subject:
        said += f" It was edited as “{fact.subject}”."
    clear = place > 0 and case.named == fact.subject
    return Gate("subject", "open" if clear else "warns", said, float(place))


def hook(case: Case) -> Gate:
    """Whether the hooks speak at the token that the edit is written at, and how nearly."""
    scope, at, i = case.scope, case.at, case.place
    if scope.kind == "two-key" and scope.opened is not None and scope.subject_match is not None:
        start = scope.opened[i]
        if start is None:
            best, bound = float(scope.subject_match[i].max()), float(scope.subject_threshold or 0)
            said = (
                f"The fact is not opened: the best match with its subject is {best:.2f}, below τ"
                f" {bound:.2f}."
            )
            return Gate("hook", "broken", said, best, bound)
    if at is None:
        return Gate("hook", "unknown", "The prompt has no token to speak at.")
    scores, bounds, name, sign = _scores(case, at)
    spoke = scope.in_scope[:, at] if scope.speaks is None else scope.speaks[:, i, at]
    by_layer = tuple(
        (layer, float(score), bound, bool(hit))
        for layer, score, bound, hit in zip(scope.layers, scores, bounds, spoke, strict=True)
    )
    closest = max(by_layer, key=lambda line: line[1] - line[2])
    layer, value, limit, _ = closest
    count, of = int(spoke.sum()), len(scope.layers)
    if scope.kind == "off":
        return Gate("hook", "open", "There is no scope: the edit speaks at every token.", 1.0)
    judged = f"{name} {value:.2f} at layer {layer}, {sign} {limit:.2f}"
    if scope.kind == "zscore":
        judged += f", at most {scope.ceiling:.2f} in {len(scope.tokens)} tokens"
    if scope.opened is not None:
        judged = f"open from token {scope.opened[i]} on, {judged}"
    if count:
        whole = "The hook speaks" if count == of else f"{count} of {of} hooked layers speak"
        said = f"{whole} at {case.token(at)}: {judged}."
        return Gate("hook", "open" if count == of else "warns", said, value, limit, by_layer)
    said = f"The hook is silent at {case.token(at)}: {judged}."
    where = scope.in_scope if scope.speaks is None else scope.speaks[:, i]
    elsewhere = where.any(0).nonzero().flatten().tolist()
    if elsewhere:
        said += f" It speaks at {', '.join(map(case.token, elsewhere[:3]))} instead."
    return Gate("hook", "broken", said, value, limit, by_layer)


def _scores(case: Case, at: int) -> tuple[Tensor, list[float], str, str]:
    """By layer what the rule judges at a token, its bounds, and their names."""
    scope = case.scope
    if scope.matches:
        name = "relation match" if scope.kind == "two-key" else "match"
        bounds = scope.match_thresholds[:, case.place].tolist()
        return scope.match[:, case.place, at], bounds, name, "τ"
    return scope.z[:, at], [float(alpha) for alpha in scope.alpha], "z", "α"


def facts(case: Case) -> Gate:
    """Which facts speak where the edit is written, with their shares."""
    scope, at = case.scope, case.at
    if at is None or not bool(scope.in_scope[:, at].any()):
        return Gate("facts", "unknown", "No fact speaks there.")
    terms = (scope.contributions[:, :, at] * scope.in_scope[:, at, None]).abs().sum(0)  # (facts,)
    shares = (terms / terms.sum().clamp_min(1e-12)).tolist()
    order = sorted(range(len(shares)), key=lambda j: -shares[j])
    own = shares[case.place]
    told = [f"{named(scope.facts[j])} {shares[j]:.0%}" for j in order[:3] if shares[j] >= 0.01]
    other = next((j for j in order if j != case.place), None)
    state: State = "open" if own >= HALF else "warns" if own >= _HARDLY else "broken"
    said = f"What speaks there is of {', '.join(told)}."
    if own < _HARDLY:
        rest = f": it is of {', '.join(told)}" if told else ""
        said = f"Hardly anything of {named(case.fact)} speaks there{rest}."
    return Gate("facts", state, said, own, fact=other if own < HALF else None)


def reached(case: Case) -> Gate:
    """How much of the way to the fact's target state was covered here, and at its own prompt."""
    method = case.state.config.method
    if method.aims_at != "block":
        said = f"{method.title} has no target among the hidden states to be on the way to."
        return Gate("reached", "unknown", said)
    if case.at is None:
        return Gate("reached", "unknown", "There is no token to write at.")
    lm, state, at = case.lm, case.state, case.at
    number, round_, place = case.round
    block = max(state.layers)
    # a round of an earlier version may have had fewer wordings
    columns = _own_columns(case)[: round_.owners.count(place)]
    asked = [column.bare.ids for column in columns]
    nearest = asked.index(case.question.prompt) if case.question.prompt in asked else 0
    column, prompt = round_.owners.index(place) + nearest, columns[nearest].bare
    below = EditState.of(lm, state.config, state.rounds[:number])
    start = _state(case, below, prompt.ids, prompt.edited, block)
    target = round_.targets[column]
    own = None if round_.reached is None else float(round_.reached[place])
    if own is None:
        after = _state(case, below.then(round_), prompt.ids, prompt.edited, block)
        own = float(share(start[None], after[None], target[None]))
    bareless = without(lm, state, {state.fact_ids[case.place]})
    here, there = (_state(case, of, case.question.prompt, at, block) for of in (bareless, state))
    way = target - start
    length = float(way.square().sum())
    value = own if length < 1e-12 else float((there - here) @ way) / length
    low = min(value, own) < HALF
    said = f"Here {value:.0%} of the way to z was covered; at its own prompt {own:.0%}."
    told: State = "open" if not low else "warns" if case.holds else "broken"
    return Gate("reached", told, said, value, HALF)


def _own_columns(case: Case) -> list[FactTokens]:
    """The fact's own prompt and, where they were edited too, its wordings."""
    bare = replace(case.fact, paraphrases=(), neighbors=(), probes=())
    with heard(FirstTokenWarning):
        return check(case.lm, case.state.config, [bare])


@torch.no_grad()
def _state(case: Case, state: EditState, ids: tuple[int, ...], place: int, block: int) -> Tensor:
    """Output (d_model,) of a block at a token, float64."""
    with attached(case.lm, state.hook_layers(case.lm.dtype)):
        states, _ = run_to(case.lm, Batch.of([ids], case.lm.device), block)
    return states[0, place].double()


def blocks(case: Case) -> Gate:
    """Where, block by block, the target overtakes what else would be said, or is overtaken."""
    lm, state = case.lm, case.state
    hooks, size = state.hook_layers(lm.dtype), len(case.question.prompt)
    found = read(lm, hooks, case.ids, [-1], prompt_length=size)
    shares = said(lm, found.states[:, 0], found.form).softmax(-1)
    if case.holds:
        bare = read(lm, {}, case.ids, [-1])
        plain = said(lm, bare.states[-1], bare.form)[0]
        rivals = [token for token in plain.topk(2).indices.tolist() if token != case.wanted]
        rival = rivals[0]
    else:
        rival = case.top[case.wrong]
    ahead = (shares[:, case.wanted] > shares[:, rival]).tolist()
    last, share_ = len(ahead) - 1, float(shares[-1, case.wanted])
    one, other = case.word(case.wanted), case.word(rival)
    if ahead[last]:
        first = next(b for b in range(last, -1, -1) if b == 0 or not ahead[b - 1])
        told = f"{one} is ahead of {other} from block {first} on, at the end with P {share_:.2f}."
        return Gate("blocks", "open", told, float(first))
    before = next((b for b in range(last, -1, -1) if ahead[b]), None)
    if before is None:
        told = f"{one} is never ahead of {other}; at the end its P is {share_:.2f}."
        return Gate("blocks", "broken", told)
    told = f"{one} is ahead up to block {before}; {other} overtakes it at block {before + 1}."
    return Gate("blocks", "broken", told, float(before + 1))


def others(case: Case) -> Gate:
    """Which other edit holds the target back: what it would gain without each of them."""
    lm, state, scope = case.lm, case.state, case.scope
    terms = (scope.contributions * scope.in_scope[:, None]).abs().sum((0, 2))  # (facts,)
    order = sorted(range(len(scope.facts)), key=lambda j: -float(terms[j]))
    tried = [j for j in order if j != case.place and float(terms[j]) > 0][:_OTHERS]
    if not tried:
        return Gate("others", "open", "No other edit speaks on this prompt.")
    now = float(case.chances(state)[case.wanted])
    best, gain, freed = tried[0], -1.0, False
    for j in tried:
        chances = case.chances(without(lm, state, {state.fact_ids[j]}))
        found = float(chances[case.wanted]) - now
        if found > gain:
            best, gain = j, found
            freed = int(chances.argmax()) == case.wanted and not case.holds
    guilty = freed or gain >= _PUSHES
    told: State = "open" if not guilty else "warns" if case.holds else "broken"
    other = named(scope.facts[best])
    if guilty:
        said = f"{other} pushes against it: without that edit its P is {now + gain:.2f}, not"
        said += f" {now:.2f}."
    else:
        said = f"No other edit holds it back; without {other} its P changes by {gain:+.2f}."
    return Gate("others", told, said, gain, fact=best if guilty else None)
