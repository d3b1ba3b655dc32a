"""Why a prompt gets an edit's target, or not: gates in order, the first broken one marked.

why       asks the model
failing   the prompt of a fact that a bad score comes from
Why       what it found: gates, one sentence, one action
Action    what mends it
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from html import escape
from typing import Literal

import pandas as pd

from coachhook_viz.editing.config import ScopeKind
from coachhook_viz.editing.inspect import read_scope
from coachhook_viz.editing.scopes import SCOPES
from coachhook_viz.editing.state import EditState
from coachhook_viz.facts import Fact, alike
from coachhook_viz.measure import gates
from coachhook_viz.measure.about import Idle, about, stands
from coachhook_viz.measure.answers import Question, ask
from coachhook_viz.measure.gates import Case, Gate, named
from coachhook_viz.measure.metrics import edit_prompt, neighbours, paraphrases, same_subject
from coachhook_viz.models import LanguageModel

MARKS = {"open": "●", "warns": "◐", "broken": "○", "unknown": "·"}
TITLES = {
    "subject": "subject found",
    "hook": "hook spoke",
    "facts": "which facts",
    "reached": "way to z",
    "blocks": "block by block",
    "others": "other edits",
}


@dataclass(frozen=True)
class Action:
    """What mends it, in words and as a call on the session.

    Attributes
    ----------
    kind : str
        "scope": look under another scope; "wording": edit again with this wording; "two keys":
        edit all facts again with two keys; "mute": mute the other fact; "unmute"; "redo";
        "subject": write it as it was edited; "facts": apply some first; "steps": edit again with
        more steps.
    said : str
    code : str
        The call on ``session``; empty where it is the prompt that has to change.
    fact : int or None
        Id of the fact that is muted, unmuted, or edited again.
    scope : str or None
    wording : str or None
        What is added to the fact's wordings.
    """

    kind: Literal[
        "scope", "wording", "two keys", "mute", "unmute", "redo", "subject", "facts", "steps"
    ]
    said: str
    code: str = ""
    fact: int | None = None
    scope: ScopeKind | None = None
    wording: str | None = None


@dataclass(frozen=True)
class Why:
    """Why a prompt gets the target, or not.

    Attributes
    ----------
    prompt : str
    target : str
        Empty where there is no edit to want anything.
    says : str
        The model's likeliest token, where the first wrong token of the target stands.
    holds : bool
        Whether it says the whole target.
    fact : Fact or None
        The edit that should have given it.
    fact_id : int or None
    gates : tuple of Gate
        In their order: subject, hook, facts, reached, blocks, others; fewer where an edit is
        missing altogether.
    sentence : str
    action : Action or None
        None where nothing has to be mended.
    """

    prompt: str
    target: str
    says: str
    holds: bool
    fact: Fact | None
    fact_id: int | None
    gates: tuple[Gate, ...]
    sentence: str
    action: Action | None

    @property
    def broken(self) -> Gate | None:
        """The first broken gate."""
        return next((gate for gate in self.gates if gate.state == "broken"), None)

    @property
    def frame(self) -> pd.DataFrame:
        """One row a gate: gate, state, value, limit, said."""
        rows = [(g.name, g.state, g.value, g.limit, g.said) for g in self.gates]
        frame = pd.DataFrame(rows, columns=["gate", "state", "value", "limit", "said"])
        return frame.astype({"value": "float64", "limit": "float64"})

    def __str__(self) -> str:
        """The sentence, the gates, and the action."""
        lines = [
            f"{'→' if gate is self.broken else ' '} {MARKS[gate.state]} {TITLES[gate.name]}:"
            f" {gate.said}"
            for gate in self.gates
        ]
        mend = [] if self.action is None else [self.action.said]
        return "\n".join([self.sentence, *lines, *mend])

    def __repr__(self) -> str:
        return str(self)  # in a terminal, too

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{MARKS[gate.state]}</td><th>{TITLES[gate.name]}</th>"
            f"<td style='text-align:left'>{'<b>' * (gate is self.broken)}{escape(gate.said)}"
            f"{'</b>' * (gate is self.broken)}</td></tr>"
            for gate in self.gates
        )
        mend = "" if self.action is None else f"<p>{escape(self.action.said)}</p>"
        return f"<p>{escape(self.sentence)}</p><table>{rows}</table>{mend}"


def why(
    lm: LanguageModel,
    state: EditState,
    prompt: str,
    target: str | None = None,
    idle: Idle | None = None,
) -> Why:
    """Walk the gates between the edits in force and what the model says to `prompt`.

    Parameters
    ----------
    lm : LanguageModel
    state : EditState
    prompt : str
    target : str, optional
        None: that of the fact in force that the prompt is about.
    idle : Idle, optional
        The fact that the prompt is about, if it is not in force.

    Raises
    ------
    ValueError
        If the prompt has no token or too many, or the target has none after it.
    """
    if target is not None and (not isinstance(target, str) or not target.strip()):
        raise ValueError(f"the target {target!r} has no token: write a word")
    question = Question.of(lm, prompt, target)
    top = ask(lm, state, [question])[0].top
    place, unlike = _edit_of(state, prompt, target)
    if place is None or unlike:
        holds = target is not None and top == question.answer
        return _no_edit(lm, state, prompt, target, (_word(lm, top[0]), holds), place, idle)
    fact = state.facts[place]
    case = Case(lm, state, prompt, target or fact.target, place)
    found = [gates.subject(case), gates.hook(case), gates.facts(case), gates.reached(case)]
    found += [gates.blocks(case), gates.others(case)]
    if found[-1].state == "broken":  # the blocks only show what the other edit does
        found[-2] = replace(found[-2], state="warns")
    if case.holds:
        found = [replace(g, state="warns") if g.state == "broken" else g for g in found]
    says = _word(lm, case.top[case.wrong])
    if target is None and _stays(fact, prompt):
        return _beside(case, found)
    broken = next((gate for gate in found if gate.state == "broken"), None)
    return Why(
        prompt,
        case.target,
        says,
        case.holds,
        fact,
        state.fact_ids[place],
        tuple(found),
        _sentence(case, says, broken, found),
        None if broken is None else _mend(case, broken),
    )


def _stays(fact: Fact, prompt: str) -> bool:
    """Whether a prompt is known to ask something else of the fact's subject."""
    return alike(prompt) in {alike(probe.prompt) for probe in same_subject(fact)}


def _beside(case: Case, found: list[Gate]) -> Why:
    """Of a prompt about the same subject that should stay as it is."""
    lm, state, fact_id = case.lm, case.state, case.state.fact_ids[case.place]
    question = Question.of(lm, case.prompt)
    asked = [ask(lm, at, [question])[0].top[0] for at in (EditState.of(lm, state.config), state)]
    before, now = (_word(lm, token) for token in asked)
    told = f"This asks something else of “{case.fact.subject}”, and should stay as it is"
    action: Action | None = None
    if asked[0] == asked[1]:
        found = [replace(gate, state="open") for gate in found]
        told = f"{told}: the model still says “{now}”."
    else:
        spoke = ("hook", "facts")
        found = [
            replace(gate, state="broken" if gate.name == "hook" else "open")
            for gate in found
            if gate.name in ("subject", *spoke)
        ]
        told = f"{told}, but “{before}” became “{now}”: an edit of the subject moves all of it."
        action = _two_keys(fact_id)
    return Why(
        case.prompt,
        before,
        now,
        asked[0] == asked[1],
        case.fact,
        fact_id,
        tuple(found),
        told,
        action,
    )


def failing(lm: LanguageModel, state: EditState, fact: Fact, metric: str) -> str:
    """The prompt of `fact` that a bad score of `metric` comes from: the first that fails.

    Parameters
    ----------
    lm : LanguageModel
    state : EditState
    fact : Fact
    metric : str
        "generality": of its paraphrases; "locality": of its neighbours; else its own prompt.
    """
    probes = {"generality": paraphrases, "locality": neighbours}.get(metric, edit_prompt)(fact)
    if not probes:
        return fact.text
    questions = [Question.of(lm, probe.prompt, probe.answer) for probe in probes]
    wanted = [question.answer for question in questions]
    if metric == "locality":
        unedited = EditState.of(lm, state.config)
        wanted = [answer.top for answer in ask(lm, unedited, questions)]
    said = [answer.top for answer in ask(lm, state, questions)]
    fails = (p for p, one, other in zip(probes, said, wanted, strict=True) if one != other)
    return next(fails, probes[0]).prompt


def _edit_of(state: EditState, prompt: str, target: str | None) -> tuple[int | None, bool]:
    """Place of the edit that should speak, and whether it wants something else than `target`."""
    places = about(prompt, state.facts)
    if target is None:
        return (places[0] if places else None), False
    wanted = [j for j, fact in enumerate(state.facts) if alike(fact.target) == alike(target)]
    same = [place for place in places if place in wanted]
    if same:
        return same[0], False
    if places:
        return places[0], True
    return (wanted[-1] if wanted else None), False


def _no_edit(
    lm: LanguageModel,
    state: EditState,
    prompt: str,
    target: str | None,
    answer: tuple[str, bool],
    place: int | None,
    idle: Idle | None,
) -> Why:
    """What is said where no edit in force could have given the target.

    The `answer` is the model's likeliest token, and whether it says the whole target.
    """
    says, holds = answer
    action: Action | None = None
    found: list[Gate] = []
    fact_id = None
    if place is not None:  # of this subject, but wanting something else
        fact, fact_id = state.facts[place], state.fact_ids[place]
        told = f"No edit in force wants “{target}” here: {named(fact)} wants “{fact.target}”."
        action = Action("mute", f"Mute {named(fact)}.", f"session.mute({fact_id})", fact_id)
    elif idle is not None:
        told = f"{str(idle)[0].upper()}{str(idle)[1:]}."
        kind: Literal["unmute", "redo"] = "unmute" if idle.muted else "redo"
        code = f"session.unmute({idle.fact_id})" if idle.muted else "session.redo()"
        action = Action(kind, f"{kind.capitalize()} {named(idle.fact)}.", code, idle.fact_id)
    elif not state.facts:
        nothing = "All facts are muted" if state.rounds else "No round is in force"
        told = f"{nothing}: there is no edit that could speak."
        action = Action("facts", "Apply a fact first.")
    else:
        listed = list(dict.fromkeys(f"“{fact.subject}”" for fact in state.facts))
        more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
        told = (
            f"No subject of an edit in force stands in the prompt: the edits are of"
            f" {', '.join(listed[:3])}{more}."
        )
        action = Action("subject", "Write the subject as it was edited.")
    found.append(Gate("subject", "broken", told))
    sentence = told
    if place is None and state.facts:
        scope = read_scope(lm, state, prompt)
        terms = (scope.contributions * scope.in_scope[:, None]).abs().sum((0, 2))
        places = scope.in_scope.any(0).nonzero().flatten().tolist()
        if places and scope.kind != "off":
            at = ", ".join(f"“{scope.tokens[i].strip()}”" for i in places[:3])
            best = int(terms.argmax())
            fact_id = state.fact_ids[best]
            spoken = f"Yet the hook speaks at {at}, for {named(state.facts[best])}."
            found.append(Gate("hook", "warns", spoken, fact=best))
            sentence = f"{told} {spoken}"
            action = _quieter(state, fact_id)
    return Why(prompt, target or "", says, holds, None, fact_id, tuple(found), sentence, action)


def _quieter(state: EditState, fact_id: int) -> Action:
    """A scope that is less easily fooled than the one in force."""
    if state.config.scope in ("zscore", "off"):
        code = "session.state.judged(scope='match')"
        return Action("scope", "Look at it under the match scope.", code, scope="match")
    return _two_keys(fact_id)


def _two_keys(fact_id: int, wording: str | None = None) -> Action:
    """Edit it again with two keys, and with the prompt as a wording."""
    before, given, more = "", "", ""
    if wording is not None:
        before = (
            f"fact = session.facts[{fact_id}]\n"
            f"fact = dataclasses.replace(fact, wordings=(*fact.wordings, {wording!r}))\n"
        )
        given, more = f", instead={{{fact_id}: fact}}", " and this wording"
    code = f'{before}other = session.rerun(scope="two-key"{given})'
    return Action("two keys", f"Edit again with two keys{more}.", code, fact_id, None, wording)


def _sentence(case: Case, says: str, broken: Gate | None, found: list[Gate]) -> str:
    if case.holds:
        warned = [gate.said for gate in found if gate.state == "warns"]
        told = f"The model says “{case.target}”, as {named(case.fact)} wants."
        return f"{told} {warned[0]}" if warned else told
    instead = f"The model says “{says}”, not “{case.target}”"
    if case.wrong:
        right = case.lm.tokenizer.decode(list(case.question.answer[: case.wrong])).strip()
        instead = f"The model says “{right}” and then “{says}”, not “{case.target}”"
    told = broken.said if broken is not None else ""
    return f"{instead}. {told}".strip()


def _mend(case: Case, broken: Gate) -> Action:
    """One thing that mends the broken gate."""
    state, fact_id = case.state, case.state.fact_ids[case.place]
    by_fact = SCOPES[state.config.scope].by_fact
    if broken.fact is not None:
        other = state.fact_ids[broken.fact]
        said = f"Mute {named(state.facts[broken.fact])}."
        return Action("mute", said, f"session.mute({other})", other)
    if broken.name == "subject" or case.named != case.fact.subject:
        return Action("subject", f"Write the subject as it was edited: “{case.fact.subject}”.")
    if broken.name == "hook" and not by_fact:
        looks: tuple[ScopeKind, ...] = ("match", "off")
        for scope in looks:
            if scope != state.config.scope and _says(case, state.judged(scope)):
                said = f"Look at it under the scope “{scope}”: there the model says it."
                code = f"session.state.judged(scope={scope!r})"
                return Action("scope", said, code, scope=scope)
    wording = _wording(case)
    if by_fact and wording is not None:
        said = f"Edit it again with this wording: “{wording}”."
        return Action("wording", said, _with_wording(fact_id, wording), fact_id, None, wording)
    if by_fact:
        steps = 2 * state.config.steps
        said = f"Edit it again with more steps: {steps} in place of {state.config.steps}."
        return Action("steps", said, f"session.configure(steps={steps})", fact_id)
    return _two_keys(fact_id, wording)


def _says(case: Case, state: EditState) -> bool:
    return ask(case.lm, state, [case.question])[0].top == case.question.answer


def _wording(case: Case) -> str | None:
    """The prompt as a wording of the fact; None if it is one already, or lacks the subject."""
    place = stands(case.prompt, case.fact.subject)
    if place is None or alike(case.prompt) in {alike(text) for text in case.fact.texts}:
        return None
    return f"{case.prompt[: place[0]]}{{}}{case.prompt[place[1] :]}"


def _with_wording(fact_id: int, wording: str) -> str:
    return (
        f"fact = session.facts[{fact_id}]\n"
        f"session.apply([dataclasses.replace(fact, wordings=(*fact.wordings, {wording!r}))])"
    )


def _word(lm: LanguageModel, token: int) -> str:
    """A token in a sentence; of white space what it is written as."""
    text = str(lm.tokenizer.decode([token]))
    return text.strip() or repr(text)[1:-1]
