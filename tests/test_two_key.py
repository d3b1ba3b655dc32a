"""Edits with two keys: the answer site under the two-key scope, exactly."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import FAMILIES, WORDS, tiny_config, tiny_facts, tiny_model, tiny_moments
from torch import Tensor
from transformers import DynamicCache

import coachhook_viz as cv
from coachhook_viz import EditConfig, Fact, FactError, LanguageModel, Session
from coachhook_viz.editing import editor, wordings
from coachhook_viz.editing.forward import Batch, hidden
from coachhook_viz.editing.hooks import RelationKeys, SubjectKeys
from coachhook_viz.editing.progress import EditCancelled, Watch
from coachhook_viz.editing.scope import NEVER, Tokens
from coachhook_viz.editing.sites import SITES
from coachhook_viz.editing.suffixes import Suffixes
from coachhook_viz.editing.tokens import prepare
from coachhook_viz.editing.values import optimise_targets
from coachhook_viz.editing.wordings import proposed

LAYERS = (2, 3)
TWO_KEYS: dict[str, Any] = {
    "layers": LAYERS,
    "site": "answer",
    "scope": "two-key",
    "subject_layer": 0,  # random layers after it hardly know their tokens again
    "match_threshold": 0.4,
    "subject_threshold": 0.6,
    "kl_weight": 0.0,
}
_SESSIONS: dict[Any, Session] = {}


def two_key_session(lm: LanguageModel | None = None, **changes: Any) -> Session:
    """Nothing edited yet."""
    lm = tiny_model(lead="He ") if lm is None else lm
    return Session(lm, tiny_config(**{**TWO_KEYS, **changes}), tiny_moments(lm))


def facts() -> list[Fact]:
    """The tiny facts, two wordings each."""
    forms = ("Now {} is in", "The river of {} is not", "{} plays in a new"), ("A {} and the",)
    return [
        replace(fact, wordings=(forms[0][i % 3], *forms[1]), relation="place" * (i % 2))
        for i, fact in enumerate(tiny_facts())
    ]


def edited(family: str = "llama", dtype: torch.dtype = torch.float32) -> Session:
    """Two rounds of three facts, made once."""
    if (family, dtype) not in _SESSIONS:
        session = two_key_session(tiny_model(family, lead="He ", dtype=dtype))
        session.apply(facts()[:3])
        session.apply(facts()[3:])
        _SESSIONS[family, dtype] = session
    return _SESSIONS[family, dtype]


@torch.no_grad()
def logits(lm: LanguageModel, ids: list[int], left: int = 0, right: int = 0) -> Tensor:
    padded = torch.tensor([[5] * left + ids + [6] * right])
    mask = torch.tensor([[0] * left + [1] * len(ids) + [0] * right])
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    out = lm.model(input_ids=padded, attention_mask=mask, position_ids=positions, use_cache=False)
    return out.logits[0, left : left + len(ids)]


prompt_ids = st.sampled_from([text for fact in facts() for text in fact.texts]).map(
    tiny_model(lead="He ").token_ids
)
token_lists = st.one_of(
    st.lists(st.integers(2, len(WORDS) + 1), min_size=2, max_size=14),
    st.tuples(prompt_ids, st.lists(st.integers(2, len(WORDS) + 1), max_size=5)).map(
        lambda parts: [*parts[0], *parts[1]]
    ),
)


@given(ids=token_lists, left=st.integers(0, 5), right=st.integers(0, 5))
def test_padding_changes_nothing(ids: list[int], left: int, right: int) -> None:
    session = edited()
    with session.hooked():
        alone = logits(session.lm, ids)
        padded = logits(session.lm, ids, left, right)
    torch.testing.assert_close(padded, alone, atol=2e-4, rtol=2e-4)


@given(sequences=st.lists(token_lists, min_size=2, max_size=5))
def test_batch_composition_changes_nothing(sequences: list[list[int]]) -> None:
    session = edited()
    batch = Batch.of(sequences, session.lm.device)
    with session.hooked(), torch.no_grad():
        together = session.lm.model(**batch.inputs, use_cache=False).logits
        for row, ids in enumerate(sequences):
            alone = logits(session.lm, ids)
            torch.testing.assert_close(together[row, : len(ids)], alone, atol=2e-4, rtol=2e-4)


@given(ids=token_lists, data=st.data())
def test_cached_decoding_is_one_pass(ids: list[int], data: st.DataObject) -> None:
    """It is causal: wherever the prompt ended, and cropped to anywhere and run on again."""
    session = edited()
    prompt = data.draw(st.integers(1, len(ids)))
    kept = data.draw(st.integers(1, prompt))
    with session.hooked(), torch.no_grad():
        once = logits(session.lm, ids)
        cache = DynamicCache()
        session.lm.model(input_ids=torch.tensor([ids[:prompt]]), past_key_values=cache)
        if kept < prompt:
            cache.crop(kept - prompt)
        steps = [
            session.lm.model(input_ids=torch.tensor([[token]]), past_key_values=cache).logits[0]
            for token in ids[kept:]
        ]
    if steps:
        torch.testing.assert_close(torch.cat(steps), once[kept:], atol=2e-4, rtol=2e-4)


def test_caches_that_select_rows_and_copies_keep_what_was_opened() -> None:
    session, lm = edited(), edited().lm
    first, other = (lm.token_ids(fact.text) for fact in facts()[:2])
    size = min(len(first), len(other)) - 1
    rows = [first[:size], other[:size]]
    with torch.no_grad(), session.hooked():
        cache = DynamicCache()
        lm.model(input_ids=torch.tensor(rows), past_key_values=cache)
        copied = copy.deepcopy(cache)
        copied.reorder_cache(torch.tensor([1, 0]))
        step = lm.model(input_ids=torch.tensor([[7], [8]]), past_key_values=copied).logits[:, -1]
        for row, ids in enumerate(([*rows[1], 7], [*rows[0], 8])):
            torch.testing.assert_close(step[row], logits(lm, ids)[-1], atol=2e-4, rtol=2e-4)
        foreign = DynamicCache()
    with torch.no_grad():
        lm.model(input_ids=torch.tensor(rows), past_key_values=foreign)
        with session.hooked(), pytest.raises(ValueError, match="not run under these hooks"):
            lm.model(input_ids=torch.tensor([[7], [8]]), past_key_values=foreign)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_fact_gets_its_target_state_at_each_of_its_wordings(
    family: str, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a small λ and no foils the last hooked block says z where any of its columns stands."""
    lm = tiny_model(family, lead="He ")
    none = torch.empty(lm.d_key, 0, dtype=torch.float64)
    monkeypatch.setattr(editor, "foil_keys", lambda *args: {2: [none], 3: [none]})
    session = two_key_session(
        lm, covariance_weight=1e-6, context_templates=(("{}",),), subject_threshold=0.2
    )
    round_ = session.apply([facts()[place]])
    own, made = facts()[place].wordings, proposed(lm, facts()[place])
    assert round_.facts[0].wordings == own + made
    assert (len(own), len(made)) == (2, 1)
    assert round_.owners == (0, 0, 0, 0)
    assert round_.targets.shape == (4, lm.d_model)
    for text, target in zip(round_.facts[0].texts, round_.targets, strict=True):
        states: list[Tensor] = []
        handle = lm.blocks[LAYERS[-1]].register_forward_hook(
            lambda module, args, out, seen=states: seen.append(hidden(out))
        )
        with session.hooked():
            logits(lm, lm.token_ids(text))
        handle.remove()
        assert (states[0][0, -1].double() - target).norm() / target.norm() < 0.05


def test_only_own_columns_are_added() -> None:
    """The hook by hand, from the definition, for facts of one, two and no columns that match."""
    generator = torch.Generator().manual_seed(3)
    keys, directions, residuals = (
        torch.randn(shape, generator=generator) for shape in ((1, 6, 8), (8, 4), (5, 4))
    )
    owners, own = torch.tensor([0, 1, 1, 2]), torch.tensor([1.0, 2.0, 0.5])
    mask, horizon = torch.ones(1, 6).bool(), torch.full((1, 6), 5)
    tokens = Tokens(mask, 6, horizon)
    seen = torch.zeros(1, 6, 3, dtype=torch.bool)
    seen[0, 2, 0] = seen[0, 4, 0] = seen[0, 0, 1] = True  # the third fact's subject is not there
    tokens.open(seen)
    assert tokens.opened.tolist() == [[2, 0, NEVER]]
    output = torch.zeros(1, 6, 5)
    found = RelationKeys(residuals, directions, own, owners, 0.4)(2, keys, output, tokens)
    for j in range(6):
        expected = torch.zeros(5)
        for fact, opened in ((0, 2), (1, 0)):
            terms = [(directions[:, c] @ keys[0, j], c) for c in range(4) if owners[c] == fact]
            if j >= opened and sum(term for term, _ in terms) / own[fact] >= 0.4:
                expected += sum(term * residuals[:, c] for term, c in terms)
        torch.testing.assert_close(found[0, j], expected)
        assert bool(tokens.spoke[2][0, j]) == bool(expected.any())
    assert tokens.spoke[2].any()


def test_pads_open_nothing() -> None:
    tokens = Tokens(torch.tensor([[False, True, True]]), 3, torch.full((1, 3), 2))
    gate = SubjectKeys(torch.ones(2, 1), 1.0)
    gate(1, torch.tensor([[[9.0, 9.0], [0.0, 0.0], [1.0, 1.0]]]), torch.zeros(1, 3, 2), tokens)
    assert tokens.opened.tolist() == [[2]]
    assert tokens.is_open()[0, :, 0].tolist() == [False, False, True]


def test_facts_do_not_depend_on_the_facts_beside_them() -> None:
    """Together, alone, and after others: the same columns."""
    together = two_key_session().apply(facts()[:3])
    session = two_key_session()
    session.apply(facts()[3:])
    later = session.apply(facts()[:3])
    first = LAYERS[0]  # what the second one sees are also answers of facts that spoke at the first
    for place, fact in enumerate(facts()[:3]):
        alone = two_key_session().apply([fact])
        for other in (
            together.factors[first].columns([place]),
            later.factors[first].columns([place]),
        ):
            torch.testing.assert_close(
                alone.factors[first].directions, other.directions, atol=1e-6, rtol=1e-4
            )


def test_scope_says_what_is_asked_for_not_what_of() -> None:
    session = two_key_session()
    fact = replace(tiny_facts()[0], relation="landmark")
    session.apply([fact])
    said = session.scope(fact.text).explain()
    assert "its city" in said
    assert "landmark" not in said


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scope_says_both_keys_and_attribution_sums(dtype: torch.dtype) -> None:
    session = edited(dtype=dtype)
    for place, fact in enumerate(session.state.facts):
        scope = session.scope(fact.text)
        assert scope.kind == "two-key"
        assert scope.opened is not None
        assert scope.speaks is not None
        assert scope.subject_match is not None
        assert scope.match.shape == scope.speaks.shape == (2, 6, len(scope.tokens))
        assert scope.opened[place] is not None
        assert scope.speaks[:, place, -1].all(), scope.explain()
        assert torch.equal(scope.speaks.any(1), scope.in_scope)
        assert "asks for" in scope.explain()
        assert str(scope)
        assert scope._repr_html_()
        torch.testing.assert_close(
            scope.contributions.sum(1), scope.norms, atol=2e-2 * float(scope.norms.max()), rtol=2e-2
        )
        opened = torch.tensor([NEVER if at is None else at for at in scope.opened])
        shut = torch.arange(len(scope.tokens)) < opened[:, None]
        assert not (scope.speaks & shut).any()
    scopes = [session.scope(word) for word in WORDS]
    silent = next(scope for scope in scopes if scope.opened == (None,) * 6)
    assert "No edited subject is seen" in silent.explain()
    session.go_to(0)
    assert session.scope("The river").explain().startswith("No round")
    session.go_to(2)


def test_undo_mute_and_unmute_are_exact() -> None:
    session = two_key_session()
    ids = [session.lm.token_ids(text) for fact in facts() for text in fact.texts]
    seen = []

    def said() -> Tensor:
        with session.hooked():
            return torch.cat([logits(session.lm, row) for row in ids])

    for batch in (facts()[:3], facts()[3:]):
        seen.append(said())
        session.apply(batch)
    seen.append(said())
    for position in (1, 0, 2, 1, 2):
        session.go_to(position)
        assert torch.equal(said(), seen[position])
    texts = [text for fact in facts() for text in fact.texts]
    spoke = [bool(session.scope(text).speaks[:, 1].any()) for text in texts]
    assert True in spoke
    assert False in spoke
    session.mute(1)
    for text, was in zip(texts, spoke, strict=True):
        row = session.lm.token_ids(text)
        with session.hooked():
            muted = logits(session.lm, row)
        with session.hooked(state=session.state_at()):
            assert torch.equal(logits(session.lm, row), muted)
        session.unmute(1)
        with session.hooked():
            unmuted = logits(session.lm, row)
        session.mute(1)
        assert torch.allclose(muted, unmuted, atol=1e-4) is not was
    session.unmute(1)
    assert torch.equal(said(), seen[2])


def test_a_round_on_top_of_muted_ones_is_as_on_top_of_none() -> None:
    session, fresh = two_key_session(), two_key_session()
    session.apply(facts()[:2])
    for fact_id in session.state.fact_ids:
        session.mute(fact_id)
    round_, alone = session.apply(facts()[2]), fresh.apply(facts()[2])
    for layer in LAYERS:
        assert torch.equal(round_.factors[layer].residuals, alone.factors[layer].residuals)


def test_other_rules_judge_the_same_edits() -> None:
    session = edited()
    for scope in ("zscore", "match", "off"):
        state = session.state.judged(scope)
        reading = session.scope(facts()[0].text, state=state)
        assert reading.speaks is None
        assert reading.opened is None
        assert reading.explain()
        with session.hooked(state=state):
            logits(session.lm, [5, 6, 7])
    subject = Session(session.lm, tiny_config(), tiny_moments(session.lm))
    with pytest.raises(ValueError, match="needs site='answer'"):
        subject.state.judged("two-key")


def test_save_and_load_are_bit_equal(tmp_path: Path) -> None:
    session = edited()
    session.mute(4)
    session.save(tmp_path / "s")
    loaded = Session.load(tmp_path / "s", session.lm, tiny_moments(session.lm))
    assert loaded.config == session.config
    assert loaded.facts == session.facts
    for text in (text for fact in facts() for text in fact.texts):
        ids = session.lm.token_ids(text)
        with session.hooked():
            expected = logits(session.lm, ids)
        with loaded.hooked():
            assert torch.equal(logits(loaded.lm, ids), expected)
    session.unmute(4)


def test_measurements_and_interference() -> None:
    session = edited()
    pairs = session.interference()
    own = pairs[pairs["fact"] == pairs["by"]]
    assert (own["actual"] == 1).all()
    others = pairs[pairs["fact"] != pairs["by"]]
    keys = torch.cat([r.subjects.keys for r in session.rounds], 1)
    units = torch.cat([r.subjects.unit_directions for r in session.rounds], 1)
    opens = keys.T @ units >= session.config.subject_threshold  # (fact, by)
    shut = [not opens[fact, by] for fact, by in others[["fact", "by"]].itertuples(index=False)]
    assert any(shut)
    assert (others["actual"][shut] == 0).all()
    assert (others["predicted"][shut] == 0).all()
    assert not session.drift().empty
    assert not session.scope_quality().empty
    assert set(session.evaluate()["metric"]) == {"reliability", "generality", "locality"}


def problems(batch: list[Fact], session: Session | None = None) -> list[tuple[int, str]]:
    session = two_key_session() if session is None else session
    with pytest.raises(FactError) as caught:
        session.check(batch)
    with pytest.raises(FactError):
        session.apply(batch)
    return [(problem.index, problem.field) for problem in caught.value.problems]


def test_bad_wordings_are_named() -> None:
    fact = tiny_facts()[0]
    assert problems([replace(fact, wordings=("He is in",))]) == [(0, "wordings")]
    assert problems([replace(fact, wordings=("{} and {} is",))]) == [(0, "wordings")]
    assert problems([replace(fact, wordings=("Now {} is", "now  {} is"))]) == [(0, "wordings")]
    assert problems([replace(fact, wordings=(fact.prompt,))]) == [(0, "wordings")]
    assert problems([replace(fact, wordings=("Now {} is ",))]) == [(0, "wordings")]
    assert problems([replace(fact, wordings=(3,))]) == [(0, "wordings")]  # type: ignore[arg-type]
    with pytest.raises(FactError, match="does not name the subject"):
        two_key_session().check([replace(fact, wordings=("He is in",))])
    with pytest.raises(TypeError, match="wordings is one text"):
        Fact("{} is", "Anna", "red", wordings="{} was")  # type: ignore[arg-type]
    assert "Question" in proposed(tiny_model(), fact)[0]


def test_two_facts_that_ask_the_same_in_one_batch_are_named() -> None:
    first = Fact("The language of {} is", "Anna", "red", wordings=("Now {} speaks",))
    again = Fact("{} lives in", "Anna", "Oslo", wordings=("Now {} speaks",))
    assert problems([first, again]) == [(1, "target")]
    with pytest.raises(FactError, match="Now Anna speaks"):
        two_key_session().check([first, again])
    known = [
        Fact(prompt, "Peru", target, relation="capital")
        for prompt, target in (("The capital of {} is", "Oslo"), ("In {} a city is", "Rome"))
    ]
    assert problems(known) == [(1, "target")]  # they share the relation's wordings
    two_key_session().check([first, replace(again, subject="Emma")])


def test_a_shared_wording_meets_an_edit_in_force() -> None:
    session = two_key_session()
    session.apply([Fact("The language of {} is", "Anna", "red", wordings=("Now {} speaks",))])
    [clash] = session.clashes([Fact("Now {} speaks", "Anna", "blue")])
    assert clash.kind == "target"
    assert session.clashes([Fact("{} lives in", "Anna", "Rome")]) == []  # another relation


def test_foils_of_ones_own_are_kept_and_wrong_ones_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fact = replace(facts()[0], foils=("{} and the",))
    for bad in ("He is in", "{} and {} is", fact.prompt, fact.wordings[0], "Now {} is "):
        assert problems([replace(fact, foils=(bad,))]) == [(0, "foils")]
    assert problems([replace(fact, foils=("Now {} is", "now  {} is"))]) == [(0, "foils")]
    with pytest.raises(TypeError, match="foils is one text"):
        Fact("{} is", "Anna", "red", foils="{} was")  # type: ignore[arg-type]
    none = wordings.bundled_foils("nothing that is known")
    monkeypatch.setattr(
        wordings, "bundled_foils", lambda relation: replace(none, prompts=(), questions=())
    )
    lm, seen = tiny_model(lead="He "), []
    for foils in ((), fact.foils):
        own = [replace(facts()[0], foils=foils)]
        columns = prepare(lm, own, (("{}",),), SITES["answer"])
        seen.append(wordings.foil_keys(lm, LAYERS, own, columns, Watch()))
    assert [keys[2][0].shape[1] for keys in seen] == [0, 1]
    session, plain = two_key_session(), two_key_session()
    session.apply([fact])
    plain.apply([replace(fact, foils=())])
    foil = lm.token_ids(fact.foils[0].replace("{}", fact.subject))
    shown = [
        float(one.scope(fact.foils[0].replace("{}", fact.subject)).match[0, 0, len(foil) - 1].abs())
        for one in (session, plain)
    ]
    assert shown[0] < shown[1]


@pytest.mark.filterwarnings("ignore:.*are a guess")
def test_why_of_a_round_that_had_fewer_wordings(monkeypatch: pytest.MonkeyPatch) -> None:
    session = two_key_session()
    with monkeypatch.context() as patch:  # as rounds were made when own wordings stood alone
        patch.setattr(wordings, "proposed", lambda lm, fact: ())
        session.apply([replace(fact, wordings=fact.wordings[:1]) for fact in facts()[:2]])
    (round_,) = session.rounds
    asked = proposed(session.lm, round_.facts[1])[0]
    found = session.why(asked.replace("{}", round_.facts[1].subject))
    assert "of the way to z was covered" in next(g.said for g in found.gates if g.name == "reached")


def test_wordings_are_read_from_files(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text(
        "prompt,subject,target,wordings\n{} is,Anna,red,{} was | A {}\n"
    )
    [fact] = cv.read_facts(tmp_path / "f.csv")
    assert fact.wordings == ("{} was", "A {}")
    assert fact.texts == ("Anna is", "Anna was", "A Anna")


def test_cancel_ends_a_round_among_its_foils(monkeypatch: pytest.MonkeyPatch) -> None:
    session, asked = two_key_session(), []
    batches = wordings.length_batches

    def noted(*args: Any) -> Any:
        asked.append("foils")
        return batches(*args)

    def late(*args: Any) -> None:
        raise AssertionError("it went on to the layers")

    monkeypatch.setattr(wordings, "length_batches", noted)
    monkeypatch.setattr(editor, "spread", late)
    with pytest.raises(EditCancelled):
        session.apply(facts()[:1], cancel=lambda: bool(asked))
    assert session.rounds == ()


def test_a_target_that_begins_otherwise_has_a_delta_of_its_own() -> None:
    """Among neighbours of one fact; those that want the same tokens share it."""
    lm = tiny_model(lead="He ")
    prompts = prepare(lm, [facts()[0]], (("{}",),), SITES["answer"])
    same = Suffixes(lm, {}, prompts, tiny_config(**TWO_KEYS))
    assert same.owners == [0, 0, 0]
    other = [*prompts[:2], replace(prompts[2], target=(5, 6))]
    assert Suffixes(lm, {}, other, tiny_config(**TWO_KEYS)).owners == [0, 0, 1]
    targets = optimise_targets(lm, {}, other, tiny_config(**TWO_KEYS), Watch())
    assert targets.states.shape == (3, lm.d_model)
    assert len(targets.losses) == len(targets.known) == 1


def test_settings_for_models() -> None:
    lm = tiny_model(num_hidden_layers=30)
    named = LanguageModel(lm.model, lm.tokenizer, "smollm2-135m", "\n")
    config = EditConfig.for_model(named, scope="two-key")
    assert (config.site, config.kl_weight) == ("answer", 0.0)
    assert config.subject_layer is not None
    assert config.subject_layer < config.layers[0]
    assert config.keyed_layers == (config.subject_layer, *config.layers)
    assert EditConfig.for_model(named, site="answer") == config
    assert EditConfig.for_model(named).site == "subject"
    for scope in ("match", "zscore", "off"):
        with pytest.raises(ValueError, match="known to work with scope='two-key' alone"):
            EditConfig.for_model(named, site="answer", scope=scope)
    with pytest.warns(UserWarning, match="are a guess"):
        guessed = EditConfig.for_model(tiny_model(), scope="two-key")
    guessed.check(tiny_model())
    for wrong, match in (
        ({"site": "subject"}, "needs site='answer'"),
        ({"subject_layer": None}, "needs subject_layer"),
        ({"subject_layer": 2}, "before the first of layers"),
        ({"site": "relation"}, "use one of"),
        ({"subject_threshold": 0}, "subject_threshold"),
        ({"subject_threshold": None}, "subject_threshold"),
        ({"match_threshold": None}, "needs match_threshold"),
    ):
        with pytest.raises(ValueError, match=match):
            tiny_config(**{**TWO_KEYS, **wrong})


@pytest.mark.filterwarnings("ignore:no settings are known")
def test_a_rerun_under_another_rule_has_the_settings_of_that_rule() -> None:
    session = edited()
    lm = session.lm
    plain = session.rerun(scope="zscore", steps=3)
    assert plain.config == EditConfig.for_model(lm, scope="zscore", steps=3)
    assert (plain.config.site, plain.config.subject_layer) == ("subject", None)
    assert [fact.text for fact in plain.state.facts] == [fact.text for fact in session.state.facts]
    back = plain.rerun(scope="two-key", steps=3)
    assert back.config == EditConfig.for_model(lm, scope="two-key", steps=3)
    assert back.state.facts == session.state.facts  # with their wordings
    assert session.rerun(steps=3).config == replace(session.config, steps=3)
    assert plain.config.changed(lm, site="answer") == EditConfig.for_model(lm, scope="two-key")
    with pytest.raises(ValueError, match="scope='two-key' alone"):
        plain.rerun(site="answer", scope="match")


def test_the_sentence_follows_a_threshold_that_is_only_looked_at() -> None:
    session = two_key_session(layers=(3,))
    session.apply(facts()[:2])
    for prompt in (facts()[0].text, f"{facts()[1].subject} and {facts()[0].text}"):
        read = session.scope(prompt)
        said = set()
        for one in (0.05, 0.4, 1.0):
            asked = session.scope(prompt, state=session.state.judged(None, one))
            looked = read.at_threshold(one)
            said.add(looked.explain())
            assert looked.explain() == asked.explain()
            assert torch.equal(looked.in_scope, asked.in_scope)
            assert torch.equal(looked.speaks, asked.speaks)
            assert torch.equal(looked.bounds, asked.bounds)
        assert len(said) > 1


def test_code_writes_wordings_and_settings() -> None:
    session = edited()
    code = session.code()
    assert "scope='two-key'" in code
    assert "wordings=" in code
    compile(code, "code", "exec")


@pytest.mark.model
def test_two_relations_of_one_subject_are_edited_apart_on_the_default_model(lm) -> None:
    session = cv.Session(lm, cv.EditConfig.for_model(lm, scope="two-key"))
    capital, language = (
        next(f for f in cv.bundled_facts(relation) if f.subject == "France")
        for relation in ("capital", "language")
    )
    session.apply([capital])
    prompts = [language.text, "The currency of France is the", "The capital of Italy is"]
    for prompt in prompts:
        assert session.generate(prompt, 4) == session.generate(prompt, 4, edited=False)
    session.apply([language])
    for fact in (capital, language):
        assert session.generate(fact.text, 4).strip().startswith(fact.target)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    assert capital.target in session.chat(question, 12)
    session.undo()
    assert session.generate(language.text, 4) == session.generate(language.text, 4, edited=False)
    scope = session.scope(capital.text)
    assert "“France” is seen at token" in scope.explain()
    assert "asks for its capital" in scope.explain()
