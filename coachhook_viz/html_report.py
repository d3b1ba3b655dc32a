"""A session as one HTML file that explores itself: no kernel, no network, nothing to install.

report    write it
render    the same as text
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Hashable
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from coachhook_viz import figures
from coachhook_viz.editing.progress import CancelCallback, ProgressCallback, Watch
from coachhook_viz.figures.style import Picture, visible
from coachhook_viz.history import Label
from coachhook_viz.measure.interference import rank_correlation
from coachhook_viz.measure.quality import METRICS, forgetting, readings
from coachhook_viz.measure.replies import Reply
from coachhook_viz.measure.scope_quality import confusion
from coachhook_viz.session import Session
from coachhook_viz.story import FactStory, Story, tell

_PAIRS = 8  # strongest interferences that are listed
_READINGS = ("own round", "retained", "end")
_STATUSES = ("holds", "partly", "missed")
_MARKS = {"holds": "●", "partly": "◐", "missed": "○", "": ""}
_UNSAFE = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})


def report(
    session: Session,
    path: str | Path,
    progress: ProgressCallback | None = None,
    cancel: CancelCallback | None = None,
    *,
    budget: int | None = 200,
) -> Path:
    """Write what the rounds in force did as one self-contained HTML file.

    It opens with a bench: a slider over the rounds moves retention, answers and scope together, and
    a click on a fact shows its prompts before and after. Then, of all facts: how well the edits
    hold and which were forgotten; why some failed; where the scope spoke; what drifted; what
    interfered; and each round with its facts. All of it can be read without JavaScript too.

    Parameters
    ----------
    session : Session
        With at least one fact in force; it is only read.
    path : str or Path
        The file, replaced if it is there; its folder is made if needed.
    progress, cancel : callables, optional
        As in `Session.apply`, stages "quality", "scope", "drift", "keys", "report".
    budget : int, optional
        Measure and show this many of the facts, drawn once and for all; None: all. Of more than 24
        rounds the slider stops at 24, evenly chosen, the last among them.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If no fact is in force, or the path names no file.
    EditCancelled
        If `cancel` answered True; no file is written.
    """
    if not isinstance(path, str | PathLike) or not str(path).strip():
        raise ValueError("no file is named; give one, as 'report.html'")
    path = Path(path).expanduser()
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a file in it, as 'report.html'")
    page = render(session, progress, cancel, budget=budget)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, "utf-8")
    return path


def render(
    session: Session,
    progress: ProgressCallback | None = None,
    cancel: CancelCallback | None = None,
    *,
    budget: int | None = 200,
) -> str:
    """What `report` writes, as text.

    Parameters
    ----------
    session, progress, cancel, budget
        As in `report`.

    Raises
    ------
    ValueError
        If no fact is in force.
    EditCancelled
        If `cancel` answered True.
    """
    if not session.state.facts:
        raise ValueError("nothing to report: no fact is in force; apply some first")
    history = session.quality(budget, progress, cancel)
    drift = session.drift(progress, cancel)
    pairs = session.interference(budget, progress, cancel)
    lost = session.forgotten(budget, progress, cancel)
    scopes = session.scope_quality(budget, progress=progress, cancel=cancel)
    story = tell(session, history, Watch(progress, cancel))
    final = history[history["round"] == session.position]
    scores: dict[int, dict[str, float]] = {
        int(str(fact_id)): dict(zip(part["metric"], part["value"], strict=True))
        for fact_id, part in final.groupby("fact")
    }
    statuses = [fact.end.status for fact in story.facts]
    summary = readings(history)
    script = files("coachhook_viz.data").joinpath("report.js").read_text("utf-8")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("coachhook_viz", "data"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"word": _word, "token": visible, "mark": _MARKS.__getitem__}
    return environment.get_template("report.html").render(
        session=session,
        facts=session.facts,
        count=len(session.state.facts),
        sampled=history.attrs["sampled"] if len(statuses) < len(session.state.facts) else "",
        story=story,
        rounds=_rounds(session, story),
        statuses={status: statuses.count(status) for status in _STATUSES},
        scores=scores,
        metrics=[metric for metric in METRICS if metric in set(summary["metric"])],
        readings=[name for name in _READINGS if name in set(summary["reading"])],
        summary={(row.metric, row.reading): row for row in summary.itertuples(index=False)},
        forgotten=lost.to_dict("records"),
        failures=_failures(session, story, lost, scopes),
        confusion=confusion(scopes).to_dict("index"),
        perplexity=_perplexity(drift),
        strongest=_strongest(pairs),
        rho=rank_correlation(pairs)["rho"].iloc[-1] if len(statuses) > 2 else None,
        conflicts=session.conflicts(),
        pictures=_pictures(history, drift, pairs, session),
        style=Markup(files("coachhook_viz.data").joinpath("report.css").read_text("utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=Markup(_embedded(_data(session, story))),
    )


def _rounds(session: Session, story: Story) -> list[dict[str, Any]]:
    """Each round in force that has a fact to show."""
    found = []
    for place, round_ in enumerate(session.state.rounds, 1):
        shown = [fact for fact in story.facts if fact.round == place]
        if shown:
            label = session.labels.get(round_.number, Label())
            found.append({"place": place, "label": label, "round": round_, "facts": shown})
    return found


def _data(session: Session, story: Story) -> dict[str, Any]:
    """What the page's script draws from; short names, as each stands there many times."""
    rounds = session.state.rounds
    names = [session.labels.get(rounds[stop - 1].number, Label()).name for stop in story.stops]
    return {
        "stops": story.stops,
        "names": names,
        "facts": [_fact_data(fact) for fact in story.facts],
    }


def _fact_data(story: FactStory) -> dict[str, Any]:
    fact, seen = story.fact, story.end.seen
    return {
        "id": story.id,
        "round": story.round,
        "prompt": fact.prompt.split("{}"),
        "subject": fact.subject,
        "target": fact.target,
        "truth": fact.truth,
        "kinds": [kind for kind, _ in story.prompts],
        "prompts": [prompt for _, prompt in story.prompts],
        "before": _tops(story.before[0]),
        "replies": [_top(reply) for reply in story.before],
        "tokens": [visible(token) for token in seen.tokens],
        "last": seen.subject_last,
        "after": {
            str(stop): {
                "status": after.status,
                "p": _short(after.probability),
                "says": _tops(after.replies[0]),
                "replies": [
                    [*_top(reply), int(right), int(reply.spoke)]
                    for reply, right in zip(after.replies, after.right, strict=True)
                ],
                "layers": after.seen.layers,
                "scores": [[_short(score) for score in row] for row in after.seen.scores],
                "inside": ["".join("01"[hit] for hit in row) for row in after.seen.inside],
                "bounds": [_short(bound) for bound in after.seen.bounds],
                "why": after.seen.sentence,
            }
            for stop, after in story.after.items()
        },
    }


def _tops(reply: Reply) -> list[tuple[str, float]]:
    pairs = zip(reply.tokens, reply.probabilities, strict=True)
    return [(visible(token), _short(share)) for token, share in pairs]


def _top(reply: Reply) -> tuple[str, float]:
    return _word(reply.tokens[0]), _short(reply.probabilities[0])


def _short(number: float) -> float:
    """As many digits as are shown: the page rounds nothing again."""
    return round(number, 2)


def _word(token: str) -> str:
    """A token in a sentence; white space alone is made visible."""
    return token.strip() or visible(token)


def _embedded(data: dict[str, Any]) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(_UNSAFE)


def _failures(
    session: Session, story: Story, lost: pd.DataFrame, scopes: pd.DataFrame
) -> list[tuple[FactStory, list[str]]]:
    """Facts whose reliability is below 1 at the end, with what is known of the reason."""
    stop = session.config.stop_loss
    losses = {
        fact_id: loss
        for round_ in session.state.rounds
        for fact_id, loss in zip(round_.fact_ids, round_.losses, strict=True)
    }
    silent = scopes[(scopes["kind"] == "edit") & ~scopes["anywhere"]].set_index("fact")["reason"]
    gone = lost.set_index("fact")
    rivals = {i: j for pair in session.conflicts() for i, j in (pair, pair[::-1])}
    found = []
    for answer in story.facts:
        if answer.end.status == "holds":
            continue
        reasons = []
        if answer.id in rivals:
            other = rivals[answer.id]
            reasons.append(f"fact {other} asks the same and wants {session.facts[other].target!r}")
        if answer.id in silent.index:
            reasons.append(str(silent[answer.id]))
        if answer.id in gone.index:
            row = gone.loc[answer.id]
            by = f", where fact {row['by']} acts on its key most" if pd.notna(row["by"]) else ""
            reasons.append(f"It held until round {row['round']} was applied{by}.")
        elif losses[answer.id] > stop:
            reasons.append(
                f"Its optimisation ended at loss {losses[answer.id]:.2f}, above {stop}: more steps"
                " or a larger clamp_factor may help."
            )
        found.append((answer, reasons or ["The hook layers do not move the answer far enough."]))
    return found


def _perplexity(drift: pd.DataFrame) -> tuple[float, float]:
    """Before the first round and now."""
    values = drift[drift["metric"] == "perplexity"].sort_values("round")["value"]
    return float(values.iloc[0]), float(values.iloc[-1])


def _strongest(pairs: pd.DataFrame) -> list[dict[Hashable, Any]]:
    """The pairs of facts that act most on each other, means over the layers."""
    others = pairs[pairs["fact"] != pairs["by"]]
    means = others.groupby(["fact", "by"])[["predicted", "actual"]].mean().reset_index()
    return means.nlargest(_PAIRS, "actual").to_dict("records")


def _pictures(
    history: pd.DataFrame, drift: pd.DataFrame, pairs: pd.DataFrame, session: Session
) -> dict[str, str]:
    drawn = {
        "quality": figures.quality(history, backend="matplotlib"),
        "weights": figures.weights(drift, backend="matplotlib"),
        "shift": figures.shift(drift, backend="matplotlib"),
    }
    if not forgetting(history).empty:
        drawn["forgetting"] = figures.forgetting_curve(history, backend="matplotlib")
    if len(set(pairs["fact"])) > 1:
        drawn["interference"] = figures.interference(pairs, session.facts, backend="matplotlib")
    return {name: _address(picture) for name, picture in drawn.items()}


def _address(picture: Picture) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(picture.svg().encode()).decode()
