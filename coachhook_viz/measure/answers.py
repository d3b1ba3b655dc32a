"""What a model says under a state, token by token: the one place where measurements run it.

Question    a prompt, an answer to hold against it, and tokens to look up
Answer      the model's own tokens there, and how likely the others are
ask         many questions at once
already     which facts the model says by itself
Speaker     the model in one state, which is asked everything only once
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coachhook_viz.editing.forward import Batch
from coachhook_viz.editing.hooks import attached
from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.state import EditState
from coachhook_viz.editing.tokens import continuation, length_batches, tokenize
from coachhook_viz.facts import Fact
from coachhook_viz.measure.replies import continuations
from coachhook_viz.models import LanguageModel

_BATCH_ROWS = 64
_SAID = 0.9  # probability a token from which on a target is said already


@dataclass(frozen=True)
class Question:
    """Token ids of a prompt and of an answer after it, teacher forced.

    Attributes
    ----------
    prompt, answer : tuple of int
        With an empty answer just the next token is asked for.
    looked_up : tuple of int
        Tokens whose probability and rank right after the prompt are wanted.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...] = ()
    looked_up: tuple[int, ...] = ()

    @classmethod
    def of(cls, lm: LanguageModel, prompt: str, answer: str | None = None) -> Question:
        """Tokenise a prompt and, if there is one, its answer.

        Raises
        ------
        ValueError
            If one of them has no token of its own, or the prompt is too long.
        """
        if answer is None:
            return cls(tuple(tokenize(lm, prompt)))
        before, after = continuation(lm, prompt, answer)
        return cls(tuple(before), tuple(after))


@dataclass(frozen=True)
class Answer:
    """What the model says to a question.

    Attributes
    ----------
    top : tuple of int
        Its likeliest token where each answer token stands, given all before it.
    probabilities : tuple of float
        Of the tokens looked up.
    ranks : tuple of int
        Their ranks, 1 for the likeliest.
    certainty : float
        Probability of the likeliest token right after the prompt.
    likelihood : float
        Of the answer: the geometric mean of its tokens' probabilities, given all before each, which
        the editing papers call its probability. 1 for an empty answer.
    """

    top: tuple[int, ...]
    probabilities: tuple[float, ...]
    ranks: tuple[int, ...]
    certainty: float
    likelihood: float


@torch.no_grad()
def ask(
    lm: LanguageModel,
    state: EditState,
    questions: Sequence[Question],
    watch: Watch | None = None,
    stage: str = "quality",
) -> list[Answer]:
    """Answer `questions` under `state`, in their order; equal ones run once.

    The scope is the one that cached decoding has: answer tokens never change what the prompt's
    own tokens were judged to be.
    """
    distinct = list(dict.fromkeys(questions))
    found: dict[Question, Answer] = {}
    lengths = [len(q.prompt) + max(len(q.answer) - 1, 0) for q in distinct]
    batches = [
        rows[start : start + _BATCH_ROWS]
        for rows in length_batches(lengths)
        for start in range(0, len(rows), _BATCH_ROWS)
    ]
    with attached(lm, state.hook_layers(lm.dtype)) as attachment:
        for step, rows in enumerate(batches):
            if watch is not None:
                watch(stage, step, len(batches))
            chosen = [distinct[row] for row in rows]
            batch = Batch.of([[*q.prompt, *q.answer[:-1]] for q in chosen], lm.device)
            prompts = [len(q.prompt) for q in chosen]
            attachment.prompt_lengths = torch.tensor(prompts, device=lm.device)
            first = min(prompts) - 1
            positions = [*range(first, batch.ids.shape[1])]  # no tensor: the head may be elsewhere
            logits = lm.model(**batch.inputs, use_cache=False, logits_to_keep=positions).logits
            top = logits.argmax(-1).tolist()  # rows × positions
            for row, question in enumerate(chosen):
                start = prompts[row] - 1 - first
                said = top[row][start : start + max(len(question.answer), 1)]
                shares = logits[row, start : start + len(said)].float().log_softmax(-1)
                tokens = torch.tensor(question.answer, device=lm.device, dtype=torch.long)
                own = shares[: len(tokens)].gather(1, tokens[:, None])
                found[question] = Answer(
                    tuple(said),
                    *_look_up(logits[row, start], question.looked_up),
                    float(shares[0].max().exp()),
                    float(own.mean().exp()) if question.answer else 1.0,
                )
    return [found[question] for question in questions]


def already(
    lm: LanguageModel, state: EditState, facts: Sequence[Fact], watch: Watch | None = None
) -> list[bool]:
    """Whether the model says each fact's target under `state`, at p 0.9 a token or more.

    An edit then has next to nothing to write.
    """
    questions = [Question.of(lm, fact.text, fact.target) for fact in facts]
    answers = ask(lm, state, questions, watch, "reading")
    return [
        said.top == asked.answer and said.likelihood >= _SAID
        for asked, said in zip(questions, answers, strict=True)
    ]


def _look_up(logits: Tensor, tokens: tuple[int, ...]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Probabilities and ranks of `tokens` from logits (vocabulary,)."""
    if not tokens:
        return (), ()
    wanted = logits[list(tokens)].float()
    probabilities = (wanted - logits.float().logsumexp(0)).exp()
    ranks = 1 + (logits > logits[list(tokens)][:, None]).sum(1)
    return tuple(probabilities.tolist()), tuple(ranks.tolist())


class Speaker:
    """The model in one state; what it was asked once is not run again.

    Parameters
    ----------
    lm : LanguageModel
    state : EditState
    """

    def __init__(self, lm: LanguageModel, state: EditState) -> None:
        self.lm = lm
        self._state = state
        self._answers: dict[Question, Answer] = {}
        self._texts: dict[tuple[str, int, int], str] = {}

    def ask(self, questions: Sequence[Question], watch: Watch | None = None) -> list[Answer]:
        """As `ask`."""
        new = [question for question in questions if question not in self._answers]
        for question, answer in zip(new, ask(self.lm, self._state, new, watch), strict=True):
            self._answers[question] = answer
        return [self._answers[question] for question in questions]

    def texts(
        self,
        asked: Sequence[tuple[str, int]],
        watch: Watch | None = None,
        among: int = 1,
    ) -> list[str]:
        """What it writes after each prompt, as `continuations` has it.

        Parameters
        ----------
        asked : sequence of (str, int)
            A prompt, and how many tokens to write after it.
        watch, among
            As in `continuations`.
        """
        for size in sorted({size for _, size in asked}):
            new = [p for p, n in asked if n == size and (p, n, among) not in self._texts]
            found = continuations(self.lm, self._state, new, size, watch, "quality", among)
            self._texts |= {(prompt, size, among): text for prompt, text in found.items()}
        return [self._texts[prompt, size, among] for prompt, size in asked]
