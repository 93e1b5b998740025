import io
import struct

import numpy as np
import pytest

from data_prep import recordio
from tests.data_prep import packed_faces
from tfadv.config.errors import UserError

MAGIC = bytes.fromhex("0a23d7ce")  # 0xced7230a, the lowest byte first


def test_a_record_is_as_mxnet_writes_it():
    # MXRecordIO.write(pack(IRHeader(0, 7.0, 42, 0), b"abcde")), worked out by hand
    packed = MAGIC + bytes.fromhex(
        "1d000000"  # whole, 29 bytes
        "00000000 0000e040 2a00000000000000 0000000000000000"
        "6162636465 000000"
    )
    file = io.BytesIO(b"1234" + packed + b"the next")
    labels, encoded = recordio.unpack(recordio.read_record(file, 4))
    assert (labels, encoded) == ((7.0,), b"abcde")
    assert file.read() == b"the next"


def test_labels_follow_the_header_where_it_counts_them():
    record = struct.pack("<IfQQ3f", 3, 9, 1, 0, 0.5, -2, 4) + b"abc"
    assert recordio.unpack(record) == ((0.5, -2.0, 4.0), b"abc")


@pytest.mark.parametrize(
    ("parts", "record"),
    [
        ([(1, b""), (3, b"abc")], MAGIC + b"abc"),
        ([(1, b"abcd"), (3, b"")], b"abcd" + MAGIC),
        ([(1, b"abcd"), (2, b""), (2, b"12345678"), (3, b"x")], None),
    ],
    ids=["at its start", "at its end", "several times"],
)
def test_the_magic_word_may_occur_in_a_record(parts, record):
    packed = b"".join(
        MAGIC + struct.pack("<I", place << 29 | len(part)) + part + bytes(-len(part) % 4)
        for place, part in parts
    )
    expected = record or b"abcd" + MAGIC + MAGIC + b"12345678" + MAGIC + b"x"
    file = io.BytesIO(packed)
    assert recordio.read_record(file, 0) == expected
    assert file.tell() == len(packed)


@pytest.mark.parametrize("kept", range(20))
def test_a_record_cut_short_anywhere_is_reported(kept):
    packed = MAGIC + struct.pack("<I", 9) + b"123456789" + bytes(3)
    with pytest.raises(UserError, match="the file ends within the record: it is cut short"):
        recordio.read_record(io.BytesIO(packed[:kept]), 0)
    assert recordio.read_record(io.BytesIO(packed), 0) == b"123456789"


@pytest.mark.parametrize("places", [(2,), (3,), (1, 0), (1, 1), (1, 2, 1), (4,)])
def test_parts_out_of_order_are_reported(places):
    packed = b"".join(MAGIC + struct.pack("<I", place << 29) for place in places)
    with pytest.raises(UserError, match="the parts of the record are out of order"):
        recordio.read_record(io.BytesIO(packed), 0)


def test_another_magic_word_is_reported():
    with pytest.raises(UserError, match="no RecordIO record starts here"):
        recordio.read_record(io.BytesIO(MAGIC[::-1] + bytes(8)), 0)


@pytest.mark.parametrize("record", [b"", bytes(23), struct.pack("<IfQQf", 2, 0, 0, 0, 1)])
def test_a_record_too_short_for_its_header_is_reported(record):
    with pytest.raises(UserError, match="bytes are too few for an image's header"):
        recordio.unpack(record)


def test_any_record_survives_being_cut_at_its_magic_words():
    generator = np.random.default_rng(0)
    pieces = (MAGIC, MAGIC[::-1], MAGIC[1:] + MAGIC[:1], b"a")
    for _ in range(200):
        record = b"".join(pieces[i] for i in generator.choice(4, generator.integers(12)))
        file = io.BytesIO(packed_faces.record(record))
        assert recordio.read_record(file, 0) == record
        assert file.read() == b""
