"""The command line: python -m coachhook_viz model | demo."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coachhook_viz.session import Session


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 1 if the default model cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m coachhook_viz", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("model", help="fetch the default model, unless it is in the cache")
    demo = commands.add_parser("demo", help="edit it in three rounds, and show what happens")
    demo.add_argument(
        "--report", type=Path, default=Path("coachhook-demo.html"), help="default: %(default)s"
    )
    demo.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    demo.add_argument("--size", type=int, default=5, help="facts a round, default: %(default)s")
    given = parser.parse_args(arguments)

    from coachhook_viz.models import bundled

    try:
        if given.command == "model":
            print(f"{bundled.NAME} is ready in {bundled.folder()}")
        else:
            _demo(given.rounds, given.size, given.report)
    except bundled.ModelNotFound as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _demo(rounds: int, size: int, path: Path) -> None:
    import coachhook_viz as cv
    from coachhook_viz.editing.progress import Bar

    lm = cv.load_model()
    session = cv.Session(lm)
    facts = cv.bundled_facts()[: rounds * size]
    layers = ", ".join(map(str, session.config.layers))
    print(f"{lm.name}: {rounds} rounds of {size} facts, hooked layers {layers}")
    for start in range(0, len(facts), size):
        batch = facts[start : start + size]
        with Bar() as bar:
            round_ = session.apply(batch, progress=bar)
        print(f"\nRound {session.position} ({round_.seconds:.1f} s)")
        for fact in batch:
            before, after = (session.generate(fact.text, 6, edited=e) for e in (False, True))
            print(f"  {fact.text} → {fact.target}\n    before {before!r}\n    after  {after!r}")
        _print_means(session)

    shown = facts[0]
    print(f"\nWhich tokens are in scope?\n{session.scope(shown.text)}")

    last = facts[-1]
    print(f"\nUndo round {session.position}: {last.text}")
    print(f"  with it    {session.generate(last.text, 6)!r}")
    session.undo()
    print(f"  without it {session.generate(last.text, 6)!r}")
    _print_means(session)
    session.redo()
    with Bar() as bar:
        cv.report(session, path, progress=bar)
    print(f"\nThe whole story, with figures: {path.resolve().as_uri()}")


def _print_means(session: Session) -> None:
    means = session.evaluate().groupby("metric", sort=False)["value"].mean()
    print(
        f"  {session.position} rounds in force: "
        + ", ".join(f"{metric} {value:.2f}" for metric, value in means.items())
    )


if __name__ == "__main__":
    sys.exit(main())
