"""lm-evaluation-harness on an edited model, with tasks of your own from local files.

    pip install lm_eval
    python benchmarks/harness.py [--scope match] [--count 20] [--batch 8]
    python benchmarks/harness.py --session build/thousand/... --data ../shared/data

Facts become four tasks in a folder, a few lines of YAML and JSON each, as the harness reads them:
does the model prefer the target to the truth, on the edit prompts and on paraphrases; does it keep
the truth on neighbours; does it say the target when it writes on. The facts are bundled ones,
edited here in one round, or a sample of those of a saved session. With --data two more tasks say
what is left of what was not edited: "known", whether the model still says what ROME's
known_1000.json knows of other subjects, and "texts", the perplexity of those of ME-PPL_50.json. The
harness runs them on the unedited and on the edited model, offline, and knows nothing of edits.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}  # nothing is fetched

import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import PreTrainedModel

import coachhook_viz as cv
from coachhook_viz.measure.over_rounds import sample
from coachhook_viz.reading import bundled_facts
from coachhook_viz.running import as_model

MEASURES = ("acc,", "exact", "word_perplexity")
KNOWN = 300  # prompts of known_1000.json
CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_choice": "choices",
    "doc_to_target": 0,
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
SAYS = {
    "output_type": "generate_until",
    "doc_to_target": "{{choices[0]}}",
    "generation_kwargs": {"max_gen_toks": 4, "do_sample": False, "until": ["\n"]},
    "filter_list": [
        {
            "name": "first word",
            "filter": [
                {"function": "regex", "regex_pattern": r"^\s*([\w'-]+)"},
                {"function": "take_first"},
            ],
        }
    ],
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
SAYS_NEXT = {
    "output_type": "loglikelihood",
    "doc_to_target": "{{answer}}",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
READS = {
    "output_type": "loglikelihood_rolling",
    "doc_to_target": "{{prompt}}",
    "metric_list": [
        {"metric": "word_perplexity", "aggregation": "weighted_perplexity"},
    ],
}
KINDS: dict[str, dict[str, Any]] = {"written_on": SAYS, "known": SAYS_NEXT, "texts": READS}


def documents(facts: list[cv.Fact]) -> dict[str, list[dict[str, object]]]:
    """Prompts of each task about facts; the first choice is the one wanted."""
    return {
        "edit_prompts": [
            {"prompt": fact.text, "choices": [fact.target, fact.truth]} for fact in facts
        ],
        "paraphrases": [
            {"prompt": text, "choices": [fact.target, fact.truth]}
            for fact in facts
            for text in fact.paraphrases
        ],
        "neighbours": [
            {"prompt": near.prompt, "choices": [near.answer, fact.target]}
            for fact in facts
            for near in fact.neighbors
            if near.answer not in (None, fact.target)
        ],
        "written_on": [
            {"prompt": fact.text, "choices": [fact.target, fact.truth]}
            for fact in facts
            if " " not in fact.target
        ],
    }


def others(data: Path, facts: Iterable[cv.Fact]) -> dict[str, list[dict[str, object]]]:
    """Prompts of the tasks that are not about facts: known answers of other subjects, and texts."""
    edited = {fact.subject for fact in facts}
    records = json.loads((data / "known_1000.json").read_text("utf-8"))
    known = [
        {"prompt": record["prompt"], "answer": f" {record['attribute']}"}
        for record in records
        if record["subject"] not in edited
    ]
    texts = json.loads((data / "ME-PPL_50.json").read_text("utf-8"))
    return {
        "known": [known[i] for i in sample(range(len(known)), KNOWN)],
        "texts": [{"prompt": record["Text"].strip()} for record in texts],
    }


def write_tasks(folder: Path, asked: dict[str, list[dict[str, object]]], lead: str) -> None:
    """A YAML and a JSON file a task; YAML reads JSON as well."""
    for name, lines in asked.items():
        data = folder / f"{name}.jsonl"
        data.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
        kind = KINDS.get(name, CHOICE)
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test",
            "doc_to_text": "" if kind is READS else f"{lead}{{{{prompt}}}}",
            **kind,
        }
        (folder / f"{name}.yaml").write_text(json.dumps(task), "utf-8")


def scores(
    model: PreTrainedModel,
    lm: cv.LanguageModel,
    asked: dict[str, list[dict[str, object]]],
    batch: int,
) -> dict[str, float]:
    """What the harness finds of a model, by task."""
    with tempfile.TemporaryDirectory() as folder:
        write_tasks(Path(folder), asked, lm.lead)
        found = lm_eval.simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=lm.tokenizer, batch_size=batch),
            tasks=list(asked),
            task_manager=TaskManager(include_path=folder, include_defaults=False),
            bootstrap_iters=0,
        )["results"]
    return {
        name: next(value for key, value in found[name].items() if key.startswith(MEASURES))
        for name in asked
    }


def main() -> None:
    """Print one line a task."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scope", default="match", choices=["zscore", "match", "off", "two-key"])
    parser.add_argument("--count", type=int, default=20, help="facts asked")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--session", type=Path, help="folder of a saved one; default: edit now")
    parser.add_argument("--data", type=Path, help="folder with known_1000.json and ME-PPL_50.json")
    arguments = parser.parse_args()
    lm = cv.load_model()
    if arguments.session:
        state = cv.Session.load(arguments.session, lm, journal=False).state.judged(arguments.scope)
    else:
        session = cv.Session(lm, cv.EditConfig.for_model(lm, scope=arguments.scope))
        session.apply([fact for fact in bundled_facts() if fact.truth][: arguments.count])
        state = session.state
    facts = dict(zip(state.fact_ids, state.facts, strict=True))
    chosen = (facts[i] for i in sample(state.fact_ids, arguments.count))
    asked = documents([fact for fact in chosen if fact.truth])
    if arguments.data:
        asked |= others(arguments.data, facts.values())
    unedited, edited = (
        scores(model, lm, asked, arguments.batch) for model in (lm.model, as_model(lm, state))
    )
    print(f"| task, {arguments.scope} scope | prompts | unedited | edited |")
    print("| --- | ---: | ---: | ---: |")
    for name, prompts in asked.items():
        print(f"| {name} | {len(prompts)} | {unedited[name]:.3f} | {edited[name]:.3f} |")


if __name__ == "__main__":
    main()
