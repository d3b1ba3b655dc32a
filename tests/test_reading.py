from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from coachhook_viz import EditConfig, Fact, Neighbor, Probe, bundled_facts, read_facts
from coachhook_viz.editing.state import EditState
from coachhook_viz.editing.tokens import continuation, tokenize
from coachhook_viz.facts import alike, find_conflicts, find_problems
from coachhook_viz.measure.answers import Question, Speaker
from coachhook_viz.measure.metrics import SURE
from coachhook_viz.reading import (
    BadRecordWarning,
    FactFileError,
    bundled_foils,
    bundled_probes,
    bundled_wordings,
    known_relation,
)

FACT = Fact(
    "The capital of {} is",
    "France",
    "Rome",
    "Paris",
    ("France's capital is", "In France, the capital is"),
    (Neighbor("The capital of Italy is", "Rome"), Neighbor("The capital of Spain is")),
    "capital",
    probes=(
        Probe("The currency of France is the", "euro"),
        Probe("a", "b", "portability"),
        Probe("c"),
    ),
)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def test_csv(tmp_path: Path) -> None:
    text = (
        "\ufeffsubject,prompt,target,truth,paraphrases,neighbors,relation,probes,mine\n"
        'France, The capital of {} is ,Rome,Paris,"France\'s capital is|In France, the capital is",'
        "The capital of Italy is => Rome | The capital of Spain is,capital,"
        "same subject: The currency of France is the => euro | portability: a=>b|same subject:c,x\n"
        "Peru,The capital of {} is,Oslo,,,,,,\n"
    )
    facts = read_facts(write(tmp_path, "facts.csv", text))
    assert facts == [FACT, Fact("The capital of {} is", "Peru", "Oslo")]
    assert facts.rejected == ()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_prompts_of_several_lines(tmp_path: Path, end: str) -> None:
    wanted = Fact(
        "Q: Peru?\nA: Lima\n\nQ: {}?\nA:\n",
        "France",
        "Rome",
        paraphrases=("<|im_start|>user\nFrance?<|im_end|>\n",),
        neighbors=(Neighbor("Spain?\nA:", "Madrid"),),
    )
    record = asdict(wanted)
    for fields, key in ((record, "prompt"), (record["neighbors"][0], "prompt")):
        fields[key] = fields[key].replace("\n", end)
    record["paraphrases"] = [text.replace("\n", end) for text in record["paraphrases"]]
    path = write(tmp_path, "facts.json", json.dumps([record]))
    assert read_facts(path) == [wanted]
    path = tmp_path / "facts.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator=end)
        rows.writerow(["prompt", "subject", "target", "neighbors"])
        rows.writerow([record["prompt"], "France", "Rome", f"Spain?{end}A: => Madrid"])
    assert read_facts(path) == [replace(wanted, paraphrases=())]


def test_a_cell_of_chat_prompts_is_refused_rather_than_split(tmp_path: Path) -> None:
    text = "prompt,subject,target,paraphrases\n{} is,A,b,<|im_start|>user|<|im_end|>\n"
    with pytest.warns(BadRecordWarning, match=r"paraphrases: it holds '<\|', .* use JSON"):
        [fact] = read_facts(write(tmp_path, "facts.csv", text))
    assert fact == Fact("{} is", "A", "b")


@pytest.mark.parametrize("name", ["facts.json", "facts.jsonl", "wrapped.json"])
def test_json(tmp_path: Path, name: str) -> None:
    records = [asdict(FACT), {"prompt": "{} is", "subject": "A", "target": "b"}]
    text = json.dumps({"facts": records} if name == "wrapped.json" else records)
    if name.endswith("l"):
        text = "\n\n".join(map(json.dumps, records))
    assert read_facts(write(tmp_path, name, text)) == [FACT, Fact("{} is", "A", "b")]


def test_counterfact_original(tmp_path: Path) -> None:
    record = {
        "case_id": 0,
        "requested_rewrite": {
            "prompt": "The capital of {} is",
            "relation_id": "P36",
            "target_new": {"str": "Rome"},
            "target_true": {"str": "Paris"},
            "subject": "France",
        },
        "paraphrase_prompts": ["Noise.\n France's capital is "],
        "neighborhood_prompts": ["The capital of Gaul is"],
    }
    [fact] = read_facts(write(tmp_path, "cf.json", json.dumps([record])))
    assert fact == Fact(
        "The capital of {} is", "France", "Rome", "Paris", ("Noise. France's capital is",),
        (Neighbor("The capital of Gaul is", "Paris"),), "P36",
    )  # fmt: skip


def ripple(prompt: str, relation: str, truth: str | None = None, **tests: object) -> dict:
    """A record of RippleEdits; `tests` by name, prompt to answers."""
    before = {"original_fact": {"prompt": truth, "relation": relation}} if truth else {}
    return {
        "example_type": "popular",
        "edit": {"prompt": prompt, "subject_id": "Q1", "relation": relation, **before},
        **{
            name: [
                {
                    "test_queries": [
                        {"prompt": asked, "answers": [{"value": a, "aliases": []} for a in answers]}
                    ],
                    "test_condition": "OR",
                    "condition_queries": [],
                }
                for asked, answers in given.items()
            ]
            for name, given in tests.items()
        },
    }


def test_ripple_edits(tmp_path: Path) -> None:
    record = ripple(
        "The name of the country of citizenship of Anna of Kiev is Peru.",
        "COUNTRY_OF_CITIZENSHIP",
        "The name of the country of citizenship of Anna of Kiev is Kievan Rus'.",
        Relation_Specificity={"The gender of Anna of Kiev is": ["female", "woman"], "a": []},
        Logical_Generalization={"The mother tongue of Anna is": ["Spanish"], "b": [""]},
        Compositionality_I={"The mother tongue of Anna is": ["Spanish"]},  # the same once more
        Forgetfulness={"Another country of Anna is": ["France"]},
    )
    [fact] = read_facts(write(tmp_path, "r.json", json.dumps([record])))
    assert fact == Fact(
        "The name of the country of citizenship of {} is", "Anna of Kiev", "Peru", "Kievan Rus'",
        relation="COUNTRY_OF_CITIZENSHIP",
        probes=(
            Probe("The gender of Anna of Kiev is", "female", "same subject"),
            Probe("Another country of Anna is", "France", "same subject"),
            Probe("The mother tongue of Anna is", "Spanish", "portability"),
        ),
    )  # fmt: skip


def test_other_spellings_of_ripple_edits(tmp_path: Path) -> None:
    record = ripple("The gender of Ann is male.", "SEX_OR_GENDER", Relation_Specifity={"a": ["b"]})
    before = {"prompt": "The gender of Ann is female.", "relation": "SEX_OR_GENDER"}
    record["edit"]["previous_fact"] = before
    [fact] = read_facts(write(tmp_path, "r.json", json.dumps([record])))
    assert (fact.truth, fact.probes) == ("female", (Probe("a", "b"),))


@pytest.mark.parametrize(
    ("sentence", "relation", "parts"),
    [
        ("The names of the siblings of Ann Lee are Bo.", "SIBLING",
         ("The names of the siblings of {} are", "Ann Lee", "Bo")),
        ("The name of the country which Kiev is associated with is Peru.", "COUNTRY",
         ("The name of the country which {} is associated with is", "Kiev", "Peru")),
        ("The name of the continent which Peru is part of is Asia.", "CONTINENT",
         ("The name of the continent which {} is part of is", "Peru", "Asia")),
        ("The name of the league which Ann plays in is NBA.", "LEAGUE",
         ("The name of the league which {} plays in is", "Ann", "NBA")),
        ("The name of the award Ann Lee won is Oscar.", "AWARD_RECEIVED",
         ("The name of the award {} won is", "Ann Lee", "Oscar")),
        ("The number of children Ann Lee has is 3.", "NUMBER_OF_CHILDREN",
         ("The number of children {} has is", "Ann Lee", "3")),
        ("The name of the currency in Peru is yen.", "CURRENCY",
         ("The name of the currency in {} is", "Peru", "yen")),
        ("The place of birth of Ann Lee is St. Ives.", "PLACE_OF_BIRTH",
         ("The place of birth of {} is", "Ann Lee", "St. Ives")),
        ("The Odyssey is followed by Ulysses.", "FOLLOWED_BY",
         ("{} is followed by", "The Odyssey", "Ulysses")),
    ],
)  # fmt: skip
def test_the_subject_of_a_ripple_edits_sentence(tmp_path, sentence, relation, parts) -> None:
    [fact] = read_facts(write(tmp_path, "r.json", json.dumps([ripple(sentence, relation)])))
    assert (fact.prompt, fact.subject, fact.target) == parts
    assert fact.truth is None


def test_a_ripple_edits_sentence_without_a_known_frame_is_named(tmp_path: Path) -> None:
    records = [ripple("Is Ann still alive? no.", "IS_ALIVE"), ripple("{}", "X")]
    with pytest.warns(BadRecordWarning, match="record 1: edit: no subject can be told in 'Is Ann"):
        assert read_facts(write(tmp_path, "r.json", json.dumps(records))) == []


def test_mquake_gives_a_fact_for_each_edit_of_a_record(tmp_path: Path) -> None:
    rewrites = [
        {
            "prompt": f"{{}} {verb}", "relation_id": relation, "subject": subject,
            "target_new": {"str": new}, "target_true": {"str": true}, "question": question,
        }
        for verb, relation, subject, new, true, question in (
            ("plays", "P641", "Ann", "golf", "chess", "What does Ann play?"),
            ("was born in", "P495", "golf", "Peru", "Scotland", "Where was golf born?"),
        )
    ]  # fmt: skip
    record = {
        "case_id": 1,
        "requested_rewrite": rewrites,
        "questions": ["Where was Ann's sport born?", "Which land gave us Ann's sport?"],
        "answer": "India",
        "new_answer": "Peru",
        "single_hops": [],
    }
    other = {**record, "requested_rewrite": rewrites[:1]}
    bad = {**record, "requested_rewrite": []}
    with pytest.warns(BadRecordWarning, match="record 2: requested_rewrite: it is empty"):
        facts = read_facts(write(tmp_path, "m.json", json.dumps([record, bad, other])))
    probes = tuple(Probe(question, "Peru", "portability") for question in record["questions"])
    first = Fact("{} plays", "Ann", "golf", "chess", ("What does Ann play?",), relation="P641")
    assert facts == [
        first,
        Fact("{} was born in", "golf", "Peru", "Scotland", ("Where was golf born?",),
             relation="P495", probes=probes),
        replace(first, probes=probes),
    ]  # fmt: skip
    assert facts.records == [1, 1, 3]


def test_knowedit(tmp_path: Path) -> None:
    record = {
        "subject": "Ann Lee",
        "prompt": "The native country of Ann Lee is",
        "target_new": "Peru",
        "ground_truth": ["France", "FR"],
        "rephrase": "Ann Lee comes from",
        "portability": {
            "Logical_Generalization": [{"prompt": "Ann speaks ", "ground_truth": [["Spanish"]]}],
            "Reasoning": [{"prompt": "Ann's capital is", "ground_truth": "Lima"}],
            "Subject_Aliasing": [{"prompt": "Annie comes from", "ground_truth": [["Peru", "PE"]]}],
        },
        "locality": {
            "Relation_Specificity": [{"prompt": "Ann's mother is", "ground_truth": [[]]}],
            "Forgetfulness": [{"prompt": "Ann also comes from", "ground_truth": ["France"]}],
        },
    }
    recent = {key: record[key] for key in ("subject", "prompt", "target_new")}
    records = [record, {**recent, "locality": {}}, {**recent, "subject": "Bo", "locality": {}}]
    with pytest.warns(BadRecordWarning, match="record 3: subject: 'Bo' is not in the prompt"):
        facts = read_facts(write(tmp_path, "k.json", json.dumps(records)))
    assert facts == [
        Fact(
            "The native country of {} is", "Ann Lee", "Peru", "France", ("Ann Lee comes from",),
            probes=(
                Probe("Ann speaks", "Spanish", "portability"),
                Probe("Ann's capital is", "Lima", "portability"),
                Probe("Annie comes from", "Peru", "portability"),
                Probe("Ann also comes from", "France", "same subject"),
            ),
        ),
        Fact("The native country of {} is", "Ann Lee", "Peru"),
    ]  # fmt: skip


def test_bundled_probes_ask_other_relations_of_the_subject() -> None:
    facts = bundled_facts()
    for fact in facts:
        probes = bundled_probes(fact)
        assert len(probes) >= 3
        assert not find_problems([replace(fact, probes=probes)])
        assert fact.text not in [probe.prompt for probe in probes]
        assert all(fact.subject in probe.prompt for probe in probes)
    assert Probe("The currency of France is the") in bundled_probes(facts[0])
    assert bundled_probes(replace(facts[0], relation="P36")) == bundled_probes(facts[0])
    assert bundled_probes(replace(facts[0], relation="")) == ()


def test_bad_records_are_numbered_and_the_good_ones_load(tmp_path: Path) -> None:
    records = [
        {"prompt": "{} is", "subject": "A", "target": "b"},
        {"prompt": "no slot", "subject": "A", "target": "b"},
        "text",
        {"subject": "A"},
        {"prompt": "{} is", "subject": "B", "target": 7},
        {"prompt": "A is", "subject": "X", "target_new": "y", "ground_truth": "z",
         "rephrase_prompt": "r", "locality_prompt": "l", "locality_ground_truth": "g"},
        {"prompt": "{} is", "subject": "B", "target": "c", "neighbors": [{"answer": "x"}]},
    ]  # fmt: skip
    path = write(tmp_path, "mixed.json", json.dumps(records))
    with pytest.warns(
        BadRecordWarning, match="4 of 7 records left out: record 2: prompt: it has 0"
    ):
        facts = read_facts(path)
    assert facts == [
        Fact("{} is", "A", "b"), Fact("{} is", "B", "7"), Fact("{} is", "B", "c")
    ]  # fmt: skip
    assert [r.record for r in facts.rejected] == [2, 3, 4, 6]
    assert facts.records == [1, 5, 7]
    reasons = [r.reason for r in facts.rejected]
    assert "must be an object" in reasons[1]
    assert "it has the fields subject; a fact needs prompt, subject, target" in reasons[2]
    assert "'X' is not in the prompt" in reasons[3]
    assert [(r.record, r.reason) for r in facts.omitted] == [
        (7, "neighbors: number 1 has no prompt")
    ]


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("facts.doc", b"", "ends in .csv, .tsv, .txt, .json, .jsonl"),
        ("facts.csv.gz", b"", "unpack it first"),
        ("facts.xls", b"", "save it as .xlsx"),
        ("facts.json", b"{", "facts.json"),
        ("facts.json", b"{}", "a list of records"),
        ("facts.jsonl", b'{}\n{"a"', "line 2 is not JSON"),
        ("facts.csv", b"a,b\n1,2\n", "the columns prompt, subject, target are missing"),
        ("facts.csv", b"", "facts.csv: it is empty"),
        ("facts.csv", b"\xef\xbb\xbf \n", "it is empty"),
        ("facts.csv", b"prompt,subject,target\n,,\n", "it is empty: there is no row below"),
        ("facts.json", b"", "it is empty"),
        ("facts.jsonl", b"\n\n", "it is empty"),
        ("facts.json", b"[]", "it is empty: there is no record in it"),
        ("facts.json", b'{"data": []}', "it is empty: there is no record in it"),
        ("facts.json", b'[{"a": 1},]', "there is a comma before a closing bracket"),
        ("facts.json", b"[{'a': 1}]", 'stand in double quotes, as "prompt"'),
        ("facts.json", b'[{"a": "b', "it ends in the middle; was it cut off?"),
        ("facts.json", b'[{"a": "b\n"}]', "a text holds a line break or a tab"),
        ("facts.json", b'[{"a": "\\d"}]', "a text holds a single"),
        ("facts.json", b'[{"a" 1}]', "'1}]' does not belong there"),
        ("facts.json", b"7", "but it is a number"),
        ("facts.json", b"\x1f\x8b\x08", "it is packed; unpack it first"),
        ("facts.csv", b"PK\x03\x04", "cannot be read as an Excel file"),
        (
            "facts.json",
            b'{"a": [{"prompt": "x", "subject": "x", "target": "x"}],'
            b' "b": [{"prompt": "x", "subject": "x", "target": "x"}]}',
            "several lists of records, a, b",
        ),
        ("facts.csv", b'prompt,subject,target\n"a"b,c,d\n', "malformed CSV near line 2"),
        ("facts.csv", "Zürich".encode("latin-1"), "not UTF-8"),
    ],
)
def test_unreadable_files_say_why(tmp_path: Path, name: str, content: bytes, match: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FactFileError, match=match):
        read_facts(path)


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(FactFileError, match="it cannot be read: No such file"):
        read_facts(tmp_path / "nothing.csv")


@pytest.mark.parametrize(
    ("name", "least"), [("counterfact-edit.json", 9900), ("zsre_mend_train-1k.json", 900)]
)
@pytest.mark.filterwarnings("ignore::coachhook_viz.reading.BadRecordWarning")
def test_public_sets(shared: Path, name: str, least: int) -> None:
    facts = read_facts(shared / "data" / name)
    assert len(facts) >= least
    assert not find_problems(facts)
    assert all(f.truth and f.paraphrases and f.neighbors for f in facts)
    total = len(json.loads((shared / "data" / name).read_text()))
    assert len(facts) + len(facts.rejected) == total


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *asdict(FACT),
                    "requested_rewrite",
                    "src",
                    "alt",
                    "answers",
                    "loc",
                    "loc_ans",
                    "questions",
                    "new_answer",
                    "example_type",
                    "edit",
                    "target_new",
                    "locality",
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=8,
)


@given(st.lists(json_values, min_size=1, max_size=4))
@pytest.mark.filterwarnings("ignore::coachhook_viz.reading.BadRecordWarning")
def test_any_json_list_loads_or_is_rejected(tmp_path: Path, records: list[object]) -> None:
    assume(not all(isinstance(record, list) for record in records))  # lists of records
    path = write(tmp_path, "any.json", json.dumps(records))
    facts = read_facts(path)
    assert len(facts) + len(facts.rejected) == len(records)


def test_bundled_facts_are_complete() -> None:
    facts = bundled_facts()
    assert len(facts) >= 150
    relations = {fact.relation for fact in facts}
    assert len(relations) >= 12
    assert not find_problems(facts)
    assert not find_conflicts(facts)
    assert len({(fact.prompt, fact.subject) for fact in facts}) == len(facts)
    for fact in facts:
        assert fact.truth
        assert len(fact.paraphrases) == 3
        assert len(fact.neighbors) == 3
        assert all(fact.subject in text for text in fact.paraphrases)
        assert all(n.answer and fact.subject not in n.prompt for n in fact.neighbors)
    assert {f.relation for f in bundled_facts("capital")} == {"capital"}
    with pytest.raises(ValueError, match=r"no relation 'x'; there are .*capital"):
        bundled_facts("x")


@pytest.mark.model
def test_default_model_knows_the_truth_of_at_least_100(lm) -> None:
    """Its own top answer, token by token, before any edit."""
    known = 0
    for fact in bundled_facts():
        prompt, answer = continuation(lm, fact.text, fact.truth or "")
        ids = torch.tensor([prompt + answer])
        with torch.no_grad():
            logits = lm.model(input_ids=ids, logits_to_keep=len(answer) + 1).logits[0, :-1]
        known += logits.argmax(-1).tolist() == answer
        assert prompt == tokenize(lm, fact.text)
    assert known >= 100


@pytest.mark.model
def test_default_model_is_sure_of_many_bundled_probes(lm) -> None:
    """Only those say whether an edit has moved the rest of its subject."""
    prompts = {probe.prompt for fact in bundled_facts() for probe in bundled_probes(fact)}
    unedited = Speaker(lm, EditState.of(lm, EditConfig.for_model(lm)))
    answers = unedited.ask([Question.of(lm, prompt) for prompt in sorted(prompts)])
    assert sum(answer.certainty >= SURE for answer in answers) >= 300


def test_a_row_with_too_many_cells_is_rejected_not_misread(tmp_path: Path) -> None:
    text = "prompt,subject,target\nThe {}, capital of, is,France,Rome\n{} is in,Peru,Asia\n"
    with pytest.warns(BadRecordWarning, match="record 1: it has more cells than columns"):
        facts = read_facts(write(tmp_path, "facts.csv", text))
    assert [fact.subject for fact in facts] == ["Peru"]


def test_line_separators_within_json_lines(tmp_path: Path) -> None:
    """They end no line of JSONL; the record that holds one is looked at on its own."""
    records = [
        {"prompt": "{} is in", "subject": name, "target": "Asia"} for name in ("Peru", "P\u2028eru")
    ]
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    path = write(tmp_path, "facts.jsonl", "\r\n".join(lines))
    with pytest.warns(BadRecordWarning, match=r"record 2: .*U\+2028"):
        [fact] = read_facts(path)
    assert fact.subject == "Peru"


def test_deep_nesting_is_an_error_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(FactFileError):
        read_facts(write(tmp_path, "facts.json", "[" * 100_000))


def test_the_slot_is_put_where_the_whole_word_stands(tmp_path: Path) -> None:
    record = {
        "subject": "Rome",
        "prompt": "Romeo and Juliet is set in, while Rome is",
        "target_new": "red",
        "ground_truth": "blue",
        "rephrase_prompt": "Rome is",
        "locality_prompt": "Oslo is",
        "locality_ground_truth": "blue",
    }
    [fact] = read_facts(write(tmp_path, "facts.json", json.dumps([record])))
    assert fact.prompt == "Romeo and Juliet is set in, while {} is"


@pytest.mark.parametrize(
    ("prompt", "relation"),
    [
        ("The capital of {} is", "capital"),
        ("the capital  of {} is", "capital"),
        ("What is the capital of {}?", "capital"),
        ("{}'s capital city is", ""),  # of a country or of a state
        ("The {} is located in the city of", "landmark"),
        ("{} is a professional player of", "sport"),
        ("{} is located in the country of", "city"),
        ("The mother of {} is located in the country of", ""),
        ("{} is", ""),
        ("The largest lake of {} is", ""),
    ],
)
def test_relation_that_a_prompt_asks_for(prompt: str, relation: str) -> None:
    assert known_relation(prompt) == relation


def test_foils_for_a_kind_of_subject_stand_beside_those_for_any() -> None:
    plain, country = bundled_foils(), bundled_foils("capital")
    assert country == bundled_foils("P36")
    assert country.prompts[: len(plain.prompts)] == plain.prompts
    assert len(country.prompts) > len(plain.prompts)
    assert bundled_foils("of nobody") == plain
    for relation, known in bundled_wordings().items():
        foils = {alike(text) for text in bundled_foils(relation).prompts}
        assert len(foils) > len(plain.prompts), relation
        assert known.prompts
