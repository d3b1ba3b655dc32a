"""Does a round cost more, the more rounds there are?  150 rounds of one fact on a tiny model.

    python benchmarks/flat.py [--rounds 150]

Prints the median time of the first and of the last tenth of the rounds and their ratio; what
inference holds after the first and after the last; and how far the running inverse has moved from
a direct solve.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from tiny import tiny_facts, tiny_model, tiny_moments, tiny_session

from coachhook_viz import Fact, Session


def held(session: Session) -> int:
    """Numbers that inference keeps."""
    return sum(h.delta_weight.numel() for h in session.state.hook_layers(session.lm.dtype).values())


def main() -> None:
    """Print the three figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=150)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    lm = tiny_model(lead="He ")
    warm, session = tiny_session(lm), tiny_session(lm)
    facts = [Fact(f.prompt, f.subject, "Oslo") for f in tiny_facts()]
    for fact in facts:
        warm.apply([fact])
    sizes = []
    for t in range(rounds):
        session.apply([facts[t % len(facts)]])
        sizes.append(held(session))
    tenth = max(len(facts), rounds // 10 // len(facts) * len(facts))
    seconds = [round_.seconds for round_ in session.rounds]
    first, last = statistics.median(seconds[:tenth]), statistics.median(seconds[-tenth:])
    print(f"a round, first {tenth}  {1000 * first:8.1f} ms")
    print(f"a round, last {tenth}   {1000 * last:8.1f} ms")
    print(f"ratio            {last / first:8.2f}")
    print(f"inference holds  {sizes[0]} numbers after the first round, {sizes[-1]} after the last")
    worst = 0.0
    preserved = session._setup.preserved.after(session.rounds)
    for layer, inverse in preserved.items():
        direct = session.config.covariance_weight * tiny_moments(lm)[layer]
        for round_ in session.rounds:
            direct = direct + round_.factors[layer].keys @ round_.factors[layer].keys.T
        expected = torch.linalg.inv(direct)
        worst = max(worst, float((inverse - expected).norm() / expected.norm()))
    print(f"running inverse, relative difference from a direct solve  {worst:.1e}")


if __name__ == "__main__":
    main()
