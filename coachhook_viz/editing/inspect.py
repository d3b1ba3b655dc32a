"""What the hook layers do to one prompt, token by token.

Scope          the reading: z-scores, thresholds, who reached which token
read_scope     takes it
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import torch
from torch import Tensor

from coachhook_viz.editing.forward import Batch, run_to
from coachhook_viz.editing.hooks import attached
from coachhook_viz.editing.scope import Tokens, ceiling, z_scores
from coachhook_viz.editing.state import EditState
from coachhook_viz.editing.tokens import subject_last_token, tokenize
from coachhook_viz.facts import Fact
from coachhook_viz.models import LanguageModel


@dataclass(frozen=True, eq=False)
class Scope:
    """The local editing scope on one prompt, L hooked layers by T tokens by F facts in force.

    Attributes
    ----------
    prompt : str
    tokens : tuple of str
        The T tokens as text, the model's lead among them.
    layers : tuple of int
        The L hooked layers.
    facts : tuple of Fact
        The F facts in force.
    kind : str
        The rule in force: "zscore", "match" or "off".
    norms : Tensor
        (L, T) ‖ΔW k‖.
    z : Tensor
        (L, T) z-scores of the norms over the prompt's tokens.
    alpha : Tensor
        (L,) thresholds.
    match : Tensor
        (L, F, T) how well each fact recognises its key, 1 at its own; (L, 0, T) with no facts.
    match_threshold : float
        τ of the match rule.
    in_scope : Tensor
        (L, T) bool, where the hook speaks under the rule in force.
    contributions : Tensor
        (L, F, T): each fact's term of ΔW k, projected on its direction; they sum to `norms` over
        the facts.
    subject_last : int or None
        Place of the subject's last token among `tokens`; None where the prompt names no subject.
    """

    prompt: str
    tokens: tuple[str, ...]
    layers: tuple[int, ...]
    facts: tuple[Fact, ...]
    kind: str
    norms: Tensor
    z: Tensor
    alpha: Tensor
    match: Tensor
    match_threshold: float
    in_scope: Tensor
    contributions: Tensor
    subject_last: int | None = None

    @property
    def ceiling(self) -> float:
        """Highest z-score that a prompt of T tokens allows, (T − 1) / √T."""
        return ceiling(len(self.tokens))

    @property
    def scores(self) -> Tensor:
        """(L, T) what the rule in force judges: the best match of any fact, else the z-scores."""
        return self.match.amax(1) if self.kind == "match" and self.facts else self.z

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Each hooked layer with the threshold that the rule in force compares with, if any."""
        names = [f"layer {layer}" for layer in self.layers]
        if self.kind == "zscore":
            return tuple(f"{n} · α {float(a):.2f}" for n, a in zip(names, self.alpha, strict=True))
        return tuple(
            f"{n} · τ {self.match_threshold:.2f}" * (self.kind == "match") or n for n in names
        )

    def explain(self) -> str:
        """In plain words, why the hook speaks where it does, or why it cannot."""
        if not self.facts:
            return "No round is in force: nothing can be in scope."
        hits = zip(self.tokens, self.in_scope.any(0), strict=True)
        marked = [_quoted(token) for token, hit in hits if hit]
        if marked:
            return f"In scope at some layer: {', '.join(marked)}."
        if self.kind == "match":
            best = float(self.match.max())
            return (
                f"No token is in scope: the best match with any edited fact is {best:.2f},"
                f" below τ {self.match_threshold:.2f}."
            )
        if self.ceiling < float(self.alpha.min()):
            return (
                f"{len(self.tokens)} tokens: no z-score can exceed {self.ceiling:.2f};"
                f" α is {float(self.alpha.min()):.2f} or more, so the hook cannot speak here."
            )
        gap = self.z - self.alpha[:, None]
        layer, token = divmod(int(gap.argmax()), len(self.tokens))
        return (
            f"No token is in scope: the closest is {_quoted(self.tokens[token])} at layer"
            f" {self.layers[layer]} with z {float(self.z[layer, token]):.2f}"
            f" below α {float(self.alpha[layer]):.2f}."
        )

    def __str__(self) -> str:
        """Tokens down, layers across: the scores, ● where the hook speaks."""
        width = max(len(repr(token)) for token in self.tokens)
        lines = [" " * width + "  " + "  ".join(self.layer_names)]
        for column, token in enumerate(self.tokens):
            cells = [
                self._cell(row, column).rjust(len(name))
                for row, name in enumerate(self.layer_names)
            ]
            lines.append(repr(token).ljust(width) + "  " + "  ".join(cells).rstrip())
        return "\n".join([*lines, self._caption()])

    def _repr_html_(self) -> str:
        def cell(row: int, column: int) -> str:
            inside = bool(self.in_scope[row, column])
            style = (
                "border:2px solid #d55e00;font-weight:bold" if inside else "border:1px solid #8885"
            )
            return f'<td style="{style};text-align:right">{self._cell(row, column)}</td>'

        head = "".join(f"<th>{escape(repr(token)[1:-1])}</th>" for token in self.tokens)
        rows = "".join(
            f"<tr><th>{name}</th>"
            + "".join(cell(row, column) for column in range(len(self.tokens)))
            + "</tr>"
            for row, name in enumerate(self.layer_names)
        )
        caption = escape(self._caption())
        return f"<table><caption>{caption}</caption><tr><th></th>{head}</tr>{rows}</table>"

    def _cell(self, row: int, column: int) -> str:
        mark = "●" if self.in_scope[row, column] else " "
        return f"{float(self.scores[row, column]):+.2f} {mark}"

    def _caption(self) -> str:
        if self.kind == "match":
            return f"Best match with any edited fact. {self.explain()}"
        return f"z-scores, at most {self.ceiling:.2f} here. {self.explain()}"


def _quoted(token: str) -> str:
    """A token in a sentence: without its leading space; white space alone is made visible."""
    return f"“{token.strip() or repr(token)[1:-1]}”"


@torch.no_grad()
def read_scope(
    lm: LanguageModel, state: EditState, prompt: str, subject: str | None = None
) -> Scope:
    """Read the scope of `state` on `prompt`, from the keys that each hooked layer then sees.

    Parameters
    ----------
    lm : LanguageModel
    state : EditState
    prompt : str
    subject : str, optional
        What to mark in the prompt: in an edit prompt where the template has it, else where it
        stands last. None: the longest subject of a fact in force that the prompt names.

    Raises
    ------
    ValueError
        If the prompt has no token, or too many.
    """
    ids = tokenize(lm, prompt)
    config = state.config
    layers = tuple(state.layers)
    batch = Batch.of([ids], lm.device)
    horizon = torch.full_like(batch.ids, len(ids) - 1)
    hook_layers = state.hook_layers(lm.dtype)
    with attached(lm, hook_layers):
        _, keys = run_to(lm, batch, layers[-1], keys_of=layers)
    norms, z, in_scope, match, contributions = [], [], [], [], []
    for layer in layers:
        outputs = keys[layer] @ state.layers[layer].delta_weight.to(lm.dtype).T  # (1, T, d_model)
        norm = torch.linalg.vector_norm(outputs.float(), dim=-1)
        norms.append(norm[0].double())
        z.append(z_scores(norm, batch.mask, horizon)[0])
        if layer in hook_layers:
            rule = hook_layers[layer].rule
            tokens = Tokens(batch.mask, len(ids), horizon)
            in_scope.append(rule(layer, keys[layer], outputs, tokens)[0])
        else:
            in_scope.append(torch.zeros(len(ids), dtype=torch.bool, device=lm.device))
        key = keys[layer][0].double().T  # (d_key, T)
        terms = [f.directions.T @ key for f in state.layers[layer].factors]
        units = [f.unit_directions.T @ key for f in state.layers[layer].factors]
        direction = torch.nn.functional.normalize(outputs[0].double(), dim=1).T  # (d_model, T)
        along = [f.residuals.T @ direction for f in state.layers[layer].factors]
        nothing = key.new_zeros(0, len(ids))
        contributions.append(
            torch.cat([nothing, *(t * a for t, a in zip(terms, along, strict=True))])
        )
        match.append(torch.cat([nothing, *units]))
    return Scope(
        prompt,
        tuple(lm.tokenizer.decode([token]) for token in ids),
        layers,
        state.facts,
        config.scope,
        torch.stack(norms).cpu(),
        torch.stack(z).cpu(),
        torch.tensor([state.layers[layer].alpha for layer in layers], dtype=torch.float64),
        torch.stack(match).cpu(),
        config.match_threshold,
        torch.stack(in_scope).cpu(),
        torch.stack(contributions).cpu(),
        _subject_last(lm, state, prompt, subject),
    )


def _subject_last(
    lm: LanguageModel, state: EditState, prompt: str, subject: str | None
) -> int | None:
    edited = {fact.text: fact for fact in state.facts}.get(prompt)
    if edited is not None and subject in (None, edited.subject):
        subject, start = edited.subject, edited.prompt.index("{}")
    else:
        if subject is None:
            named = [fact.subject for fact in state.facts if fact.subject in prompt]
            subject = max(named, key=len, default="")
        start = prompt.rfind(subject) if subject else -1
    return subject_last_token(lm, prompt, start, start + len(subject)) if start >= 0 else None
