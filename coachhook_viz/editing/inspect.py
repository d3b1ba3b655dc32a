"""What the hook layers do to one prompt, token by token.

Scope          the reading: z-scores, thresholds, who reached which token
read_scope     takes it
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from html import escape

import torch
from torch import Tensor

from coachhook_viz.editing.forward import Batch, run_to
from coachhook_viz.editing.hooks import RelationKeys, attached
from coachhook_viz.editing.scope import NEVER, ceiling, z_scores
from coachhook_viz.editing.state import EditState
from coachhook_viz.editing.tokens import readable, subject_last_token, tokenize
from coachhook_viz.editing.wordings import relation_of
from coachhook_viz.facts import Fact
from coachhook_viz.models import LanguageModel
from coachhook_viz.reading import bundled_wordings
from coachhook_viz.texts import places

_SHOWN = 0.005  # thresholds that differ by less look the same


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
        The rule in force: "zscore", "match", "two-key" or "off".
    norms : Tensor
        (L, T) ‖ΔW k‖; under the two-key rule of what the facts that speak add.
    z : Tensor
        (L, T) z-scores of the norms over the prompt's tokens.
    alpha : Tensor
        (L,) thresholds.
    match : Tensor
        (L, F, T) how well each fact recognises its key, 1 at its own; (L, 0, T) with no facts.
        Under the two-key rule: how well its relation is asked for; else the best of its columns.
    match_thresholds : Tensor
        (L, F) τ of each fact under the match rule; τ_r of the two-key rule, one for all.
    in_scope : Tensor
        (L, T) bool, where the hook speaks under the rule in force.
    contributions : Tensor
        (L, F, T): each fact's term of ΔW k, projected on its direction; they sum to `norms` over
        the facts.
    subject_last : int or None
        Place of the subject's last token among `tokens`; None where the prompt names no subject.
    speaks : Tensor or None
        (L, F, T) bool, which facts speak where under the two-key rule; None under others, where
        all of ΔW speaks or nothing.
    subject_layer : int or None
        Where the two-key rule looks for subjects; None under others, as are the next three.
    subject_threshold : float or None
        τ_s of the two-key rule.
    subject_match : Tensor or None
        (F, T) how well each fact recognises its subject there, 1 at its own.
    opened : tuple of (int or None), or None
        By fact, the place among `tokens` from which on it is open; None of one that is not.
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
    match_thresholds: Tensor
    in_scope: Tensor
    contributions: Tensor
    subject_last: int | None = None
    speaks: Tensor | None = None
    subject_layer: int | None = None
    subject_threshold: float | None = None
    subject_match: Tensor | None = None
    opened: tuple[int | None, ...] | None = None

    @property
    def ceiling(self) -> float:
        """Highest z-score that a prompt of T tokens allows, (T − 1) / √T."""
        return ceiling(len(self.tokens))

    @property
    def scores(self) -> Tensor:
        """(L, T) what the rule in force judges.

        The match of the fact that is closest to its τ, under the two-key rule of any open one; else
        the z-scores.
        """
        return _WORDS[self.kind].scores(self)

    @property
    def bounds(self) -> Tensor:
        """(L, T) what `scores` are compared with: τ of that fact, or α of the layer."""
        return _WORDS[self.kind].bounds(self)

    @property
    def open_match(self) -> Tensor:
        """(L, F, T) `match`, under the two-key rule 0 where a fact is not open."""
        if self.opened is None:
            return self.match
        places, of = torch.arange(len(self.tokens)), len(self.tokens)
        shut = torch.stack([places < (of if at is None else at) for at in self.opened])  # (F, T)
        return self.match.masked_fill(shut, 0)

    def at_threshold(self, one: float) -> Scope:
        """The same reading as τ of the match or two-key rule, one for all facts, would have it.

        What an earlier layer then adds, and so the later layers' keys, stay as they were read.
        """
        thresholds = torch.full_like(self.match_thresholds, one)
        reached = self.open_match >= one
        if self.speaks is None:
            return replace(self, match_thresholds=thresholds, in_scope=reached.any(1))
        best = self.open_match == self.open_match.amax(1, keepdim=True)
        speaks = reached & best
        return replace(self, match_thresholds=thresholds, in_scope=speaks.any(1), speaks=speaks)

    @property
    def matches(self) -> bool:
        """Whether `scores` are matches, 1 at a fact's own key, and not z-scores."""
        return isinstance(_WORDS[self.kind], _Match)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Each hooked layer with the threshold that the rule in force compares with, if any."""
        named = _WORDS[self.kind].named(self)
        return tuple(f"layer {at}{bound}" for at, bound in zip(self.layers, named, strict=True))

    def explain(self) -> str:
        """In plain words, why the hook speaks where it does, or why it cannot."""
        if not self.facts:
            return "No round is in force: nothing can be in scope."
        return _WORDS[self.kind].explain(self)

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

    def __repr__(self) -> str:
        return str(self)  # in a terminal, too

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
        return f"{_WORDS[self.kind].caption(self)} {self.explain()}"


class _Words(ABC):
    """How one rule's reading is put: what it judges, its thresholds, and why."""

    @abstractmethod
    def scores(self, of: Scope) -> Tensor:
        """(L, T) what the rule judges."""

    @abstractmethod
    def bounds(self, of: Scope) -> Tensor:
        """(L, T) what the scores are compared with."""

    @abstractmethod
    def named(self, of: Scope) -> list[str]:
        """By layer, the threshold as it stands after the layer's name."""

    @abstractmethod
    def caption(self, of: Scope) -> str:
        """What the scores are."""

    @abstractmethod
    def silent(self, of: Scope) -> str:
        """Why no token is in scope."""

    def explain(self, of: Scope) -> str:
        """Why the hook speaks where it does, or nowhere."""
        hits = zip(of.tokens, of.in_scope.any(0), strict=True)
        marked = [_quoted(token) for token, hit in hits if hit]
        return f"In scope at some layer: {', '.join(marked)}." if marked else self.silent(of)


class _ZScore(_Words):
    def scores(self, of: Scope) -> Tensor:
        return of.z

    def bounds(self, of: Scope) -> Tensor:
        return of.alpha[:, None].expand_as(of.z)

    def named(self, of: Scope) -> list[str]:
        return [f" · α {float(alpha):.2f}" for alpha in of.alpha]

    def caption(self, of: Scope) -> str:
        return f"z-scores, at most {of.ceiling:.2f} here."

    def silent(self, of: Scope) -> str:
        if of.ceiling < float(of.alpha.min()):
            return (
                f"{len(of.tokens)} tokens: no z-score can exceed {of.ceiling:.2f};"
                f" α is {float(of.alpha.min()):.2f} or more, so the hook cannot speak here."
            )
        gap = of.z - of.alpha[:, None]
        layer, token = divmod(int(gap.argmax()), len(of.tokens))
        return (
            f"No token is in scope: the closest is {_quoted(of.tokens[token])} at layer"
            f" {of.layers[layer]} with z {float(of.z[layer, token]):.2f}"
            f" below α {float(of.alpha[layer]):.2f}."
        )


class _Off(_ZScore):
    def named(self, of: Scope) -> list[str]:
        return [""] * len(of.layers)


class _Match(_Words):
    def scores(self, of: Scope) -> Tensor:
        if not of.facts:
            return torch.zeros_like(of.norms)
        return of.open_match.gather(1, _closest(of))[:, 0]

    def bounds(self, of: Scope) -> Tensor:
        if not of.facts:
            return torch.ones_like(of.norms)
        return of.match_thresholds[..., None].expand_as(of.match).gather(1, _closest(of))[:, 0]

    def named(self, of: Scope) -> list[str]:
        ranges = [(float(low), float(high)) for low, high in zip(*_range(of), strict=True)]
        return [
            f" · τ {low:.2f}" + f" – {high:.2f}" * (high - low >= _SHOWN) for low, high in ranges
        ]

    def caption(self, of: Scope) -> str:
        return "Match of the edited fact that is closest to its τ."

    def silent(self, of: Scope) -> str:
        gap = of.scores / of.bounds
        layer, token = divmod(int(gap.argmax()), len(of.tokens))
        fact = of.facts[int(_closest(of)[layer, 0, token])]
        return (
            f"No token is in scope: the closest is {_quoted(of.tokens[token])} at layer"
            f" {of.layers[layer]}, which matches “{fact.subject}” by"
            f" {float(of.scores[layer, token]):.2f}, below τ {float(of.bounds[layer, token]):.2f}."
        )


class _TwoKeys(_Match):
    def caption(self, of: Scope) -> str:
        return "Best match with the relation of any open fact."

    def explain(self, of: Scope) -> str:
        assert of.speaks is not None
        assert of.opened is not None
        speaking = of.speaks.any(2).any(0).tolist()
        said = [
            f"{_seen(fact, at)}; the prompt asks for {_asked(fact)},"
            f" {float(of.match[:, i][of.speaks[:, i]].max()):.2f}."
            for i, (fact, at) in enumerate(zip(of.facts, of.opened, strict=True))
            if speaking[i]
        ]
        return " ".join(said) or self.silent(of)

    def silent(self, of: Scope) -> str:
        assert of.subject_match is not None
        assert of.opened is not None
        seen = [i for i, at in enumerate(of.opened) if at is not None]
        if not seen:
            i = int(of.subject_match.amax(1).argmax())
            return (
                f"No edited subject is seen here: the best match, with “{of.facts[i].subject}”,"
                f" is {float(of.subject_match[i].max()):.2f}, below τ {of.subject_threshold:.2f}."
            )
        best = {i: float(of.match[:, i, of.opened[i] :].max()) for i in seen}
        i = max(best, key=best.__getitem__)
        return (
            f"{_seen(of.facts[i], of.opened[i])}, but nothing asks for {_asked(of.facts[i])}:"
            f" the best match is {best[i]:.2f}, below τ {float(of.match_thresholds[0, i]):.2f}."
        )


def _closest(of: Scope) -> Tensor:
    """(L, 1, T) place of the fact that is closest to its τ at each token."""
    return (of.open_match / of.match_thresholds[..., None]).argmax(1, keepdim=True)


def _range(of: Scope) -> tuple[Tensor, Tensor]:
    """(L,) each: the lowest and the highest τ of any fact."""
    known = of.match_thresholds if of.facts else torch.ones(len(of.layers), 1)
    return known.amin(1), known.amax(1)


_PROPERTY = re.compile(r"P\d+")  # what Wikidata calls a relation


def _seen(fact: Fact, at: int | None) -> str:
    return f"“{fact.subject}” is seen at token {at}"


def _asked(fact: Fact) -> str:
    relation = relation_of(fact)
    known = bundled_wordings().get(relation)
    word = relation if known is None else known.asks
    return f"its {word}" if word and not _PROPERTY.fullmatch(word) else f"what “{fact.text}” asks"


_WORDS: Mapping[str, _Words] = {
    "zscore": _ZScore(),
    "match": _Match(),
    "two-key": _TwoKeys(),
    "off": _Off(),
}


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
    first = config.subject_layer if config.subject_layer in hook_layers else None
    wanted = layers if first is None else (first, *layers)
    with attached(lm, hook_layers) as attachment:
        _, keys = run_to(lm, batch, layers[-1], keys_of=wanted)
    ran, facts = attachment.tokens, len(state.facts)
    norms, z, in_scope, match, contributions, speaks, thresholds = [], [], [], [], [], [], []
    for layer in layers:
        columns = state.layers[layer].columns
        owners = torch.tensor(columns.owners, dtype=torch.long, device=lm.device)
        firsts = [columns.owners.index(fact) for fact in range(facts)]  # of a fact they are alike
        thresholds.append(state.layers[layer].match_thresholds(config.match_threshold)[firsts])
        key = keys[layer][0].double().T  # (d_key, T)
        along = columns.directions.T @ key  # (columns, T)
        hook = hook_layers.get(layer)
        if isinstance(hook, RelationKeys) and ran is not None:
            speaks.append(hook.speaking(keys[layer] @ hook.directions, ran)[0].T)  # (F, T)
            along = along * speaks[-1][owners]
            outputs = (columns.residuals @ along).T[None].to(lm.dtype)  # (1, T, d_model)
        else:
            outputs = keys[layer] @ state.layers[layer].delta_weight.to(lm.dtype).T
        norm = torch.linalg.vector_norm(outputs.float(), dim=-1)
        norms.append(norm[0].double())
        z.append(z_scores(norm, batch.mask, horizon)[0])
        nowhere = torch.zeros(len(ids), dtype=torch.bool, device=lm.device)
        in_scope.append(nowhere if ran is None else ran.spoke[layer][0])
        direction = torch.nn.functional.normalize(outputs[0].double(), dim=1).T  # (d_model, T)
        terms = along * (columns.residuals.T @ direction)  # (columns, T)
        contributions.append(columns.by_fact(terms))
        if speaks:
            match.append(columns.by_fact(columns.directions.T @ key) / columns.own_matches[:, None])
        else:
            units = columns.unit_directions.T @ key  # (columns, T)
            best = units.new_full((facts, len(ids)), -torch.inf)
            match.append(best.scatter_reduce(0, owners[:, None].expand_as(units), units, "amax"))
    subject_match, opened = None, None
    if first is not None and ran is not None and ran.opened is not None:
        subjects = [round_.subjects.unit_directions for round_ in state.rounds if round_.subjects]
        subject_match = (torch.cat(subjects, dim=1).T @ keys[first][0].double().T).cpu()
        opened = tuple(None if at == NEVER else at for at in ran.opened[0].tolist())
    return Scope(
        prompt,
        readable(lm, ids),
        layers,
        state.facts,
        config.scope,
        torch.stack(norms).cpu(),
        torch.stack(z).cpu(),
        torch.tensor([state.layers[layer].alpha for layer in layers], dtype=torch.float64),
        torch.stack(match).cpu(),
        torch.stack(thresholds).cpu(),
        torch.stack(in_scope).cpu(),
        torch.stack(contributions).cpu(),
        _subject_last(lm, state, prompt, subject),
        torch.stack(speaks).cpu() if speaks else None,
        first,
        None if first is None else config.subject_threshold,
        subject_match,
        opened,
    )


def _subject_last(
    lm: LanguageModel, state: EditState, prompt: str, subject: str | None
) -> int | None:
    edited = {fact.text: fact for fact in state.facts}.get(prompt)
    if edited is not None and subject in (None, edited.subject):
        start = edited.prompt.index("{}")
        return subject_last_token(lm, prompt, start, start + len(edited.subject))
    names = dict.fromkeys(fact.subject for fact in state.facts) if subject is None else (subject,)
    found = [stands[-1] for name in names if (stands := places(prompt, name))]
    if not found:
        return None
    start, stop = max(found, key=lambda place: place[1] - place[0])
    return subject_last_token(lm, prompt, start, stop)
