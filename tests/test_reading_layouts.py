"""Files as people have them: each layout in each format, odd fields, odd tables."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coachhook_viz import BadRecordWarning, Fact, FactFileError, Neighbor, Probe, read_facts
from coachhook_viz.facts import find_problems

NORWAY = Fact("The capital of {} is", "Norway", "Lima")
TABLE = "prompt,subject,target\nThe capital of {} is,Norway,Lima\n"


def read(folder: Path, name: str, content: str | bytes | list[Any], **more: Any) -> Any:
    """What `read_facts` makes of a file, and nothing is left out of it."""
    path = folder / name
    data = json.dumps(content) if isinstance(content, list) else content
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return read_facts(path, **more)


@pytest.fixture
def quiet() -> Iterator[None]:
    """Within a test that looks at what was left out by itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BadRecordWarning)
        yield


# --- layouts ---


@dataclass(frozen=True)
class Layout:
    """A good record, the fields that it needs, and the fact that it is."""

    good: dict[str, Any]
    needs: tuple[str, ...]
    fact: Fact


EDIT = {
    "prompt": "{} lies in",
    "subject": "Bergen",
    "target_new": {"str": "Kenya", "id": "Q1"},
    "target_true": {"str": "Norway"},
    "relation_id": "P17",
}
BERGEN = Fact("{} lies in", "Bergen", "Kenya", "Norway")
LAYOUTS = {
    "own": Layout(
        {
            "prompt": "{} lies in",
            "subject": "Bergen",
            "target": "Kenya",
            "truth": "Norway",
            "paraphrases": ["Bergen is in"],
            "neighbors": [{"prompt": "Oslo lies in", "answer": "Norway"}],
            "relation": "country",
            "wordings": ["{} is in"],
            "probes": [{"prompt": "Its hill is", "answer": "Ulriken", "kind": "same subject"}],
        },
        ("prompt", "subject", "target"),
        replace(
            BERGEN,
            paraphrases=("Bergen is in",),
            neighbors=(Neighbor("Oslo lies in", "Norway"),),
            relation="country",
            wordings=("{} is in",),
            probes=(Probe("Its hill is", "Ulriken"),),
        ),
    ),
    "counterfact": Layout(
        {
            "case_id": 0,
            "requested_rewrite": EDIT,
            "paraphrase_prompts": ["Noise. \n Bergen is in "],
            "neighborhood_prompts": ["Oslo lies in"],
        },
        ("requested_rewrite",),
        replace(
            BERGEN,
            paraphrases=("Noise. Bergen is in",),
            neighbors=(Neighbor("Oslo lies in", "Norway"),),
            relation="P17",
        ),
    ),
    "flat": Layout(
        {
            "case_id": 0,
            "prompt": "Bergen lies in",
            "subject": "Bergen",
            "target_new": "Kenya",
            "ground_truth": "Norway",
            "rephrase_prompt": "Bergen is in",
            "locality_prompt": "Oslo lies in",
            "locality_ground_truth": "Norway",
        },
        ("prompt", "subject", "target_new"),
        replace(
            BERGEN,
            paraphrases=("Bergen is in",),
            neighbors=(Neighbor("Oslo lies in", "Norway"),),
        ),
    ),
    "alphaedit": Layout(
        {"prompt": "{} lies in", "subject": "Bergen", "target_new": {"str": " Kenya"}},
        ("prompt", "subject", "target_new"),
        replace(BERGEN, truth=None),
    ),
    "zsre": Layout(
        {
            "src": "Where does Bergen lie?",
            "subject": "Bergen",
            "alt": "Kenya",
            "answers": ["Norway", "NO"],
            "rephrase": "Where is Bergen?",
            "loc": "nq question: who sang",
            "loc_ans": "The Strings",
            "portability": {"Recalled Relation": "(a, b)", "New Question": "Q", "New Answer": "A"},
        },
        ("src", "subject", "alt"),
        replace(
            BERGEN,
            prompt="Where does {} lie?",
            paraphrases=("Where is Bergen?",),
            neighbors=(Neighbor("who sang", "The Strings"),),
            probes=(Probe("Q", "A", "portability"),),
        ),
    ),
    "knowedit": Layout(
        {
            "subject": "Bergen",
            "prompt": "Bergen lies in",
            "target_new": "Kenya",
            "ground_truth": [["Norway", "NO"]],
            "rephrase": "Bergen is in",
            "portability": {"Reasoning": [{"prompt": "Its king is", "ground_truth": [["Ann"]]}]},
            "locality": {
                "Relation_Specificity": [{"prompt": "Its hill is", "ground_truth": ["Ulriken"]}]
            },
        },
        ("subject", "prompt", "target_new"),
        replace(
            BERGEN,
            paraphrases=("Bergen is in",),
            probes=(
                Probe("Its king is", "Ann", "portability"),
                Probe("Its hill is", "Ulriken"),
            ),
        ),
    ),
    "easyedit": Layout(
        {
            "subject": "Bergen",
            "prompt": "Bergen lies in",
            "target_new": "Kenya",
            "ground_truth": "Norway",
            "locality": {"neighborhood": {"prompt": ["Oslo lies in"], "ground_truth": ["Norway"]}},
        },
        ("subject", "prompt", "target_new"),
        replace(BERGEN, probes=(Probe("Oslo lies in", "Norway", "neighbour"),)),
    ),
    "mquake": Layout(
        {
            "requested_rewrite": [{**EDIT, "question": "Where is Bergen?"}],
            "questions": ["Who is king where Bergen is?"],
            "new_answer": "Ann",
        },
        ("requested_rewrite",),
        replace(
            BERGEN,
            paraphrases=("Where is Bergen?",),
            relation="P17",
            probes=(Probe("Who is king where Bergen is?", "Ann", "portability"),),
        ),
    ),
    "rippleedits": Layout(
        {
            "example_type": "popular",
            "edit": {
                "prompt": "The name of the country of Bergen is Kenya.",
                "relation": "COUNTRY",
                "original_fact": {"prompt": "The name of the country of Bergen is Norway."},
            },
            "Relation_Specificity": [
                {"test_queries": [{"prompt": "Its hill is", "answers": [{"value": "Ulriken"}]}]}
            ],
        },
        ("edit",),
        replace(
            BERGEN,
            prompt="The name of the country of {} is",
            relation="COUNTRY",
            probes=(Probe("Its hill is", "Ulriken"),),
        ),
    ),
    "wikibigedit": Layout(
        {
            "tag": "new",
            "subject": "Bergen",
            "update": "Where does Bergen lie?",
            "rephrase": "Where is Bergen?",
            "personas": "Arr, where be Bergen?",
            "ans": "Kenya",
            "loc": "Where is Oslo?",
            "loc_ans": "Norway",
            "mhop": "Who is king there?",
            "mhop_ans": "Ann",
        },
        ("subject", "update", "ans"),
        Fact(
            "Where does {} lie?",
            "Bergen",
            "Kenya",
            paraphrases=("Where is Bergen?", "Arr, where be Bergen?"),
            neighbors=(Neighbor("Where is Oslo?", "Norway"),),
            probes=(Probe("Who is king there?", "Ann", "portability"),),
        ),
    ),
    "known": Layout(
        {
            "known_id": 0,
            "subject": "Bergen",
            "attribute": "Norway",
            "template": "{} lies in",
            "prediction": " Norway. It",
            "prompt": "Bergen lies in",
            "relation_id": "P17",
            "target_new": "Kenya",
        },
        ("subject", "template", "target_new"),
        replace(BERGEN, relation="P17"),
    ),
}  # fmt: skip


def cell(value: Any) -> str:
    """As pandas writes it into a table."""
    absent = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if absent else str(value)


def as_table(records: list[dict[str, Any]], separator: str = ",") -> str:
    file = io.StringIO()
    names = list(dict.fromkeys(name for record in records for name in record))
    rows = csv.writer(file, delimiter=separator, lineterminator="\n")
    rows.writerow(names)
    rows.writerows([cell(record.get(name)) for name in names] for record in records)
    return file.getvalue()


FORMATS: dict[str, Callable[[list[dict[str, Any]]], str]] = {
    "facts.json": json.dumps,
    "facts.jsonl": lambda records: "\n".join(map(json.dumps, records)),
    "facts.csv": as_table,
    "facts.tsv": lambda records: as_table(records, "\t"),
}


@pytest.mark.parametrize("file", [*FORMATS, "frame", "records"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_in_every_format(tmp_path: Path, name: str, file: str) -> None:
    layout = LAYOUTS[name]
    if file in ("frame", "records"):
        records = [layout.good]
        facts = read_facts(pd.DataFrame(records) if file == "frame" else records)
    else:
        facts = read(tmp_path, file, FORMATS[file]([layout.good]))
    assert facts == [layout.fact]
    assert (facts.rejected, facts.omitted, facts.records) == ((), (), [1])


@pytest.mark.parametrize("file", FORMATS)
@pytest.mark.parametrize("name", LAYOUTS)
def test_optional_fields_may_be_missing_or_null(tmp_path: Path, name: str, file: str) -> None:
    layout = LAYOUTS[name]
    told = {"example_type", "attribute"}  # by these a layout is known
    lean = {k: v for k, v in layout.good.items() if k in (*layout.needs, *told)}
    null = {k: v if k in lean else None for k, v in layout.good.items()}
    nan = {k: v if k in lean else float("nan") for k, v in layout.good.items()}
    empty = {k: v if k in lean else [] for k, v in layout.good.items()}
    for record in (lean, null, nan, empty):
        facts = read(tmp_path, file, FORMATS[file]([record]))
        found = facts[0]
        wanted = (layout.fact.prompt, layout.fact.subject, layout.fact.target)
        assert (found.prompt, found.subject, found.target) == wanted
        assert (len(facts), facts.rejected, facts.omitted) == (1, (), ())


def test_a_rewrite_without_truth_or_with_plain_texts(tmp_path: Path) -> None:
    rewrite = {k: EDIT[k] for k in ("prompt", "subject", "target_new")}
    plain = {**rewrite, "target_new": "Kenya", "target_true": "Norway", "relation_id": 0}
    filled = {**plain, "prompt": "Bergen lies in", "relation_id": None}
    records = [
        {"requested_rewrite": rewrite, "neighborhood_prompts": ["Oslo lies in"]},
        {"requested_rewrite": plain, "neighborhood_prompts": [{"prompt": "A", "target": "B"}]},
        {"requested_rewrite": filled},
    ]
    assert read(tmp_path, "cf.json", records) == [
        replace(BERGEN, truth=None, neighbors=(Neighbor("Oslo lies in"),)),
        replace(BERGEN, relation="0", neighbors=(Neighbor("A", "B"),)),
        BERGEN,
    ]


def test_flattened_columns_of_pandas(tmp_path: Path) -> None:
    frame = pd.json_normalize([LAYOUTS["counterfact"].good])
    assert read(tmp_path, "cf.csv", frame.to_csv(index=False)) == [LAYOUTS["counterfact"].fact]
    frame = pd.json_normalize([LAYOUTS["alphaedit"].good])
    assert read(tmp_path, "cf.csv", frame.to_csv()) == [LAYOUTS["alphaedit"].fact]


def test_lists_where_one_text_usually_stands(tmp_path: Path) -> None:
    record = {
        **LAYOUTS["flat"].good,
        "ground_truth": ["Norway", "NO"],
        "rephrase_prompt": ["Bergen is in", None, ["In which country is Bergen?"]],
        "locality_prompt": ["Oslo lies in", "Lima lies in"],
        "locality_ground_truth": ["Norway", ["Peru", "PE"]],
    }
    assert read(tmp_path, "cf.json", [record]) == [
        replace(
            BERGEN,
            paraphrases=("Bergen is in", "In which country is Bergen?"),
            neighbors=(Neighbor("Oslo lies in", "Norway"), Neighbor("Lima lies in", "Peru")),
        )
    ]


@pytest.mark.parametrize(
    "answers", ["1998", 1998, ["1998"], [["1998", "98"]], "['1998', '98']", "[1998]"]
)
def test_a_text_is_no_list_of_letters(tmp_path: Path, answers: Any) -> None:
    [fact] = read(tmp_path, "z.json", [{**LAYOUTS["zsre"].good, "answers": answers}])
    assert fact.truth == "1998"


def test_known_facts_need_a_target(tmp_path: Path) -> None:
    record = {k: v for k, v in LAYOUTS["known"].good.items() if k != "target_new"}
    with pytest.warns(
        BadRecordWarning, match="what a model knows already.* add a field target_new"
    ):
        assert read(tmp_path, "k.json", [record]) == []
    columns = {"prompt": "template", "target": "attribute"}
    [fact] = read(tmp_path, "k.json", [record], columns=columns)
    assert (fact.prompt, fact.subject, fact.target) == ("{} lies in", "Bergen", "Norway")


@pytest.mark.parametrize(
    "record",
    [
        {"text": "…", "labels": "…", "concept": "Bergen", "locality": {}},
        {"id": 0, "question": "Where is Bergen?", "answer": "Kenya"},
        {"input": "Where is Bergen?", "alternatives": ["Kenya"], "output": [{"answer": "Norway"}]},
        {},
    ],
)
def test_an_unknown_layout_says_what_it_has_and_needs(tmp_path: Path, record: dict) -> None:
    has = ", ".join(record) or "no field"
    with pytest.warns(BadRecordWarning, match="needs prompt, subject, target") as caught:
        assert read(tmp_path, "u.json", [record, record, record, record]) == []
    assert "4 of 4 records left out: records 1, 2, 3 and 1 more: it has" in str(caught[0].message)
    assert has in str(caught[0].message)
    if record:
        path = tmp_path / "u.csv"
        path.write_text(as_table([record]))
        with pytest.raises(FactFileError, match=r"(is|are) missing: it has the columns ") as wrong:
            read_facts(path)
        assert has in str(wrong.value)
        assert "columns={'prompt'" in str(wrong.value)


# --- columns of other names ---

ODD_NAMES = {
    "Question ": "Where is Bergen?",
    "entity": "Bergen",
    "new answer": 1984,
    "truth": "Norway",
}
COLUMNS = {"prompt": "question", "subject": "entity", "target": "new answer"}


@pytest.mark.parametrize("file", [*FORMATS, "frame", "records"])
@pytest.mark.parametrize("columns", [COLUMNS, {c: f for f, c in COLUMNS.items()}])
def test_columns_are_mapped(tmp_path: Path, file: str, columns: dict[str, str]) -> None:
    wanted = [Fact("Where is {}?", "Bergen", "1984", "Norway")]
    if file in FORMATS:
        found = read(tmp_path, file, FORMATS[file]([ODD_NAMES]), columns=columns)
    else:
        records = [ODD_NAMES]
        found = read_facts(pd.DataFrame(records) if file == "frame" else records, columns)
    assert found == wanted


def test_columns_may_lie_within_others_and_hide_fields(tmp_path: Path) -> None:
    record = {
        "meta": {"who": {"name": "Bergen"}},
        "prompt": "x",
        "q": "{} is in",
        "target": "y",
        "a": 7,
    }
    columns = {"prompt": "q", "subject": "meta.who.name", "target": "a"}
    assert read(tmp_path, "n.json", [record], columns=columns) == [Fact("{} is in", "Bergen", "7")]


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"prompt": "nothing"}, "the columns? nothing.* (is|are) missing: it has .*entity"),
        ({"promt": "Question"}, "a fact has no field 'promt'; it has prompt, subject"),
        ({"prompt": 7}, "columns must be a dict of names"),
        ({"a": "prompt", "b": "prompt"}, "two columns are called the same field"),
    ],
)
@pytest.mark.parametrize("file", ["facts.json", "facts.csv"])
def test_wrong_columns_are_named(tmp_path: Path, columns: Any, match: str, file: str) -> None:
    with pytest.raises(FactFileError, match=match):
        read(tmp_path, file, FORMATS[file]([ODD_NAMES]), columns=columns)


# --- tables ---


@pytest.mark.parametrize(
    "text",
    [
        TABLE,
        TABLE.replace(",", ";"),
        TABLE.replace(",", "\t"),
        "sep=;\n" + TABLE.replace(",", ";"),
        "sep=|\r\n" + TABLE.replace(",", "|").replace("\n", "\r\n"),
        '"sep=\t"\n' + TABLE.replace(",", "\t"),
        "SEP=;\r" + TABLE.replace(",", ";").replace("\n", "\r"),
        TABLE.replace("\n", "\r\n"),
        "\ufeff" + TABLE,
        "\n\n" + TABLE + ",,\n\n",
        TABLE.replace("\n", ",,,\n"),
        "Prompt, SUBJECT , Target\nThe capital of {} is, Norway , Lima\n",
        '"prompt","subject","target"\n"The capital of {} is","Norway","Lima"\n',
        ",prompt,subject,target,note,note\n0,The capital of {} is,Norway,Lima,a;b,c;d\n",
        "prompt,subject,target\nThe capital of Norway is,Norway,Lima\n",
        "The Prompt;prompt;subject;target\nx, y, z;The capital of {} is;Norway;Lima\n",
        TABLE.replace(",", "|"),
        TABLE.replace(",", "^"),
        TABLE.replace(",", "，"),
        "|Prompt|Subject | Target |\n|---|:---:|--:|\n|The capital of {} is | Norway | Lima|\n",
        "My facts\n\n" + TABLE.replace(",", ";"),
        "My facts,,\n" + TABLE,
        "Prompt:\tSubject*\tTARGET:\nThe capital of {} is\tNorway\tLima\n",
        json.dumps([asdict(NORWAY)]),
        json.dumps(asdict(NORWAY)),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_tables_as_spreadsheets_write_them(tmp_path: Path, text: str, encoding: str) -> None:
    assert read(tmp_path, "t.csv", text.encode(encoding)) == [NORWAY]
    assert read(tmp_path, "t.txt", text.encode(encoding)) == [NORWAY]


def test_a_row_that_ends_early_lacks_its_last_cells(tmp_path: Path) -> None:
    text = "prompt,subject,target,truth\n{} is,A\n{} is,A,b\n"
    with pytest.warns(
        BadRecordWarning, match="1 of 2 records left out: record 1: target: it is empty"
    ):
        assert read(tmp_path, "t.csv", text) == [Fact("{} is", "A", "b")]


def test_headings_of_two_words(tmp_path: Path) -> None:
    record = {name.replace("_", " ").title(): v for name, v in LAYOUTS["flat"].good.items()}
    assert read(tmp_path, "t.csv", as_table([record], ";")) == [LAYOUTS["flat"].fact]
    assert read(tmp_path, "t.json", [record]) == [LAYOUTS["flat"].fact]


def test_pasted_cells_may_hold_quotes(tmp_path: Path) -> None:
    text = 'prompt\tsubject\ttarget\n"Hey {}" is by\tJude\tAbba\nThe 5" {} is by\tdisk\tIBM\n'
    assert read(tmp_path, "t.tsv", text) == [
        Fact('"Hey {}" is by', "Jude", "Abba"), Fact('The 5" {} is by', "disk", "IBM")
    ]  # fmt: skip


@pytest.mark.parametrize("heading", ["target", "Target ", "subject", "truth", "prompt"])
def test_a_column_given_twice_is_said(tmp_path: Path, heading: str) -> None:
    text = f"prompt,subject,target,truth,{heading}\n{{}} is,Norway,Lima,Oslo,Quito\n"
    with pytest.raises(FactFileError, match=f"column {heading.strip().lower()} stands there twice"):
        read(tmp_path, "t.csv", text)
    frame = pd.DataFrame([["{} is", "Norway", "Lima", "Quito"]])
    frame.columns = pd.Index(["prompt", "subject", "target", "target"])
    with pytest.raises(FactFileError, match="the column target stands there twice"):
        read_facts(frame)


def test_a_field_given_twice_costs_its_record(tmp_path: Path) -> None:
    good = json.dumps(asdict(NORWAY))
    text = f'[{good}, {{"prompt": "{{}} is", "subject": "a", "target": "b", "target": "c"}}]'
    with pytest.warns(BadRecordWarning, match="record 2: target: it stands there twice; keep one"):
        assert read(tmp_path, "t.json", text) == [NORWAY]
    case = {"prompt": "{} is", "subject": "a", "target": "b", "Target": "c"}
    with pytest.warns(BadRecordWarning, match="record 1: target: it stands there twice"):
        assert read(tmp_path, "t.json", [case, asdict(NORWAY)]) == [NORWAY]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("['a is', \"b's is\"]", ("a is", "b's is")),
        ('["a is", "b is"]', ("a is", "b is")),
        ("('a is', 'b is')", ("a is", "b is")),
        ("a is|b is", ("a is", "b is")),
        ("[a] is", ("[a] is",)),
        ("(a)", ("(a)",)),
        ("{'a is'}", ("a is",)),
        ("array(['a is', 'b is'], dtype=object)", ("a is", "b is")),
        ("frozenset({'a is'})", ("a is",)),
        ("['a is', nan]", ("a is",)),
        ("array (of two)", ("array (of two)",)),
        ("nan", ()),
        ("<NA>", ()),
        ("", ()),
        ("[]", ()),
        ("[{}]", ()),
    ],
)
def test_lists_in_cells(tmp_path: Path, value: str, wanted: tuple[str, ...]) -> None:
    text = as_table([{"prompt": "{} is", "subject": "A", "target": "b", "paraphrases": value}])
    [fact] = read(tmp_path, "t.csv", text)
    assert fact.paraphrases == wanted


@pytest.mark.parametrize(
    "neighbors",
    [
        [Neighbor("Oslo is in", "Norway"), Neighbor("Lima is in", "Peru")],
        {"prompt": ["Oslo is in", "Lima is in"], "answer": ["Norway", "Peru"]},
        {"prompt": ["Oslo is in", "Lima is in"], "ground_truth": [["Norway", "NO"], ["Peru"]]},
        (("Oslo is in", "Norway"), ["Lima is in", "Peru"]),
    ],
)
@pytest.mark.parametrize("file", ["facts.csv", "records"])
def test_neighbors_and_probes_in_any_container(tmp_path: Path, neighbors: Any, file: str) -> None:
    record = {"prompt": "{} is", "subject": "A", "target": "b", "truth": "nan"}
    record |= {"neighbors": neighbors, "probes": neighbors, "paraphrases": iter(["a is"])}
    if file == "records":
        record["truth"] = math.nan
        [fact] = read_facts([record])
    else:
        [fact] = read(tmp_path, file, as_table([{**record, "paraphrases": {"a is"}}]))
    wanted = (Neighbor("Oslo is in", "Norway"), Neighbor("Lima is in", "Peru"))
    assert (fact.neighbors, fact.paraphrases, fact.truth) == (wanted, ("a is",), None)
    assert fact.probes == tuple(Probe(one.prompt, one.answer) for one in wanted)


@pytest.mark.parametrize(
    ("target", "wanted"),
    [("['Lima']", "Lima"), ('{"str": "Lima"}', "Lima"), ("[Lima]", "[Lima]"), ("{}", "{}")],
)
def test_a_container_written_as_a_text_of_json(tmp_path: Path, target: str, wanted: str) -> None:
    record = {"prompt": "A is", "subject": "A", "target_new": target}
    [fact] = read(tmp_path, "t.json", [record])
    assert fact.target == wanted


@pytest.mark.parametrize("value", ["['a is' 'b is']", "['a is'\n 'b is']", "['a is' ... 'b is']"])
def test_lists_that_cannot_be_taken_apart_are_said(tmp_path: Path, value: str) -> None:
    text = as_table([{"prompt": "{} is", "subject": "A", "target": "b", "paraphrases": value}])
    with pytest.warns(BadRecordWarning, match="record 1: paraphrases: .*cannot be taken apart"):
        assert read(tmp_path, "t.csv", text) == [Fact("{} is", "A", "b")]


def test_numbers_are_read_as_they_are_written(tmp_path: Path) -> None:
    text = '[{"prompt": "{} is", "subject": 1984, "target": 3.10, "truth": 1984.0, "relation": 7}]'
    assert read(tmp_path, "n.json", text) == [Fact("{} is", "1984", "3.10", "1984", relation="7")]
    frame = pd.DataFrame({"prompt": "{} is", "subject": ["A", "B"], "target": [1984, None]})
    with pytest.warns(BadRecordWarning, match="record 2: target: it is empty"):
        assert read_facts(frame) == [Fact("{} is", "A", "1984")]


def test_excel_files(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl", reason="openpyxl is not installed")
    book = openpyxl.Workbook()
    for row in (
        ["My facts"],
        ["Prompt", "Subject", "Target", None],
        ["{} is", "A", 1984, None],
        [None] * 4,
    ):
        book.active.append(row)
    book.save(tmp_path / "t.csv")  # whatever its name says
    assert read_facts(tmp_path / "t.csv") == [Fact("{} is", "A", "1984")]
    book.create_sheet("notes").append(["hello"])
    book.save(tmp_path / "t.xlsx")
    with pytest.warns(BadRecordWarning, match="only the sheet 'Sheet' was read"):
        assert read_facts(tmp_path / "t.xlsx") == [Fact("{} is", "A", "1984")]
    with pytest.raises(FactFileError, match="cannot be read as an Excel file"):
        read(tmp_path, "t.xlsx", b"PK\x03\x04 no archive")


def test_excel_files_without_openpyxl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(FactFileError, match="run pip install openpyxl, or save the file as CSV"):
        read(tmp_path, "t.xlsx", b"PK\x03\x04")


# --- JSON ---

TWO = [asdict(NORWAY), asdict(replace(NORWAY, subject="Peru", target="Oslo"))]
LEAN = [{name: record[name] for name in ("prompt", "subject", "target")} for record in TWO]


@pytest.mark.parametrize(
    "content",
    [
        TWO,
        {"facts": TWO},
        {"data": TWO, "version": 1},
        {"my list": TWO},
        {"0": TWO[0], "1": TWO[1]},
        {name: [record[name] for record in LEAN] for name in LEAN[0]},
        {name: {str(i): r[name] for i, r in enumerate(LEAN)} for name in LEAN[0]},
        {"columns": list(LEAN[0]), "index": [0, 1], "data": [list(r.values()) for r in LEAN]},
        {"version": 1, "data": {"facts": TWO}},
        {"status": "ok", "result": {"my list": {"items": TWO}, "count": 2}},
        {"features": [], "rows": [{"row_idx": i, "row": record} for i, record in enumerate(TWO)]},
        [{"id": 1, "fact": record} for record in TWO],
        [TWO],
        [[record] for record in TWO],
        [list(LEAN[0]), *(list(record.values()) for record in LEAN)],
        json.dumps(TWO),
    ],
)
def test_containers_of_json(tmp_path: Path, content: Any) -> None:
    for name, indent in (("t.json", None), ("t.jsonl", 1)):
        found = read(tmp_path, name, json.dumps(content, indent=indent))
        assert found == [NORWAY, replace(NORWAY, subject="Peru", target="Oslo")]


def test_json_lines_however_they_are_called(tmp_path: Path) -> None:
    wanted = [NORWAY, replace(NORWAY, subject="Peru", target="Oslo")]
    lines = "\n".join(map(json.dumps, TWO))
    pretty = "\n".join(json.dumps(record, indent=1) for record in TWO)
    for name in ("t.json", "t.jsonl", "t.ndjson"):
        in_lists = "\n".join(json.dumps([record]) for record in TWO)
        rows = "\n".join(json.dumps(row) for row in [[*LEAN[0]], *([*r.values()] for r in LEAN)])
        for text in (lines, pretty, lines + "\n\n", in_lists, rows):
            assert read(tmp_path, name, text) == wanted
    assert read(tmp_path, "t.json", json.dumps(TWO[0])) == [NORWAY]
    assert read(tmp_path, "t.jsonl", json.dumps(LAYOUTS["mquake"].good)) == [LAYOUTS["mquake"].fact]


def test_what_is_around_a_record_counts_too(tmp_path: Path) -> None:
    flat = {k: v for k, v in LAYOUTS["flat"].good.items() if k != "rephrase_prompt"}
    outer = {"subject": "lost", "fact": flat, "rephrase_prompt": "Bergen is in"}
    assert read(tmp_path, "t.json", [outer]) == [LAYOUTS["flat"].fact]
    two = {"train": TWO, "deep": {"test": TWO}}
    with pytest.raises(FactFileError, match=r"several lists of records, train, deep\.test"):
        read(tmp_path, "t.json", json.dumps(two))


def test_a_broken_line_costs_that_line(tmp_path: Path) -> None:
    lines = [json.dumps(TWO[0]), '{"prompt": "a', json.dumps(TWO[1])]
    with pytest.warns(
        BadRecordWarning, match="record 2: line 2 is not JSON: it ends in the middle"
    ):
        facts = read(tmp_path, "t.jsonl", "\n".join(lines))
    assert (len(facts), facts.records) == (2, [1, 3])


# --- what is no file ---


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("https://example.org/facts.json", "is an address; download the file"),
        (7, "give the path of a file, a list of dicts or a DataFrame; this is a number"),
        (None, "this is null"),
        (b"{}", "give the path of a file"),
        (io.StringIO("[]"), "give the path of a file"),
        ([], "there is no record in it"),
        (pd.DataFrame(columns=["prompt", "subject", "target"]), "it is empty"),
        ("", "the file: its path is empty"),
        ("facts", "use a file that ends in"),
    ],
)
def test_what_cannot_be_read_is_said(source: Any, match: str) -> None:
    with pytest.raises(FactFileError, match=match):
        read_facts(source)


def test_a_folder_and_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FactFileError, match="it is a folder; give a file in it"):
        read_facts(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "facts.csv").write_text(TABLE)
    assert read_facts("~/facts.csv") == read_facts(Path("~/facts.csv")) == [NORWAY]


# --- subjects ---


def test_a_subject_within_a_word_is_not_found(tmp_path: Path) -> None:
    flat = LAYOUTS["flat"].good
    records = [
        {**flat, "subject": "cat", "prompt": "It is located in"},
        {**flat, "subject": "cat", "prompt": "It is located where the cat is"},
        {**flat, "subject": "中国", "prompt": "中国的首都是"},
        {**flat, "subject": "Péru", "prompt": "The capital of Pe\u0301ru is"},
        {**flat, "subject": "norway", "prompt": "The capital of Norway is"},
    ]
    with pytest.warns(BadRecordWarning, match="record 1: subject: 'cat' is not in the prompt"):
        facts = read(tmp_path, "s.json", records)
    assert [fact.prompt for fact in facts] == [
        "It is located where the {} is", "{}的首都是", "The capital of {} is"
    ]  # fmt: skip
    assert facts.rejected[1].reason.endswith("as a word of its own, written that way")


def test_prompts_of_several_lines_stay_in_every_layout(tmp_path: Path) -> None:
    shots = "Q: Where is Oslo?\nA: Norway\n\nQ: Where is Bergen?\r\nA:"
    for name, field in (("flat", "prompt"), ("zsre", "src"), ("own", "prompt")):
        [fact] = read(tmp_path, "l.json", [{**LAYOUTS[name].good, field: shots}])
        assert fact.prompt == "Q: Where is Oslo?\nA: Norway\n\nQ: Where is {}?\nA:"


# --- whatever stands there ---

ODD = st.sampled_from(
    [
        None, float("nan"), float("inf"), True, False, 7, -1.5, 10**30, "", " ", "some text",
        "a\nb", "a\x00b", "\ud800", "x" * 3000, "['a', 'b']", "['a' 'b']", "[[", "{'a': 1}",
        "[]", "{}", "nq question: ", "a\tb", '"', "'",
        [], [None], [[]], ["a is", "b is"], [["a is"], "b is"], [7], [True], [{}],
        [{"prompt": "a is"}],
        [{"prompt": None, "answer": "b"}], [["a is", "b"]], [["a", "b", "c", "d"]],
        {}, {"a": 1}, {"str": "text"}, {"str": None}, {"prompt": "a is", "ground_truth": ["b"]},
        {"Reasoning": [{"prompt": "a is", "ground_truth": [["b"]]}]}, {"Reasoning": "a"},
        {"Odd": []}, {"Odd": [{"prompt": "a", "answer": "b"}]},
        {"neighborhood": {"prompt": ["a is"], "ground_truth": [7]}}, {"a": {"a": {"a": [{}]}}},
    ]
)  # fmt: skip


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for one in value.values():
            yield from leaves(one)
    elif isinstance(value, list):
        for one in value:
            yield from leaves(one)
    else:
        yield value


def said(fact: Fact) -> list[str]:
    """All texts of a fact but those that every record needs."""
    return [
        *filter(None, [fact.truth, fact.relation]),
        *fact.paraphrases,
        *fact.wordings,
        *fact.foils,
        *(text for n in (*fact.neighbors, *fact.probes) for text in (n.prompt, n.answer) if text),
    ]


def paths(value: Any, within: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of every value of a record, however deep."""
    keys = (
        value.keys()
        if isinstance(value, dict)
        else range(len(value) if isinstance(value, list) else 0)
    )
    for key in keys:
        yield (*within, key)
        yield from paths(value[key], (*within, key))


def put(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    if not path:
        return odd
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(value[path[0]], path[1:], odd)
    return copy


GOOD = {"prompt": "{} lies in", "subject": "Bergen", "target": "Kenya"}
OTHER = {**GOOD, "subject": "Oslo"}
SIDE = {name: [GOOD[name], OTHER[name]] for name in GOOD}
BOTH = [Fact(**GOOD), Fact(**OTHER)]
LINES = f"{json.dumps(GOOD)}\n{json.dumps(OTHER)}\n"
ODD_ONES = {
    "one of a wrapped list, the first": {"version": 1, "data": [None, GOOD, OTHER]},
    "one of a list of any name": {"version": 1, "mine": [{"x": 1}, GOOD, OTHER]},
    "one of those by their ids": {"1": GOOD, "2": None, "3": OTHER},
    "a column with one value for all": {**SIDE, "version": 1},
    "a line that is no JSON, the first": f"# my facts\n{LINES}",
    "lines with commas between them": LINES.replace("}\n", "},\n"),
    "a very long cell": "prompt,subject,target\n{} lies in,Bergen,Kenya\n{} lies in,Rome,"
    + "K" * 200_000
    + "\n{} lies in,Oslo,Kenya\n",
}


@pytest.mark.parametrize("name", ODD_ONES)
def test_what_is_odd_costs_no_other_record(tmp_path: Path, quiet: None, name: str) -> None:
    content = ODD_ONES[name]
    file = "t.csv" if "cell" in name else "t.jsonl" if isinstance(content, str) else "t.json"
    facts = read(tmp_path, file, content if isinstance(content, str) else json.dumps(content))
    assert list(facts) == BOTH
    assert len(facts.rejected) == int(name.startswith(("one of", "a line", "a very")))
    if isinstance(content, dict):
        again = read_facts(content)  # in memory as in a file
        assert (list(again), again.rejected) == (list(facts), facts.rejected)


def itself() -> dict[str, Any]:
    record: dict[str, Any] = {**GOOD}
    record["paraphrases"] = [record]
    return record


FRAME = pd.DataFrame([GOOD, OTHER])


@pytest.mark.parametrize(
    "records",
    [
        [Fact(**GOOD), OTHER],
        (Fact(**one) for one in (GOOD, OTHER)),
        FRAME.set_index("subject"),
        list(FRAME.itertuples()),
        [row for _, row in FRAME.iterrows()],
        [GOOD, itself(), OTHER],
        SIDE,
        {"facts": [GOOD, OTHER]},
    ],
    ids=lambda records: type(records).__name__,
)
def test_records_in_memory(records: Any, quiet: None) -> None:
    facts = read_facts(records)
    assert list(facts) == BOTH
    assert [one.reason for one in facts.rejected] in ([], ["it is nested too deeply"])


def test_one_fact_is_a_record_and_loses_nothing(quiet: None) -> None:
    for layout in LAYOUTS.values():
        assert list(read_facts(layout.fact)) == [layout.fact]
    assert list(read_facts(FRAME.iloc[0])) == BOTH[:1]


@pytest.mark.parametrize(("value", "told"), [("3.10", True), ("NaN", False)])
def test_decimal_numbers_are_numbers(value: str, told: bool) -> None:
    [fact] = read_facts([{**GOOD, "truth": Decimal(value)}])
    assert fact.truth == (value if told else None)


@given(
    name=st.sampled_from(list(LAYOUTS)),
    file=st.sampled_from(list(FORMATS)),
    data=st.data(),
    odd=ODD,
    place=st.integers(0, 2),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400)
def test_an_odd_value_costs_itself_or_its_record(
    tmp_path: Path, quiet: None, name: str, file: str, data: Any, odd: Any, place: int
) -> None:
    """Among three records one has an odd value anywhere; the two others are read as ever."""
    layout = LAYOUTS[name]
    path = data.draw(st.sampled_from(list(paths(layout.good))))
    records = [layout.good] * 3
    records[place] = put(layout.good, path, odd)
    encode = FORMATS[file]
    try:
        facts = read(tmp_path, file, encode(records).encode("utf-8", "surrogatepass"))
    except FactFileError:
        assert "\ud800" in str(odd)  # a table that is not UTF-8
        return
    good = [number for number in (1, 2, 3) if number != place + 1]
    by_number = dict(zip(facts.records, facts, strict=True))
    assert [by_number[number] for number in good] == [layout.fact] * 2
    assert not find_problems(facts)
    left = [*facts.rejected, *facts.omitted]
    assert {one.record for one in left} <= {place + 1}
    assert all(
        word not in one.reason for one in left for word in ("NoneType", "object has", "dict")
    )
    fact = by_number.get(place + 1)
    if fact is None:
        assert [one.record for one in facts.rejected] == [place + 1]
        deep = path[0] in ("requested_rewrite", "edit")
        truth = fact_equals_truth(odd, layout)
        assert path[0] in (*layout.needs, "example_type") or deep or truth
        return
    if path[0] not in layout.needs:  # what a fact needs stands as it stood
        assert replace(fact, **REST) == replace(layout.fact, **REST)
    # Nothing new is said that nobody wrote, and what was written is said, or said to be left out.
    values = [*leaves(records[place]), *records[place].values()]  # a table has lists as texts
    written = [" ".join(cell(one).split()) for one in values]
    for text in said(fact):
        assert any(" ".join(text.split()) in one for one in written)
    texts = [" ".join(text.split()) for text in said(fact)]
    known = [" ".join(cell(one).split()).removeprefix("nq question: ") for one in leaves(odd)]
    told = any(one and any(one in text for text in texts) for one in known)
    nothing = not any(known) or odd in ("[]", "{}", "nq question: ", "['a', 'b']") or odd != odd
    assert told or left or nothing or len(path) > 1 or path[0] in UNREAD | {*layout.needs}


UNREAD = {"case_id", "known_id", "prediction", "prompt", "tag", "example_type"}
REST: dict[str, Any] = {
    "truth": None, "relation": "", "paraphrases": (), "neighbors": (), "wordings": (), "probes": (),
    "foils": (),
}  # fmt: skip


def fact_equals_truth(odd: Any, layout: Layout) -> bool:
    return any(cell(one).strip() == layout.fact.target for one in leaves(odd))


@given(
    st.lists(st.recursive(ODD, lambda inner: st.lists(inner, max_size=3), max_leaves=4), min_size=1)
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_records_that_are_none_are_counted(tmp_path: Path, quiet: None, records: list[Any]) -> None:
    facts = read(tmp_path, "t.json", json.dumps([*records, asdict(NORWAY)]))
    assert facts == [NORWAY]
    assert [one.record for one in facts.rejected] == list(range(1, len(records) + 1))


@given(st.binary(max_size=60), st.sampled_from(["t.csv", "t.tsv", "t.json", "t.jsonl", "t.xlsx"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_any_bytes_are_read_or_refused(tmp_path: Path, quiet: None, data: bytes, name: str) -> None:
    for content in (data, TABLE.encode() + data, b'[{"prompt": ' + data):
        with suppress(FactFileError):
            read(tmp_path, name, content)


# --- plain files that look like something else ---


@pytest.mark.parametrize(
    "text",
    [
        "(1, 2)",
        "[1]",
        "{3}",
        "(…)",
        '("Imagine" is his song)',
        "('Hamlet' is by him (1600))",
        "[sin(x) of it]",
    ],
)
@pytest.mark.parametrize("file", ["t.csv", "t.json"])
def test_texts_that_look_like_lists_are_texts(tmp_path: Path, text: str, file: str) -> None:
    own = {
        "prompt": f"{text} {{}} {text}",
        "subject": "Norway",
        "target": "Lima",
        "truth": text,
        "paraphrases": text,
        "neighbors": text,
    }
    content = as_table([own]) if file == "t.csv" else json.dumps([own])
    assert read(tmp_path, file, content) == [
        Fact(own["prompt"], "Norway", "Lima", text, (text,), (Neighbor(text),))
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_long_cell_does_not_hide_the_separator(tmp_path: Path, separator: str) -> None:
    rows = [
        ["prompt", "subject", "target", "note"],
        ["The capital of {} is", "Norway", "Lima", "x" * 200_000],
    ]
    text = "\n".join(map(separator.join, rows))
    assert read(tmp_path, "t.csv", text) == [NORWAY]


def test_a_title_in_brackets_makes_no_table_json(tmp_path: Path) -> None:
    assert read(tmp_path, "t.csv", f"[Facts of May]\n{TABLE}") == [NORWAY]


def test_a_title_may_be_called_as_a_column(tmp_path: Path) -> None:
    text = "question\n" + TABLE.replace("prompt", "question")
    assert read(tmp_path, "t.csv", text, columns={"prompt": "question"}) == [NORWAY]


@pytest.mark.parametrize("beside", [{"examples": [{"name": "x"}]}, {"rows": [{"n": 1}], "n": 2}])
@pytest.mark.parametrize("deep", [False, True])
def test_other_lists_beside_the_records_do_not_count(
    tmp_path: Path, beside: dict[str, Any], deep: bool
) -> None:
    content = {"facts": [asdict(NORWAY)], **({"info": beside} if deep else beside)}
    assert read(tmp_path, "t.json", json.dumps(content)) == [NORWAY]


@pytest.mark.parametrize("split", [False, True])
def test_rows_below_headings_lose_nothing_in_silence(tmp_path: Path, split: bool) -> None:
    def content(headings: list[str], row: list[str]) -> str:
        rows = [["The capital of {} is", "Norway", "Lima"], row]
        return json.dumps({"columns": headings, "data": rows} if split else [headings, *rows])

    needs = ["prompt", "subject", "target"]
    with pytest.warns(BadRecordWarning, match="record 2: it has more cells than columns"):
        assert read(tmp_path, "t.json", content(needs, [*needs, "x"])) == [NORWAY]
    with pytest.raises(FactFileError, match="the column target stands there twice"):
        read(tmp_path, "t.json", content([*needs, "target"], ["a {} b", "c", "d", "e"]))


def test_unused_twins_cost_nothing(tmp_path: Path, quiet: None) -> None:
    record = asdict(NORWAY)
    table = "note,Note,prompt,subject,target,note:\n1,2,The capital of {} is,Norway,Lima,3\n"
    assert read(tmp_path, "t.csv", table) == [NORWAY]
    assert read(tmp_path, "t.json", json.dumps([{**record, "id": 1, "ID": 2}])) == [NORWAY]
    twice = json.dumps(record)[:-1] + ', "id": 1, "id": 2}'
    assert read(tmp_path, "t.json", f"[{twice}]") == [NORWAY]
    frame = pd.DataFrame([["The capital of {} is", "Norway", "Lima", 1, 2]])
    frame.columns = pd.Index(["prompt", "subject", "target", "x", "x"])
    assert read_facts(frame) == [NORWAY]
    for odd in ({"Target": "Oslo"}, {"target ": "Oslo"}):
        facts = read(tmp_path, "t.json", json.dumps([{**record, **odd}, record]))
        assert (facts, facts.rejected[0].record) == ([NORWAY], 1)
