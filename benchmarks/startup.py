"""From a fresh process to a session on the default model, cached: seconds by stage.

python benchmarks/startup.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

CHILD = """
import json, time

laps = {}
last = time.perf_counter()

def lap(name):
    global last
    now = time.perf_counter()
    laps[name], last = now - last, now

import coachhook_viz as cv
lap("import coachhook_viz")
import torch
lap("import torch")
cv.load_model
lap("import transformers and its model classes")
cv.Session
lap("import pandas and the rest of the package")
lm = cv.load_model()
lap("load_model()")
cv.Session(lm)
lap("Session(lm)")
print(json.dumps(laps))
"""


def main() -> None:
    """Print the table of medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    runs = []
    for _ in range(repeats + 1):
        command = [sys.executable, "-W", "ignore", "-c", CHILD]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout))
    runs = runs[1:]  # the first one may read the files from disk
    print("| stage | seconds |\n| --- | ---: |")
    for stage in runs[0]:
        print(f"| {stage} | {statistics.median(run[stage] for run in runs):.2f} |")
    print(f"| together | {statistics.median(sum(run.values()) for run in runs):.2f} |")


if __name__ == "__main__":
    main()
