"""Facts chosen to collide: does the overlap known before editing rank the interference that comes?

    python benchmarks/collisions.py --facts ../shared/data/counterfact-edit.json

Four sets: the same subject in several relations, near-duplicate subjects, subjects that CounterFact
repeats, and a mix of unrelated facts; each in rounds of 5 and in one round. Spearman's ρ over all
pairs of facts, means over the layers.
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
    for fact in facts:
        by_subject[fact.subject].append(fact)
    several = [fact for group in by_subject.values() if len(group) > 1 for fact in group]
    return several[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--facts", default="../shared/data/counterfact-edit.json")
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
    sets["all together"] = [fact for facts in sets.values() for fact in facts]
    config = cv.EditConfig.for_model(lm, scope=arguments.scope)
    print(
        "| facts | in rounds of | ρ, all pairs | later edits on earlier facts | earlier on later |"
    )
    print("| --- | --- | --- | --- | --- |")
    for name, facts in sets.items():
        for size in (5, len(facts)):
            session = cv.Session(lm, config)
            for start in range(0, len(facts), size):
                session.apply(facts[start : start + size])
            pairs = session.interference()
            place = {i: r for r, round_ in enumerate(session.rounds) for i in round_.fact_ids}
            own, other = pairs["fact"].map(place), pairs["by"].map(place)
            cells = []
            for part in (pairs, pairs[other > own], pairs[other < own]):
                rho = rank_correlation(part)["rho"].iloc[-1] if len(part) else float("nan")
                cells.append("–" if rho != rho else f"{rho:.2f}")
            print(f"| {name} ({len(facts)}) | {size} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
