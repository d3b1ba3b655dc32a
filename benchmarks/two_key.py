"""Edits with two keys beside edits at the subject: what takes, what carries over, what is kept.

    python benchmarks/two_key.py [--tune] [--facts 100] [--round 10]

The bundled facts of some relations, in rounds. `--tune` takes those of other relations, on which
the settings were found; what is quoted is the run without it. A paraphrase counts if the unedited
model answers it; everything is teacher forced on whole answers, but "same subject" compares
just the next token with the unedited model's, and "chat" looks for the target in a greedy answer.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import coachhook_viz as cv
from coachhook_viz.measure.answers import Question, ask
from coachhook_viz.reading import bundled_foils

TUNED_ON = (
    "native language", "city", "chemistry", "continent", "profession", "home of animals",
    "instrument", "founder", "state capital", "currency", "animal young",
)  # fmt: skip
COUNTRY = {
    "capital": "The capital of {} is",
    "language": "The official language of {} is",
    "continent": "The country of {} is located on the continent of",
    "currency": "The currency of {} is the",
    "": "The most popular sport in {} is",
}
PERSON = {
    "native language": "The native language of {} was",
    "profession": "{} worked as a",
    "birthplace": "The famous person {} was born in the country of",
    "": "{} is best known for",
    "-": "{} died in the year",
}
CITY = {
    "city": "The city of {} is located in the country of",
    "state": "The American city of {} is located in the state of",
    "": "The language that is spoken in {} is",
    "-": "The football team of {} is called",
    "--": "The weather in {} is usually",
}
ANIMAL = {
    "animal class": "In biology, the {} is classified as a type of",
    "home of animals": "An animal such as the {} lives mainly in the",
    "animal young": "The young of a {} is called a",
    "": "The {} eats mostly",
    "-": "The color of the {} is",
}
OTHER = {
    "capital": COUNTRY, "language": COUNTRY, "continent": COUNTRY, "currency": COUNTRY,
    "native language": PERSON, "profession": PERSON, "birthplace": PERSON,
    "city": CITY, "state": CITY,
    "animal class": ANIMAL, "home of animals": ANIMAL, "animal young": ANIMAL,
    "sport": PERSON | {"sport": "{} is a famous athlete in the sport of"},
    "instrument": PERSON | {"instrument": "The musician {} is known for playing the"},
    "landmark": {
        "": "The {} was built in the year", "-": "The {} is made of", "--": "The {} is visited by",
        "---": "The architect of the {} was",
    },
    "author": {
        "": "The main character of {} is", "-": "{} was first published in the year",
        "--": "The story of {} is set in", "---": "{} was written in the language of",
    },
    "chemistry": {
        "": "The atomic number of {} is", "-": "The color of {} is",
        "--": "People use {} to make", "---": "At room temperature, {} is a",
    },
    "opposite": {
        "": "A synonym of the word {} is the word", "-": "In Spanish, the word {} is",
        "--": "The word {} rhymes with the word", "---": "The first letter of the word {} is",
    },
    "founder": {
        "": "The headquarters of {} are located in", "-": "The main product of {} is",
        "--": "{} was founded in the year", "---": "The chief executive of {} is",
    },
    "state capital": {
        "": "The largest city in the state of {} is", "-": "The state of {} is known for its",
        "--": "The governor of {} is", "---": "The state of {} lies in the",
    },
}  # fmt: skip
ASKED = {
    "capital": "Tell me the capital of {}.", "language": "Which language do people speak in {}?",
    "birthplace": "Where was {} born?", "state": "Which state is {} in?",
    "landmark": "Where is the {}?", "author": "Who is the author of {}?",
    "animal class": "What type of animal is the {}?", "sport": "What sport is {} known for?",
    "opposite": "What is the opposite of the word {}?",
    "native language": "Which language did {} speak?", "city": "Which country is {} in?",
    "chemistry": "Tell me the chemical symbol of {}.", "continent": "Which continent is {} in?",
    "profession": "What did {} do for a living?", "home of animals": "Where do you find the {}?",
    "instrument": "What instrument is {} known for?", "founder": "Who is the founder of {}?",
    "state capital": "Tell me the state capital of {}.", "currency": "Which money do I need in {}?",
    "animal young": "What do you call the young of a {}?",
}  # fmt: skip


def facts_of(relations: Sequence[str], count: int) -> list[cv.Fact]:
    """The first `count` of the bundled facts of some relations, many of one in a row."""
    return [fact for fact in cv.bundled_facts() if fact.relation in relations][:count]


def right(
    lm: cv.LanguageModel, state: cv.EditState, asked: Sequence[tuple[str, str]]
) -> list[bool]:
    """Whether the model goes on from each prompt with all of the answer."""
    questions = [Question.of(lm, prompt, answer) for prompt, answer in asked]
    answers = ask(lm, state, questions)
    return [a.top == q.answer for a, q in zip(answers, questions, strict=True)]


def following(lm: cv.LanguageModel, state: cv.EditState, prompts: Sequence[str]) -> list[int]:
    """The token that the model says after each prompt."""
    return [a.top[0] for a in ask(lm, state, [Question.of(lm, prompt) for prompt in prompts])]


def measure(session: cv.Session, chats: bool = True) -> dict[str, tuple[int, int]]:
    """By what is measured, how many of how many."""
    lm, state = session.lm, session.state
    base, facts = session.state_at(0), session.state.facts
    prompts = [(p, fact) for fact in facts for p in fact.paraphrases]
    known = right(lm, base, [(p, str(fact.truth)) for p, fact in prompts])
    prompts = [pair for pair, holds in zip(prompts, known, strict=True) if holds]
    edited = {(fact.relation, fact.subject) for fact in facts}
    others = list(
        dict.fromkeys(
            text.format(fact.subject)
            for fact in facts
            for relation, text in OTHER[fact.relation].items()
            if (relation, fact.subject) not in edited
        )
    )
    near = list(dict.fromkeys(n.prompt for fact in facts for n in fact.neighbors))
    near = [prompt for prompt in near if prompt not in {fact.text for fact in facts}]
    found = {
        "reliability": right(lm, state, [(fact.text, fact.target) for fact in facts]),
        "paraphrases": right(lm, state, [(p, fact.target) for p, fact in prompts]),
        "same subject": [
            a == b
            for a, b in zip(following(lm, state, others), following(lm, base, others), strict=True)
        ],
        "near": [
            a == b
            for a, b in zip(following(lm, state, near), following(lm, base, near), strict=True)
        ],
    }
    if chats:
        found["chat"] = []
        for fact in facts:
            asked = [{"role": "user", "content": ASKED[fact.relation].format(fact.subject)}]
            found["chat"].append(fact.target.lower() in session.chat(asked, 16).lower())
    return {name: (sum(hits), len(hits)) for name, hits in found.items()}


def seconds_a_token(session: cv.Session, edited: bool) -> float:
    """Of cached decoding, the best of five runs."""
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        session.generate("It was a cold morning in late autumn, and the people", 40, edited=edited)
        best = min(best, (time.perf_counter() - started) / 40)
    return best


def main() -> None:
    """Edit, measure and print one row a setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--facts", type=int, default=100)
    parser.add_argument("--round", type=int, default=10)
    arguments = parser.parse_args()
    lm = cv.load_model()
    relations = {fact.relation for fact in cv.bundled_facts()}
    chosen = [r for r in relations if (r in TUNED_ON) == arguments.tune]
    facts = facts_of(chosen, arguments.facts)
    for scope, changes in (
        ("two-key", {}),
        ("match", {}),
        ("match", {"preserve": bundled_foils().prompts}),
    ):
        session = cv.Session(lm, cv.EditConfig.for_model(lm, scope=scope, **changes))
        started = time.perf_counter()
        session.apply_in_rounds(facts, arguments.round)
        took = time.perf_counter() - started
        cells = [f"{name} {hits}/{of}" for name, (hits, of) in measure(session).items()]
        drift = session.drift()
        perplexity = drift[drift["metric"] == "perplexity"]["value"].tolist()
        cells.append(f"perplexity {perplexity[0]:.2f} → {perplexity[-1]:.2f}")
        cost = seconds_a_token(session, True) / seconds_a_token(session, False)
        cells.append(f"token ×{cost:.2f}")
        name = f"{scope}{', preserving' * bool(changes)}"
        print(f"{name:18} {len(facts)} facts, {took:.0f} s: {', '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
