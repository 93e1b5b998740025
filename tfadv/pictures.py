"""Encoded pictures to squares of one size."""

import tensorflow as tf


def decode_picture(encoded: tf.Tensor, size: int) -> tf.Tensor:
    """Decodes a JPEG or PNG, cuts the largest centred square and resizes it.

    Returns:
        uint8 [size, size, 3].
    """
    square = tf.cond(
        tf.io.is_jpeg(encoded), lambda: _square_of_jpeg(encoded), lambda: _square_of_other(encoded)
    )
    picture = tf.image.resize(square, (size, size), antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(picture), 0, 255), tf.uint8)


def _square_of_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes only the square: rows and columns outside it are skipped by the decoder."""
    shape = tf.image.extract_jpeg_shape(encoded)
    # The default method is a level off what OpenCV and Pillow decode, and no faster.
    return tf.image.decode_and_crop_jpeg(
        encoded, _window(shape[0], shape[1]), channels=3, dct_method="INTEGER_ACCURATE"
    )


def _square_of_other(encoded: tf.Tensor) -> tf.Tensor:
    picture = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    shape = tf.shape(picture)
    top, left, height, width = tf.unstack(_window(shape[0], shape[1]))
    return picture[top : top + height, left : left + width]


def _window(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    side = tf.minimum(height, width)
    return tf.stack([(height - side) // 2, (width - side) // 2, side, side])
