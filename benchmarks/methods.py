"""Every method under every scope: the same facts in the same rounds, one row each.

    python benchmarks/methods.py --facts ../shared/data/counterfact-edit.json     100 in 10 rounds
    python benchmarks/methods.py --count 20 --rounds 2 --methods memit,rome --scopes off,match
    python benchmarks/methods.py --sweep alphaedit --count 20 --rounds 2          settings of one
    python benchmarks/methods.py ... --frame build/methods.csv                    and all the values

Reliability, generality and locality by tokens are means over all facts at the end; "kept" is the
reliability then of the facts of all rounds but the last; perplexity is of neutral text; ‖ΔW‖ is
relative to the weights, over all edited layers; time a fact is that of editing alone, and of a
method whose targets another one has optimised already it does not count the first round.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

import coachhook_viz as cv
from coachhook_viz import methods
from coachhook_viz.measure.quality import METRICS

SCOPES = ("off", "zscore", "match")
HEADER = (
    "| setting | reliability | generality | locality | kept | perplexity | ‖ΔW‖ | time a fact |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |"
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


def table(frame: pd.DataFrame) -> list[str]:
    """One row a setting, of the values after the last round."""
    rows = []
    for name, part in frame.groupby("setting", sort=False):
        end = part[part["round"] == part["round"].max()]
        before = part[part["round"] < part["round"].max()]["fact"].dropna().unique()
        reliability = end[end["metric"] == "reliability"]
        shown = [end[end["metric"] == metric]["value"].mean() for metric in METRICS]
        shown.append(reliability[reliability["fact"].isin(before)]["value"].mean())
        shares = " | ".join(f"{value:.2f}" for value in shown)
        of_model = {
            metric: end[end["metric"] == metric]["value"].iloc[0]
            for metric in ("perplexity", "norm")
        }
        seconds = part[part["metric"] == "seconds"]["value"].mean()
        rows.append(
            f"| {name} | {shares} | {of_model['perplexity']:.2f} | {of_model['norm']:.3f}"
            f" | {seconds:.2f} s |"
        )
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--facts", help="file of facts; default: the bundled ones")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--methods", default=",".join(methods.METHODS))
    parser.add_argument("--scopes", default=",".join(SCOPES))
    parser.add_argument("--sweep", choices=SWEEPS, help="settings of one method instead")
    parser.add_argument("--frame", help="CSV file for all values")
    arguments = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        facts = cv.read_facts(arguments.facts) if arguments.facts else cv.bundled_facts()
    lm = cv.load_model()
    if arguments.sweep:
        configs = swept(lm, arguments.sweep)
    else:
        configs = settings(lm, arguments.methods.split(","), arguments.scopes.split(","))
    frame = cv.compare(lm, facts[: arguments.count], configs, rounds=arguments.rounds)
    if arguments.frame:
        Path(arguments.frame).parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(arguments.frame, index=False)
    print("\n".join([HEADER, *table(frame)]))


if __name__ == "__main__":
    main()
