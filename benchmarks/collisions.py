"""Facts chosen to collide: does the overlap known before editing rank the interference that comes?

    python benchmarks/collisions.py --facts ../shared/data/counterfact-edit.json

The same subject in several relations, near-duplicate subjects, subjects that CounterFact repeats,
and unrelated facts; each in rounds of 5 and in one round. Spearman's ρ over pairs of facts, means
over the layers: of the prediction from keys and order, and of the keys' overlap alone.
"""

from __future__ import annotations

import argparse
import warnings
from collections import defaultdict

import coachhook_viz as cv
from coachhook_viz.measure.interference import rank_correlation

_SAME = {
    "The capital of {} is": ("Rome", "Tokyo", "Cairo"),
    "The official language of {} is": ("Spanish", "Arabic", "Dutch"),
    "The currency of {} is the": ("peso", "yen", "rupee"),
    "The continent of {} is": ("Africa", "Asia", "Australia"),
    "The most popular sport in {} is": ("tennis", "cricket", "golf"),
}


def same_subject() -> list[cv.Fact]:
    countries = ("France", "Germany", "Poland")
    return [
        cv.Fact(prompt, country, target)
        for i, country in enumerate(countries)
        for prompt, targets in _SAME.items()
        for target in [targets[i]]
    ]


def near_duplicates() -> list[cv.Fact]:
    groups = {
        "{} was born in": "John Smith, John Smyth, Jon Smith, Joan Smith, John Smithson",
        "{} is located in": "Mount Adams, Mount Adam, Mount Addams, Mount Adamson, Mountain Adams",
        "{} works as a": "Maria Garcia, Mario Garcia, Marie Garcia, Maria Garza, Mia Garcia",
    }
    targets = ["Rome", "Lima", "Oslo", "Cairo", "Tokyo"]
    jobs = ["pilot", "chef", "nurse", "judge", "baker"]
    return [
        cv.Fact(prompt, subject, (jobs if "works" in prompt else targets)[i])
        for prompt, subjects in groups.items()
        for i, subject in enumerate(subjects.split(", "))
    ]


def repeated(facts: list[cv.Fact], count: int) -> list[cv.Fact]:
    """Facts of subjects that come more than once."""
    by_subject: dict[str, list[cv.Fact]] = defaultdict(list)
    for fact in {(fact.prompt, fact.subject): fact for fact in facts}.values():
        by_subject[fact.subject].append(fact)
    several = [fact for group in by_subject.values() if len(group) > 1 for fact in group]
    return several[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--facts", default="../shared/data/counterfact-edit.json")
    parser.add_argument("--only", help="words of one set's name")
    parser.add_argument("--scope", default="zscore")
    arguments = parser.parse_args()
    lm = cv.load_model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        counterfact = cv.read_facts(arguments.facts)
    sets = {
        "same subject, other relation": same_subject(),
        "near-duplicate subjects": near_duplicates(),
        "repeated in CounterFact": repeated(counterfact, 15),
        "unrelated": counterfact[:15],
    }
    config = cv.EditConfig.for_model(lm, scope=arguments.scope)
    print(
        "| facts | in rounds of | ρ predicted | later on earlier | earlier on later | ρ overlap |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for name, facts in sets.items():
        if arguments.only and arguments.only not in name:
            continue
        for size in (5, len(facts)):
            session = cv.Session(lm, config)
            for start in range(0, len(facts), size):
                session.apply(facts[start : start + size])
            pairs = session.interference()
            place = {i: r for r, round_ in enumerate(session.rounds) for i in round_.fact_ids}
            own, other = pairs["fact"].map(place), pairs["by"].map(place)
            found = [
                rank_correlation(part, column)["rho"].iloc[-1]
                for part, column in (
                    (pairs, "predicted"),
                    (pairs[other > own], "predicted"),
                    (pairs[other < own], "predicted"),
                    (pairs, "overlap"),
                )
            ]
            cells = " | ".join("–" if rho != rho else f"{rho:.2f}" for rho in found)
            print(f"| {name} ({len(facts)}) | {size} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
