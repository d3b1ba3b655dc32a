"""Try settings one at a time around the default model's own: which raise generality, at what cost.

    python benchmarks/sweep.py --facts ../shared/data/counterfact-edit.json
    python benchmarks/sweep.py --part 1/2        half of them, for a second process

One line a setting, columns as in quality.py. The best ones are the default model's settings in
`editing/config.py`; the table that chose them is in results.md.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

from quality import HEADER, run

import coachhook_viz as cv

# Prefixes in the manner of running text, where CounterFact's paraphrases put their subjects.
SENTENCES = (
    "He was born in a small town. {}",
    "The book was published last year. {}",
    "In the end, nothing came of it. {}",
    "They had met many years before. {}",
    "It is known for its long history. {}",
)
ONE_BY_ONE: list[dict[str, Any]] = [
    {},
    {"covariance_weight": 30.0},
    {"covariance_weight": 1000.0},
    {"clamp_factor": 0.5},
    {"clamp_factor": 1.5},
    {"layers": (2, 3, 4, 5)},
    {"layers": (3, 4, 5, 6)},
    {"layers": (5, 6, 7, 8)},
    {"layers": (5, 6)},
    {"context_templates": (("{}",),)},
    {"context_templates": (("{}",), SENTENCES)},
    {"kl_weight": 0.0},
    {"scope": "match", "match_threshold": 0.3},
    {"scope": "match"},
    {"scope": "match", "match_threshold": 0.7},
    {"scope": "off"},
]
OTHER_LEADS = ("", "<|endoftext|>")


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
    parts = [f"{key} {value}" for key, value in setting.items() if key != "context_templates"]
    if "context_templates" in setting:
        groups = setting["context_templates"]
        parts.append(f"{sum(map(len, groups)) - 1} written contexts")
    if lead != "\n":
        parts.append(f"lead {lead!r}")
    return ", ".join(parts) or "default"


if __name__ == "__main__":
    main()
