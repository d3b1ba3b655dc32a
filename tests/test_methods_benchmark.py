"""The benchmark of methods goes on where it stopped, and shares targets as it says."""

from __future__ import annotations

import methods as benchmark
import pandas as pd
import pytest
import torch
from tiny import tiny_config, tiny_facts, tiny_model, tiny_moments

from coachhook_viz import Session
from coachhook_viz.editing import editor


@pytest.fixture
def few(monkeypatch, tmp_path):
    """A benchmark of four facts in two rounds, with targets of its own."""

    def session(lm, config, **given):
        return Session(lm, config, tiny_moments(lm), **given)

    session.load = lambda folder, lm: Session.load(folder, lm, tiny_moments(lm))
    monkeypatch.setattr(benchmark.cv, "Session", session)
    lm, once = tiny_model(lead="He "), benchmark.Once(tmp_path / "targets.safetensors")
    with pytest.warns(UserWarning, match="are a guess"):
        return benchmark.Benchmark(lm, tiny_facts()[:4], 2, tmp_path, once)


def test_a_stopped_run_goes_on_and_nothing_is_measured_twice(few, monkeypatch) -> None:
    config = tiny_config(steps=2)

    def stop(lm, config, part):
        if part is few.parts[1]:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(few.once, "prepare", stop)
        with pytest.raises(KeyboardInterrupt):
            few.edited("CoachHooK", config)
    session = few.edited("CoachHooK", config)
    assert session.position == 2
    assert len(session.facts) == 4
    for _ in range(2):
        few.measure("CoachHooK", session.state, 2, None)
    frame = pd.read_csv(few.frame)
    assert (frame["metric"] == "perplexity").sum() == 1
    assert (frame["metric"] == "took").sum() == 4
    (header, _, row) = "\n".join(benchmark.table(frame)).splitlines()
    assert row.startswith("| CoachHooK | 2 of 2 |")
    assert row.count("|") == header.count("|")


def test_targets_are_those_of_the_unedited_model_whatever_is_in_force(few, monkeypatch) -> None:
    config = tiny_config(steps=2, scope="off")
    facts = [fact for part in few.parts for fact in part]
    alone = Session(few.lm, config, tiny_moments(few.lm))
    alone.apply(facts)
    monkeypatch.setattr(editor, "optimise_targets", few.once)
    session = few.edited("CoachHooK", config)
    found = torch.cat([round_.targets for round_ in session.rounds])
    assert torch.allclose(found, alone.rounds[0].targets, rtol=1e-4, atol=1e-5)
    again = benchmark.Once(few.once.file)
    assert again.known.keys() == few.once.known.keys()
    assert len(again.known) == 4
