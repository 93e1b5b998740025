"""Convolutions whose gradients are matrix products on a CPU, where that is faster.

oneDNN's gradient of a kernel is several times slower than its matrix product. On small maps, so are
transposed convolutions and their gradients (figures: docs/performance.md). The matrix has a row for
each output position: the K x K inputs in its window. On a GPU, all are plain convolutions.
"""

import functools

import numpy as np
import tensorflow as tf

# With fewer channels, gathering the windows costs more than the product saves.
FEWEST_CHANNELS = 16
# Up to these sides of a map, outputs are also products: of 1x1 kernels and transposed kernels.
LARGEST_1X1_MAP = 4
LARGEST_TRANSPOSED_MAP = 4


def convolve(inputs: tf.Tensor, kernel: tf.Tensor, strides: int, training: bool) -> tf.Tensor:
    """Returns the convolution with symmetric zero margins of K // 2.

    Args:
        inputs: float [N, H, W, C].
        kernel: [K, K, C, F] of the same dtype, K odd.
        strides: step in both directions.
        training: whether the kernel's gradient is needed. If not, TensorFlow can fuse the
            convolution with the next operation.

    Returns:
        [N, ceil(H / strides), ceil(W / strides), F].
    """
    by_product = training and _products_pay(inputs)
    if by_product and kernel.shape[0] == strides == 1 and _side(inputs) <= LARGEST_1X1_MAP:
        return _convolve_1x1(inputs, kernel)
    margin, padding = kernel.shape[0] // 2, "SAME"
    if margin and strides > 1:
        # "SAME" pads an even map on one side only. With conv2d's explicit padding, gradients are 10
        # to 200 times slower on a CPU.
        inputs = tf.pad(inputs, [(0, 0), (margin, margin), (margin, margin), (0, 0)])
        padding = "VALID"
    if by_product:
        return _convolve(inputs, kernel, strides, padding)
    return tf.nn.conv2d(inputs, kernel, strides, padding)


def convolve_transposed(inputs: tf.Tensor, kernel: tf.Tensor, training: bool) -> tf.Tensor:
    """Returns the transposed convolution with stride 2 and Keras's "same" padding.

    Args:
        inputs: float [N, H, W, C].
        kernel: [3, 3, F, C] of the same dtype.
        training: whether the kernel's gradient is needed.

    Returns:
        [N, 2H, 2W, F].
    """
    if not _products_pay(inputs):
        return _transpose(inputs, kernel)
    if _side(inputs) <= LARGEST_TRANSPOSED_MAP:
        return _double_by_product(inputs, kernel)
    if training and kernel.shape[2] >= FEWEST_CHANNELS:
        return _double(inputs, kernel)
    return _transpose(inputs, kernel)


def multiply(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Returns rows [N, C] times a kernel [C, F] of the same dtype: [N, F].

    In float32 with few rows, the inputs' gradient is two to four times faster as the product of the
    kernel and the transposed gradient.
    """
    if inputs.dtype != tf.float32 or not _is_on_cpu():
        return tf.matmul(inputs, kernel)
    return _multiply(inputs, kernel)


@tf.custom_gradient
def _multiply(inputs, kernel):
    def gradients(upstream):
        to_inputs = tf.transpose(tf.matmul(kernel, upstream, transpose_b=True))
        return to_inputs, tf.matmul(inputs, upstream, transpose_a=True)

    return tf.matmul(inputs, kernel), gradients


def _is_on_cpu() -> bool:
    return not tf.config.list_logical_devices("GPU")


def _products_pay(inputs: tf.Tensor) -> bool:
    known = inputs.shape[1:].is_fully_defined() and inputs.shape[-1] >= FEWEST_CHANNELS
    return known and _is_on_cpu()


def _side(inputs: tf.Tensor) -> int:
    return max(inputs.shape[1:3])


def _convolve_1x1(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Returns a 1x1 convolution as a product; TensorFlow's gradients of it are products."""
    height, width, channels = inputs.shape[1:]
    rows = tf.reshape(inputs, (-1, channels))
    outputs = tf.matmul(rows, tf.reshape(kernel, kernel.shape[2:]))
    return tf.reshape(outputs, (-1, height, width, kernel.shape[3]))


def _convolve(inputs: tf.Tensor, kernel: tf.Tensor, strides: int, padding: str) -> tf.Tensor:
    @tf.custom_gradient
    def convolution(inputs, kernel):
        def gradients(upstream):
            to_inputs = tf.nn.conv2d_transpose(upstream, kernel, tf.shape(inputs), strides, padding)
            columns = _columns(inputs, kernel.shape[0], strides, padding)
            return to_inputs, _kernel_gradient(columns, upstream, kernel)

        return tf.nn.conv2d(inputs, kernel, strides, padding), gradients

    return convolution(inputs, kernel)


@tf.custom_gradient
def _double(inputs, kernel):
    def gradients(upstream):
        to_inputs = tf.nn.conv2d(upstream, kernel, 2, "SAME")
        return to_inputs, _kernel_gradient(_columns(upstream, 3, 2, "SAME"), inputs, kernel)

    return _transpose(inputs, kernel), gradients


@tf.custom_gradient
def _double_by_product(inputs, kernel):
    height, width, channels = inputs.shape[1:]
    matrix = tf.reshape(kernel, (-1, channels))

    def gradients(upstream):
        columns = _columns(upstream, 3, 2, "SAME")
        to_inputs = tf.reshape(tf.matmul(columns, matrix), tf.shape(inputs))
        return to_inputs, _kernel_gradient(columns, inputs, kernel)

    columns = tf.matmul(tf.reshape(inputs, (-1, channels)), matrix, transpose_b=True)
    return _from_columns(columns, height, width, kernel.shape[2]), gradients


def _transpose(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    count, height, width, _ = tf.unstack(tf.shape(inputs))
    shape = (count, 2 * height, 2 * width, kernel.shape[2])
    return tf.nn.conv2d_transpose(inputs, kernel, shape, 2, "SAME")


def _kernel_gradient(columns: tf.Tensor, rows: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Returns the gradient of a kernel [K, K, C, F]; windows [N H W, K K C], rows [N, H, W, F]."""
    rows = tf.reshape(rows, (-1, rows.shape[-1]))
    return tf.reshape(tf.matmul(columns, rows, transpose_a=True), kernel.shape)


def _columns(inputs: tf.Tensor, size: int, strides: int, padding: str) -> tf.Tensor:
    """Returns the window of each output position of a convolution: [N H' W', K K C]."""
    height, width, channels = inputs.shape[1:]
    if size == strides == 1:
        return tf.reshape(inputs, (-1, channels))
    positions, outside = _windows(height, width, size, strides, padding)
    flat = tf.reshape(inputs, (-1, height * width, channels))
    if outside:
        flat = tf.pad(flat, [(0, 0), (0, 1), (0, 0)])
    return tf.reshape(tf.gather(flat, positions, axis=1), (-1, size**2 * channels))


def _from_columns(columns: tf.Tensor, height: int, width: int, channels: int) -> tf.Tensor:
    """Returns the adjoint of `_columns` for a doubled map: [N H W, 9 C] to [N, 2H, 2W, C]."""
    positions, _ = _windows(2 * height, 2 * width, 3, 2, "SAME")
    flat = tf.reshape(columns, (-1, 9 * height * width, channels))
    flat = tf.pad(flat, [(0, 0), (0, 1), (0, 0)])
    parts = tf.gather(flat, _sources(positions, 4 * height * width), axis=1)
    total = tf.reduce_sum(tf.reshape(parts, (-1, 4 * height * width, 4, channels)), axis=2)
    return tf.reshape(total, (-1, 2 * height, 2 * width, channels))


@functools.cache
def _windows(
    height: int, width: int, size: int, strides: int, padding: str
) -> tuple[np.ndarray, bool]:
    """Returns the flat positions that a convolution's windows cover in a map.

    Returns:
        int32 [H' W' K K], with H W for a place outside the map; and whether there is such a place.
    """
    rows, columns = (_reach(side, size, strides, padding) for side in (height, width))
    row, column = rows[:, None, :, None], columns[None, :, None, :]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    flat = np.where(inside, row * width + column, height * width)
    return flat.ravel().astype(np.int32), not inside.all()


def _reach(side: int, size: int, strides: int, padding: str) -> np.ndarray:
    """Returns the positions that the windows cover along one axis: [outputs, size]."""
    if padding == "VALID":
        count, before = (side - size) // strides + 1, 0
    else:
        count = -(-side // strides)
        before = max(0, (count - 1) * strides + size - side) // 2
    return np.arange(count)[:, None] * strides + np.arange(size) - before


def _sources(positions: np.ndarray, count: int) -> np.ndarray:
    """Returns the indices in `positions` of each of `count` places: int32 [4 count].

    A place occurs at most four times; the rest is filled with len(positions).
    """
    sources = np.full((count, 4), len(positions), np.int32)
    for place in range(count):
        found = np.flatnonzero(positions == place)
        sources[place, : len(found)] = found
    return sources.ravel()
