"""Decodes images to squares of one size, and converts between uint8 and [-1, 1]."""

import cv2
import numpy as np
import tensorflow as tf

# An image of this size takes 256 MiB, a progressive JPEG five times that, and several are decoded
# at a time. A file of a few kB can hold more pixels. Pillow warns from the same number on.
MAX_PIXELS = 2**28 // 3
_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"  # libpng alone would accept other chunks first


def normalize(images: tf.Tensor) -> tf.Tensor:
    """Returns uint8 images as float32 in [-1, 1]."""
    return tf.cast(images, tf.float32) / 127.5 - 1.0


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Returns images in [-1, 1] as uint8, rounded; values outside the range are clipped."""
    return np.rint((np.clip(images, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)


def thumbnails(images: np.ndarray, side: int) -> np.ndarray:
    """Returns uint8 images at `side` pixels per side as vectors in [-1, 1], float32 [N, D]."""
    small = resized(images, side, cv2.INTER_AREA)
    return small.reshape(len(small), -1).astype(np.float32) / 127.5 - 1.0


def resized(images: np.ndarray, side: int, method: int) -> np.ndarray:
    """Returns images [N, S, S, 3] at `side` pixels per side, by a method of OpenCV."""
    if images.shape[1] == side:
        return images
    return np.stack([cv2.resize(each, (side, side), interpolation=method) for each in images])


def decode_image(encoded: tf.Tensor, size: int) -> tf.Tensor:
    """Decodes a JPEG or PNG, crops the largest centred square and resizes it.

    Returns:
        uint8 [size, size, 3].

    Raises:
        InvalidArgumentError: it is neither, cannot be decoded, or has more than `MAX_PIXELS`.
    """
    square = tf.cond(
        tf.io.is_jpeg(encoded), lambda: _square_of_jpeg(encoded), lambda: _square_of_png(encoded)
    )
    return tf.cast(tf.round(resize_square(square, size)), tf.uint8)


def decode_images(encoded: tf.Tensor, size: int) -> tf.Tensor:
    """Decodes a batch of images, several at a time; see `decode_image`.

    Args:
        encoded: string [N].
        size: S, pixels a side.

    Returns:
        uint8 [N, S, S, 3].
    """
    signature = tf.TensorSpec((size, size, 3), tf.uint8)
    return tf.map_fn(lambda e: decode_image(e, size), encoded, fn_output_signature=signature)


def resize_square(square: tf.Tensor, size: int) -> tf.Tensor:
    """Returns the result of `tf.image.resize(square, (size, size), antialias=True)`, bit by bit.

    That op distributes the rows of each image over threads, which costs more than it saves where
    several images are already decoded in parallel. An image of one row stays on one thread.

    Args:
        square: uint8 [T, T, 3].
        size: S, pixels a side.

    Returns:
        float32 [S, S, 3].
    """
    side = tf.shape(square)[0]
    scale = tf.stack([1.0, tf.cast(size, tf.float32) / tf.cast(side, tf.float32)])

    def resize_row(images):
        return tf.raw_ops.ScaleAndTranslate(
            images=images,
            size=(1, size),
            scale=scale,
            translation=(0.0, 0.0),
            kernel_type="triangle",
            antialias=True,
        )

    column_of_rows = resize_row(tf.reshape(square, (1, 1, side, 3 * side)))
    rows = resize_row(tf.reshape(column_of_rows, (size, 1, side, 3)))
    return tf.reshape(rows, (size, size, 3))


def _square_of_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes the square only: the decoder skips rows and columns outside it."""
    shape = tf.image.extract_jpeg_shape(encoded)
    with tf.control_dependencies([_check_pixels(shape[0], shape[1])]):
        window = centred_square(shape[0], shape[1])
    # The default method differs by a level from OpenCV and Pillow, and is no faster.
    return tf.image.decode_and_crop_jpeg(encoded, window, channels=3, dct_method="INTEGER_ACCURATE")


def _square_of_png(encoded: tf.Tensor) -> tf.Tensor:
    is_png = tf.strings.substr(encoded, 0, len(_PNG_START)) == _PNG_START
    start = tf.debugging.Assert(is_png, ["an image is neither a JPEG nor a PNG"])
    with tf.control_dependencies([start]):
        # Width and height follow the start and the header of the first chunk (RFC 2083, 11.2.1).
        sides = tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False)
    with tf.control_dependencies([_check_pixels(sides[1], sides[0])]):
        image = tf.io.decode_png(encoded, channels=3)
    top, left, height, width = tf.unstack(centred_square(sides[1], sides[0]))
    return image[top : top + height, left : left + width]


def _check_pixels(height: tf.Tensor, width: tf.Tensor) -> tf.Operation:
    pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    return tf.debugging.Assert(
        pixels <= MAX_PIXELS, ["an image has more pixels than", MAX_PIXELS, height, width]
    )


def centred_square(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Returns the largest centred square of an image: top, left, height and width, int32 [4]."""
    side = tf.minimum(height, width)
    return tf.stack([(height - side) // 2, (width - side) // 2, side, side])
