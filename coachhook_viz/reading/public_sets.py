"""Facts of the layouts of public sets, each from one record.

rewrites         CounterFact as ROME has it, and MQuAKE
flat             CounterFact as editors have it, AlphaEdit's, EasyEdit's and KnowEdit
zsre             zsRE in MEND's layout
wiki_big_edit    WikiBigEdit
known            ROME's known_1000, with a target
ripple_edits     RippleEdits

Their stray line breaks and spaces mean nothing. Of an answer's spellings the first is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from coachhook_viz.facts import Fact, Neighbor, Probe
from coachhook_viz.reading.values import (
    ANSWER_NAMES,
    Odd,
    Record,
    absent,
    first_of,
    name_of,
    one_line,
    prompt_of,
    several,
)
from coachhook_viz.texts import alike, slotted


def _slotted(prompt: str, subject: str) -> str:
    """A prompt with its slot; where it has none, the subject stands there as whole words."""
    if "{}" in prompt:
        return prompt
    found = slotted(prompt, subject)
    if found is None:
        other = alike(subject) in alike(prompt)
        hint = " as a word of its own, written that way" if other else ""
        raise Odd(f"subject: {subject!r} is not in the prompt {prompt!r}{hint}")
    return found


def rewrites(record: Record) -> list[Fact]:
    """CounterFact as ROME has it, with one edit in a record, and MQuAKE, with several."""
    given = record.needed("requested_rewrite")
    many = isinstance(given, list | tuple)
    facts = []
    for number, one in enumerate(given if many else [given], start=1):
        place = f"requested_rewrite number {number}" if many else "requested_rewrite"
        edit = Record(one, within=record, place=place)
        prompt, subject, target = edit.texts("prompt", "subject", "target_new")
        subject = subject.strip()
        facts.append(
            Fact(
                _slotted(prompt_of(prompt), subject),
                subject,
                target.strip(),
                edit.maybe("target_true"),
                tuple(edit.prompts("question")),
                relation=edit.maybe("relation_id") or "",
            )
        )
    # What a record asks follows from all its edits: only with the last one can it be answered.
    last, truth = facts[-1], facts[-1].truth if len(facts) == 1 else None
    tests = [
        ("Reasoning", text, record.value("new_answer")) for text in record.prompts("questions")
    ]
    around = [
        Neighbor(n.prompt, n.answer or truth) for n in record.neighbors("neighborhood_prompts")
    ]
    last = replace(
        last,
        paraphrases=(*last.paraphrases, *record.prompts("paraphrase_prompts")),
        neighbors=tuple(around),
        probes=_probes(record, tests),
    )
    return [*facts[:-1], last]


def flat(record: Record) -> list[Fact]:
    """CounterFact as editors have it, AlphaEdit's, EasyEdit's and KnowEdit: `target_new`."""
    prompt, subject, target = record.texts("prompt", "subject", "target_new")
    subject = subject.strip()
    return [
        Fact(
            _slotted(prompt_of(prompt), subject),
            subject,
            target.strip(),
            record.maybe("ground_truth", "target_true", "truth"),
            tuple(record.prompts("rephrase_prompt", "rephrase", "paraphrase_prompts")),
            tuple(_beside(record, "locality_prompt", "locality_ground_truth")),
            record.maybe("relation_id", "relation") or "",
            probes=_probes(record, [*_tests(record, "portability"), *_tests(record, "locality")]),
        )
    ]


def _beside(record: Record, prompts: str, answers: str) -> list[Neighbor]:
    """Neighbours whose prompts and answers stand in two fields, one or lists of them."""
    asked = list(several(record.value(prompts)))
    told = record.value(answers)
    if not isinstance(told, list | tuple) or len(asked) == 1:
        told = [told]
    found = []
    for number, prompt in enumerate(asked, start=1):
        text = record.prompt(prompts, prompt, number)
        if text is not None:
            answer = told[number - 1] if number <= len(told) else None
            found.append(Neighbor(one_line(text), record.optional(answers, answer)))
    return found


def zsre(record: Record) -> list[Fact]:
    """ZsRE in MEND's layout: `src`, `alt` and `answers`; its questions are neighbours."""
    prompt, subject, target = record.texts("src", "subject", "alt")
    subject = subject.strip()
    questions = [
        Neighbor(n.prompt.removeprefix("nq question: "), n.answer)
        for n in _beside(record, "loc", "loc_ans")
    ]
    return [
        Fact(
            _slotted(prompt_of(prompt), subject),
            subject,
            target.strip(),
            record.maybe("answers", "answer"),
            tuple(record.prompts("rephrase")),
            tuple(questions),
            probes=_probes(record, _tests(record, "portability")),
        )
    ]


def wiki_big_edit(record: Record) -> list[Fact]:
    """WikiBigEdit: `update` and `ans`; what takes a further step is a probe."""
    prompt, subject, target = record.texts("update", "subject", "ans")
    subject = subject.strip()
    asked = [("Reasoning", text, record.value("mhop_ans")) for text in record.prompts("mhop")]
    return [
        Fact(
            _slotted(prompt_of(prompt), subject),
            subject,
            target.strip(),
            paraphrases=tuple(record.prompts("rephrase", "personas")),
            neighbors=tuple(_beside(record, "loc", "loc_ans")),
            probes=_probes(record, asked),
        )
    ]


def known(record: Record) -> list[Fact]:
    """ROME's known_1000: what a model knows already, to which a target has to be added."""
    named = next((name for name in ("target_new", "target") if name in record), None)
    if named is None:
        raise Odd(
            "it says what a model knows already, not what it should say: add a field target_new"
        )
    prompt, subject, target = record.texts("template", "subject", named)
    subject = subject.strip()
    return [
        Fact(
            _slotted(prompt_of(prompt), subject),
            subject,
            target.strip(),
            record.maybe("attribute"),
            relation=record.maybe("relation_id") or "",
        )
    ]


# RippleEdits gives whole sentences; subject and target are told from the frames it writes them in.
_FRAMES = (
    r"The number of children (?P<subject>.+?) has is",
    r"The name of the award (?P<subject>.+?) won is",
    r"The (?:names? of the )?(?:RELATIONs?|\w+(?: \w+)*?) (?:of|in|which) (?P<subject>.+?)"
    r"(?: is (?:associated with|a member of|part of|the capital of)| plays in)? (?:is|are)",
    r"(?P<subject>.+?) (?:follows|is followed by)",
)


def _sentence(text: str, relation: str) -> tuple[str, str, str]:
    """Prompt with the slot, subject and target of a RippleEdits sentence."""
    text = one_line(text)
    named = re.escape(relation.lower().replace("_", " "))
    for frame in _FRAMES:
        found = re.fullmatch(frame.replace("RELATION", named) + r" (?P<target>.+?)\.?", text)
        if found:
            start, stop = found.span("subject")
            prompt = text[:start] + "{}" + text[stop : found.start("target")].rstrip()
            return prompt, found["subject"], found["target"]
    raise Odd(f"edit: no subject can be told in {text!r}")


def ripple_edits(record: Record) -> list[Fact]:
    """RippleEdits: the sentence of an `edit`, and tests by their names."""
    edit = Record(record.needed("edit"), within=record, place="edit")
    relation = edit.maybe("relation") or ""
    prompt, subject, target = _sentence(edit.texts("prompt")[0], relation)
    truth = None
    for name in ("original_fact", "previous_fact"):  # files and the authors' code
        if truth is None and (before := edit.raw(name)) is not None:
            try:
                [said] = Record(before, within=record, place=name).texts("prompt")
                truth = _sentence(said, relation)[2]
            except Odd as odd:
                record.note("truth", f"{odd}")
    tests = []
    for name in _PROBED:
        for number, test in enumerate(several(record.value(name_of(name))), start=1):
            part = record.part(name, test, number)
            if part is not None and "test_queries" not in part:
                record.note(name, f"number {number} has no test_queries")
            for query in several(part and part.value("test_queries")):
                asked = record.part(name, query, number)
                if asked is not None:
                    tests.append((name, asked.raw("prompt"), asked.raw("answers")))
    return [Fact(prompt, subject, target, truth, relation=relation, probes=_probes(record, tests))]


# --- tests that become probes ---

_PROBED = {
    "Relation_Specificity": "same subject",
    "Relation_Specifity": "same subject",  # some copies spell it so
    "Forgetfulness": "same subject",
    "Logical_Generalization": "portability",
    "Compositionality_I": "portability",
    "Compositionality_II": "portability",
    "Reasoning": "portability",
    "Subject_Aliasing": "portability",
    "portability": "portability",
    "neighborhood": "neighbour",
}
"""The kind of `Probe` by the name that RippleEdits, KnowEdit and EasyEdit give to tests."""
_KINDS = {name_of(name): kind for name, kind in _PROBED.items()}


def _tests(record: Record, field: str) -> Iterable[tuple[str, Any, Any]]:
    """Names, prompts and answers of the tests that KnowEdit or EasyEdit has in a field."""
    given = record.value(field)
    if absent(given):
        return
    try:
        named = Record(given, within=record, place=field)
    except Odd as odd:
        record.note(field, str(odd).removeprefix(f"{field}: "))
        return
    if (asked := named.raw("new_question")) is not None:  # zsRE's
        yield "Reasoning", asked, named.raw("new_answer")
        return
    if "prompt" in named:
        yield field, named.raw("prompt"), named.raw(*ANSWER_NAMES)
        return
    for name in named.names:
        value = named.raw(name)
        if isinstance(value, Mapping):  # EasyEdit's: lists side by side
            part = record.part(f"{field}, {name}", value, 1)
            if part is None:
                continue
            prompts = list(several(part.raw("prompt")))
            answers = part.raw(*ANSWER_NAMES)
            beside = (
                answers if isinstance(answers, list | tuple) and len(prompts) > 1 else [answers]
            )
            for place, prompt in enumerate(prompts):
                yield name, prompt, beside[place] if place < len(beside) else None
            continue
        for number, test in enumerate(several(value), start=1):
            part = record.part(f"{field}, {name}", test, number)
            if part is not None:
                yield name, part.raw("prompt"), part.raw(*ANSWER_NAMES)


def _probes(record: Record, named: Iterable[tuple[str, Any, Any]]) -> tuple[Probe, ...]:
    """Probes from names of tests, prompts and answers; each prompt once, those without answer not.

    RippleEdits repeats prompts, and has tests whose answer nobody knows.
    """
    found: dict[tuple[str, str], Probe] = {}
    for number, (name, asked, given) in enumerate(named, start=1):
        kind = _KINDS.get(name_of(name))
        if kind is None:
            record.note(name, "it is no known kind of test")
            continue
        if (first := first_of(given)) is None or (
            isinstance(first, Mapping) and absent(first.get("value", first))
        ):
            continue
        prompt = record.prompt(name, first_of(asked), number)
        answer = record.optional(name, first)
        if prompt is not None and answer:
            probe = Probe(one_line(prompt), one_line(answer), kind)
            found.setdefault((kind, alike(probe.prompt)), probe)
    return tuple(found.values())
