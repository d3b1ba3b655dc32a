"""Every method under every scope: the same facts in the same rounds, one row each.

    python benchmarks/methods.py --facts ../shared/data/counterfact-edit.json     100 in 10 rounds
    python benchmarks/methods.py --facts ... --scopes off --rounds 100 --at 10,30,100    damage
    python benchmarks/methods.py --count 20 --rounds 2 --methods memit,rome --scopes off,match
    python benchmarks/methods.py --sweep alphaedit --count 20 --rounds 2          settings of one
    python benchmarks/methods.py ... --table            only the table of what has been measured

A row a setting and round measured (--at; the last one, if not said), over the facts edited so far,
or a sample of them (--budget): reliability, generality and locality by tokens with 95 % bootstrap
intervals; "kept", the reliability of the facts of earlier rounds alone; "lost", facts among them
that took in their own round; perplexity of neutral text; ‖ΔW‖ relative to the weights, over all
edited layers; fluency of long texts about some facts (--fluent); processor time a fact, of editing
alone, the first round not counted, whose targets several methods share.

Each session is kept in the folder (--out) and goes on there after a stop; so does values.csv.
"""

from __future__ import annotations

import argparse
import hashlib
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import coachhook_viz as cv
from coachhook_viz import comparing, methods
from coachhook_viz.editing import editor
from coachhook_viz.editing.hooks import Hook
from coachhook_viz.editing.methods import CoachHook, Rome
from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.state import EditState
from coachhook_viz.editing.tokens import FactTokens
from coachhook_viz.editing.values import Targets, optimise_targets, sharing_targets
from coachhook_viz.measure.answers import Question, Speaker, ask
from coachhook_viz.measure.drift import Probes, neutral_texts
from coachhook_viz.measure.metrics import chosen, judged
from coachhook_viz.measure.over_rounds import sample
from coachhook_viz.measure.quality import METRICS, holds, quality, readings

SCOPES = ("off", "zscore", "match")
JUDGED = ", judged "  # between the setting of an edit and the scope that it is held to later
COLUMNS = ["setting", "rounds", "round", "facts", "fact", "metric", "value"]
HEADER = (
    "| setting | round | reliability | generality | locality | kept | lost | perplexity | ‖ΔW‖"
    f" | fluency | time a fact |\n| --- | ---: |{' --- |' * 9}"
)
SWEEPS: dict[str, list[dict[str, Any]]] = {
    "memit": [{"covariance_weight": weight} for weight in (30.0, 300.0, 1500.0)],
    "encore": [
        {"method": methods.Encore(norm_weight=norm, stop_count=stop)}
        for norm, stop in ((0.1, 0), (1.0, 0), (10.0, 0), (1.0, 2), (1.0, 4))
    ],
    "emmet": [{"covariance_weight": weight} for weight in (300.0, 3000.0, 15000.0)],
    "alphaedit": [
        {"method": methods.AlphaEdit(weight=10.0)},
        {"method": methods.AlphaEdit(weight=1.0)},
        *(
            {"method": methods.AlphaEdit(energy=energy, weight=weight)}
            for energy in (0.1, 0.3, 0.5)
            for weight in (1.0, 0.1)
        ),
    ],
    "rome": [{"layers": (layer,)} for layer in (4, 5, 7, 9)],
    "r-rome": [{"layers": (layer,)} for layer in (4, 5, 7, 9)],
    "ultraedit": [
        {"layers": layers, "method": methods.UltraEdit(rate=rate)}
        for layers in ((4, 5, 6, 7), (14, 15, 16, 17), (22, 23, 24, 25), (26, 27, 28, 29))
        for rate in (3e-4, 1e-3, 3e-3, 1e-2)
    ],
}


def settings(lm: cv.LanguageModel, names: list[str], scopes: list[str]) -> dict[str, cv.EditConfig]:
    """Each method under each scope, with the settings that are known for it."""
    grid = [(name, scope) for name in names for scope in scopes]
    return {
        f"{methods.METHODS[name].title}, {scope}": cv.EditConfig.for_model(
            lm, method=name, scope=scope
        )
        for name, scope in grid
    }


def swept(lm: cv.LanguageModel, name: str) -> dict[str, cv.EditConfig]:
    """The settings that are tried for one method, without a scope."""
    title = methods.METHODS[name].title
    configs = {}
    for changes in SWEEPS[name]:
        said = ", ".join(f"{key} {value}" for key, value in changes.items())
        given = {"method": name, "scope": "off", **changes}
        configs[f"{title}: {said}"] = cv.EditConfig.for_model(lm, **given)
    return configs


class Once:
    """In the place of `optimise_targets`: z of each fact on the unedited model, for all settings.

    So methods differ in the closed form alone, and R still takes up what is missing on the edited
    model. ENCORE's early stop has no part in it. What was found stays in a file.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.known: dict[str, Tensor] = load_file(file) if file.exists() else {}

    def __call__(
        self,
        lm: cv.LanguageModel,
        hook_layers: Mapping[int, Hook],
        columns: Sequence[FactTokens],
        config: cv.EditConfig,
        watch: Watch,
    ) -> Targets:
        """See `optimise_targets`; one column a fact."""
        place = config.method.aims_at, config.layers[-1]
        names = [self._name(column, place) for column in columns]
        new = [
            column for column, name in zip(columns, names, strict=True) if name not in self.known
        ]
        if new:
            config = replace(config, method=Rome() if place[0] == "mlp" else CoachHook())
            counted = [replace(column, fact=i) for i, column in enumerate(new)]
            found = optimise_targets(lm, {}, counted, config, watch)
            said = torch.tensor([found.losses, found.known], dtype=torch.float64).T
            rows = torch.cat([said, found.states], dim=1)
            self.known |= {
                self._name(column, place): row.clone()
                for column, row in zip(new, rows, strict=True)
            }
            save_file(self.known, self.file)
        rows = torch.stack([self.known[name] for name in names])
        return Targets(
            rows[:, 2:].clone(), tuple(rows[:, 0].tolist()), tuple(map(bool, rows[:, 1]))
        )

    def prepare(self, lm: cv.LanguageModel, config: cv.EditConfig, part: Sequence[cv.Fact]) -> None:
        """Find the targets of a batch at once, also for a method that edits one fact at a time."""
        if config.method.aims_at != "gradient":
            self(lm, {}, editor.check(lm, config, part), config, Watch())

    @staticmethod
    def _name(column: FactTokens, place: tuple[str, int]) -> str:
        return hashlib.sha256(repr((place, column.groups, column.target)).encode()).hexdigest()


class Benchmark:
    """Edits facts under settings, and puts what is measured into a file at once."""

    def __init__(
        self, lm: cv.LanguageModel, facts: list[cv.Fact], rounds: int, out: Path, once: Once | None
    ) -> None:
        self.lm, self.facts, self.out, self.once = lm, facts, out, once
        self.parts = comparing._parts(facts, rounds)
        self.frame = out / "values.csv"
        out.mkdir(parents=True, exist_ok=True)
        unedited = EditState.of(lm, cv.EditConfig.for_model(lm))
        self.speaker, self.probes = Speaker(lm, unedited), Probes(lm, unedited, neutral_texts())

    def edited(self, name: str, config: cv.EditConfig) -> cv.Session:
        """A session with all facts; what its folder has already is not edited again."""
        folder = self.out / f"{len(self.parts)} rounds" / name
        if (folder / "session.json").exists():
            session = cv.Session.load(folder, self.lm)
        else:
            session = cv.Session(self.lm, config, folder=folder)
        done = 0
        for number, part in enumerate(self.parts, start=1):
            done += len(part)
            if len(session.facts) >= done:
                continue
            if self.once is not None:
                self.once.prepare(self.lm, session.config, part)
            started = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                session.apply(part)
            seconds = (time.process_time() - started) / len(part)
            asked = [Question.of(self.lm, fact.text, fact.target) for fact in part]
            answers = ask(self.lm, session.state, asked)
            took = [
                (done - len(part) + i, "took", float(answer.top == question.answer))
                for i, (question, answer) in enumerate(zip(asked, answers, strict=True))
            ]
            self.write(name, number, done, [(None, "seconds", seconds), *took])
        return session

    def measure(self, name: str, state: EditState, number: int, budget: int | None) -> None:
        """A state after `number` rounds, unless the file has it."""
        if self.knows(name, number, "perplexity"):
            return
        probed = self.probes.measure(state)
        perplexity = float(probed.loc[probed["metric"] == "perplexity", "value"].iloc[0])
        done = sum(map(len, self.parts[:number]))
        asked = sample(range(done), budget)
        frame = quality(self.lm, state, [self.facts[i] for i in asked], None, self.speaker)
        rows = [
            (asked[int(fact)], metric, float(value))
            for fact, metric, value in frame.itertuples(index=False)
            if metric in METRICS
        ]
        norm = comparing._norm(self.lm, state)
        rows += [(None, "perplexity", perplexity), (None, "norm", norm)]
        self.write(name, number, done, rows)

    def speak(self, name: str, state: EditState, number: int, count: int) -> None:
        """How varied long texts about that many of the facts are, unless the file has it."""
        if self.knows(name, number, "fluency"):
            return
        done = sum(map(len, self.parts[:number]))
        asked = {i: self.facts[i] for i in sample(range(done), count)}
        (metric,) = chosen("fluency")
        frame = judged(metric, asked, Speaker(self.lm, state), self.speaker)
        rows = zip(frame["fact"], frame["value"], strict=True)
        told = [(int(fact), "fluency", float(value)) for fact, value in rows]
        self.write(name, number, done, told)

    def knows(self, name: str, number: int, metric: str) -> bool:
        """Whether the file has that metric of that setting after so many rounds."""
        if not self.frame.exists():
            return False
        known = pd.read_csv(self.frame)
        known = known[(known["setting"] == name) & (known["rounds"] == len(self.parts))]
        return bool(((known["round"] == number) & (known["metric"] == metric)).any())

    def write(
        self, name: str, number: int, facts: int, rows: list[tuple[int | None, str, float]]
    ) -> None:
        """Append to the file."""
        told = [(name, len(self.parts), number, facts, *row) for row in rows]
        frame = pd.DataFrame(told, columns=COLUMNS).astype({"fact": "Int64"})
        frame.to_csv(self.frame, mode="a", header=not self.frame.exists(), index=False)


def table(frame: pd.DataFrame) -> Iterator[str]:
    """One row a setting and round measured."""
    yield HEADER
    frame = frame.drop_duplicates(["setting", "rounds", "round", "fact", "metric"], keep="last")
    for (name, rounds), part in frame.groupby(["setting", "rounds"], sort=False):
        edits = frame[frame["rounds"] == rounds]
        edits = edits[edits["setting"] == str(name).split(JUDGED)[0]]
        took = edits[edits["metric"] == "took"].set_index("fact")["value"]
        owns = edits[edits["metric"] == "took"].set_index("fact")["round"]
        for number, end in part[part["round"] > 0].groupby("round"):
            values = {metric: end[end["metric"] == metric] for metric in end["metric"].unique()}
            if "perplexity" not in values:
                continue
            reliability = values["reliability"].set_index("fact")["value"]
            before = reliability[owns[reliability.index] < number]
            taken = before[took[before.index] == 1]
            lost = sum(not holds(value) for value in taken)
            fluency = f"{values['fluency']['value'].mean():.0f}" if "fluency" in values else ""
            seconds = edits[(edits["metric"] == "seconds") & (edits["round"] <= number)]
            seconds = seconds.loc[seconds["round"] > (number > 1), "value"].mean()
            shown = " | ".join(interval(values[metric]) for metric in METRICS)
            yield (
                f"| {name} | {number} of {rounds} | {shown} | {before.mean():.2f}"
                f" | {lost} of {len(taken)} | {values['perplexity']['value'].iloc[0]:.2f}"
                f" | {values['norm']['value'].iloc[0]:.3f} | {fluency} | {seconds:.2f} s |"
            )


def interval(part: pd.DataFrame) -> str:
    """Mean over facts and its interval."""
    row = readings(part.assign(edited=part["round"]))
    row = row[row["reading"] == "own round"].iloc[0]
    return f"{row['mean']:.2f} ({row['low']:.2f} – {row['high']:.2f})"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--facts", help="file of facts; default: the bundled ones")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--at", help="rounds to measure after, as 10,30,100; default: the last")
    parser.add_argument("--budget", type=int, help="facts to measure; default: all")
    parser.add_argument("--methods", default=",".join(methods.METHODS))
    parser.add_argument("--scopes", default=",".join(SCOPES))
    parser.add_argument(
        "--judged", default="", help="scopes that the same edits are judged by, at the end"
    )
    parser.add_argument("--fluent", type=int, help="facts to write long texts about, at the end")
    parser.add_argument("--once", action="store_true", help="targets of the unedited model")
    parser.add_argument("--sweep", choices=SWEEPS, help="settings of one method instead")
    parser.add_argument("--out", type=Path, default=Path("build/methods"))
    parser.add_argument("--table", action="store_true", help="edit nothing")
    arguments = parser.parse_args()
    if not arguments.table:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            facts = cv.read_facts(arguments.facts) if arguments.facts else cv.bundled_facts()
        lm = cv.load_model()
        if arguments.sweep:
            configs = swept(lm, arguments.sweep)
        else:
            configs = settings(lm, arguments.methods.split(","), arguments.scopes.split(","))
        at = [int(n) for n in (arguments.at or str(arguments.rounds)).split(",")]
        arguments.out.mkdir(parents=True, exist_ok=True)
        once = Once(arguments.out / "targets.safetensors") if arguments.once else None
        if once is not None:
            editor.optimise_targets = once
        benchmark = Benchmark(lm, facts[: arguments.count], arguments.rounds, arguments.out, once)
        with sharing_targets():
            for name, config in configs.items():
                session = benchmark.edited(name, config)
                for number in at:
                    last = sum(map(len, benchmark.parts[:number]))
                    position = last if config.method.one_by_one else number
                    state = session.state_at(position)
                    benchmark.measure(name, state, number, arguments.budget)
                judged_by = [scope for scope in arguments.judged.split(",") if scope]
                ends = {name: state}
                ends |= {f"{name}{JUDGED}{scope}": state.judged(scope) for scope in judged_by}
                for told, end in ends.items():
                    benchmark.measure(told, end, number, arguments.budget)
                    if arguments.fluent:
                        benchmark.speak(told, end, number, arguments.fluent)
    print("\n".join(table(pd.read_csv(arguments.out / "values.csv"))))


if __name__ == "__main__":
    main()
