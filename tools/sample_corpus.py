"""Sample the corpus that second moments are collected over: python tools/sample_corpus.py

Texts are written by the bundled model itself, from the openings below, with a fixed seed; they
stand in for the Wikipedia text of the published code, whose statistics they have to carry.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import torch

import coachhook_viz as cv
from coachhook_viz.editing.forward import Batch
from coachhook_viz.editing.tokens import tokenize

TEXTS, OPENING, LENGTH = 144, 4, 240
OUTPUT = Path(cv.__file__).parent / "data" / "corpus.txt"

SUBJECTS = (
    "the city", "the river", "the film", "the novel", "the species", "the company", "the war",
    "the church", "the album", "the island", "the railway", "the university", "the painting",
    "the football club", "the mountain", "the language", "the king", "the scientist",
    "the village", "the ship", "the bridge", "the museum", "the disease", "the planet",
)  # fmt: skip
OPENINGS = (
    "In the early twentieth century, {}", "Located in the north of the country, {}",
    "According to the census, {}", "It is widely known that {}", "Most historians agree that {}",
    "She was born in 1954 and studied", "He began his career as", "The history of {}",
    "During the summer,", "Scientists have found that", "The recipe begins with",
    "Yesterday evening I", "The government announced that", "In mathematics,", "The name of {}",
    "Her first novel,", "The following season, the team", "When the rain stopped,",
    "The economy of", "Music critics praised", "A small group of children", "Why does {}",
    "The law requires that", "Among the most popular sports in", "The population of",
)  # fmt: skip


def main() -> None:
    """Write the corpus file."""
    lm = cv.load_model()
    torch.manual_seed(0)
    pairs = itertools.product(OPENINGS, SUBJECTS)
    openings = list(dict.fromkeys(opening.format(subject) for opening, subject in pairs))
    long_enough = [ids for ids in (tokenize(lm, o) for o in openings) if len(ids) >= OPENING]
    chosen = [long_enough[i][:OPENING] for i in torch.randperm(len(long_enough))[:TEXTS]]
    sampled = lm.model.generate(
        **Batch.of(chosen, lm.device).inputs,  # equal lengths: no pads to generate after
        max_new_tokens=LENGTH,
        do_sample=True,
        temperature=0.9,
        top_k=50,
        pad_token_id=lm.tokenizer.pad_token_id,
    )
    printable = (
        "".join(c for c in text if c.isprintable() or c.isspace())
        for text in lm.tokenizer.batch_decode(sampled, skip_special_tokens=True)
    )
    texts = [" ".join(text.split()) for text in printable]
    print(f"{sum(len(tokenize(lm, text)) for text in texts)} tokens")
    OUTPUT.write_text("\n\n".join(texts) + "\n", "utf-8")


if __name__ == "__main__":
    main()
