import hashlib
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.models.conftest import SHALLOW
from tfadv.config.errors import UserError
from tfadv.config.schema import VGG19_LAYERS
from tfadv.data.images import decode_image, normalize
from tfadv.models import vgg
from tfadv.models.vgg import DEFAULT_LAYERS, VGGFeatures, mean_squares, preprocess

SHARED = Path(__file__).parents[2] / "../shared/data"
REAL = SHARED / "vgg19/vgg19_block3_conv1_normalised.weights.h5"
FACES = SHARED / "celeba/img_align_celeba"


@pytest.fixture(scope="module")
def keras_3_file(vgg19, tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg19") / "vgg19.weights.h5"
    vgg19.save_weights(path)
    return path


def make_images(count, size=32, dtype=tf.float32):
    return tf.random.stateless_uniform((count, size, size, 3), (0, 0), -1, 1, dtype)


def keras_features(network, images, layers):
    """Keras's features of images in [-1, 1], by its own preprocessing."""
    levels = keras.applications.vgg19.preprocess_input((images.numpy() + 1) * 127.5)
    outputs = keras.Model(network.input, {name: network.get_layer(name).output for name in layers})
    features = outputs(levels)
    return [features[name].numpy() for name in layers]


def assert_equal_maps(maps, expected):
    for one, other in zip(maps, expected, strict=True):
        assert one.dtype == tf.float32
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())


def test_preprocessing_is_that_of_keras():
    levels = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3)).astype(np.float32)
    expected = keras.applications.vgg19.preprocess_input(levels.copy())
    np.testing.assert_allclose(preprocess(levels / 127.5 - 1), expected, atol=1e-4)


def test_features_at_all_depths_are_those_of_keras(vgg19, keras_3_file):
    # Out of order: they come back in the order asked for.
    layers = ("block5_conv4", *VGG19_LAYERS[:-1])
    images = make_images(2)
    g = VGGFeatures(str(keras_3_file), layers, 32)
    assert_equal_maps(g(images), keras_features(vgg19, images, layers))


@pytest.mark.parametrize("name", ["flat.h5", "nested.h5", "short.weights.h5"])
def test_file_of_the_first_blocks_serves_their_layers(vgg19, short_files, name):
    images = make_images(2, 48)
    g = VGGFeatures(str(short_files / name), SHALLOW, 48)
    flexible = keras.applications.VGG19(include_top=False, weights=None, input_shape=(48, 48, 3))
    flexible.set_weights(vgg19.get_weights())
    assert_equal_maps(g(images), keras_features(flexible, images, SHALLOW))


def test_file_that_keras_itself_wrote_in_the_legacy_format(vgg19, tmp_path):
    legacy = pytest.importorskip("keras.src.legacy.saving.legacy_h5_format")
    with h5py.File(tmp_path / "legacy.h5", "w") as file:
        legacy.save_weights_to_hdf5_group(file, vgg19)
    images = make_images(1)
    g = VGGFeatures(str(tmp_path / "legacy.h5"), ("block5_conv1",), 32)
    assert_equal_maps(g(images), keras_features(vgg19, images, ("block5_conv1",)))


def test_nothing_deeper_than_asked_for_is_kept(short_files):
    g = VGGFeatures(str(short_files / "flat.h5"), ("block1_conv2",), 32)
    names = [layer.name for layer in g._network.layers if layer.weights]
    assert names == ["block1_conv1", "block1_conv2"]
    # 3*3*3*64 + 64 and 3*3*64*64 + 64.
    assert g._network.count_params() == 1792 + 36928
    assert [maps.shape for maps in g(make_images(2))] == [(2, 32, 32, 64)]


def test_model_that_holds_g_tracks_none_of_its_weights(short_files, tmp_path):
    class Holder(keras.Model):
        def __init__(self):
            super().__init__()
            self.g = VGGFeatures(str(short_files / "flat.h5"), SHALLOW, 32)

    holder = Holder()
    assert holder.variables == []
    path = tf.train.Checkpoint(holder=holder).save(str(tmp_path / "checkpoint"))
    assert not [name for name, _ in tf.train.list_variables(path) if "holder" in name]


def test_nothing_is_trainable(short_files):
    g = VGGFeatures(str(short_files / "flat.h5"), SHALLOW, 32)
    assert g._network.trainable_variables == []


@pytest.fixture
def policy():
    """Sets the global dtype policy, for one test."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


def test_mixed_precision_gives_float32_features_near_the_exact_ones(short_files, policy):
    path, images = str(short_files / "flat.h5"), make_images(2)
    exact = VGGFeatures(path, SHALLOW, 32)(images)
    policy("mixed_bfloat16")
    g = VGGFeatures(path, SHALLOW, 32)
    assert g._network.get_layer("block1_conv1").compute_dtype == "bfloat16"
    assert {variable.dtype for variable in g._network.variables} == {"float32"}
    for one, other in zip(g(images), exact, strict=True):
        assert one.dtype == tf.float32
        assert np.mean(np.square(one - other)) < 1e-3 * np.mean(np.square(other))


def test_gradient_for_the_image_agrees_with_finite_differences(short_files, policy):
    policy("float64")
    g = VGGFeatures(str(short_files / "flat.h5"), SHALLOW, 32)
    images = make_images(1, dtype=tf.float64)
    targets = [each + 1.0 for each in g(-images)]

    def distance(images):
        pairs = zip(g(images), targets, strict=True)
        return tf.add_n([tf.reduce_mean(tf.square(one - other)) for one, other in pairs])

    with tf.GradientTape() as tape:
        tape.watch(images)
        loss = distance(images)
    gradient = tape.gradient(loss, images).numpy()
    assert gradient.dtype == np.float64
    # So short a step that hardly a ReLU or a maximum changes sides in it.
    step = 1e-7
    for seed in range(3):
        direction = np.random.default_rng(seed).normal(size=gradient.shape)
        ahead, behind = distance(images + step * direction), distance(images - step * direction)
        slope = float(ahead - behind) / (2 * step)
        np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-5)
    row = np.unravel_index(np.argmax(np.abs(gradient)), gradient.shape)
    unit = np.zeros(gradient.shape)
    unit[row] = 1
    slope = float(distance(images + step * unit) - distance(images - step * unit)) / (2 * step)
    np.testing.assert_allclose(gradient[row], slope, rtol=1e-5)


class Scaled:
    """Two layers that can be worked out by hand."""

    layers = ("block1_conv1", "block1_conv2")

    def __call__(self, images):
        return [2 * images, tf.reduce_mean(images, axis=(1, 2), keepdims=True)]


def test_mean_squares_weigh_every_image_equally():
    # Images of one value each: 1, 0 and 3, in batches of two and of one.
    flat = tf.reshape([1.0, 0.0, 3.0], (3, 1, 1, 1)) * tf.ones((3, 2, 2, 3))
    measured = mean_squares(Scaled(), [flat[:2], flat[2:]])
    # (1 + 0 + 9) / 3, and four times that.
    np.testing.assert_allclose(measured, [40 / 3, 10 / 3], rtol=1e-6)
    assert measured.dtype == np.float32


def test_mean_squares_of_many_batches_lose_nothing():
    batch = tf.fill((1, 1, 1, 3), 0.1)
    measured = mean_squares(Scaled(), (batch for _ in range(300)))
    np.testing.assert_allclose(measured, [0.04, 0.01], rtol=3e-7)


def test_mean_squares_need_an_image():
    with pytest.raises(ValueError, match="at least one image"):
        mean_squares(Scaled(), [])


def test_error_names_a_layer_that_is_always_zero():
    with pytest.raises(UserError, match=r"block1_conv1, whose mean square .* is 0\.0"):
        mean_squares(Scaled(), [tf.zeros((1, 2, 2, 3))])


@pytest.mark.parametrize("layer", ["block1_conv3", "block1_pool", "conv1"])
def test_error_names_a_layer_that_vgg19_lacks(short_files, layer):
    with pytest.raises(UserError, match=f"perceptual.layers names {layer}; .*block1_conv1, "):
        VGGFeatures(str(short_files / "flat.h5"), ("block1_conv1", layer), 32)


def test_no_layers_are_the_first_of_each_block_as_in_the_paper(short_files):
    with pytest.raises(UserError, match="lacks block2_conv2; the deepest layer"):
        VGGFeatures(str(short_files / "flat.h5"), (), 32)
    assert DEFAULT_LAYERS[::4] == ("block1_conv1", "block5_conv1")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Keras's cache, in an empty folder and without a network."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    real = keras.utils.get_file

    def get_file(*args, **kwargs):
        return real(*args, cache_dir=str(tmp_path), **kwargs)

    def no_network(*args):
        raise OSError("Network is unreachable\nat all")

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", no_network)
    (tmp_path / "models").mkdir()
    return tmp_path / "models" / "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"


def test_error_without_a_network_says_what_to_put_where(cache):
    with pytest.raises(UserError) as caught:
        VGGFeatures("imagenet", ("block1_conv1",), 32)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "Network is unreachable",
        "https://storage.googleapis.com/tensorflow/keras-applications/vgg19/" + cache.name,
        "MD5 253f8cb515780f3b799900260a226db6",
        str(cache.parent),
        "--config.perceptual.weights=FILE",
    ):
        assert part in message


def test_imagenet_is_what_keras_itself_downloads(monkeypatch):
    asked = []

    def get_file(name, address, **kwargs):
        asked.append((name, address, kwargs))
        raise OSError("no network")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", get_file)
    monkeypatch.setattr(keras.utils, "get_file", get_file)
    with pytest.raises(OSError, match="no network"):
        keras.applications.VGG19(include_top=False, weights="imagenet")
    with pytest.raises(UserError, match="no network"):
        VGGFeatures("imagenet", ("block1_conv1",), 32)
    assert asked[0] == asked[1]


def test_imagenet_in_the_cache_needs_no_network(cache, vgg19, short_files, monkeypatch):
    content = (short_files / "flat.h5").read_bytes()
    cache.write_bytes(content)
    monkeypatch.setattr(vgg, "IMAGENET_MD5", hashlib.md5(content).hexdigest())
    images = make_images(1)
    g = VGGFeatures("imagenet", ("block1_conv2",), 32)
    assert_equal_maps(g(images), keras_features(vgg19, images, ("block1_conv2",)))


def test_cached_file_of_another_checksum_is_not_used(cache, short_files):
    cache.write_bytes((short_files / "flat.h5").read_bytes())
    with pytest.raises(UserError, match="MD5 253f8cb515780f3b799900260a226db6"):
        VGGFeatures("imagenet", ("block1_conv1",), 32)


def test_shared_weights_have_the_activations_that_are_known_of_them():
    if not REAL.is_file() or not FACES.is_dir():
        pytest.skip("needs shared/data/vgg19, weights rescaled to mean activation 1, and celeba")
    layers = ("block1_conv1", "block2_conv1", "block3_conv1")
    encoded = [tf.io.read_file(str(path)) for path in sorted(FACES.glob("*.jpg"))[:16]]
    images = normalize(tf.stack([decode_image(each, 64) for each in encoded]))
    g = VGGFeatures(str(REAL), layers, 64)
    means = [float(tf.reduce_mean(each)) for each in g(images)]
    np.testing.assert_allclose(means, 1, rtol=0.5)
    assert 5 < mean_squares(g, [images])[2] < 20  # measured by others: near 10
