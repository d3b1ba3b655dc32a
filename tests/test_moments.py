from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from tiny import LAYERS, WORDS, tiny_model, tiny_moments

from coachhook_viz import EditCancelled, Progress, WaitingWarning
from coachhook_viz.editing import moments
from coachhook_viz.editing.forward import Batch, run_to
from coachhook_viz.editing.inverses import inverse
from coachhook_viz.editing.moments import (
    MomentsWarning,
    cached_moments,
    check_moments,
    collect_moments,
    corpus,
)
from coachhook_viz.editing.tokens import tokenize
from coachhook_viz.models import cache

TEXTS = [" ".join(WORDS[i : i + 3 + i % 7]) for i in range(40)] * 3


def test_collect_is_the_mean_outer_product_of_every_real_token() -> None:
    lm = tiny_model(lead="He ")
    found = collect_moments(lm, TEXTS, LAYERS)
    for layer in LAYERS:
        rows = []
        for text in TEXTS:
            batch = Batch.of([tokenize(lm, text)], lm.device)
            rows.append(run_to(lm, batch, layer, keys_of=[layer])[1][layer][0].double())
        keys = torch.cat(rows)
        torch.testing.assert_close(found[layer], keys.T @ keys / len(keys), rtol=1e-5, atol=1e-6)


def test_too_few_tokens_are_said_and_still_give_a_usable_inverse() -> None:
    lm = tiny_model()
    with pytest.warns(MomentsWarning, match="9 tokens are few .* width 64"):
        moment = collect_moments(lm, [" ".join(WORDS[:9])], [1])[1]
    with pytest.warns(MomentsWarning, match="singular"):
        preserved = inverse(moment, 30.0)
    assert torch.isfinite(preserved).all()
    assert (torch.linalg.eigvalsh(preserved) > 0).all()


def test_inverse_is_exact_where_c0_is_regular() -> None:
    moment = tiny_moments(tiny_model())[1]
    torch.testing.assert_close(inverse(moment, 7.0), torch.linalg.inv(7 * moment))


@pytest.mark.parametrize(
    ("moment", "match"),
    [
        (torch.ones(2, 3), "must be"),
        (torch.zeros(3, 3), "zero"),
        (torch.full((3, 3), torch.nan), "not finite"),
    ],
)
def test_unusable_moments_are_refused(moment: torch.Tensor, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        inverse(moment, 1.0)


def test_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match="no token"):
        collect_moments(tiny_model(), [], [1])


def test_moments_of_another_model_are_refused() -> None:
    lm = tiny_model()
    with pytest.raises(ValueError, match="no C0 for layer 2"):
        check_moments({1: torch.eye(64)}, lm, (1, 2))
    with pytest.raises(ValueError, match=r"\(3, 3\), the model needs \(64, 64\)"):
        check_moments({1: torch.eye(3)}, lm, (1,))
    with pytest.raises(ValueError, match=r"moments\[1\] holds values that are not finite"):
        check_moments({1: torch.full((64, 64), torch.inf)}, lm, (1,))


def test_cache_is_used_mended_and_told_apart_by_model(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("COACHHOOK_VIZ_CACHE", str(tmp_path))
    monkeypatch.setattr("coachhook_viz.editing.moments.corpus", lambda: TEXTS)
    calls = []
    lm = tiny_model()

    def watch(*message: object) -> None:
        calls.append(message)

    first = cached_moments(lm, [1, 2], watch)
    assert calls
    calls.clear()
    again = cached_moments(lm, [1], watch)
    assert torch.equal(first[1], again[1])
    assert not calls
    for file in tmp_path.rglob("*layer1*"):
        file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(cached_moments(lm, [1], watch)[1], first[1])
    assert calls
    calls.clear()
    cached_moments(tiny_model(lead="He "), [1], watch)
    assert calls
    assert not list(tmp_path.rglob("*.tmp"))


def test_collecting_goes_on_where_it_was_stopped(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(moments, "_PART_TOKENS", 100)
    lm = tiny_model(lead="He ")
    expected = collect_moments(lm, TEXTS, [1, 2])
    said: list[int] = []

    def cancel() -> bool:
        return len(said) >= 4

    def progress(message: Progress) -> None:
        said.append(message.step)

    given = (text for text in TEXTS)  # a generator does
    with pytest.raises(EditCancelled):
        collect_moments(lm, given, [1, 2], folder=tmp_path, progress=progress, cancel=cancel)
    said.clear()
    found = collect_moments(lm, TEXTS, [1, 2], folder=tmp_path, progress=progress)
    assert said[0] >= 100
    for layer in (1, 2):
        torch.testing.assert_close(found[layer], expected[layer])
    said.clear()
    collect_moments(lm, TEXTS, [1, 2], folder=tmp_path, progress=progress)
    assert not said
    more = collect_moments(lm, [*TEXTS, *TEXTS[:20]], [1, 2], folder=tmp_path, progress=progress)
    torch.testing.assert_close(more[1], collect_moments(lm, [*TEXTS, *TEXTS[:20]], [1])[1])
    said.clear()
    other = TEXTS[::-1]
    found = collect_moments(lm, other, [1, 2], folder=tmp_path, progress=progress)
    assert said[0] == 0
    torch.testing.assert_close(found[1], expected[1])
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:50])
    torch.testing.assert_close(collect_moments(lm, TEXTS, [1, 2], folder=tmp_path)[2], expected[2])


@pytest.mark.parametrize(
    ("texts", "layers", "match"),
    [
        ("one text", [1], "list of texts"),
        ([1, 2], [1], "not int"),
        (TEXTS, [9], "has blocks 0 to 4"),
        (TEXTS, ["1"], "whole numbers"),
        (TEXTS, 1, "whole numbers"),
        (5, [1], "list of texts"),
        ([""], [1], "no token"),
    ],
)
def test_what_cannot_be_collected_over_is_said(texts, layers, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        collect_moments(tiny_model(), texts, layers)


def unwritable(*args: object, **options: object) -> None:
    raise OSError(errno.EROFS, "Read-only file system")


def test_a_read_only_cache_that_is_filled_is_used(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("COACHHOOK_VIZ_CACHE", str(tmp_path))
    monkeypatch.setattr("coachhook_viz.editing.moments.corpus", lambda: TEXTS)
    lm = tiny_model()
    expected = cached_moments(lm, [1, 2])
    for name in ("mkdir", "write_text", "replace"):
        monkeypatch.setattr(Path, name, unwritable)
    monkeypatch.setattr(FileLock, "acquire", unwritable)
    assert torch.equal(cached_moments(lm, [1, 2])[2], expected[2])
    with pytest.warns(MomentsWarning, match="cannot be kept in .*Read-only.*COACHHOOK_VIZ_CACHE"):
        found = cached_moments(lm, [3])
    assert found[3].shape == (64, 64)
    assert not list(tmp_path.rglob("*layer3*"))


def test_one_process_waits_for_another_that_collects_the_same(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("COACHHOOK_VIZ_CACHE", str(tmp_path))
    monkeypatch.setattr("coachhook_viz.editing.moments.corpus", lambda: TEXTS)
    monkeypatch.setattr(cache, "_PATIENCE", 0.05)
    lm = tiny_model()
    expected = cached_moments(lm, [1])
    [lock] = tmp_path.rglob("*.lock")
    held = FileLock(lock, thread_local=False)
    held.acquire()
    timer = threading.Timer(0.4, lambda: held.release(force=True))
    timer.start()
    with pytest.warns(WaitingWarning, match="another process, which collects the same"):
        found = cached_moments(lm, [1, 2])
    assert torch.equal(found[1], expected[1])


def test_the_variable_of_the_cache_may_name_the_home_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COACHHOOK_VIZ_CACHE", "~/mine")
    assert cache.cache_dir() == tmp_path / "mine"


@pytest.mark.model
def test_shipped_corpus_is_long_enough_for_the_default_model(lm) -> None:
    tokens = sum(len(tokenize(lm, text)) for text in corpus())
    assert tokens >= 20_000
    assert tokens > 10 * lm.d_key
