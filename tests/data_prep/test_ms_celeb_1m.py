import contextlib
import itertools
import tracemalloc

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_prep import ms_celeb_1m, packings
from tests.data_prep import packed_faces
from tests.data_prep.packed_faces import MAGIC, face, insightface, packed, row
from tfadv.config.errors import UserError
from tfadv.data.labels import UNKNOWN_IDENTITY

TSV, RECORDS = ms_celeb_1m.PACKINGS
MIDS = ("m.0107_f", "m.01_0d4", "m.02vfw0")
COUNTS = (5, 4, 3)
FACES = [[face(who, i) for i in range(count)] for who, count in enumerate(COUNTS)]
FACES[1][2] = (  # a comment that holds RecordIO's magic word, at a multiple of 4 of the record
    FACES[1][2][:2] + b"\xff\xfe" + (24).to_bytes(2, "big") + b"--" + 5 * MAGIC + FACES[1][2][2:]
)
TOTAL = sum(COUNTS)
# What the images of each packing are called, in the order of the file.
TSV_NAMES = [f"{MIDS[who]}/{i}-FaceId-0.jpg" for who in range(3) for i in range(COUNTS[who])]
RECORD_NAMES = [f"{who}/{i}" for i, who in enumerate(np.repeat(range(3), COUNTS).tolist(), start=1)]
NAMES = {TSV: TSV_NAMES, RECORDS: RECORD_NAMES}
ENCODED = [encoded for images in FACES for encoded in images]


def rows():
    return [
        row(mid, i, encoded)
        for mid, images in zip(MIDS, FACES, strict=True)
        for i, encoded in enumerate(images)
    ]


@pytest.fixture(params=[TSV, RECORDS])
def source(request, tmp_path):
    """A file of twelve images of three people, in each of the two packings."""
    path = tmp_path / "source" / request.param
    path.parent.mkdir()
    if request.param == TSV:
        packed_faces.write_tsv(path, rows())
    else:
        packed_faces.write_records(path, insightface(FACES))
    return path


@pytest.fixture
def tsv(tmp_path):
    packed_faces.write_tsv(tmp_path / TSV, rows())
    return tmp_path / TSV


@pytest.fixture
def records(tmp_path):
    packed_faces.write_records(tmp_path / RECORDS, insightface(FACES))
    return tmp_path / RECORDS


def sample(path, count=TOTAL, seed=0, **options):
    return ms_celeb_1m.sample(ms_celeb_1m.find_file(path), count, seed, **options)


def run(monkeypatch, *arguments):
    """Runs the command in this process; returns what `sys.exit` was given."""
    monkeypatch.setattr("sys.argv", ["ms_celeb_1m", *map(str, arguments)])
    try:
        ms_celeb_1m.command.run(ms_celeb_1m.main, ms_celeb_1m.define_flags())
    except SystemExit as end:
        return end.code
    return 0


def read(data_dir, name, **options):
    builder = tfds.builder(f"ms_celeb_1m/{name}", data_dir=data_dir)
    examples = builder.as_dataset(split="extra", **options).as_numpy_iterator()
    return builder.info, {example["name"].decode(): example for example in examples}


def test_images_are_written_unmodified_in_one_split(source, tmp_path, monkeypatch, capsys):
    flags = (f"--source={source}", f"--data_dir={tmp_path}", f"--pictures={TOTAL}", "--seed=7")
    assert run(monkeypatch, *flags) == 0
    assert (
        f"use: --config.data.extra=ms_celeb_1m/n12_seed7 --config.data.dir={tmp_path}"
        in capsys.readouterr().out
    )
    raw = {"image": tfds.decode.SkipDecoding()}
    info, examples = read(tmp_path, "n12_seed7", decoders=raw)
    assert list(info.splits) == ["extra"]
    assert info.metadata["attributes"] == []
    assert info.metadata["identities"] == {"extra": 3}
    assert sorted(examples) == sorted(NAMES[source.name])
    people = np.repeat(range(3), COUNTS)
    for name, encoded, person in zip(NAMES[source.name], ENCODED, people, strict=True):
        assert examples[name]["image"] == encoded
        assert examples[name]["identity"] == person
        assert examples[name]["attributes"].shape == (0,)


def test_tfds_decodes_the_images(tsv, tmp_path, monkeypatch):
    assert run(monkeypatch, f"--source={tsv}", f"--data_dir={tmp_path}", "--pictures=3") == 0
    _, examples = read(tmp_path, "n3_seed0")
    assert [example["image"].shape for example in examples.values()] == 3 * [(16, 12, 3)]


def test_the_folder_of_the_file_will_do(source):
    assert sample(source.parent).names == sample(source).names


def test_a_seed_samples_the_same_images_again_and_another_seed_others(source):
    assert sample(source, 6, seed=1).names == sample(source, 6, seed=1).names
    samples = {tuple(sample(source, 6, seed).names) for seed in range(20)}
    assert len(samples) > 15


def test_a_sample_is_part_of_a_larger_one(source):
    samples = [set(sample(source, count, seed=3).names) for count in range(1, TOTAL + 1)]
    assert all(small < large for small, large in itertools.pairwise(samples))


def test_every_image_is_sampled_as_often_as_any_other(source):
    seeds, count = 400, 3
    names = [name for seed in range(seeds) for name in sample(source, count, seed).names]
    share = count / TOTAL
    deviation = np.sqrt(seeds * share * (1 - share))  # of a binomial distribution
    for name in NAMES[source.name]:
        assert abs(names.count(name) - seeds * share) < 5 * deviation


def test_the_order_of_the_lines_does_not_change_the_draw(tsv, tmp_path):
    expected = sample(tsv, 5)
    packed_faces.write_tsv(tsv, rows()[::-1])
    found = sample(tsv, 5)
    assert sorted(found.names) == sorted(expected.names)
    assert list(found.names) == sorted(found.names, key=TSV_NAMES[::-1].index)


def test_people_are_numbered_from_0_in_a_draw(tmp_path):
    people = [[face(who, 0)] for who in range(12)]  # 2 comes before 10
    packed_faces.write_records(tmp_path / RECORDS, insightface(people))
    found = sample(tmp_path, 8)
    assert found.identities.tolist() == list(range(8))
    assert found.identities.dtype == np.int64
    drawn = [int(name.split("/")[0]) for name in found.names]
    assert drawn == sorted(drawn)


def test_two_faces_of_one_image_are_two_images(tmp_path):
    lines = [row("m.1", 0, face(0, i), f"FaceId-{i}") for i in range(2)]
    packed_faces.write_tsv(tmp_path / TSV, lines)
    found = sample(tmp_path, 2)
    assert found.names == ("m.1/0-FaceId-0.jpg", "m.1/0-FaceId-1.jpg")
    assert [found.file.image(place) for place in found.places] == [face(0, 0), face(0, 1)]


def test_lines_may_end_as_on_windows_and_the_last_not_at_all(tmp_path):
    (tmp_path / TSV).write_bytes(b"\r\n".join(rows()))
    found = sample(tmp_path)
    assert [found.file.image(place) for place in found.places] == ENCODED


def test_a_records_first_label_is_the_person_where_there_are_two(tmp_path):
    contents = insightface(FACES)
    contents[1:4] = [packed((5, 0.5), encoded, 1) for encoded in FACES[0][:3]]
    packed_faces.write_records(tmp_path / RECORDS, contents)
    found = sample(tmp_path)
    assert found.names[:4] == ("5/1", "5/2", "5/3", "0/4")
    assert [found.file.image(place) for place in found.places] == ENCODED


@pytest.mark.parametrize("at", [12, 15], ids=["after the images", "last"])
def test_the_record_that_says_how_many_images_there_are_may_follow_them(tmp_path, at):
    order = [*range(1, 16)]
    order.insert(at, 0)  # after the images, as InsightFace's face2rec2.py writes it
    packed_faces.write_records(tmp_path / RECORDS, insightface(FACES), order)
    found = sample(tmp_path)
    assert list(found.names) == RECORD_NAMES
    assert [found.file.image(place) for place in found.places] == ENCODED
    with pytest.raises(UserError, match="holds 12 images, fewer than --pictures=13"):
        sample(tmp_path, TOTAL + 1)


def test_all_records_are_images_where_the_first_is_one(tmp_path):
    contents = [packed((who,), face(who, 0), who) for who in range(3)]
    packed_faces.write_records(tmp_path / RECORDS, contents)
    assert sample(tmp_path, 3).names == ("0/0", "1/1", "2/2")


def test_memory_is_that_of_the_sampled_images(tmp_path):
    line = row("m.%06d", 0, bytes(12_000)) + b"\n"
    with (tmp_path / TSV).open("wb") as file:
        file.writelines(line % i for i in range(2000))
    assert (tmp_path / TSV).stat().st_size > 30 << 20
    sample(tmp_path, 10)  # what Python keeps from a first call
    tracemalloc.start()
    sample(tmp_path, 10)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 19


def test_the_file_is_read_once(tsv, tmp_path, monkeypatch):
    passes = []
    places = packings.TsvFile.places
    monkeypatch.setattr(
        packings.TsvFile, "places", lambda self, **kw: passes.append(self) or places(self, **kw)
    )
    assert run(monkeypatch, f"--source={tsv}", f"--data_dir={tmp_path}", "--pictures=2") == 0
    assert len(passes) == 1


def test_a_prepared_set_is_reported_from_one_of_other_people(tsv, tmp_path, monkeypatch, capsys):
    flags = (f"--source={tsv}", f"--data_dir={tmp_path}", "--pictures=12")
    assert run(monkeypatch, *flags) == 0
    assert run(monkeypatch, *flags) == 0
    assert "ms_celeb_1m/n12_seed0 is prepared already" in capsys.readouterr().out
    packed_faces.write_tsv(tsv, [line.replace(b"m.0107_f", b"m.0107_g") for line in rows()])
    assert run(monkeypatch, *flags) == 2
    assert "was made from other images or labels" in capsys.readouterr().err


def test_broken_images_stop_it_or_are_skipped(source, tmp_path, monkeypatch, capsys):
    faces = [[*FACES[0][:4], FACES[0][4][:-40]], *FACES[1:]]
    if source.name == TSV:
        lines = rows()
        lines[4] = row(MIDS[0], 4, faces[0][4])
        lines[6] = lines[6][:-9] + b"?" + lines[6][-8:]
        packed_faces.write_tsv(source, lines)
        broken = {TSV_NAMES[4], TSV_NAMES[6]}
        places = (f"{source}: line 5, at byte ", f"{source}: line 7, at byte ")
    else:
        packed_faces.write_records(source, insightface(faces))
        broken = {RECORD_NAMES[4]}
        places = (f"{source}: record 5, at byte ",)
    flags = (f"--source={source}", f"--data_dir={tmp_path}", "--pictures=12")
    assert run(monkeypatch, *flags) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert any(place in line for place in places)
    assert "cut short" in line
    assert not (tmp_path / "ms_celeb_1m/n12_seed0/1.0.0").exists()
    assert run(monkeypatch, *flags, "--on_error=skip") == 0
    assert f"skipped {len(broken)} broken images" in capsys.readouterr().out
    info, examples = read(tmp_path, "n12_seed0")
    assert set(examples) == set(NAMES[source.name]) - broken
    assert set(info.metadata["skipped"]["names"]) == broken


def lose_columns(source):
    """Leaves two columns of line 5; returns what is said of it."""
    lines = rows()
    lines[4] = b"\t".join(lines[4].split(b"\t")[:2])
    packed_faces.write_tsv(source, lines)
    start = sum(len(line) + 1 for line in lines[:4])
    return f"{source}: line 5, at byte {start}, has 2 columns, not 7: is the file whole?"


def flip_magic(source):
    """Flips a bit of record 5's magic word; returns what is said of it."""
    start = int(source.with_suffix(".idx").read_text().splitlines()[5].split("\t")[1])
    content = bytearray(source.read_bytes())
    content[start] ^= 1
    source.write_bytes(content)
    return f"{source}: record 5, at byte {start}: no RecordIO record starts here"


def damage(source):
    """Damages the fifth image's line or record; returns its name and what is said of it."""
    if source.name == TSV:
        return "line 5", lose_columns(source)
    return "record 5", flip_magic(source)


def test_damaged_lines_and_records_stop_it_or_are_skipped(source, tmp_path, monkeypatch, capsys):
    name, reason = damage(source)
    flags = (f"--source={source}", f"--data_dir={tmp_path}", "--pictures=12")
    assert run(monkeypatch, *flags) == 2
    assert capsys.readouterr().err == f"error: {reason}\n"
    assert run(monkeypatch, *flags, "--on_error=skip") == 0
    assert f"skipped 1 broken images: {name}\n" in capsys.readouterr().out
    info, examples = read(tmp_path, "n12_seed0")
    whole = [each for i, each in enumerate(NAMES[source.name]) if i != 4]
    assert sorted(examples) == sorted(whole)
    assert [examples[each]["identity"] for each in whole] == [*4 * [0], *4 * [1], *3 * [2]]
    assert info.metadata["identities"] == {"extra": 3}
    assert info.metadata["skipped"] == {"count": 1, "names": [name]}
    listed = tmp_path / "ms_celeb_1m/n12_seed0/1.0.0/skipped.tsv"
    assert listed.read_text() == f"{name}\t{reason}\n"


def test_a_damaged_line_or_record_leaves_the_rest_of_a_sample_as_it_was(source):
    whole = {seed: set(sample(source, 6, seed).names) for seed in range(20)}
    name, reason = damage(source)
    fifth = NAMES[source.name][4]
    times = 0
    for seed, expected in whole.items():
        found = sample(source, 6, seed, skip=True)
        assert found.names == sample(source, 6, seed, skip=True).names
        assert len(found.names) == 6
        # A record keeps its number and so its place in the draw; a line has another key.
        if source.name == RECORDS:
            assert set(found.names) == {name if each == fifth else each for each in expected}
        else:
            assert len(expected - set(found.names)) <= 1 + (fifth in expected)
        if name in found.names:
            at, times = found.names.index(name), times + 1
            assert found.identities[at] == UNKNOWN_IDENTITY
            with pytest.raises(UserError) as told:
                found.image(at)
            assert str(told.value) == reason
    assert 0 < times < 20


def test_all_may_be_damaged(source):
    packed_faces.write_tsv(source, 3 * [b"a"])
    if source.name == RECORDS:
        source.with_suffix(".idx").write_text("0\t0\n1\t2\n2\t4\n")
    found = sample(source, 3, skip=True)
    assert found.identities.tolist() == 3 * [UNKNOWN_IDENTITY]
    assert len(set(found.names)) == 3


def test_a_record_whose_person_is_no_number_is_skipped_although_its_image_is_whole(records):
    contents = insightface(FACES)
    contents[5] = packed((0.5,), FACES[0][4], 5)
    packed_faces.write_records(records, contents)
    found = sample(records, skip=True)
    assert found.names[4] == "record 5"
    with pytest.raises(UserError, match=r"record 5, at byte .*: 0\.5 is no person's number"):
        found.image(4)


def readable(drawn):
    """The images of a draw that can be read, by name."""
    found = {}
    for i, name in enumerate(drawn.names):
        with contextlib.suppress(UserError):
            found[name] = drawn.image(i)
    return found


def test_without_the_record_that_says_where_images_end_all_records_are_sampled(records):
    content = bytearray(records.read_bytes())
    content[0] ^= 1
    records.write_bytes(content)
    found = sample(records, 16, skip=True)
    assert readable(found) == dict(zip(RECORD_NAMES, ENCODED, strict=True))
    assert found.names[0] == "record 0"


def test_a_damaged_last_record_may_be_left_out(tmp_path):
    path = tmp_path / RECORDS
    # The last record is an image's.
    packed_faces.write_records(path, insightface(FACES), [*range(12), 13, 14, 15, 12])
    cut(path, path.stat().st_size - 4)
    with pytest.raises(UserError, match=r"record 12, at byte .*: the file ends within"):
        sample(path)
    expected = dict(zip(RECORD_NAMES[:-1], ENCODED[:-1], strict=True))
    assert readable(sample(path, skip=True)) == expected


@pytest.mark.parametrize(("lost", "name"), [(len(rows()[-1]) - 5, "line 12"), (40, TSV_NAMES[-1])])
def test_a_tsv_cut_short_is_used_up_to_there(tsv, lost, name):
    cut(tsv, tsv.stat().st_size - 1 - lost)
    found = sample(tsv, skip=True)
    assert found.names[-1] == name
    assert readable(found) == dict(zip(TSV_NAMES[:-1], ENCODED[:-1], strict=True))


def test_base64_that_does_not_decode_is_reported(tsv):
    lines = rows()
    lines[2] = lines[2][:-9] + b"?" + lines[2][-8:]
    packed_faces.write_tsv(tsv, lines)
    found = sample(tsv)
    with pytest.raises(UserError, match=r"line 3, at byte .* is cut short or isn't base64"):
        found.file.image(found.places[2])


def cut(path, size):
    with path.open("r+b") as file:
        file.truncate(size)


def test_a_tsv_cut_short_is_reported(tsv):
    size, last = tsv.stat().st_size, len(rows()[-1])
    for kept, message in (
        (5, "has 1 columns, not 7: is the file whole"),
        (last - 1, "the image is cut short or isn't base64"),
        (last - 40, "is cut short"),
    ):
        packed_faces.write_tsv(tsv, rows())
        cut(tsv, size - 1 - last + kept)
        with pytest.raises(UserError, match=f"line 12, at byte {size - 1 - last}.*{message}"):
            sample(tsv, 3)


def test_a_line_with_too_few_columns_is_reported(tsv):
    lines = rows()
    lines[3] = b"\t".join(lines[3].split(b"\t")[:6])
    packed_faces.write_tsv(tsv, lines)
    start = sum(len(line) + 1 for line in lines[:3])
    with pytest.raises(UserError, match=f"line 4, at byte {start}, has 6 columns, not 7"):
        sample(tsv, 3)


def test_a_file_without_line_breaks_does_not_fill_the_memory(tsv, monkeypatch):
    monkeypatch.setattr(packings, "LONGEST_LINE", 1000)
    tsv.write_bytes(bytes(5000))
    with pytest.raises(UserError, match="line 1 is longer than 1,000 bytes"):
        sample(tsv, 3)


def replace_line(path, number, line):
    lines = path.read_text().splitlines(keepends=True)
    lines[number - 1] = line
    path.write_text("".join(lines))


RECORD_FAULTS = {
    "no index": (
        lambda rec, idx: idx.unlink(),
        "train.idx is missing: it holds the places of the images in",
    ),
    "another file": (
        lambda rec, idx: rec.write_bytes(b"PK\3\4" + bytes(100)),
        "train.rec: record 0, at byte 0: no RecordIO record starts here",
    ),
    "an empty file": (
        lambda rec, idx: rec.write_bytes(b""),
        "train.idx: line 1 says byte 0, but train.rec has 0: it is cut short, or the two are of",
    ),
    "cut within the last record": (
        lambda rec, idx: cut(rec, rec.stat().st_size - 4),
        "record 15, at byte .*: the file ends within the record: it is cut short",
    ),
    "cut before the last records": (
        lambda rec, idx: cut(rec, rec.stat().st_size // 2),
        r"train.idx: line \d+ says byte \d+, but train.rec has \d+: it is cut short, or",
    ),
    "an index of fewer records": (
        lambda rec, idx: replace_line(idx, 16, ""),
        r"train.idx: its last record ends at byte \d+, but train.rec has \d+: the two are of diff",
    ),
    "an empty index": (
        lambda rec, idx: idx.write_text(""),
        r"train.idx: its last record ends at byte 40, but train.rec has \d+: the two are of diff",
    ),
    "an index of another file": (
        lambda rec, idx: replace_line(idx, 5, "4\t1004\n"),
        "train.rec: record 4, at byte 1004: no RecordIO record starts here",
    ),
    "an index of one column": (
        lambda rec, idx: replace_line(idx, 3, "2\n"),
        "train.idx: line 3 isn't the number of a record, a tab and its offset",
    ),
    "an index of names": (
        lambda rec, idx: replace_line(idx, 3, "a\tb\n"),
        "train.idx: line 3 isn't the number of a record, a tab and its offset",
    ),
    "a label that is no number": (
        lambda rec, idx: packed_faces.write_records(rec, [packed((0.5,), face(0, 0), 0)] * 12),
        "train.rec: record 0, at byte 0: 0.5 is no person's number",
    ),
    "records too short": (
        lambda rec, idx: packed_faces.write_records(rec, [b"abcd"] * 12),
        "train.rec: record 0, at byte 0: 4 bytes are too few for an image's header",
    ),
}


@pytest.mark.parametrize("fault", RECORD_FAULTS)
def test_wrong_records_are_reported(records, fault):
    break_it, message = RECORD_FAULTS[fault]
    break_it(records, records.with_suffix(".idx"))
    with pytest.raises(UserError, match=message):
        sample(records)
    if message.startswith("train.idx"):  # is never skipped
        with pytest.raises(UserError, match=message):
            sample(records, skip=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source="], "--source=PATH is missing: FaceImageCroppedWithAlignment.tsv or train.rec"),
        (["--source={tmp}/no"], "--source={tmp}/no: no such file or folder"),
        (["--source={tmp}/empty"], "{tmp}/empty: the folder holds no FaceImageCroppedWithAl"),
        (["--source={tmp}/both"], "--source={tmp}/both: the folder holds both: say which"),
        (["--source={tmp}/a.zip"], "--source={tmp}/a.zip: give FaceImageCroppedWithAlignment.tsv"),
        (["--pictures=13"], "holds 12 images, fewer than --pictures=13"),
        (["--pictures=0"], "--pictures=0"),
        (["--seed=-1"], "--seed=-1"),
        (["--shares=0.5,0.3,0.2"], "Unknown command line flag 'shares'"),
    ],
)
def test_bad_flags_give_one_line_and_exit_code_2(
    source, tmp_path, monkeypatch, capsys, arguments, message
):
    for folder, names in (("empty", []), ("both", [TSV, RECORDS])):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    (tmp_path / "a.zip").touch()
    filled = [argument.format(tmp=tmp_path) for argument in arguments]
    assert run(monkeypatch, f"--source={source}", f"--data_dir={tmp_path / 'data'}", *filled) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message.format(tmp=tmp_path) in line
    assert not (tmp_path / "data").exists()
