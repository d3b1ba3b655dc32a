"""A thousand facts in a hundred rounds: is a round as cheap at the end, does a click stay quick?

    python benchmarks/thousand.py --facts ../shared/data/counterfact-edit.json
    python benchmarks/thousand.py --facts ... --method alphaedit --scope off
    python benchmarks/thousand.py --facts ... --count 300
    python benchmarks/thousand.py --facts ... --forged         the engine alone, in minutes

A thousand targets take an hour or two on one thread. With --forged only the first round and the
rounds that are timed are edited; of the others the keys and directions are the facts' own, solved
round after round, and the residuals drawn at random, as large as those of the first round. Their
facts need not hold, so quality is not measured; what rounds, clicks, files and tokens cost does not
hang on it. The session is kept in the folder (--out) and goes on there after a stop; a file beside
it has the time and memory of each round. One that methods.py has made, put there under the same
name, is measured as it is.

Quality is measured on a sample of the facts (--budget, those of the smallest hash of their number),
with 95 % bootstrap intervals.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

import coachhook_viz as cv
from coachhook_viz.editing.editor import bare_keys
from coachhook_viz.editing.hooks import attached
from coachhook_viz.editing.progress import Progress
from coachhook_viz.editing.state import Factors
from coachhook_viz.editing.update import woodbury
from coachhook_viz.measure.answers import Speaker
from coachhook_viz.measure.drift import Probes, neutral_texts
from coachhook_viz.measure.metrics import chosen, judged
from coachhook_viz.measure.over_rounds import sample
from coachhook_viz.measure.quality import METRICS, quality, readings

TENTH = 10  # rounds at each end that are compared
TOKENS = 50


def edit(session: cv.Session, facts: list[cv.Fact], size: int, minutes: float, log: Path) -> None:
    """Apply what the session does not have yet, and note what each round took."""
    stop = time.monotonic() + 60 * minutes
    for start in range(len(session.facts), len(facts), size):
        if time.monotonic() > stop:
            break
        wall, cpu = time.perf_counter(), time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            session.apply(facts[start : start + size])
        row = {
            "round": session.position,
            "wall": time.perf_counter() - wall,
            "processor": time.process_time() - cpu,
            "resident": resident(),
        }
        pd.DataFrame([row]).to_csv(log, mode="a", header=not log.exists(), index=False)


def forge(session: cv.Session, facts: list[cv.Fact], size: int) -> None:
    """Rounds of the facts' own keys, and residuals like those of the first round, which is real."""
    if not session.rounds:
        session.apply(facts[:size])
    lm, real = session.lm, session.rounds[0]
    generator = torch.Generator().manual_seed(0)
    for start in range(len(session.facts), len(facts), size):
        part = facts[start : start + size]
        keys = bare_keys(lm, session.config, part)
        preserved = session._setup.preserved.after(session.rounds)
        factors = {}
        for layer, known in real.factors.items():
            drawn = torch.randn(lm.d_model, len(part), dtype=torch.float64, generator=generator)
            drawn *= known.residuals.norm(dim=0).mean() / drawn.norm(dim=0)
            factors[layer] = Factors(drawn, woodbury(preserved[layer], keys[layer])[0], keys[layer])
        forged = replace(
            real,
            facts=tuple(part),
            factors=factors,
            targets=torch.zeros(len(part), lm.d_model, dtype=torch.float64),
            losses=(0.0,) * len(part),
            peaks={layer: peaks.new_ones(len(part)) for layer, peaks in real.peaks.items()},
            reached=None,
        )
        session._commit(session._history.applied(forged))


def told_of_places(session: cv.Session, facts: list[cv.Fact], repeats: int) -> None:
    """The same facts in a round on few and on all, by turns, each on a branch of its own."""
    spent: dict[str, list[tuple[float, float]]] = {"few": [], "all": []}
    for repeat in range(repeats):
        for name, position in (("few", 1), ("all", len(session.branches["main"].rounds))):
            session.switch("main")
            session.go_to(position)
            session.branch(f"{name} {repeat}")
            session._setup.preserved.after(session.rounds)  # else the way back here is timed
            stages: Counter[str] = Counter()
            last = ["before", time.process_time()]

            def clock(progress: Progress | None, last=last, stages=stages) -> None:
                now = time.process_time()
                stages[last[0]] += now - last[1]
                last[:] = [progress.stage if progress else "", now]

            session.apply(facts, progress=clock)
            clock(None)
            spent[name].append((sum(stages.values()), stages["targets"]))
    session.switch("main")
    session.go_to(len(session.rounds))
    print(f"\n| a round of {len(facts)}, processor s | on one round | on all | ratio |")
    print("| --- | ---: | ---: | ---: |")
    for name, value in (("whole", lambda t: t[0]), ("without its targets", lambda t: t[0] - t[1])):
        few, every = (statistics.median(map(value, spent[where])) for where in ("few", "all"))
        print(f"| {name} | {few:.2f} | {every:.2f} | {every / few:.2f} |")


def resident() -> float:
    """Memory that the process holds now, in MB; the most it ever held, where that is not known."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def told_of_rounds(log: pd.DataFrame) -> None:
    """The first ten rounds after the very first one, against the last ten."""
    log = log.drop_duplicates("round", keep="last")
    first, last = log.iloc[1 : 1 + TENTH], log.iloc[-TENTH:]
    print("\n| a round | first ten | last ten | ratio |\n| --- | ---: | ---: | ---: |")
    for name, unit in (("wall", "s"), ("processor", "s"), ("resident", "MB")):
        a, b = first[name].median(), last[name].median()
        print(f"| {name}, {unit} | {a:.2f} | {b:.2f} | {b / a:.2f} |")


def told_of_changes(session: cv.Session) -> None:
    """What a click costs: undo, mute and their like, each with the folder written."""
    middle = sorted(session.facts)[len(session.facts) // 2]
    last = session.position
    steps: dict[str, Callable[[], object]] = {
        "undo": session.undo,
        "redo": session.redo,
        "mute a fact of the middle": lambda: session.mute(middle),
        "unmute it": lambda: session.unmute(middle),
        "go to the middle": lambda: session.go_to(last // 2),
        "go to the end": lambda: session.go_to(last),
        "hooks for the model": lambda: session.state.hook_layers(session.lm.dtype),
    }
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for _ in range(3):
        for name, step in steps.items():
            wall, processor = time.perf_counter(), time.process_time()
            step()
            spent[name].append((time.perf_counter() - wall, time.process_time() - processor))
    print("\n| change, median | wall, s | processor, s |\n| --- | ---: | ---: |")
    for name, values in spent.items():
        wall, processor = map(statistics.median, zip(*values, strict=True))
        print(f"| {name} | {wall:.2f} | {processor:.2f} |")


def told_of_folder(session: cv.Session, folder: Path) -> None:
    """Size of the folder, and how long it takes to be opened."""
    sizes = {path.name: path.stat().st_size / 1e6 for path in folder.iterdir()}
    before, started = resident(), time.perf_counter()
    opened = cv.Session.load(folder, session.lm, journal=False)
    seconds, more = time.perf_counter() - started, resident() - before
    same = all(
        torch.equal(session.delta_weight(at), opened.delta_weight(at))
        for at in session.state.layers
    )
    print(
        f"\nfolder: {sum(sizes.values()):.1f} MB, of it session.json"
        f" {sizes['session.json']:.2f} MB; opened in {seconds:.2f} s, which takes {more:.0f} MB;"
        f" ΔW bit for bit: {same}"
    )


def told_of_tokens(session: cv.Session, repeats: int) -> None:
    """A token of greedy text with these facts in force, and of the unedited model, alternating."""
    lm = session.lm
    prompt = lm.encode(["The history of the city began when"])
    print(f"\n| scope | {len(session.state.facts)} facts, processor ms a token | without | ratio |")
    print("| --- | ---: | ---: | ---: |")
    for scope in ("match", "zscore", "off"):
        hooks = session.state.judged(scope).hook_layers(lm.dtype)
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for repeat in range(repeats + 1):
            for edited in (True, False):
                with attached(lm, hooks if edited else {}):
                    started = time.process_time()
                    lm.generate(
                        **prompt, min_new_tokens=TOKENS, max_new_tokens=TOKENS, do_sample=False
                    )
                    if repeat:  # the first pair warms up
                        seconds[edited].append((time.process_time() - started) / TOKENS)
        on, off = (1000 * statistics.median(seconds[edited]) for edited in (True, False))
        pairs = zip(seconds[True], seconds[False], strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"| {scope} | {on:.2f} | {off:.2f} | {ratio:.3f} |", flush=True)


def told_of_quality(session: cv.Session, budget: int, fluent: int) -> None:
    """Whether a sample of the facts holds, and what is left of neutral text and fluency."""
    lm, state, unedited = session.lm, session.state, session.state_at(0)
    ids = sample(state.fact_ids, budget)
    facts = dict(zip(state.fact_ids, state.facts, strict=True))
    frame = quality(lm, state, [facts[i] for i in ids], None, Speaker(lm, unedited))
    frame = readings(frame.assign(edited=0, round=0))
    frame = frame[frame["metric"].isin(METRICS)]
    print(f"\n| {len(ids)} of {len(facts)} facts | mean | 95 % interval |\n| --- | ---: | --- |")
    for row in frame[frame["reading"] == "own round"].itertuples():
        print(f"| {row.metric} | {row.mean:.3f} | {row.low:.2f} – {row.high:.2f} |")
    probes = Probes(lm, unedited, neutral_texts())
    for name, at in (("perplexity", state), ("perplexity, unedited", unedited)):
        probed = probes.measure(at)
        value = float(probed.loc[probed["metric"] == "perplexity", "value"].iloc[0])
        print(f"| {name} | {value:.2f} | |")
    if fluent:
        asked = {i: facts[i] for i in sample(ids, fluent)}
        (metric,) = chosen("fluency")
        for name, at in (("fluency", state), ("fluency, unedited", unedited)):
            speaker = Speaker(lm, at)
            values = judged(metric, asked, speaker, Speaker(lm, unedited))["value"]
            print(f"| {name}, {len(asked)} facts | {values.mean():.0f} | |")


def main() -> None:
    """Edit, and print what it costs and what holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--facts", default="../shared/data/counterfact-edit.json")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--round", type=int, default=10, help="facts a round")
    parser.add_argument("--method", default="coachhook")
    parser.add_argument("--scope", default="match")
    parser.add_argument("--forged", action="store_true", help="without optimising most targets")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop editing after")
    parser.add_argument("--budget", type=int, default=100, help="facts asked")
    parser.add_argument("--fluent", type=int, default=0, help="facts asked for a long text")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("build/thousand"))
    arguments = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        facts = cv.read_facts(arguments.facts)[: arguments.count]
    lm = cv.load_model()
    config = cv.EditConfig.for_model(lm, method=arguments.method, scope=arguments.scope)
    forged = ", forged" if arguments.forged else ""
    folder = arguments.out / f"{arguments.method}, {arguments.scope}{forged}"
    log = folder.with_name(f"{folder.name}.csv")
    if (folder / "session.json").exists():
        session = cv.Session.load(folder, lm)
    else:
        session = cv.Session(lm, config, folder=folder)
    if arguments.forged:
        forge(session, facts, arguments.round)
    else:
        edit(session, facts, arguments.round, arguments.minutes, log)
    print(f"{folder.name}: {len(session.state.facts)} facts in {session.position} rounds\n")
    told_of_changes(session)
    told_of_folder(session, folder)
    told_of_tokens(session, arguments.repeats)
    if arguments.forged:
        extra = cv.read_facts(arguments.facts)[arguments.count :][: arguments.round]
        told_of_places(session, extra, 1)
    else:
        if log.exists():  # else another benchmark has edited it
            told_of_rounds(pd.read_csv(log))
        told_of_quality(session, arguments.budget, arguments.fluent)


if __name__ == "__main__":
    main()
