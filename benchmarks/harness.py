"""lm-evaluation-harness on an edited model, with tasks of your own from local files.

    pip install lm_eval
    python benchmarks/harness.py [--scope match] [--count 20] [--batch 8]

Bundled facts become four tasks in a folder, a few lines of YAML and JSON each, as the harness
reads them: does the model prefer the target to the truth, on the edit prompts and on paraphrases;
does it keep the truth on neighbours; does it say the target when it writes on. The harness runs
them on the unedited and on the edited model, offline, and knows nothing of edits.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}  # nothing is fetched

import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

import coachhook_viz as cv
from coachhook_viz.reading import bundled_facts

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


def documents(facts: list[cv.Fact]) -> dict[str, list[dict[str, object]]]:
    """Prompts of each task; the first choice is the one wanted."""
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


def write_tasks(folder: Path, facts: list[cv.Fact], lead: str) -> list[str]:
    """A YAML and a JSON file a task; YAML reads JSON as well. Returns the tasks' names."""
    asked = documents(facts)
    for name, lines in asked.items():
        data = folder / f"{name}.jsonl"
        data.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test",
            "doc_to_text": f"{lead}{{{{prompt}}}}",
            **(SAYS if name == "written_on" else CHOICE),
        }
        (folder / f"{name}.yaml").write_text(json.dumps(task), "utf-8")
    return list(asked)


def main() -> None:
    """Print one line a task."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scope", default="match", choices=["zscore", "match", "off", "two-key"])
    parser.add_argument("--count", type=int, default=20, help="facts, in one round")
    parser.add_argument("--batch", type=int, default=8)
    arguments = parser.parse_args()
    lm = cv.load_model()
    session = cv.Session(lm, cv.EditConfig.for_model(lm, scope=arguments.scope))
    facts = [fact for fact in bundled_facts() if fact.truth][: arguments.count]
    session.apply(facts)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        names = write_tasks(Path(folder), facts, lm.lead)
        tasks = TaskManager(include_path=folder, include_defaults=False)
        for who, model in (("unedited", lm.model), ("edited", session.as_model())):
            harness = HFLM(pretrained=model, tokenizer=lm.tokenizer, batch_size=arguments.batch)
            found[who] = lm_eval.simple_evaluate(
                model=harness, tasks=names, task_manager=tasks, bootstrap_iters=0
            )["results"]
    print(f"| task, {arguments.scope} scope | prompts | unedited | edited |")
    print("| --- | ---: | ---: | ---: |")
    for name in names:
        scores = [
            next(value for key, value in result[name].items() if key.startswith(("acc,", "exact")))
            for result in (found["unedited"], found["edited"])
        ]
        prompts = found["edited"][name]["sample_len"]
        print(f"| {name} | {prompts} | {scores[0]:.3f} | {scores[1]:.3f} |")


if __name__ == "__main__":
    main()
