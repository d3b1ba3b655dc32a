"""The command line: python -m coachhook_viz model | demo | edit | sweep | report."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from coachhook_viz.warned import heard

if TYPE_CHECKING:
    from coachhook_viz.facts import Fact
    from coachhook_viz.reading import FactList
    from coachhook_viz.session import Session


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 1 with a line on stderr if it cannot be done, 130 if it is interrupted."""
    given = _parser().parse_args(arguments)

    import coachhook_viz as cv
    from coachhook_viz.models import bundled

    try:
        if given.command == "model":
            folder = bundled.folder()
            lm = cv.load_model()
            for scope in ("zscore", "two-key"):  # collects the second moments
                cv.Session(lm, cv.EditConfig.for_model(lm, scope=scope))
            print(f"{bundled.NAME} is ready in {folder}")
        elif given.command == "demo":
            _demo(given.rounds, given.size, given.report)
        elif given.command == "edit":
            _edit(given)
        elif given.command == "sweep":
            _sweep(given.file)
        else:
            _report(given.folder, given.out, given.budget)
    except (ValueError, OSError, _Refused) as error:  # all that the package refuses
        print(_told(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m coachhook_viz", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "model", help="fetch the default model and collect its second moments, unless in the cache"
    )

    demo = commands.add_parser("demo", help="edit it in three rounds, and show what happens")
    demo.add_argument(
        "--report", type=Path, default=Path("coachhook-demo.html"), help="default: %(default)s"
    )
    demo.add_argument("--rounds", type=_positive, default=3, help="default: %(default)s")
    demo.add_argument(
        "--size", type=_positive, default=5, help="facts a round, default: %(default)s"
    )

    edit = commands.add_parser(
        "edit", help="edit a file of facts in rounds; run it again to go on after an interruption"
    )
    edit.add_argument("facts", type=Path, help="a table, JSON or JSONL, public sets too")
    edit.add_argument(
        "--columns",
        type=_columns,
        help='which is which in another layout: "prompt=question,target=answer"',
    )
    edit.add_argument(
        "--rounds", type=_positive, default=1, help="split them into this many, default: 1"
    )
    edit.add_argument("--out", type=_named, required=True, help="the session's folder")
    edit.add_argument("--model", help="hub id or folder, default: the bundled model")
    edit.add_argument(
        "--scope",
        choices=["zscore", "match", "two-key", "off"],
        default="zscore",
        help="default: %(default)s",
    )

    sweep = commands.add_parser(
        "sweep", help="edit the same facts under many settings; run it again to go on"
    )
    sweep.add_argument("file", type=Path, help="what to run, in TOML: see the documentation")

    report = commands.add_parser("report", help="write what a session did as one HTML file")
    report.add_argument("folder", type=Path, help="the session's folder")
    report.add_argument("--out", type=Path, help="default: report.html in the folder")
    report.add_argument(
        "--budget", type=_positive, default=200, help="facts to measure, default: %(default)s"
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _named(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty")
    return Path(text)


def _columns(text: str) -> dict[str, str]:
    from coachhook_viz.reading import columns_of

    try:
        return columns_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


class _Refused(Exception):
    """What was asked for does not fit; the message says what to do."""


def _edit(given: argparse.Namespace) -> None:
    import coachhook_viz as cv
    from coachhook_viz.editing.progress import Bar
    from coachhook_viz.store import folder_of

    path, rounds, model, scope = given.facts, given.rounds, given.model, given.scope
    facts = _read(path, given.columns, '--columns "prompt=…,subject=…,target=…"')
    if len(facts) < rounds:
        raise _Refused(f"{path}: {len(facts)} facts cannot make {rounds} rounds")
    folder = folder_of(given.out)
    session = _opened(folder) if (folder / "session.json").exists() else None
    if session is None:
        with _loading(model):
            lm = cv.load_model() if model is None else cv.load_model(model)
            session = cv.Session(lm, cv.EditConfig.for_model(lm, scope=scope), folder=folder)
    elif not _same_model(model, session.lm.name) or scope != session.config.scope:
        raise _Refused(
            f"{folder}: its session has the model {session.lm.name!r} and the scope"
            f" {session.config.scope!r}; ask for the same, or for another --out"
        )
    batches = _batches(facts, rounds)
    done = [round_.facts for round_ in session.rounds]
    if not _are(batches, done):
        raise _Refused(
            f"{folder}: its session has other facts than {path.name} in {rounds} rounds; choose"
            " another --out"
        )
    session.go_to(len(done))
    if done:
        print(f"{folder}: {len(done)} of {rounds} rounds are there already")
    _check(session, path, facts, batches[len(done) :])
    for place, batch in enumerate(batches[len(done) :], len(done) + 1):
        with Bar() as bar:
            round_ = session.apply(batch, progress=bar)
        print(f"Round {place} of {rounds}: {len(batch)} facts in {round_.seconds:.1f} s")
    with Bar() as bar:
        means = session.evaluate(progress=bar).groupby("metric", sort=False)["value"].mean()
    print("At the end: " + ", ".join(f"{metric} {value:.3f}" for metric, value in means.items()))
    print(f"python -m coachhook_viz report {folder}  writes what happened")


def _are(batches: list[list[Fact]], done: list[tuple[Fact, ...]]) -> bool:
    """Whether the rounds that are done are the first of these batches."""
    from coachhook_viz.editing.wordings import written_for

    return len(done) <= len(batches) and all(
        len(batch) == len(facts) and all(map(written_for, batch, facts))
        for batch, facts in zip(batches, done, strict=False)
    )


def _read(path: Path, columns: dict[str, str] | None, which: str) -> FactList:
    """The facts of a file; what was left out of it is said line by line.

    `which` is how the person may say here which column is which.
    """
    import coachhook_viz as cv
    from coachhook_viz.reading import WHICH, left_out

    try:
        with heard(cv.BadRecordWarning):
            facts = cv.read_facts(path, columns)
    except cv.FactFileError as error:
        raise _Refused(str(error).replace(WHICH, which)) from None
    for said, reasons in left_out(facts):
        told = "\n  ".join([f"{path.name}: {said}", *reasons])
        print(told.replace(WHICH, which), file=sys.stderr)
    if not facts:
        raise _Refused(f"{path}: there is no fact in it")
    return facts


@contextmanager
def _loading(name: str | None) -> Iterator[None]:
    """Within the context a model is loaded, of which other packages say in many ways what fails."""
    from coachhook_viz.errors import SessionFileError

    try:
        yield
    except (OSError, SessionFileError, _Refused):
        raise
    except Exception as error:
        raise _Refused(f"the model {name or 'of the package'}: {_told(error)}") from error


def _told(error: BaseException) -> str:
    """What is wrong, in one line where it is not ours to say it in more."""
    if isinstance(error, _Refused):
        return str(error)
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _same_model(asked: str | None, name: str) -> bool:
    """Whether the model that is asked for is the one of that name; a folder by where it is."""
    if asked is None or asked == name:
        return True
    one, other = (os.path.expanduser(model) for model in (asked, name))
    return os.path.isdir(one) and os.path.realpath(one) == os.path.realpath(other)


def _check(session: Session, path: Path, facts: FactList, batches: list[list[Fact]]) -> None:
    """Refuse whatever the last rounds would, all at once and by its place in the file."""
    from coachhook_viz.facts import FactError

    records = facts.records[len(facts) - sum(map(len, batches)) :]
    wrong = []
    for batch in batches:
        own, records = records[: len(batch)], records[len(batch) :]
        try:
            session.check(batch)
        except FactError as error:
            wrong += [
                f"record {own[p.index]} ({str(batch[p.index])[:100]!r}), {p.field}: {p.reason}"
                for p in error.problems
            ]
    if wrong:
        raise _Refused("\n".join([f"{path.name}: some facts cannot be edited", *wrong]))


def _batches(facts: Sequence[Fact], rounds: int) -> list[list[Fact]]:
    """Split into `rounds` parts of nearly equal size, larger ones first."""
    size, more = divmod(len(facts), rounds)
    starts = [place * size + min(place, more) for place in range(rounds + 1)]
    return [list(facts[a:b]) for a, b in pairwise(starts)]


def _opened(folder: Path) -> Session:
    import torch

    import coachhook_viz as cv
    from coachhook_viz.store import model_of

    model = model_of(folder)
    dtype = getattr(torch, model["dtype"], None)
    if not isinstance(dtype, torch.dtype):
        raise _Refused(f"{folder}: there is no dtype {model['dtype']!r}")
    with _loading(model["name"]):
        lm = cv.load_model(model["name"], lead=model["lead"], dtype=dtype)
    return cv.Session.load(folder, lm)


def _report(folder: Path, out: Path | None, budget: int) -> None:
    import coachhook_viz as cv
    from coachhook_viz.editing.progress import Bar
    from coachhook_viz.store import folder_of

    folder = folder_of(folder)
    session = _opened(folder)
    if not session.state.facts:
        raise _Refused(f"{folder}: no fact is in force, so there is nothing to report")
    with Bar() as bar:
        path = cv.report(session, out or folder / "report.html", progress=bar, budget=budget)
    print(path.resolve().as_uri())


def _sweep(path: Path) -> None:
    import coachhook_viz as cv
    from coachhook_viz.models import bundled
    from coachhook_viz.sweep_file import read
    from coachhook_viz.sweeping import at_the_end

    said = read(path)
    which = 'columns = { prompt = "…", subject = "…", target = "…" } in the sweep file'
    facts = _read(said.facts, said.columns, which)
    with _loading(said.model):
        lm = cv.load_model(said.model or bundled.NAME, lead=said.lead)
    configs = said.configs(lm)
    with heard() as caught:
        frame = cv.sweep(
            lm, facts, configs, folder=said.folder, client=said.scheduler, **said.options
        )
    count = len(frame[["setting", "order", "seed"]].drop_duplicates())
    print(f"{said.folder}: {count} trials are finished. Means at the end, and 95 % intervals:")
    for name, part in at_the_end(frame).groupby("setting", sort=False):
        columns = (part[column] for column in ("metric", "mean", "low", "high"))
        scores = ", ".join(
            f"{metric} {mean:.3f} ({low:.3f}–{high:.3f})"
            for metric, mean, low, high in zip(*columns, strict=True)
        )
        print(f"  {name}: {scores}")
    for warning in caught:
        if isinstance(warning, cv.FailedTrialWarning):
            raise _Refused(str(warning))
        print(warning, file=sys.stderr)


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
