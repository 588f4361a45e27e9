"""Prompts from files and from prose: what each format gives, and what is said about a file that is wrong."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import datasets
import pandas
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import harness
from harness import config, study
from harness.config import RequestError
from harness.prompts import prose

ROWS = [
    {"text": "When Mary and John went to the store, John gave a drink to", "answer": " Mary", "other": " John"},
    {"text": 'He said "no, never", then left', "answer": " Mary", "other": " John"},
    {"text": "犬が猫を追う 🐕‍🦺 naïve", "answer": " John", "other": " Mary"},
]
TEXTS = tuple(row["text"] for row in ROWS)


def jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def save(folder, name, rows=None):
    """The rows in the format that the name asks for."""
    path = folder / name
    frame = pandas.DataFrame(ROWS if rows is None else rows)
    match path.suffix:
        case ".txt":
            path.write_text("\n".join(frame["text"]), encoding="utf-8")
        case ".jsonl":
            path.write_text(jsonl(frame.to_dict("records")), encoding="utf-8")
        case ".csv":
            frame.to_csv(path, index=False, quoting=csv.QUOTE_ALL)
        case ".parquet":
            frame.to_parquet(path)
        case _:
            datasets.Dataset.from_pandas(frame, preserve_index=False).save_to_disk(str(path))
    return path


TABLES = ("rows.jsonl", "rows.csv", "rows.parquet", "rows")


def load(model, path, **given):
    return harness.load_prompts("file", model, path=str(path), **given)


def written(folder, name, content):
    """A file of these bytes (or this text, its line ends as they stand)."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# --- what is read -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rows.txt", "ROWS.TXT", *TABLES])
def test_every_format_gives_the_same_texts_and_scores_every_predicted_token(tiny, tmp_path, name):
    if name == "ROWS.TXT":
        save(tmp_path, "rows.txt").rename(tmp_path / name)
        path = tmp_path / name
    else:
        path = save(tmp_path, name)
    prompts = load(tiny(), path)
    assert prompts.text == TEXTS
    assert (prompts.target.sum(axis=1) == prompts.length - 1).all()
    assert len(set(prompts.cluster)) == 3
    assert not prompts.has_answer


@pytest.mark.parametrize("name", TABLES)
def test_with_an_answer_only_the_next_token_is_scored(tiny, tmp_path, name):
    prompts = load(tiny(), save(tmp_path, name), answer="answer", distractor="other")
    assert prompts.target.sum(axis=1).tolist() == [1, 1, 1]
    assert prompts.answer_text == tuple(row["answer"] for row in ROWS)
    assert prompts.distractor_text == tuple(row["other"] for row in ROWS)


@pytest.mark.parametrize("name", TABLES)
def test_a_cluster_and_a_counterfactual_come_from_their_columns(tiny, tmp_path, name):
    rows = [
        {"text": "the store", "twin": "the drink", "id": 7},
        {"text": "a store", "twin": "a drink", "id": 7},
        {"text": "the drink", "twin": "the store", "id": 8},
    ]
    prompts = load(tiny(), save(tmp_path, name, rows), cluster="id", counterfactual="twin")
    assert prompts.cluster == ("7", "7", "8")
    plain = load(tiny(), tmp_path / name)
    assert (prompts.counterfactual[0] == prompts.token_id[2]).all()
    assert prompts.sha256 != plain.sha256


def test_a_row_is_its_own_cluster_named_by_its_place(tiny, tmp_path):
    assert load(tiny(), save(tmp_path, "rows.txt")).cluster == ("line 1", "line 2", "line 3")
    assert load(tiny(), save(tmp_path, "rows.csv")).cluster == ("line 2", "line 3", "line 4")
    assert load(tiny(), save(tmp_path, "rows.parquet")).cluster == ("row 1", "row 2", "row 3")


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("windows.txt", "one a\r\ntwo b\r\n", ("one a", "two b")),
        ("old-mac.txt", "one a\rtwo b\r", ("one a", "two b")),
        ("bom.txt", b"\xef\xbb\xbfone a\ntwo b", ("one a", "two b")),
        ("end.txt", "one a\n\n \n", ("one a",)),
        ("kept.txt", "  one a \n\ttwo", ("  one a ", "\ttwo")),
        ("separator.txt", "one\u2028a\x0cb\x85c", ("one\u2028a\x0cb\x85c",)),
        ("windows.jsonl", '{"text": "one a"}\r\n{"text": "b\\r\\nc"}\r\n', ("one a", "b\r\nc")),
        ("bom.jsonl", b'\xef\xbb\xbf{"text": "one a"}', ("one a",)),
        ("escaped.jsonl", '{"text": "\\u72ac \\ud83d\\udc15"}', ("犬 🐕",)),
        ("separator.jsonl", '{"text": "a\u2028b"}', ("a\u2028b",)),
        ("windows.csv", "text,n\r\none a,1\r\ntwo b,2\r\n", ("one a", "two b")),
        ("bom.csv", b"\xef\xbb\xbftext\none a\n", ("one a",)),
        ("quoted.csv", 'n,text\n1,"a, ""b"" c"\n2,"d\ne"\n3, f', ('a, "b" c', "d\ne", " f")),
        ("words.csv", "text\nNA here\nnull\n1e5\n", ("NA here", "null", "1e5")),
        ("end.csv", "text\none a\n\n\n", ("one a",)),
    ],
)
def test_line_ends_marks_and_quotes(tiny, tmp_path, name, content, texts):
    assert load(tiny(), written(tmp_path, name, content)).text == texts


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_readers_find_what_separates_columns(tiny, tmp_path, ending, separator):
    """The other separators stand in the texts; a single column is separated by nothing."""
    rows = [{"n;m": "1", "text": 'a, b; c\t"d"', "answer": " Mary"}, {"n;m": "2", "text": "e;f,g;h", "answer": " John"}]
    path = tmp_path / f"rows.{ending}"
    if separator == "|":
        path.write_text('text\n"a;b, c\td"\n', encoding="utf-8")
        assert load(tiny(), path).text == ("a;b, c\td",)
        return
    pandas.DataFrame(rows).to_csv(path, sep=separator, index=False)
    prompts = load(tiny(), path, answer="answer", tags=["n;m"])
    assert prompts.text == tuple(row["text"] for row in rows)
    assert prompts.answer_text == (" Mary", " John")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=2, max_size=30).filter(
            lambda text: len(text.strip()) > 1 and "<s>" not in text
        ),
        min_size=1,
        max_size=4,
    )
)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_any_text_comes_back_as_it_was_written(tiny, tmp_path, name, texts):
    path = save(tmp_path, name, [{"text": text} for text in texts])
    assert load(tiny(), path).text == tuple(texts)


def test_n_rows_are_drawn_in_the_order_of_the_file(tiny, tmp_path):
    path = written(tmp_path, "many.txt", "\n".join(f"the store {number}" for number in range(100, 130)))
    drawn = [load(tiny(), path, n=9, seed=seed).text for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert list(drawn[0]) == sorted(set(drawn[0]))
    assert len(load(tiny(), path)) == 30


def test_a_script_beside_a_saved_dataset_is_not_run(tiny, tmp_path):
    path = save(tmp_path, "rows")
    (path / "rows.py").write_text("raise SystemExit('this was run')", encoding="utf-8")
    assert load(tiny(), path).text == TEXTS


def test_columns_that_are_not_asked_for_are_not_looked_at(tiny, tmp_path):
    path = written(tmp_path, "a.jsonl", '{"text": "the store", "x": [1]}\n{"text": "a drink", "y": null}')
    assert load(tiny(), path).text == ("the store", "a drink")


# --- what is wrong ----------------------------------------------------------------------------------------------

GOOD = '{"text": "the store", "answer": " Mary", "twin": "the drink"}\n'
LONG = "a store " * 300
MISTAKES = [
    # what is no text
    ("a.txt", b"", {}, "prompts.path={path}: this file is empty: it must have at least one prompt"),
    ("a.txt", b"\xef\xbb\xbf", {}, "this file is empty"),
    ("a.txt", " \n\n", {}, "this file is empty"),
    ("a.jsonl", "", {}, "this file is empty"),
    ("a.csv", "", {}, "this file is empty"),
    ("a.csv", "text\n", {}, "this file is empty"),
    ("a.txt", b"one a\ntwo caf\xe9", {}, "line 2, byte 8 (0xe9) is not UTF-8: save the file as UTF-8"),
    ("a.txt", b"one a\r\n\r\ntwo\xff", {}, "line 3, byte 4 (0xff) is not UTF-8"),
    ("a.txt", b"\xef\xbb\xbf\xe7\x8a\xac \xff", {}, "line 1, byte 5 (0xff) is not UTF-8"),
    ("a.jsonl", GOOD.encode() + b'{"text": "caf\xe9"}', {}, "line 2, byte 14 (0xe9) is not UTF-8"),
    ("a.csv", b"text\ncaf\xe9", {}, "line 2, byte 4 (0xe9) is not UTF-8"),
    ("a.txt", "the store".encode("utf-16"), {}, "line 1, byte 1 (0xff) is not UTF-8: save the file as UTF-8"),
    ("a.txt", "the store".encode("utf-16-le"), {}, "line 1 holds a zero byte: this is no text, or UTF-16"),
    # empty rows
    ("a.txt", "one a\n\ntwo b\n", {}, "line 2 is empty: give one prompt per line"),
    ("a.txt", "one a\r\n  \r\ntwo b\r\n", {}, "line 2 is empty"),
    ("a.jsonl", GOOD + "\n" + GOOD, {}, "line 2 is empty"),
    ("a.csv", 'text\n"a\nb"\n\nc d\n', {}, "line 4 is empty: give one prompt per record"),
    ("a.jsonl", GOOD + '{"text": ""}', {}, "prompts.column=text: {path}: 1 of 2 rows has none (line 2): give one"),
    ("a.jsonl", GOOD + '{"text": " \\n"}', {}, "line 2 has only white space in 'text'"),
    ("a.csv", "text,n\none a,1\n,2\n", {}, "1 of 2 rows has none (line 3)"),
    # JSON
    ("a.jsonl", GOOD + "{'text': 1}", {}, "line 2 is not JSON (Expecting property name enclosed in double quotes, col"),
    ("a.jsonl", GOOD + '{"text": "the st', {}, "line 2 is not JSON (Unterminated string starting at, column 10)"),
    ("a.jsonl", GOOD + "[" * 100_000, {}, "line 2 is not JSON"),
    ("a.jsonl", GOOD + '{"n": ' + "1" * 5000 + "}", {}, "line 2 is not JSON"),
    ("a.jsonl", GOOD + '["the store"]', {}, 'line 2 is a list, not an object such as {"text": "…"}'),
    ("a.jsonl", GOOD + "null", {}, "line 2 is null, not an object"),
    ("a.jsonl", '[\n{"text": "the store"}\n]', {}, "line 1 is not JSON"),
    ("a.jsonl", '{"text": "a \\ud83d"}', {}, "line 1 has half a character (a lone surrogate) in 'text'"),
    # CSV
    ("a.csv", "text,n\none, two,1\n", {}, "line 2 has 3 cells, the first line 2: quote texts that hold commas"),
    ("a.csv", "text,n\na b\n", {}, "line 2 has 1 cells, the first line 2"),
    ("a.csv", 'text\na b\n"c d\ne f\n', {}, "the record that begins on line 3 cannot be read (unexpected end of data)"),
    ("a.csv", 'text\n"a" b\n', {}, "the record that begins on line 2 cannot be read"),
    ("a.csv", "text,text\na,b\n", {}, "line 1 names the column 'text' twice"),
    # columns and their values
    ("a.jsonl", '{"txt": "a b"}', {}, "prompts.column=text: {path} has no such column; did you mean 'txt'? known: txt"),
    (
        "a.csv",
        "txt;answer\na;b\n",
        {},
        "prompts.column=text: {path} has no such column; did you mean 'txt'? known: txt, a",
    ),
    ("a.csv", "text;n\none; two;1\n", {}, "line 2 has 3 cells, the first line 2: quote texts that hold semicolons"),
    ("a.tsv", "text\tn\none\ttwo\t1\n", {}, "line 2 has 3 cells, the first line 2: quote texts that hold tabs"),
    ("a.tsv", 'text\tn\n"a" b\t1\n', {}, "the record that begins on line 2 cannot be read"),
    ("a.tsv", "text\tn\na b\n\n", {}, "line 2 has 1 cells, the first line 2"),
    ("a.tsv", "", {}, "this file is empty"),
    ("a.txt", "the store", {"answer": "answer"}, "prompts.answer=answer: {path} has no such column; known: text"),
    ("a.jsonl", GOOD, {"answer": "anser"}, "prompts.answer=anser: {path} has no such column; did you mean 'answer'?"),
    ("a.jsonl", GOOD, {"cluster": "id"}, "prompts.cluster=id: {path} has no such column"),
    ("a.jsonl", GOOD, {"counterfactual": "twins"}, "did you mean 'twin'?"),
    ("a.jsonl", GOOD, {"distractor": "answer"}, "a distractor needs an answer: prompts.answer=…"),
    ("a.jsonl", GOOD + '{"txt": "a b"}', {}, "1 of 2 rows has none (line 2): give one in every row; line 2: did you"),
    ("a.jsonl", GOOD + '{"text": null}', {}, "1 of 2 rows has none (line 2): give one in every row"),
    ("a.jsonl", GOOD + '{"text": 3}', {}, "prompts.path={path}: line 2 has a number, not a text, in 'text'"),
    ("a.jsonl", '{"text": true}', {}, "line 1 has true or false, not a text, in 'text'"),
    ("a.jsonl", '{"text": ["a"]}', {}, "line 1 has a list, not a text, in 'text'"),
    ("a.jsonl", '{"text": "a b", "id": 1.5}', {"cluster": "id"}, "line 1 has a number, not a text, in 'id'"),
    ("a.jsonl", '{"text": "a b", "id": true}', {"cluster": "id"}, "line 1 has true or false, not a text, in 'id'"),
    # rows with and rows without
    (
        "a.jsonl",
        GOOD + '{"text": "a b"}\n' * 2 + GOOD,
        {"answer": "answer"},
        "prompts.answer=answer: {path}: 2 of 4 rows have none (lines 2, 3): give one in every row",
    ),
    ("a.csv", "text,answer\na b,\n" + "c d, Mary\n", {"answer": "answer"}, "1 of 2 rows has none (line 2): give one"),
    ("a.jsonl", GOOD + '{"text": "a b"}\n' * 9, {"answer": "answer"}, "9 of 10 rows have none (lines 2, 3, 4, 5, 6 …)"),
    # tokens
    ("a.txt", f"a b\n{LONG}", {}, "line 2, 'a store a store a st…': this prompt has 602 tokens, random takes 256"),
    ("a.jsonl", GOOD + '{"text": "a b", "answer": " xyz"}', {"answer": "answer"}, "line 2, ' xyz': this must be one"),
    (
        "a.jsonl",
        '{"text": "a b", "answer": " Mary", "other": " xyz"}',
        {"answer": "answer", "distractor": "other"},
        "line 1, ' xyz': this must be one token, but",
    ),
    (
        "a.jsonl",
        GOOD + '{"text": "the store", "twin": "the store store"}',
        {"counterfactual": "twin"},
        "{path}: line 2, 'the store store': the text has 5 tokens and its counterfactual 6; they must be equally long",
    ),
    # which rows
    ("a.jsonl", GOOD * 3, {"n": 4}, "prompts.n=4: {path} has 3 rows"),
    ("a.txt", "a b\nc d", {"n": 0}, "prompts.n=0: input should be greater than or equal to 1"),
    # what is no such file
    ("a.tab", "text\na b", {}, "prompts are read from .txt, .jsonl, .csv, .tsv, .parquet and folders that datasets sa"),
    ("a", "a b", {}, "prompts are read from .txt"),
    ("a.parquet", "PAR1, or so it says", {}, "this is not a whole parquet file ("),
    ("a.parquet", "", {}, "this is not a whole parquet file ("),
]


def refusal(model, path, **given):
    with pytest.raises(RequestError) as refused:
        load(model, path, **given)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(("name", "content", "given", "says"), MISTAKES)
def test_a_mistake_is_one_line_that_says_where(tiny, tmp_path, name, content, given, says):
    path = written(tmp_path, name, content)
    assert says.replace("{path}", str(path)) in refusal(tiny(), path, **given)


def test_a_row_is_wrong_whether_it_is_drawn_or_not(tiny, tmp_path):
    path = written(tmp_path, "a.jsonl", GOOD * 20 + '{"text": 3}')
    for seed in range(3):
        assert "line 21 has a number" in refusal(tiny(), path, n=1, seed=seed)


def test_a_missing_file_is_said_to_be_missing(tiny, tmp_path):
    assert f"there is no such file or folder (looked for {tmp_path}/none.txt)" in refusal(tiny(), tmp_path / "none.txt")


def test_the_rows_of_parquet_and_of_datasets_are_named_as_rows(tiny, tmp_path):
    for name in ("a.parquet", "a"):
        frame = [{"text": "a b", "n": 1}, {"text": None, "n": 2}]
        assert "1 of 2 rows has none (row 2)" in refusal(tiny(), save(tmp_path, name, frame))
        assert "row 1 has a number, not a text, in 'n'" in refusal(tiny(), tmp_path / name, column="n")
        assert "has no such column; did you mean 'text'?" in refusal(tiny(), tmp_path / name, column="txet")
        assert "must have at least one prompt" in refusal(tiny(), save(tmp_path, f"no-{name}", {"text": []}))


def test_a_cut_off_parquet_file_is_refused(tiny, tmp_path):
    path = save(tmp_path, "rows.parquet")
    whole = path.read_bytes()
    for kept in (3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        assert "this is not a whole parquet file (" in refusal(tiny(), path)


def test_a_folder_that_is_no_dataset_is_refused(tiny, tmp_path):
    assert "this folder has no dataset_info.json: give one that datasets' save_to_disk wrote" in refusal(
        tiny(), tmp_path
    )


def test_a_folder_of_splits_asks_for_one(tiny, tmp_path):
    part = datasets.Dataset.from_list(ROWS)
    path = tmp_path / "both"
    datasets.DatasetDict(train=part, test=part).save_to_disk(str(path))
    assert "this folder holds the splits test, train: give the folder of one" in refusal(tiny(), path)
    assert load(tiny(), path / "train").text == TEXTS


@pytest.mark.parametrize("broken", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
def test_a_damaged_datasets_folder_is_refused(tiny, tmp_path, broken):
    path = save(tmp_path, "rows")
    (path / broken).write_text("[]", encoding="utf-8")
    assert "this is not a whole datasets folder (" in refusal(tiny(), path)


def test_from_the_command_line_it_is_exit_code_2(command, tmp_path):
    path = written(tmp_path, "a.txt", "a b\n\nc d")
    code, out, err = command("study", "model=random", "prompts=file", f"prompts.path={path}")
    assert (code, out) == (2, "")
    assert err.splitlines() == [f"prompts.path={path}: line 2 is empty: give one prompt per line"]


# --- before a model is loaded -----------------------------------------------------------------------------------

BEFORE = {
    "rows.csv": "text,answer\na store, Mary\n",
    "half.jsonl": '{"text": "a b"}\n{"text": "a',
    "tags.csv": 'text,tags,related\na store,"glad",nsubj(a store\n',
    "names.json": '{"parts": [{"name": "a", "text": "b"}, {"name": "a", "text": "c"}], "question": "d"}',
    "key.yaml": "parts: [{nam: a, text: b}]\nquestion: c\n",
    "list.json": "[]",
    "blank.json": '{"parts": [{"name": "a", "text": "b"}], "question": " "}',
}
FILE, PARTS, INLINE = (
    "prompts=file prompts.path={at}/",
    "prompts=context prompts.path={at}/",
    "prompts=inline prompts.text=[a,b] ",
)
EARLY = [
    (FILE + "none.csv", "prompts.path={at}/none.csv: there is no such file or folder"),
    (
        FILE + "rows.csv prompts.column=txt",
        "prompts.column=txt: {at}/rows.csv has no such column; did you mean 'text'?",
    ),
    (FILE + "rows.csv prompts.answer=anwser", "prompts.answer=anwser: {at}/rows.csv has no such column; did you mean"),
    (FILE + "rows.csv prompts.tags=[topic]", "prompts.tags=topic: {at}/rows.csv has no such column"),
    (FILE + "rows.csv prompts.n=2", "prompts.n=2: {at}/rows.csv has 1 rows"),
    (FILE + "rows.csv prompts.distractor=answer", "prompts.distractor=answer: a distractor needs an answer"),
    (FILE + "half.jsonl", "prompts.path={at}/half.jsonl: line 2 is not JSON"),
    (FILE + "tags.csv prompts.words=tags", "prompts.path={at}/tags.csv: line 2, []: list its words; without a list"),
    (
        FILE + "tags.csv prompts.relations=related",
        "prompts.path={at}/tags.csv: line 2, nsubj(a store: a relation is wr",
    ),
    (PARTS + "none.json", "prompts.path={at}/none.json: there is no such file"),
    (PARTS + "names.json", "prompts.contexts.0.parts=a: a part needs a name of its own"),
    (
        PARTS + "key.yaml",
        "prompts.path={at}/key.yaml: context 0, parts.0.nam=a: there is no such key; did you mean 'name'?",
    ),
    (PARTS + "list.json", "prompts.path={at}/list.json: this file has no context in it"),
    (PARTS + "blank.json", "prompts.contexts.0.question=' ': ask something after the parts"),
    ("prompts=context", "prompts.path=None: set prompts.path=context.json, or prompts.contexts"),
    (INLINE + "prompts.answer=[c]", "prompts.answer=['c']: give one for each of the 2 texts"),
    (INLINE + "prompts.words={glad:[]}", "prompts.words.glad=[]: list its words; without a list there are"),
    (INLINE + "prompts.relations=[x,y]", "prompts.relations=x: a relation is written name(head, dependent)"),
]
RUNNERS = ("study", "cache_attention", "ablate_heads", "compare_attributions", "profile_heads", "trace_context")


@pytest.fixture
def before(tmp_path, monkeypatch):
    """A folder of wrong files, for runners that must not reach the loading of a model."""

    def load(*_, **__):
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("harness.study.request.load_model", load)
    monkeypatch.setattr("harness.benchmark.load_model", load)
    for name, content in BEFORE.items():
        written(tmp_path, name, content)
    return tmp_path


@pytest.mark.parametrize(("given", "says"), EARLY, ids=[given for given, _ in EARLY])
def test_prompts_are_checked_before_a_model_is_loaded(command, before, given, says):
    code, out, err = command("study", *given.replace("{at}", str(before)).split(" "))
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(says.replace("{at}", str(before)))


@pytest.mark.parametrize("runner", [*RUNNERS, "compare_models", "benchmark"])
def test_every_runner_checks_prompts_before_it_loads_a_model(command, before, runner):
    other = ("compare.model.name=random",) if runner == "compare_models" else ()
    code, _, err = command(runner, "prompts=file", f"prompts.path={before}/rows.csv", "prompts.column=txt", *other)
    assert code == 2
    assert err.startswith(f"prompts.column=txt: {before}/rows.csv has no such column")
    with pytest.raises(AssertionError, match="a model is loaded"):
        command(runner, "prompts=file", f"prompts.path={before}/rows.csv", *other)


def test_a_resumed_run_checks_its_files_before_it_loads_a_model(before, monkeypatch):
    spec = config.parse(
        config.RunSpec,
        {
            "model": {"name": "random", "source": "random"},
            "prompts": {"name": "file", "path": str(before / "none.csv")},
        },
    )
    study.run_folder.store.write_text(before / "run" / "spec.yaml", yaml.safe_dump(study.run_folder.plain(spec)))
    with pytest.raises(RequestError, match=r"none.csv: there is no such file"):
        study.run("study", spec, study.Place(resume=str(before / "run")), lambda *_: None)


def test_prompts_are_checked_without_torch(before):
    """In a process of its own: in this one torch has long been imported."""
    specs = [
        {"name": "file", "path": str(before / "rows.csv"), "column": "txt"},
        {"name": "context", "path": str(before / "names.json")},
        {"name": "inline", "text": ["a"], "answer": ["b", "c"]},
    ]
    code = (
        "import sys\nfrom harness import config\nfrom harness.prompts import check_prompts\n"
        f"for spec in {specs!r}:\n    try:\n        check_prompts(config.parse(config.PromptSpec, spec))\n"
        "    except config.RequestError as error:\n        print(error.key)\n"
        "print(sorted({'torch', 'transformers', 'transformer_lens'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.stdout.split("\n")[:4] == ["prompts.column", "prompts.contexts.0.parts", "prompts.answer", "[]"], done


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((), "compare.model=null: name the model to compare with"),
        (("compare.model.name=random", "sweep.kind=layer"), "sweep.kind=layer: two models are compared head by head"),
        (
            ("compare.model=random", "sweep.method=fast"),
            "sweep.method=fast: two models are compared by exact effects",
        ),
        (
            ("compare.model=random", "ablation.positions=each"),
            "ablation.positions=each: two models are compared over all",
        ),
        (("compare.model.name=random", "stats.resamples=10"), "stats.resamples=10: level 0.05 needs more than 20"),
    ],
)
def test_settings_that_two_models_cannot_be_compared_by_are_refused_before_one_is_loaded(command, before, given, says):
    code, _, err = command("compare_models", "model=random", *given)
    assert (code, err[: len(says)]) == (2, says)


# --- prose ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("language", "count"), [("en", 46), ("ja", 24)])
def test_the_passages_are_all_there(language, count):
    known = prose.passages(language)
    assert list(known) == [f"{language}{number:02}" for number in range(1, count + 1)]
    assert all(text == text.rstrip() and len(text) > 80 for text in known.values())
    assert len(set(known.values())) == count


def test_passages_keep_the_space_before_their_lines():
    assert "\n    def chunk(items, n):\n        for i in" in prose.passages("en")["en12"]


@pytest.mark.covering(2)
@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("length", [8, 64, 256])
@pytest.mark.parametrize("bos", ["always", "never"])
def test_a_length_cuts_passages_and_leaves_nothing_out(tiny, language, length, bos):
    prompts = harness.load_prompts("prose", tiny(bos=bos), language=language, n=3, length=length)
    assert prompts.length.max() <= length
    assert prompts.target.any(axis=1).all()
    assert len(set(prompts.cluster)) == 3
    for name in set(prompts.cluster):
        joined = "".join(text for text, at in zip(prompts.text, prompts.cluster, strict=True) if at == name)
        assert joined == prose.passages(language)[name]


def test_every_predicted_token_of_a_piece_is_scored(tiny):
    prompts = harness.load_prompts("prose", tiny(), n=2, length=100)
    assert (prompts.target.sum(axis=1) == prompts.length - 1).all()


def test_the_last_two_pieces_of_a_passage_are_about_as_long(tiny):
    for name in ("en01", "en07", "en12"):
        pieces = prose.cut(tiny(), prose.passages("en")[name], 100)
        assert len(pieces[-1]) > 0.8 * len(pieces[-2])


def test_words_are_not_cut_where_they_fit(tiny):
    pieces = prose.cut(tiny(), prose.passages("en")["en01"], 64)
    assert all(piece[0].isspace() for piece in pieces[1:])


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(
        st.sampled_from(["a", "the", "store", "犬", "。", "、", "🐕", "\n", "  ", "x" * 9, "犬" * 5]), min_size=1
    ),
    length=st.integers(8, 20),
    spaced=st.booleans(),
)
def test_any_text_is_cut_into_pieces_that_can_be_scored(tiny, words, length, spaced):
    text = (" " if spaced else "").join(words).strip()
    if len(text) < 2:
        return
    pieces = prose.cut(tiny(bos="never"), text, length)
    sizes = [len(tiny(bos="never").tokens.encode(piece).token_id) for piece in pieces]
    assert "".join(pieces) == text
    assert max(sizes) <= length
    assert min(sizes) >= 2


def test_another_seed_draws_other_passages_and_all_can_be_had(tiny):
    def clusters(**given):
        return set(harness.load_prompts("prose", tiny(), language="ja", length=256, **given).cluster)

    assert clusters(seed=0) == clusters(seed=0) != clusters(seed=1)
    assert clusters(n=24) == set(prose.passages("ja"))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"n": 47}, "prompts.n=47: there are 46 passages in this language"),
        ({"n": 25, "language": "ja"}, "prompts.n=25: there are 24 passages in this language"),
        ({"language": "fr"}, "prompts.language=fr: known: en, ja"),
        ({"length": 7}, "prompts.length=7: input should be greater than or equal to 8"),
        ({"length": 257}, "prompts.length=257: random takes 256 tokens"),
        ({"n": 46}, "prompts.length=null: passage en01 has 435 tokens, random takes 256: give a length"),
    ],
)
def test_bad_prose_is_refused(tiny, given, says):
    with pytest.raises(RequestError) as refused:
        harness.load_prompts("prose", tiny(), **given)
    assert says in str(refused.value)
