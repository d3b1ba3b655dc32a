"""What a person wants changed: facts, their checks, and how to read them from files.

Fact, Neighbor     a change, and what must not change with it
Probe              a further prompt that measures the change
validate           raises FactError, which names every fact and field that is wrong
find_problems      the same findings as a list, for a form that is being typed into
find_conflicts     facts that ask the same and want different answers
as_batch           what was given as a batch, as a list
batches            facts in parts of one size
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from coachhook_viz.errors import FactError as FactError
from coachhook_viz.errors import Problem as Problem
from coachhook_viz.texts import BREAKS as BREAKS
from coachhook_viz.texts import alike as alike
from coachhook_viz.texts import places, slotted

LONGEST = 2000  # characters of one field
_PROMPTS = ("prompt", "paraphrases", "neighbors", "wordings", "foils")
_NAMES = {
    "\n": "a line break; write it on one line",
    "\t": "a tab; write a space instead",
    "\r": "a carriage return (U+000D); write line breaks as U+000A alone",
}


@dataclass(frozen=True)
class Neighbor:
    """A prompt whose answer an edit must leave alone.

    Attributes
    ----------
    prompt : str
    answer : str or None
        Its answer now. None: whatever token the unedited model says next.
    """

    prompt: str
    answer: str | None = None


PROBE_KINDS = ("same subject", "portability", "neighbour", "paraphrase")
"""What a `Probe` can be."""


@dataclass(frozen=True)
class Probe:
    """A further prompt that is asked to measure an edit; no edit is ever trained on it.

    Attributes
    ----------
    prompt : str
        With the subject filled in.
    answer : str or None
        What the model should say. None: what the unedited model says; of a paraphrase, the target.
    kind : str
        "same subject": the same subject in another relation, which must stay as it is;
        "portability": what follows from the edit, and so must change with it; it needs an answer;
        "neighbour": another subject in the same relation, which must stay; "paraphrase": another
        wording of the edit prompt.
    """

    prompt: str
    answer: str | None = None
    kind: str = "same subject"


@dataclass(frozen=True)
class Fact:
    """A change to make: after `prompt` with `subject`, the model should say `target`.

    Attributes
    ----------
    prompt : str
        With one ``{}`` where the subject stands, as in "The capital of {} is". Prompts may hold
        line breaks and tabs, as few-shot prompts and chat templates do.
    subject, target : str
        On one line. The target follows the prompt with one space before it; where the prompt ends
        in a line break or a tab, with none.
    truth : str or None
        What the model says now, as far as you know.
    paraphrases : tuple of str
        Other wordings, subject filled in, that should get the target too.
    neighbors : tuple of Neighbor
        Prompts that should not change.
    relation : str
        What kind of fact it is, to sort by.
    wordings : tuple of str
        Further prompts that ask the same, each with one ``{}`` where the subject stands. An edit
        with two keys is written for each of them, and for those that the package knows for the
        relation or, if it knows none, makes of the prompt.
    probes : tuple of Probe
        Further prompts to measure with.
    foils : tuple of str
        Prompts with one ``{}`` that ask something else of the subject. An edit with two keys stays
        away from them, as from those that the package knows for the kind of subject.

    Raises
    ------
    TypeError
        If `paraphrases`, `neighbors`, `wordings`, `probes` or `foils` is one text instead of
        several.
        Whatever else is wrong is said when the fact is used, see `find_problems`.
    """

    prompt: str
    subject: str
    target: str
    truth: str | None = None
    paraphrases: tuple[str, ...] = ()
    neighbors: tuple[Neighbor, ...] = ()
    relation: str = ""
    wordings: tuple[str, ...] = ()
    probes: tuple[Probe, ...] = ()
    foils: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("paraphrases", "neighbors", "wordings", "probes", "foils"):
            given = getattr(self, name)
            kind = _ONE.get(type(given))
            if kind is not None:
                raise TypeError(f"{name} is one {kind}: give a list of them, [{given!r}]")
            if given is None or not isinstance(given, Iterable):
                raise TypeError(f"{name} is {given!r}: give a list, or leave it out")
            many = tuple(given)
            if name in ("neighbors", "probes"):
                made = Neighbor if name == "neighbors" else Probe
                many = tuple(_made(made, one, name, i) for i, one in enumerate(many, start=1))
            object.__setattr__(self, name, many)

    @property
    def text(self) -> str:
        """The prompt with the subject filled in."""
        return self.prompt.replace("{}", self.subject)

    @property
    def texts(self) -> tuple[str, ...]:
        """The prompt and each wording, with the subject filled in."""
        return tuple(text.replace("{}", self.subject) for text in (self.prompt, *self.wordings))

    def __str__(self) -> str:
        return f"{self.text} → {self.target}"


_ONE: dict[type, str] = {str: "text", dict: "dict", Neighbor: "neighbour", Probe: "probe"}


def _made(kind: type[Neighbor] | type[Probe], given: Any, field: str, number: int) -> Any:
    """A neighbour or probe, of one, a text, an object or a tuple."""
    if isinstance(given, kind):
        return given
    if isinstance(given, str):
        return kind(given)
    names = [one.name for one in fields(kind)]
    if isinstance(given, Mapping):
        unknown = [str(name) for name in given if name not in names]
        if unknown or "prompt" not in given:
            said = f"the unknown field {', '.join(map(repr, unknown))}" if unknown else "no prompt"
            raise TypeError(f"{field}: number {number} has {said}; it takes {', '.join(names)}")
        return kind(**given)
    if isinstance(given, list | tuple) and 1 <= len(given) <= len(names):
        return kind(*given)
    raise TypeError(f"{field}: number {number} is {given!r}; give a text, or ({', '.join(names)})")


def as_batch(facts: Any) -> list[Fact]:
    """What was given as a batch as a list, walked once: one fact is a batch, too.

    Raises
    ------
    FactError
        If it holds anything else than facts.
    """
    frame = hasattr(facts, "columns")
    row = hasattr(facts, "to_dict") and not any(isinstance(given, Fact) for given in facts)
    one = isinstance(facts, Fact | str | bytes | Mapping) or frame or row
    found = [facts] if one or not isinstance(facts, Iterable) else list(facts)
    problems = [
        Problem(index, "fact", _no_fact(given))
        for index, given in enumerate(found)
        if not isinstance(given, Fact)
    ]
    if problems:
        raise FactError(problems, found)
    return found


def _no_fact(given: Any) -> str:
    kind = type(given).__name__
    several = given.values() if isinstance(given, Mapping) else given
    if isinstance(several, Iterable) and any(isinstance(one, Fact) for one in several):
        within = "its values" if isinstance(given, Mapping) else "all facts in one list"
        return f"it is a {kind} of facts, not a Fact; give {within}"
    if isinstance(given, Mapping) or hasattr(given, "columns") or hasattr(given, "to_dict"):
        return f"it is a {kind}, not a Fact; read_facts makes facts of records and tables"
    if isinstance(given, list | tuple):
        return f"it is a {kind}, not a Fact; write Fact(prompt, subject, target)"
    return f"it is of the type {kind}, not a Fact"


def find_problems(facts: Sequence[Fact]) -> list[Problem]:
    """Everything that can be said against the facts one by one, without a model."""
    return [
        Problem(index, field, reason)
        for index, fact in enumerate(facts)
        for field, reason in (
            (*_problems_of(fact), *_problems_of_probes(fact))
            if isinstance(fact, Fact)
            else [("fact", _no_fact(fact))]
        )
    ]


def _problems_of(fact: Fact) -> Iterable[tuple[str, str]]:
    texts: list[tuple[str, Any]] = [(n, getattr(fact, n)) for n in ("prompt", "subject", "target")]
    texts += [("truth", fact.truth)] if fact.truth is not None else []
    texts += [("relation", fact.relation)] if fact.relation != "" else []
    texts += [("paraphrases", text) for text in fact.paraphrases]
    texts += [("neighbors", neighbor.prompt) for neighbor in fact.neighbors]
    texts += [("wordings", wording) for wording in fact.wordings]
    texts += [("foils", foil) for foil in fact.foils]
    answers = [("neighbors", n.answer) for n in fact.neighbors if n.answer is not None]
    prompts = [(field, text) for field, text in texts if field in _PROMPTS]
    wrong = [
        (field, reason)
        for field, text in texts
        if (reason := _wrong_with(text, BREAKS if field in _PROMPTS else ()))
    ]
    wrong += [(field, reason) for field, text in answers if (reason := _wrong_with(text))]
    yield from wrong
    bad = {field for field, _ in wrong}
    if "prompt" not in bad and (slots := fact.prompt.count("{}")) != 1:
        suggested = None if slots or "subject" in bad else slotted(fact.prompt, fact.subject)
        hint = f" (here: {suggested!r})" if suggested else ""
        yield "prompt", f"it has {slots} '{{}}'; write exactly one, where the subject stands{hint}"
    for field in (name for name in ("wordings", "foils") if name not in bad):
        yield from _problems_of_slotted(fact, field)
    if bad & {"prompt", "subject", "target", "truth", "relation"}:
        return
    for field in (name for name in ("paraphrases", "neighbors") if name not in bad):
        if any(name == field and "{}" in text for name, text in texts + answers):
            yield field, "it holds '{}'; write the subject itself there"
    for field in (name for name in _PROMPTS if name not in bad):
        if any(name == field and text != _without_space(text) for name, text in prompts):
            yield field, "it ends in a space; the answer brings its own, so leave it out"
    if "{" in fact.subject or "}" in fact.subject:
        yield "subject", "it holds a brace; '{}' belongs into the prompt only"
    if fact.subject != fact.subject.strip():
        yield "subject", "it begins or ends with a space; leave it out"
    if fact.truth is not None and alike(fact.target) == alike(fact.truth):
        yield "target", f"it equals the truth, {fact.truth!r}: nothing would change"


def _problems_of_slotted(fact: Fact, field: str) -> Iterable[tuple[str, str]]:
    """Of the wordings, or of the foils."""
    for text in getattr(fact, field):
        if (slots := text.count("{}")) == 1:
            continue
        lost = not slots and isinstance(fact.subject, str) and not places(text, fact.subject)
        reason = f"it has {slots} '{{}}'; write exactly one, where the subject stands"
        if lost:
            reason = f"it does not name the subject: {reason}"
        yield field, f"{text!r}: {reason}"
    same = [fact.prompt, *(fact.wordings if field == "foils" else ())]
    asked = {alike(text) for text in same if isinstance(text, str)}
    own = set(asked)
    for text in getattr(fact, field):
        if field == "foils" and alike(text) in own:
            yield field, f"{text!r} asks what the fact does: a foil asks something else"
        elif alike(text) in asked:
            also = "; the prompt itself counts, too" * (field == "wordings")
            yield field, f"{text!r} stands there twice{also}"
        asked.add(alike(text))


def _problems_of_probes(fact: Fact) -> Iterable[tuple[str, str]]:
    first: dict[tuple[str, str], int] = {}
    for number, probe in enumerate(fact.probes, start=1):
        if reason := _wrong_with_probe(probe):
            yield "probes", f"number {number}: {reason}"
            continue
        same = first.setdefault((probe.kind, alike(probe.prompt)), number)
        if same != number:
            yield "probes", f"number {number}: it is the same as number {same}; leave one out"


def _wrong_with_probe(probe: Probe) -> str | None:
    if probe.kind not in PROBE_KINDS:
        return f"there is no kind {probe.kind!r}; there are {', '.join(map(repr, PROBE_KINDS))}"
    if reason := _wrong_with(probe.prompt, BREAKS):
        return reason
    if probe.answer is not None and (reason := _wrong_with(probe.answer)):
        return f"its answer: {reason}"
    if "{}" in probe.prompt:
        return "it holds '{}'; write the subject itself there"
    if probe.prompt != _without_space(probe.prompt):
        return "it ends in a space; the answer brings its own, so leave it out"
    if probe.kind == "portability" and probe.answer is None:
        return "it has no answer; write what follows from the edit"
    return None


def _without_space(text: str) -> str:
    """A prompt up to its last visible character, line break or tab."""
    return text if text.endswith(BREAKS) else text.rstrip()


def _wrong_with(text: Any, allowed: Sequence[str] = ()) -> str | None:
    if not isinstance(text, str):
        return f"it must be text, not {type(text).__name__}"
    if not text.strip():
        return "it is empty"
    if len(text) > LONGEST:
        return f"it has {len(text)} characters; shorten it to {LONGEST} or fewer"
    for character in text:
        if character in allowed:
            continue
        if character in _NAMES:
            return f"it holds {_NAMES[character]}"
        # Letters of any script and emoji (whose joiners are of class Cf) may stand anywhere.
        hidden = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        if hidden or character in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069":
            return f"it holds the control character U+{ord(character):04X}; take it out"
    if not any(unicodedata.category(c)[0] not in "ZC" for c in text):
        return "it holds no visible character"
    return None


def find_conflicts(facts: Sequence[Fact]) -> list[tuple[int, int]]:
    """Pairs of places in the list that ask `alike` and want another target."""
    asked: dict[str, list[int]] = {}
    conflicts = []
    for index, fact in enumerate(facts):
        before = asked.setdefault(alike(fact.text), [])
        target = alike(fact.target)
        conflicts += [(i, index) for i in before if alike(facts[i].target) != target]
        before.append(index)
    return conflicts


def batches(facts: Sequence[Fact], size: int) -> list[list[Fact]]:
    """The facts in order, `size` in each part; the last one may have fewer.

    Raises
    ------
    ValueError
        If `size` is not a whole number from 1.
    """
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"a round needs at least one fact: the size is {size!r}")
    facts = as_batch(facts)
    return [list(facts[start : start + size]) for start in range(0, len(facts), size)]


def validate(facts: Sequence[Fact]) -> None:
    """Check a batch of facts that is to be edited at once.

    Raises
    ------
    FactError
        Naming every fact and field that is wrong: see `find_problems`; an empty batch; two facts
        of it that ask the same, however it is written: see `texts.alike`.
    """
    if not facts:
        raise FactError([Problem(0, "facts", "the batch is empty; give at least one fact")], facts)
    problems = find_problems(facts)
    if not problems:
        seen: dict[str, tuple[int, str]] = {}
        for index, fact in enumerate(facts):
            asked = {alike(text): text for text in reversed(fact.texts)}
            shared = next((key for key in reversed(asked) if key in seen), None)
            if shared is not None:
                place, text = seen[shared]
                problems.append(Problem(index, "target", _repeats(fact, facts[place], text)))
            for key, text in asked.items():
                seen.setdefault(key, (index, text))
    if problems:
        raise FactError(problems, facts)


def _repeats(fact: Fact, first: Fact, text: str) -> str:
    """What is said of a fact that asks what an earlier one of its batch asks as `text`."""
    same = alike(first.target) == alike(fact.target)
    plain = text == first.text and (first.prompt, first.subject) == (fact.prompt, fact.subject)
    how = "" if plain else f", {text!r},"
    return (
        f"an earlier fact of this batch asks the same{how} and wants"
        f" {'the same' if same else repr(first.target)}: keep one of them"
        f"{'' if same else ', or apply them in different rounds'}"
    )
