"""What a saved session's files say: values to JSON and tensors, and back.

Saved                     the session as a value
to_content, to_tensors    what session.json and a round's file hold
from_content              the session again, on its model's device
migrated                  the content of an older version, as this one writes it
describe, difference      which model a session belongs to, and why another is another
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from coachhook_viz.editing.config import EditConfig
from coachhook_viz.editing.methods import CoachHook, from_fields, to_fields
from coachhook_viz.editing.state import Factors, Keys, Round, Statistics
from coachhook_viz.errors import SessionFileError as SessionFileError
from coachhook_viz.facts import Fact, Neighbor
from coachhook_viz.history import Branch, History, Label
from coachhook_viz.models import LanguageModel

MIGRATIONS: tuple[Callable[[dict[str, Any]], dict[str, Any]], ...] = ()
"""Append-only: the n-th turns the content of schema n into that of schema n + 1."""

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Saved:
    """A session as it stands on disk.

    Attributes
    ----------
    id : str
        Given once; tells one session's folder from another's.
    model : mapping of str to str
        name, fingerprint, dtype and lead.
    config : EditConfig
    moments : mapping of int to float
        Trace of C0 by hooked layer, to know the moments again by.
    history : History
    """

    id: str
    model: Mapping[str, str]
    config: EditConfig
    moments: Mapping[int, float]
    history: History


def schema() -> int:
    """The version of the format that is written now."""
    return len(MIGRATIONS) + 1


def migrated(content: dict[str, Any]) -> dict[str, Any]:
    """`content` brought from its own schema to this version's."""
    for migrate in MIGRATIONS[content["schema"] - 1 :]:
        content = migrate(content)
    return content


def to_content(saved: Saved, digests: Mapping[int, str]) -> dict[str, Any]:
    """What session.json holds; `digests` are the round files' SHA-256 by number."""
    history = saved.history
    content = {
        "schema": schema(),
        "id": saved.id,
        "model": dict(saved.model),
        "config": _to_config(saved.config),
        "moments": {str(layer): trace for layer, trace in saved.moments.items()},
        "rounds": [
            _to_entry(round_, history.labels.get(number, Label()), digests[number])
            for number, round_ in history.rounds.items()
        ],
        "branches": {
            name: {
                "rounds": [round_.number for round_ in branch.rounds],
                "position": branch.position,
                "muted": sorted(branch.muted),
            }
            for name, branch in history.branches.items()
        },
        "current": history.current,
        "next_round": history.next_round,
        "next_fact": history.next_fact,
    }
    as_read: dict[str, Any] = json.loads(json.dumps(content))  # tuples become lists
    return as_read


def _to_config(config: EditConfig) -> dict[str, Any]:
    """The settings; CoachHooK is not named, as before there were other methods."""
    settings = asdict(config)
    del settings["method"]
    if config.method != CoachHook():
        settings["method"] = to_fields(config.method)
    return settings


def _from_config(settings: dict[str, Any]) -> EditConfig:
    named = {name: from_fields(settings[name]) for name in ("method",) if name in settings}
    return EditConfig(**{**settings, **named})


def _to_entry(round_: Round, label: Label, digest: str) -> dict[str, Any]:
    return {
        "number": round_.number,
        "label": label.name,
        "note": label.note,
        "facts": [_fields_of(fact) for fact in round_.facts],
        "fact_ids": list(round_.fact_ids),
        "alphas": {str(layer): alpha for layer, alpha in round_.alphas.items()},
        "losses": list(round_.losses),
        "seconds": round_.seconds,
        "settings": dict(round_.settings),
        "muted": sorted(round_.muted),
        "owners": list(round_.owners),
        "reached": None if round_.reached is None else round_.reached.tolist(),
        "sha256": digest,
    }


def _fields_of(fact: Fact) -> dict[str, Any]:
    """As `asdict`, which takes a tenth of a second for a thousand facts."""
    parts = {name: [vars(one) for one in getattr(fact, name)] for name in ("neighbors", "probes")}
    return {**vars(fact), **parts}


def to_tensors(round_: Round) -> dict[str, Tensor]:
    """What a round's file holds: targets, each layer's factors and peaks, and what it carries."""
    tensors = {"targets": round_.targets}
    for layer, factors in round_.factors.items():
        tensors[f"{layer}.residuals"] = factors.residuals
        tensors[f"{layer}.directions"] = factors.directions
        tensors[f"{layer}.keys"] = factors.keys
        tensors[f"{layer}.peaks"] = round_.peaks[layer]
    if round_.subjects is not None:
        tensors["subjects.directions"] = round_.subjects.directions
        tensors["subjects.keys"] = round_.subjects.keys
    if (found := round_.statistics) is not None:
        tensors["statistics.count"] = torch.tensor(float(found.count), dtype=torch.float64)
        tensors["statistics.mean"], tensors["statistics.squares"] = found.mean, found.squares
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def from_content(
    content: dict[str, Any], tensors: Mapping[int, Tensors], lm: LanguageModel
) -> Saved:
    """The session, its tensors on the device of `lm`; `tensors` by the round's number.

    Raises
    ------
    KeyError, TypeError, ValueError
        If the content, or a tensor's shape, is not what `to_content` and `to_tensors` give.
    """
    config = _from_config(content["config"])
    config.check(lm)
    rounds = {
        entry["number"]: _from_entry(entry, tensors[entry["number"]], config, lm)
        for entry in content["rounds"]
    }
    branches = {
        name: Branch(
            tuple(rounds[number] for number in entry["rounds"]),
            entry["position"],
            frozenset(entry["muted"]),
        )
        for name, entry in content["branches"].items()
    }
    for name, branch in branches.items():
        if not 0 <= branch.position <= len(branch.rounds):
            raise ValueError(f"branch {name!r} has no position {branch.position}")
    if content["current"] not in branches:
        raise ValueError(f"there is no branch {content['current']!r}")
    labels = {
        entry["number"]: Label(entry["label"], entry["note"])
        for entry in content["rounds"]
        if entry["label"] or entry["note"]
    }
    history = History(
        branches, content["current"], labels, content["next_round"], content["next_fact"]
    )
    moments = {int(layer): float(trace) for layer, trace in content["moments"].items()}
    if set(moments) != set(config.keyed_layers):
        raise ValueError(f"its moments are of layers {list(moments)}, not {config.keyed_layers}")
    return Saved(content["id"], content["model"], config, moments, history)


def _from_entry(
    entry: dict[str, Any], tensors: Tensors, config: EditConfig, lm: LanguageModel
) -> Round:
    count = len(entry["facts"])
    owners = tuple(entry.get("owners", range(count)))  # it came with the two-key scope
    width = len(owners)
    if sorted(set(owners)) != list(range(count)) or list(owners) != sorted(owners):
        raise ValueError(f"round {entry['number']}: its columns belong to facts {list(owners)}")

    no_z = config.method.aims_at == "gradient"
    reached = entry.get("reached")  # it came with `Session.why`
    if reached is not None and len(reached) != count:
        raise ValueError(
            f"round {entry['number']}: it says of {len(reached)} facts what they reached"
        )

    def take(name: str, *shape: int) -> Tensor:
        if tensors[name].shape != shape or tensors[name].dtype != torch.float64:
            raise ValueError(f"round {entry['number']}: {name} is not a float64 {shape}")
        return tensors[name].to(lm.device)

    return Round(
        facts=tuple(_fact(fields) for fields in entry["facts"]),
        fact_ids=tuple(entry["fact_ids"]),
        factors={
            layer: Factors(
                take(f"{layer}.residuals", lm.d_model, width),
                take(f"{layer}.directions", lm.d_key, width),
                take(f"{layer}.keys", lm.d_key, width),
                owners,
            )
            for layer in config.layers
        },
        alphas={layer: float(entry["alphas"][str(layer)]) for layer in config.layers},
        peaks={layer: take(f"{layer}.peaks", count).cpu() for layer in config.layers},
        targets=take("targets", 0 if no_z else width, lm.d_model),
        losses=tuple(entry["losses"]),
        seconds=entry["seconds"],
        number=entry["number"],
        settings=entry.get("settings", {}),  # these two came after the first version
        muted=frozenset(entry.get("muted", ())),
        subjects=(
            None
            if config.subject_layer is None
            else Keys(
                take("subjects.directions", lm.d_key, count), take("subjects.keys", lm.d_key, count)
            )
        ),
        statistics=(
            Statistics(
                int(take("statistics.count")),
                take("statistics.mean", lm.d_key + lm.d_model),
                take("statistics.squares", lm.d_key + lm.d_model),
            )
            if no_z
            else None
        ),
        reached=None if reached is None else torch.tensor(reached, dtype=torch.float64),
    )


def _fact(fields: dict[str, Any]) -> Fact:
    neighbors = tuple(Neighbor(**neighbor) for neighbor in fields["neighbors"])
    return Fact(**{**fields, "neighbors": neighbors})


def describe(lm: LanguageModel) -> dict[str, str]:
    """What tells a model from another, or from another revision of itself."""
    return {
        "name": lm.name,
        "fingerprint": lm.fingerprint,
        "dtype": str(lm.dtype).removeprefix("torch."),
        "lead": lm.lead,
    }


def difference(wanted: Mapping[str, str], given: Mapping[str, str]) -> str | None:
    """Why a session of the model `wanted` is not one of `given`, and what to do; None if it is."""
    name = repr(wanted["name"])
    if wanted["fingerprint"] == given["fingerprint"]:
        if wanted["lead"] == given["lead"]:
            return None
        return f"its model had the lead {wanted['lead']!r}: load it with that lead="
    if wanted["dtype"] != given["dtype"]:
        return f"its model was {name} in {wanted['dtype']}, not in {given['dtype']}: load that"
    if wanted["name"] != given["name"]:
        return f"its model was {name}, not {given['name']!r}: load that one"
    return f"it belongs to another revision of {name}, with other weights: load that one"
