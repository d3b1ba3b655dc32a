"""Try settings one at a time around the default model's own: which raise generality, at what cost.

    python benchmarks/sweep.py --facts ../shared/data/counterfact-edit.json
    python benchmarks/sweep.py --part 1/2        half of them, for a second process

One line a setting: reliability, generality and locality by tokens, and "top kept", the share of
neighbour prompts whose next token is still the unedited model's, all at the end. The best ones are
the default model's settings in `editing/config.py`; the table that chose them is in results.md.
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import Any

from quality import TOP_KEPT

import coachhook_viz as cv
from coachhook_viz.editing.moments import cached_moments
from coachhook_viz.measure.quality import METRICS

HEADER = (
    "| setting | reliability | generality | locality | top kept | time |\n"
    "| --- | --- | --- | --- | --- | --- |"
)
PUBLISHED: dict[str, Any] = {
    "learning_rate": 0.5,
    "weight_decay": 0.5,
    "clamp_factor": 0.75,
    "stop_loss": 0.05,
    "context_templates": None,  # sampled from the model, the bare prompt weighs a half
}
ONE_BY_ONE: list[dict[str, Any]] = [
    {},
    PUBLISHED,
    {"context_templates": None},
    {"context_templates": (("{}",),)},
    {"learning_rate": 0.5},
    {"learning_rate": 1.0},
    {"weight_decay": 0.5, "stop_loss": 0.05},
    {"clamp_factor": 0.75},
    {"kl_weight": 0.25},
    {"covariance_weight": 30.0},
    {"covariance_weight": 3000.0},
    {"layers": (2, 3, 4, 5)},
    {"layers": (5, 6, 7, 8)},
    {"scope": "match", "match_threshold": 0.3},
    {"scope": "match"},
    {"scope": "match", "match_threshold": 0.7},
    {"scope": "off"},
]
OTHER_LEADS = ("", "<|endoftext|>")


def run(lm: cv.LanguageModel, facts: list[cv.Fact], size: int, changes: dict[str, Any]) -> str:
    """Edit `facts` in rounds of `size` and score them at the end."""
    config = cv.EditConfig.for_model(lm, **changes)
    session = cv.Session(lm, config, cached_moments(lm, config.keyed_layers))
    started = time.perf_counter()
    session.apply_in_rounds(facts, size)
    seconds = time.perf_counter() - started
    frame = session.evaluate(metrics=[*METRICS, TOP_KEPT])
    means = frame.groupby(["metric", "fact"])["value"].mean().groupby("metric").mean()
    kept = frame[frame["metric"] == TOP_KEPT.name].drop_duplicates("prompt")["value"]
    shares = " | ".join(f"{means[metric]:.3f}" for metric in METRICS)
    return f"{shares} | {int(kept.sum())} / {len(kept)} | {seconds:.0f} s"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--facts", help="file of facts; default: the bundled ones")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--round", type=int, default=10, help="facts a round")
    parser.add_argument("--part", default="1/1", help="i/n: every n-th setting from the i-th")
    arguments = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        facts = cv.read_facts(arguments.facts) if arguments.facts else cv.bundled_facts()
    facts = facts[: arguments.count]
    print(HEADER)
    first, every = map(int, arguments.part.split("/"))
    rows = [("\n", setting) for setting in ONE_BY_ONE] + [(lead, {}) for lead in OTHER_LEADS]
    for lead, setting in rows[first - 1 :: every]:
        lm = cv.load_model(lead=lead)
        print(f"| {name(lead, setting)} | {run(lm, facts, arguments.round, setting)} |", flush=True)


def name(lead: str, setting: dict[str, Any]) -> str:
    """What a row changes, in short."""
    if setting is PUBLISHED:
        return "published settings at these layers"
    parts = [f"{key} {value}" for key, value in setting.items() if key != "context_templates"]
    if "context_templates" in setting:
        parts.append("sampled contexts" if setting["context_templates"] is None else "no contexts")
    if lead != "\n":
        parts.append(f"lead `{lead!r}`".replace("|", r"\|"))  # a bar would end the column
    return ", ".join(parts) or "default"


if __name__ == "__main__":
    main()
