import h5py
import keras
import numpy as np
import pytest

SHALLOW = ("block1_conv1", "block1_conv2", "block2_conv1")


@pytest.fixture(scope="session")
def vgg19():
    """A VGG19 of Keras with random weights, biases too."""
    keras.utils.set_random_seed(0)
    network = keras.applications.VGG19(include_top=False, weights=None, input_shape=(32, 32, 3))
    generator = np.random.default_rng(0)
    for layer in network.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, 0.1 * generator.normal(size=bias.shape)])
    return network


@pytest.fixture(scope="session")
def short_files(vgg19, tmp_path_factory):
    """Files that end after block2_conv1, in both formats: legacy flat, legacy nested, Keras 3."""
    folder = tmp_path_factory.mktemp("short")
    short = keras.Model(vgg19.input, vgg19.get_layer("block2_conv1").output)
    short.save_weights(folder / "short.weights.h5")
    names = {
        # As Keras 1 wrote the ImageNet file that Keras still downloads, and as Keras 2 did later.
        "flat.h5": ("{0}/{0}_W_1:0", "{0}/{0}_b_1:0"),
        "nested.h5": ("{0}/{0}/kernel:0", "{0}/{0}/bias:0"),
    }
    for file_name, (kernel_name, bias_name) in names.items():
        with h5py.File(folder / file_name, "w") as file:
            for name in SHALLOW:
                kernel, bias = vgg19.get_layer(name).get_weights()
                file[bias_name.format(name)] = bias
                file[kernel_name.format(name)] = kernel
            file.create_group("block2_pool")
    return folder
