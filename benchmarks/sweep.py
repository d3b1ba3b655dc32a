"""Try settings one at a time around the default model's own: which raise generality, at what cost.

    python benchmarks/sweep.py --facts ../shared/data/counterfact-edit.json
    python benchmarks/sweep.py --scope match --only layers

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
    {"covariance_weight": 100.0},
    {"covariance_weight": 1000.0},
    {"clamp_factor": 0.5},
    {"clamp_factor": 1.0},
    {"clamp_factor": 1.5},
    {"layers": (1, 2, 3, 4)},
    {"layers": (3, 4, 5, 6)},
    {"layers": (4, 5, 6, 7)},
    {"layers": (5, 6, 7, 8)},
    {"layers": (2, 3, 4, 5, 6)},
    {"layers": (5,)},
    {"context_templates": (("{}",),)},
    {"context_templates": (("{}",), SENTENCES)},
    {"context_templates": (("{}", *SENTENCES),)},
    {"kl_weight": 0.0},
    {"weight_decay": 0.1},
    {"stop_loss": 0.01},
    {"alpha": 3.0},
]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--facts", help="file of facts; default: the bundled ones")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--round", type=int, default=10, help="facts a round")
    parser.add_argument("--scope", default="zscore")
    parser.add_argument("--only", help="just the settings whose name holds this text")
    arguments = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        facts = cv.read_facts(arguments.facts) if arguments.facts else cv.bundled_facts()
    facts = facts[: arguments.count]
    print(HEADER)
    settings = [("\n", setting) for setting in ONE_BY_ONE]
    settings += [("", {}), ("<|endoftext|>", {})]
    for lead, setting in settings:
        name = " ".join(f"{key}={value}" for key, value in setting.items()) or "default"
        name += "" if lead == "\n" else f", lead {lead!r}"
        if arguments.only is None or arguments.only in name:
            lm = cv.load_model(lead=lead)
            changes = {"scope": arguments.scope, **setting}
            print(f"| {name} | {run(lm, facts, arguments.round, changes)} |", flush=True)


if __name__ == "__main__":
    main()
