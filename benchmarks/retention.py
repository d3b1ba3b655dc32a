"""100 CounterFact facts in 10 rounds of 10: what is retained, what the scope protects.

    python benchmarks/retention.py --facts ../shared/data/counterfact-edit.json
    python benchmarks/retention.py --scopes match --out build/retention     one scope, figures too

For each scope: reliability, generality and locality right after a fact's own round, over all later
rounds and at the end, with 95 % bootstrap intervals; facts forgotten; how many near neighbours
(the edit prompt with another, unedited subject) keep their top token; how long it took to measure
all of it, afterwards and in one go. The session is kept in the folder, and opened again from it.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import pandas as pd

import coachhook_viz as cv
from coachhook_viz.measure.answers import Question, Speaker, ask
from coachhook_viz.measure.quality import METRICS, forgetting, readings
from coachhook_viz.measure.scope_quality import confusion, near_misses


def edited(lm: cv.LanguageModel, facts: list[cv.Fact], size: int, scope: str, folder: Path):
    """A session with all facts in it; rounds that the folder has already are not run again."""
    if (folder / "session.json").exists():
        session = cv.Session.load(folder, lm)
    else:
        session = cv.Session(lm, cv.EditConfig.for_model(lm, scope=scope), folder=folder)
    for start in range(len(session.facts), len(facts), size):
        session.apply(facts[start : start + size])
    return session


def near_kept(session: cv.Session, others: list[str]) -> str:
    """Near neighbours whose top token is still the unedited model's."""
    pairs = near_misses(session.facts, others)
    prompts = [session.facts[i].prompt.replace("{}", other) for i, other in pairs.items()]
    questions = [Question.of(session.lm, prompt) for prompt in dict.fromkeys(prompts)]
    now = ask(session.lm, session.state, questions)
    before = Speaker(session.lm, session.state_at(0)).ask(questions)
    kept = sum(a.top == b.top for a, b in zip(now, before, strict=True))
    return f"{kept / len(questions):.3f} ({kept} / {len(questions)})"


def main() -> None:
    """Print one block a scope."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--facts", default="../shared/data/counterfact-edit.json")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--round", type=int, default=10, help="facts a round")
    parser.add_argument("--scopes", default="zscore,match,off")
    parser.add_argument("--out", type=Path, default=Path("build/retention"))
    arguments = parser.parse_args()
    lm = cv.load_model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        every = cv.read_facts(arguments.facts)
    facts, others = every[: arguments.count], [fact.subject for fact in every[arguments.count :]]
    edits = {fact.subject for fact in facts}
    others = [other for other in others[:2000] if other not in edits]
    summaries = []
    for scope in arguments.scopes.split(","):
        folder = arguments.out / scope
        session = edited(lm, facts, arguments.round, scope, folder / "session")
        started = time.perf_counter()
        history, drift = session.quality(), session.drift()
        pairs, lost = session.interference(), session.forgotten()
        scopes = session.scope_quality(others=others)
        seconds = time.perf_counter() - started
        summary = readings(history)
        summaries.append(summary.assign(setting=scope))
        print(f"\n{scope}: {len(facts)} facts in {session.position} rounds\n")
        print("| | own round | retained | end |\n| --- | --- | --- | --- |")
        table = {(row.metric, row.reading): row for row in summary.itertuples()}
        for metric in METRICS:
            cells = [table[metric, reading] for reading in ("own round", "retained", "end")]
            text = " | ".join(f"{c.mean:.3f} ({c.low:.2f} – {c.high:.2f})" for c in cells)
            print(f"| {metric} | {text} |")
        perplexity = drift[drift["metric"] == "perplexity"]["value"]
        shares = forgetting(history)
        print(
            f"\nfacts forgotten at the end: {shares['lost'].iloc[-1]} of {shares['taken'].iloc[-1]}"
        )
        print(f"ever lost after their own round: {len(lost)}")
        print(f"near neighbours with the same top token: {near_kept(session, others)}")
        print(f"perplexity on neutral text: {perplexity.iloc[0]:.2f} → {perplexity.iloc[-1]:.2f}")
        print(f"all measurements: {seconds:.0f} s\n")
        print(confusion(scopes).to_string())
        for name, picture in (
            ("retention", cv.figures.retention(history, backend="matplotlib")),
            ("forgetting", cv.figures.forgetting_curve(history, backend="matplotlib")),
            ("weights", cv.figures.weights(drift, backend="matplotlib")),
            ("shift", cv.figures.shift(drift, backend="matplotlib")),
            ("interference", cv.figures.interference(pairs, backend="matplotlib")),
        ):
            picture.savefig(folder / f"{name}.png", dpi=110, facecolor="white")
    everything = pd.concat(summaries)
    picture = cv.figures.comparison(everything, backend="matplotlib")
    picture.savefig(arguments.out / "comparison.png", dpi=110, facecolor="white")


if __name__ == "__main__":
    main()
