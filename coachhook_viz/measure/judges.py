"""Who judges what a model says: ask the edited and the unedited model, and say what it counts for.

Asked, Verdict            a prompt with its fact, and what was said to it
says, keeps, keeps_next   teacher forced: the answer's tokens, or those of the unedited model
writes, keeps_writing     the same of what the model writes by itself
prefers, margin           by probability: one answer against another
varies, fluency           how varied the words of a long text are
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from coachhook_viz.editing.progress import Watch
from coachhook_viz.facts import Fact, Probe, alike
from coachhook_viz.measure.answers import Question, Speaker
from coachhook_viz.models import LanguageModel
from coachhook_viz.texts import parts

_FLUENCY_TOKENS, _FLUENCY_AMONG = 80, 5  # how long a text is, and among how many it is drawn
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Asked:
    """A prompt that is put to the model on account of a fact."""

    fact: Fact
    probe: Probe


@dataclass(frozen=True)
class Verdict:
    """What the edited model said to a prompt, and what it counts for."""

    value: float
    said: str = ""


Judge = Callable[[Sequence[Asked], Speaker, Speaker, Watch | None], list[Verdict]]
"""Asks the edited and the unedited model, in this order, and judges each answer."""


def says(
    asked: Sequence[Asked], edited: Speaker, unedited: Speaker, watch: Watch | None = None
) -> list[Verdict]:
    """Share of the answer's tokens that are the likeliest, given all before them."""
    questions = [_question(edited.lm, one.probe) for one in asked]
    return [
        _hits(edited.lm, answer.top, question.answer)
        for question, answer in zip(questions, edited.ask(questions, watch), strict=True)
    ]


def keeps(
    asked: Sequence[Asked], edited: Speaker, unedited: Speaker, watch: Watch | None = None
) -> list[Verdict]:
    """Share of the answer's tokens whose likeliest token is the unedited model's.

    Of the next token alone where there is no answer.
    """
    questions = [_question(edited.lm, one.probe) for one in asked]
    before = unedited.ask(questions, watch)
    return [
        _hits(edited.lm, answer.top, was.top)
        for answer, was in zip(edited.ask(questions, watch), before, strict=True)
    ]


def keeps_next(
    asked: Sequence[Asked], edited: Speaker, unedited: Speaker, watch: Watch | None = None
) -> list[Verdict]:
    """Whether the likeliest next token is the unedited model's, whatever the answer."""
    bare = [replace(one, probe=replace(one.probe, answer=None)) for one in asked]
    return keeps(bare, edited, unedited, watch)


def writes(
    asked: Sequence[Asked], edited: Speaker, unedited: Speaker, watch: Watch | None = None
) -> list[Verdict]:
    """Whether the text that the model writes begins with the whole answer, and the word ends there.

    Case and spaces do not count.
    """
    texts = edited.texts([_to_write(edited.lm, one.probe) for one in asked], watch)
    return [
        Verdict(float(_begins(text, str(one.probe.answer))), text)
        for one, text in zip(asked, texts, strict=True)
    ]


def keeps_writing(
    asked: Sequence[Asked], edited: Speaker, unedited: Speaker, watch: Watch | None = None
) -> list[Verdict]:
    """Whether the model writes the unedited model's words, as many as the answer has; else one."""
    prompts = [_to_write(edited.lm, one.probe) for one in asked]
    verdicts = []
    texts, before = edited.texts(prompts, watch), unedited.texts(prompts, watch)
    for one, text, was in zip(asked, texts, before, strict=True):
        count = max(len(_words(one.probe.answer or "")), 1)
        verdicts.append(Verdict(float(_words(text)[:count] == _words(was)[:count]), text))
    return verdicts


def prefers(
    asked: Sequence[Asked], edited: Speaker, unedited: Speaker, watch: Watch | None = None
) -> list[Verdict]:
    """Whether P(right) > P(wrong); `margin` says by how much."""
    found = margin(asked, edited, unedited, watch)
    return [replace(verdict, value=float(verdict.value > 0)) for verdict in found]


def margin(
    asked: Sequence[Asked], edited: Speaker, unedited: Speaker, watch: Watch | None = None
) -> list[Verdict]:
    """P(right) − P(wrong) of whole answers, by `Answer.likelihood`.

    On a neighbour its own answer is right and the fact's target wrong; elsewhere the target is
    right and the truth wrong.
    """
    questions = []
    for one in asked:
        answers = [one.fact.target, str(one.fact.truth)]
        if one.probe.kind == "neighbour":
            answers = [str(one.probe.answer), one.fact.target]
        questions += [Question.of(edited.lm, one.probe.prompt, answer) for answer in answers]
    found = [answer.likelihood for answer in edited.ask(questions, watch)]
    return [
        Verdict(right - wrong, f"P = {right:.3f} against {wrong:.3f}")
        for right, wrong in zip(found[::2], found[1::2], strict=True)
    ]


def varies(
    asked: Sequence[Asked], edited: Speaker, unedited: Speaker, watch: Watch | None = None
) -> list[Verdict]:
    """`fluency` of a text that goes on from the prompt, drawn among the five likeliest tokens."""
    lm = edited.lm
    sizes = []
    for one in asked:
        room = lm.context_window - len(lm.token_ids(one.probe.prompt))
        sizes.append((one.probe.prompt, max(1, min(_FLUENCY_TOKENS, room))))
    texts = edited.texts(sizes, watch, _FLUENCY_AMONG)
    return [
        Verdict(fluency(one.probe.prompt + text), text)
        for one, text in zip(asked, texts, strict=True)
    ]


def fluency(text: str) -> float:
    """Weighted entropy of a text's pairs and triples of words: low where it repeats itself.

    ``½ (⅔ H₂ + 4⁄3 H₃) · 100`` with ``Hₙ = −Σ p log₂ p`` over its n-grams of words and punctuation
    marks, as the evaluation of ROME and MEMIT has it (Meng et al. 2022, "generation entropy").

    Parameters
    ----------
    text : str
    """
    words = _WORD.findall(text)
    return 100 * (2 / 3 * _entropy(words, 2) + 4 / 3 * _entropy(words, 3)) / 2


def _entropy(words: Sequence[str], size: int) -> float:
    """Entropy of the n-grams of `size` words, in bits."""
    counts = Counter(tuple(words[i : i + size]) for i in range(len(words) - size + 1))
    total = counts.total()
    return -sum(n / total * math.log2(n / total) for n in counts.values())


def _question(lm: LanguageModel, probe: Probe) -> Question:
    return Question.of(lm, probe.prompt, probe.answer)


def _hits(lm: LanguageModel, said: Sequence[int], wanted: Sequence[int]) -> Verdict:
    hits = [one == other for one, other in zip(said, wanted, strict=True)]
    return Verdict(sum(hits) / len(hits), str(lm.tokenizer.decode(list(said))))


def _to_write(lm: LanguageModel, probe: Probe) -> tuple[str, int]:
    """The prompt, and how many tokens show whether the answer stands there and ends.

    A multiple of four, so that prompts with answers of about one length run together.
    """
    size = len(_question(lm, probe).answer) + 4
    return probe.prompt, 4 * math.ceil(size / 4)


def _begins(text: str, answer: str) -> bool:
    said, wanted = alike(text), alike(answer)
    return said.startswith(wanted) and parts(said, len(wanted))


def _words(text: str) -> list[str]:
    return _WORD.findall(alike(text))
