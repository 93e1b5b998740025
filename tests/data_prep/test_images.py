import cv2
import numpy as np
import pytest

from data_prep import images
from tfadv.config.errors import UserError
from tfadv.data.images import MAX_PIXELS


def encode(seed, extension=".jpg", options=()):
    image = np.random.default_rng(seed).integers(0, 256, (24, 20, 3), np.uint8)
    return cv2.imencode(extension, image, options)[1].tobytes()


def test_whole_images_pass(tmp_path):
    for extension in (".jpg", ".png"):
        path = tmp_path / f"a{extension}"
        path.write_bytes(encode(0, extension) + b"\0\0")
        images.read_image(path)


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_an_image_cut_short_is_reported(tmp_path, extension, kept):
    path = tmp_path / f"a{extension}"
    encoded = encode(0, extension)
    path.write_bytes(encoded[: int(kept * len(encoded))])
    with pytest.raises(UserError, match=rf"a\{extension}: is cut short"):
        images.read_image(path)


def test_the_end_of_a_thumbnail_does_not_end_the_image(tmp_path):
    thumbnail, encoded = encode(1), encode(0)
    block = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded[:2] + block + encoded[2:])
    images.read_image(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match="is cut short"):
        images.read_image(path)


@pytest.mark.parametrize(
    "film",
    [b"\0\0\0\x18ftypmp42" + images.JPEG_SCAN + b"\0" * 9, encode(2)[:-40]],
    ids=["a film", "another image, cut short"],
)
def test_what_follows_an_image_is_not_judged(tmp_path, film):
    path = tmp_path / "a.jpg"
    path.write_bytes(encode(0) + film)
    images.read_image(path)


def test_a_progressive_image_is_whole_only_with_its_last_scan(tmp_path):
    path = tmp_path / "a.jpg"
    encoded = encode(0, options=(cv2.IMWRITE_JPEG_PROGRESSIVE, 1))
    scans = [at for at in range(len(encoded)) if encoded.startswith(images.JPEG_SCAN, at)]
    assert len(scans) > 2
    path.write_bytes(encoded)
    images.read_image(path)
    for end in (*scans[1:], len(encoded) - 2):
        path.write_bytes(encoded[:end])
        with pytest.raises(UserError, match="is cut short"):
            images.read_image(path)


@pytest.mark.parametrize("filling", [b"\xff" * 3, b"junk"])
def test_filling_between_segments_is_stepped_over(tmp_path, filling):
    encoded = encode(0)
    length = int.from_bytes(encoded[4:6], "big")  # of the first segment, after SOI
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded[: 4 + length] + filling + encoded[4 + length :])
    images.read_image(path)


@pytest.mark.parametrize("kept", [3, 5, 30])
def test_a_jpeg_cut_in_its_header_is_cut_short(tmp_path, kept):
    path = tmp_path / "a.jpg"
    path.write_bytes(encode(0)[:kept])
    with pytest.raises(UserError, match="is cut short"):
        images.read_image(path)


def test_an_image_whose_header_is_broken_does_not_decode(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(images.JPEG_START + images.JPEG_SCAN + images.JPEG_END)
    with pytest.raises(UserError, match=r"a\.jpg: doesn't decode"):
        images.read_image(path)


def jpeg(height, width):
    """An image whose header says that it has other sides, in a first frame that counts."""
    encoded = bytearray(encode(0))
    at = encoded.index(b"\xff\xc0") + 5
    encoded[at : at + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(encoded)


def png(height, width):
    encoded = bytearray(encode(0, ".png"))
    encoded[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return bytes(encoded)


@pytest.mark.parametrize("kind", [jpeg, png])
def test_an_image_of_too_many_pixels_is_not_decoded(kind):
    with pytest.raises(UserError, match=r"x: has 30,001 x 30,000 pixels; at most 89,478,485"):
        images.check_image(kind(30_000, 30_001), "x")


def test_as_many_pixels_are_prepared_as_training_reads():
    assert images.MAX_PIXELS == MAX_PIXELS
