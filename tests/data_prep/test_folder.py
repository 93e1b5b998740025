import csv
import json

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_prep import folder, spec
from tfadv.config.errors import UserError

PEOPLE = ("Ann", "Bob", "Cid", "Dee", "Eve")
ROWS = [
    ("Ann/0.png", 1, 0, "p10"),
    ("Ann/1.jpg", 0, 0, "p10"),
    ("Bob/0.png", 1, 1, "p9"),
    ("Cid/1.jpg", 0, 1, ""),
]


@pytest.fixture
def source(tmp_path):
    """A folder per person, two images in each: one PNG and one JPEG."""
    root = tmp_path / "My Faces"
    for i, person in enumerate(PEOPLE):
        (root / person).mkdir(parents=True)
        for j, extension in enumerate((".png", ".jpg")):
            image = np.full((12, 10 + i, 3), 20 * i + 100 * j, np.uint8)
            cv2.imwrite(str(root / person / f"{j}{extension}"), image)
    return root


def write_csv(root, rows=ROWS, header="file,Smiling,Male,who", name="labels.csv"):
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    (root / name).write_text("\n".join(lines) + "\n")


def run(monkeypatch, *arguments):
    """Runs the command in this process; returns what `sys.exit` was given."""
    monkeypatch.setattr("sys.argv", ["folder", *map(str, arguments)])
    try:
        folder.command.run(folder.main, folder.define_flags())
    except SystemExit as end:
        return end.code
    return 0


def read(data_dir, name, split):
    builder = tfds.builder(f"folder/{name}", data_dir=data_dir)
    examples = builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    return {example["name"].decode(): example for example in examples.as_numpy_iterator()}


def test_a_subfolder_is_an_identity(source, tmp_path, monkeypatch, capsys):
    arguments = (f"--source={source}", f"--data_dir={tmp_path}")
    assert run(monkeypatch, *arguments, "--shares=0.4,0.4,0.2") == 0
    printed = capsys.readouterr().out
    assert f"--config.data.dataset=folder/my_faces --config.data.dir={tmp_path}" in printed
    splits = [read(tmp_path, "my_faces", split) for split in spec.SPLITS]
    assert [len(split) for split in splits] == [4, 4, 2]
    examples = {name: e for split in splits for name, e in split.items()}
    assert sorted(examples) == [f"{p}/{f}" for p in PEOPLE for f in ("0.png", "1.jpg")]
    for name, example in examples.items():
        assert example["image"] == (source / name).read_bytes()
        assert example["identity"] == PEOPLE.index(name[:3])
        assert example["attributes"].shape == (0,)


def test_png_and_jpeg_decode_to_what_was_written(source, tmp_path, monkeypatch):
    run(monkeypatch, f"--source={source}", f"--data_dir={tmp_path}", "--split=extra", "--name=x")
    examples = tfds.builder("folder/x", data_dir=tmp_path).as_dataset(split="extra")
    images = {e["name"].decode(): e["image"] for e in examples.as_numpy_iterator()}
    np.testing.assert_array_equal(images["Cid/0.png"], np.full((12, 12, 3), 40))
    np.testing.assert_allclose(images["Eve/1.jpg"], np.full((12, 14, 3), 180), atol=2)


def test_a_csv_gives_attributes_and_identities(source, tmp_path, monkeypatch):
    write_csv(source)
    arguments = (f"--source={source}", f"--data_dir={tmp_path}", "--identity_column=who")
    assert run(monkeypatch, *arguments, "--split=extra", "--name=labelled") == 0
    examples = read(tmp_path, "labelled", "extra")
    assert {name: (*e["attributes"], e["identity"]) for name, e in examples.items()} == {
        "Ann/0.png": (1, 0, 0),
        "Ann/1.jpg": (0, 0, 0),
        "Bob/0.png": (1, 1, 1),
        "Cid/1.jpg": (0, 1, -1),
    }
    info = tfds.builder("folder/labelled", data_dir=tmp_path).info
    assert info.metadata["attributes"] == ["Smiling", "Male"]
    assert info.metadata["identities"] == {"extra": 2}
    assert list(info.splits) == ["extra"]


def test_minus_one_means_no_and_columns_can_be_in_any_order(source):
    rows = [(-1, 7, "Bob/0.png"), (1, 12, "Ann/0.png"), (-1, 7, "Bob/1.jpg")]
    write_csv(source, rows, "Bald,id,path")
    config = folder.FolderConfig(name="x", name_column="path", identity_column="id")
    assert folder.read_attribute_names(source, config) == ("Bald",)
    found = folder.read_source(source, config)
    assert found.names == ["Bob/0.png", "Ann/0.png", "Bob/1.jpg"]
    assert found.attributes.tolist() == [[0], [1], [0]]
    assert found.identities.tolist() == [0, 1, 0]  # 7 before 12: numbers sort by value


def test_without_an_identity_column_identities_are_unknown(source):
    write_csv(source, [row[:3] for row in ROWS], "file,Smiling,Male")
    assert set(folder.read_source(source, folder.FolderConfig(name="x")).identities) == {-1}


def test_images_in_the_folder_itself_are_of_unknown_persons(source):
    (source / "Ann/0.png").rename(source / "0.png")
    found = folder.read_source(source, folder.FolderConfig(name="x"))
    assert dict(zip(found.names, found.identities, strict=True))["0.png"] == -1


def test_hidden_and_other_files_are_left_out(source):
    (source / "Ann/notes.txt").write_text("x")
    (source / "Ann/._0.png").write_text("x")
    (source / "Ann/2.JPEG").write_bytes((source / "Ann/1.jpg").read_bytes())
    found = folder.read_source(source, folder.FolderConfig(name="x"))
    assert [name for name in found.names if name.startswith("Ann")] == [
        "Ann/0.png",
        "Ann/1.jpg",
        "Ann/2.JPEG",
    ]


def test_another_set_of_the_same_name_is_not_taken_for_this_one(
    source, tmp_path, monkeypatch, capsys
):
    arguments = (f"--source={source}", f"--data_dir={tmp_path}", "--name=x")
    assert run(monkeypatch, *arguments, "--split=extra") == 0
    assert run(monkeypatch, *arguments, "--split=extra") == 0
    assert "is prepared already" in capsys.readouterr().out
    assert run(monkeypatch, *arguments, "--split=more") == 2
    assert "exists with other scheme" in capsys.readouterr().err
    (source / "Eve/1.jpg").unlink()
    assert run(monkeypatch, *arguments, "--split=extra") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line == (
        f"error: {tmp_path}/folder/x/1.0.0 was made from other images or labels: "
        "choose another name or data_dir, or delete it"
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[:-1],
        lambda rows: [("Dee/0.png", *rows[0][1:]), *rows[1:]],
        lambda rows: [("Ann/0.png", 0, 0, "p10"), *rows[1:]],
        lambda rows: [("Ann/0.png", 1, 0, "p9"), *rows[1:]],
    ],
    ids=["an image less", "another image", "another attribute", "another person"],
)
def test_a_set_made_before_its_csv_was_edited_is_not_taken_for_this_one(
    source, tmp_path, monkeypatch, capsys, change
):
    write_csv(source)
    arguments = (f"--source={source}", f"--data_dir={tmp_path}", "--identity_column=who")
    assert run(monkeypatch, *arguments, "--split=extra") == 0
    write_csv(source, change(ROWS))
    assert run(monkeypatch, *arguments, "--split=extra") == 2
    assert "was made from other images or labels" in capsys.readouterr().err
    write_csv(source)
    assert run(monkeypatch, *arguments, "--split=extra") == 0


def test_a_set_made_before_sources_had_a_digest_is_taken(source, tmp_path, monkeypatch, capsys):
    arguments = (f"--source={source}", f"--data_dir={tmp_path}", "--name=x", "--split=extra")
    assert run(monkeypatch, *arguments) == 0
    path = tmp_path / "folder/x/1.0.0/metadata.json"
    metadata = json.loads(path.read_text())
    del metadata["source"]
    path.write_text(json.dumps(metadata))
    capsys.readouterr()
    assert run(monkeypatch, *arguments) == 0
    assert "folder/x is prepared already" in capsys.readouterr().out


CSV_FAULTS = {
    "row 3, column 'Male': '2' is neither 0 nor 1": [ROWS[0], ("Ann/1.jpg", 0, 2, "p10")],
    "Ann/0.png is listed twice, in rows 2 and 4": [ROWS[0], ROWS[1], ROWS[0]],
    "lists 1 images that {source} lacks, such as Zoe/0.png": [("Zoe/0.png", 1, 1, "z")],
    "row 2 has 3 cells, not 4": [ROWS[0][:3]],
    "column 'Smiling' holds both 0 and -1": [ROWS[1], ("Bob/0.png", -1, 1, "p9")],
    "the file lists no image": [],
}


@pytest.mark.parametrize("message", CSV_FAULTS)
def test_a_csv_at_fault_is_named(source, tmp_path, monkeypatch, capsys, message):
    write_csv(source, CSV_FAULTS[message])
    arguments = (f"--source={source}", f"--data_dir={tmp_path}", "--identity_column=who")
    assert run(monkeypatch, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {source}/labels.csv")
    assert message.format(source=source) in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name_column=image"], "no column 'image' (--name_column); there are file, Smiling"),
        (["--identity_column=id"], "no column 'id' (--identity_column)"),
        (["--csv=/nowhere.csv"], "--csv=/nowhere.csv: no such file"),
        (["--csv={source}/empty.txt"], "empty.txt: the file is empty"),
        (["--csv={source}/twice.txt"], "twice.txt: two columns have the same name"),
        (["--split=extra", "--shares=0.5,0.3,0.2"], "--shares and --split exclude each other"),
        (["--split=a b"], "--split=a b: not a split's name"),
        (["--split=all"], "--split=all: not a split's name"),
        (["--name=default"], "--name=default: give another name"),
        (["--name=a/b"], "--name=a/b: give another name"),
        (["--source={source}/Ann", "--name_column=file"], "holds no CSV file"),
        (["--source={source}/none"], "no such folder"),
        (["--source={source}/other"], "no image (.jpg, .jpeg, .png) in this folder"),
    ],
)
def test_bad_flags_give_one_line_and_exit_code_2(
    source, tmp_path, monkeypatch, capsys, arguments, message
):
    write_csv(source, [(*row[:3], 1) for row in ROWS])
    (source / "empty.txt").write_text("")
    (source / "twice.txt").write_text("file,a,a\n")
    (source / "other").mkdir()
    (source / "other/notes.txt").write_text("x")
    filled = [a.format(source=source) for a in arguments]
    assert run(monkeypatch, f"--source={source}", f"--data_dir={tmp_path / 'data'}", *filled) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_quoted_cell_may_hold_line_breaks_and_commas(source):
    people = ["Ann,\r\nthe first", "Ann,\r\nthe first", "Bob\u2028", "Cid"]
    with (source / "labels.csv").open("w", encoding="utf-8-sig", newline="") as file:
        rows = [(*row[:3], who) for row, who in zip(ROWS, people, strict=True)]
        csv.writer(file).writerows([("file", "Smiling", "Male", "who"), *rows])
    found = folder.read_source(source, folder.FolderConfig(name="x", identity_column="who"))
    assert found.names == [row[0] for row in ROWS]
    assert found.attributes.tolist() == [list(row[1:3]) for row in ROWS]
    assert found.identities.tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r"])
def test_rows_may_end_as_on_any_system(source, line_break):
    lines = ["file,Smiling", "Ann/0.png,1", "Bob/0.png,0", ""]
    (source / "labels.csv").write_bytes(line_break.join(lines).encode())
    found = folder.read_source(source, folder.FolderConfig(name="x"))
    assert found.names == ["Ann/0.png", "Bob/0.png"]


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        ("file,Größe\n".encode("latin-1"), "is not UTF-8 text: save it as UTF-8"),
        (b'file,a\nAnn/0.png,1\nBob/0.png,"1' + 150_000 * b" ", "line 3: field larger than"),
    ],
    ids=["latin-1", "open quote"],
)
def test_a_csv_that_cannot_be_read_is_named(
    source, tmp_path, monkeypatch, capsys, encoded, message
):
    (source / "labels.csv").write_bytes(encoded)
    assert run(monkeypatch, f"--source={source}", f"--data_dir={tmp_path}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {source}/labels.csv: {message}")


def test_two_csv_files_need_a_choice(source):
    write_csv(source)
    write_csv(source, name="more.csv")
    with pytest.raises(UserError, match="holds 2 CSV files: say which with --csv=FILE"):
        folder.read_attribute_names(source, folder.FolderConfig(name="x"))


@pytest.mark.parametrize("name", ["../faces/0.png", "/faces/0.png", "Ann/../../0.png", "0\0.png"])
def test_a_csv_leads_to_no_file_outside_of_its_folder(source, name):
    """Also where images may be missing, so that one that is elsewhere would be read."""
    write_csv(source, [*ROWS, (name, 0, 1, "")])
    config = folder.FolderConfig(name="x", identity_column="who")
    with pytest.raises(UserError, match=r"labels\.csv lists .*, which can't be in its folder"):
        folder.read_source(source, config, skip=True)


def test_people_of_long_numbers_are_reported_apart(source):
    write_csv(source, [(*row[:3], "9" * 5000 if i else "1") for i, row in enumerate(ROWS)])
    found = folder.read_source(source, folder.FolderConfig(name="x", identity_column="who"))
    assert found.identities.tolist() == [0, 1, 1, 1]


def test_a_csv_whose_columns_the_config_does_not_name_is_refused(source, tmp_path):
    write_csv(source, [row[:3] for row in ROWS], "file,Smiling,Male")
    builder = folder.Folder(data_dir=tmp_path)
    with pytest.raises(UserError, match="are Smiling, Male, but the config names none"):
        builder.read_source(source)
