from __future__ import annotations

import gc
from importlib import import_module

import pytest

import coachhook_viz as cv
from coachhook_viz.loading import collector_paused


def test_the_collector_rests_within_and_then_goes_on() -> None:
    with collector_paused():
        assert not gc.isenabled()
        with collector_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), collector_paused():
        raise ZeroDivisionError
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_garbage_from_within_is_still_found() -> None:
    class Ring:
        pass

    with collector_paused():
        ring = Ring()
        ring.itself = ring  # type: ignore[attr-defined]
        del ring
    assert any(type(thing) is Ring for thing in gc.get_objects())
    gc.collect()
    assert not any(type(thing) is Ring for thing in gc.get_objects())


def test_what_the_user_turned_off_or_froze_stays_so() -> None:
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with collector_paused():
            pass
        assert gc.get_freeze_count() == frozen > 0
    finally:
        gc.unfreeze()


def test_public_names_are_imported_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def watched(name: str) -> object:
        seen.append(gc.isenabled())
        return import_module(name)

    monkeypatch.setattr(cv, "import_module", watched)
    cv.__getattr__("Session")
    assert seen == [False]
