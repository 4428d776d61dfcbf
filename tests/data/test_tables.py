import numpy as np
import pytest
import torch

from limbeck.data.columns import encode_columns, fit_columns
from limbeck.data.splits import assign
from limbeck.data.tables import encode_table, read_table, table_source
from limbeck.errors import InputError
from limbeck.recipe.spec import DataSpec

HEADER = "split,label,age,city\n"


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def csv_file(tmp_path, rows, header=HEADER):
    return write(tmp_path / "t.csv", header + "\n".join(rows) + "\n")


def build(path, **options):
    spec = DataSpec(**options)
    source = table_source(path, spec, seed=0)
    places = assign(source.labels, spec, seed=0, classes=source.classes)
    return source, places, source.build(places)


ROWS = [
    *[f"train,yes,{age},{city}" for age, city in [(10, "Oslo"), (20, "Rome"), ("", "Oslo")]],
    *[f"train,no,{age},{city}" for age, city in [(30, "Rome"), (40, "Bern"), (50, "?")]],
    "dev,yes,25,Oslo",
    "dev,no,?,Paris",
    "test,yes,60,Rome",
    "test,no,30,",
]


def test_columns_become_numbers(tmp_path):
    source, _, built = build(csv_file(tmp_path, ROWS))
    assert source.kind == "table"
    assert source.classes == ("no", "yes")
    train, val = built.splits["train"], built.splits["val"]
    ages = np.array([10, 20, 30, 40, 50])
    age = train.x[:, 0].numpy()
    assert np.allclose(age, (np.array([10, 20, 30, 30, 40, 50]) - 30) / ages.std(), atol=1e-6)
    assert train.x[:, 1].tolist() == [0, 0, 1, 0, 0, 0]
    cities = train.x[:, 2:].argmax(1).tolist()  # Bern, Oslo, Rome, unknown
    assert cities == [1, 2, 1, 2, 0, 3]
    assert val.x[:, 2:].argmax(1).tolist() == [1, 3]
    assert val.x[1, :2].tolist() == [0, 1]
    assert train.x.shape == (6, 6)
    assert val.y.tolist() == [1, 0]


def test_only_training_rows_are_learned_from(tmp_path):
    other = [
        *ROWS[:6],
        "dev,yes,9999,Atlantis",
        "dev,no,1,Mu",
        "test,yes,7,Lemuria",
        "test,no,3,Ys",
    ]
    first = build(csv_file(tmp_path, ROWS))[2].encode
    assert build(csv_file(tmp_path, other))[2].encode == first


def test_held_out_rows_are_not_learned_from_but_the_pool_is(tmp_path):
    rows = [f"{place % 2},{place},c{place}" for place in range(40)]
    path = csv_file(tmp_path, rows, "label,number,word\n")
    _, places, built = build(path, labels=4)
    seen = torch.cat([places["train"].rows, places["pool"].rows])
    number, word = built.encode["columns"]
    assert number["mean"] == pytest.approx(seen.double().mean().item())
    assert word["values"] == sorted(f"c{place}" for place in seen.tolist())
    assert torch.equal(built.splits["train"].ids, places["train"].rows)


def test_rare_categories_share_the_unknown_slot():
    words = [f"id{place}" for place in range(500)] + ["often"] * 3
    state = fit_columns({"word": words})
    encoded = encode_columns({"word": words}, state, source="t")
    assert encoded.shape == (503, 101)
    assert encoded[:, -1].sum() == 401
    assert (encoded.sum(1) == 1).all()


def test_constant_and_empty_columns_do_no_harm():
    state = fit_columns({"same": np.full(4, 3.0), "none": ["", "?", None, "NA"]})
    encoded = encode_columns({"same": np.full(4, 3.0), "none": [""] * 4}, state, source="t")
    assert encoded.tolist() == [[0, 1]] * 4


def test_parquet_reads_like_csv(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "split": pa.array(["train"] * 6 + ["dev"] * 2 + ["test"] * 2).dictionary_encode(),
            "label": pa.array([1, 1, 1, 0, 0, 0, 1, 0, 1, 0], pa.int8()),
            "age": pa.array([10, 20, None, 30, 40, 50, 25, None, 60, 30], pa.int32()),
            "city": ["Oslo", "Rome", "Oslo", "Rome", "Bern", "?", "Oslo", "Paris", "Rome", None],
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    ours = build(tmp_path / "t.parquet")[2]
    theirs = build(csv_file(tmp_path, ROWS))[2]
    for name in ("train", "val", "test"):
        assert torch.equal(ours.splits[name].x, theirs.splits[name].x)
        assert torch.equal(ours.splits[name].y, theirs.splits[name].y)


def test_texts_are_one_column(tmp_path):
    rows = [f'{place % 2},"word{place % 5} and, more",3' for place in range(30)]
    path = csv_file(tmp_path, rows, "label,text,number\n")
    source, _, built = build(path, encode="tokens", length=5)
    assert source.kind == "text"
    assert built.splits["train"].x.shape[1:] == (5,)
    assert list(built.encode) == ["kind", "column", "text"]
    assert build(path, text="number", encode="hash", features=8)[2].encode["column"] == "number"


def test_rows_without_label_join_the_pool(tmp_path):
    rows = [f"{'ab'[place % 2] if place % 3 else ''},{place}" for place in range(30)]
    _, places, built = build(csv_file(tmp_path, rows, "label,number\n"))
    assert places["pool"].rows.tolist() == list(range(0, 30, 3))
    assert len(built.splits["pool"]) == 10


def test_new_rows_are_encoded_alike(tmp_path):
    _, _, built = build(csv_file(tmp_path, ROWS))
    new = read_table(write(tmp_path / "n.csv", "city,extra,age\nRome,x,20\nMoon,y,\n"))
    x = encode_table(new, built.encode, built.tensors, source="n.csv")
    assert torch.equal(x[0], built.splits["train"].x[1])
    assert x[1].tolist() == [0, 1, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        (
            "a,labl\n1,2\n",
            {},
            r"no column 'label', did you mean 'labl'\? \(--data.label\); it has a",
        ),
        ("a,label\n", {}, "t.csv is empty: it has no rows"),
        ("", {}, "t.csv is empty"),
        ("a,label\n1,x\n2\n", {}, "row 1 of .*t.csv has 1 cells, the header 2"),
        ("a,a,label\n1,1,x\n", {}, "names a column twice"),
        ("label\nx\ny\n", {}, "has no column beside 'label'"),
        ("a,label\n1,x\n2,x\n", {}, r"has 1 class \('x'\)"),
        ("split,label,a\ntrian,x,1\n", {}, "split 'trian', did you mean 'train'"),
        ("split,label,a\ntest,x,1\n", {}, "the train part of .*t.csv is empty"),
        ("a,label\n1,x\n2,y\n", {"text": "b"}, r"no column 'b' \(--data.text\)"),
        ('a,label\n"1,x\n', {}, "row 0|cannot be read"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, options, words):
    with pytest.raises(InputError, match=words):
        build(write(tmp_path / "t.csv", text), **options)


def test_infinite_numbers_are_refused(tmp_path):
    rows = [*ROWS[:2], "train,yes,inf,Oslo", *ROWS[3:]]
    with pytest.raises(InputError, match=r"column 'age' of .* holds 1 infinite value, .* row 2"):
        build(csv_file(tmp_path, rows))


def test_words_among_numbers_are_refused_at_prediction(tmp_path):
    built = build(csv_file(tmp_path, ROWS))[2]
    table = {"age": ["1", "old"], "city": ["Rome", "Rome"]}
    with pytest.raises(InputError, match=r"row 1 of n.csv has 'old' in column 'age', which held"):
        encode_table(table, built.encode, {}, source="n.csv")
    with pytest.raises(InputError, match=r"n.csv has no column 'age', did you mean 'aged'"):
        encode_table({"aged": ["1"], "city": ["x"]}, built.encode, {}, source="n.csv")


def test_fractional_labels_are_no_classes(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"label": [0.5, 1.0], "a": [1, 2]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"label column 'label' .* holds fractional numbers"):
        build(tmp_path / "t.parquet")


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_damaged_files_are_refused(tmp_path, name):
    pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(b"\xff\xfe\x00damaged")
    with pytest.raises(InputError, match=f"{name} cannot be read as"):
        read_table(tmp_path / name)
