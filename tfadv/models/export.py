"""Exports encoder and classifier as SavedModels, which need nothing but TensorFlow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfadv.config.files import atomic_write, write_json
from tfadv.data.images import centred_square, normalize
from tfadv.models.classifier import Classifier


def export_encoder(encoder: keras.Model, size: int, folder: Path) -> None:
    """Writes the encoder as a SavedModel, with a description in `encoder.json`.

    `serving_default` takes `images`, uint8 [N, H, W, 3] of any H and W, and cuts out their largest
    centred square; `encode` takes `images`, float32 [N, S, S, 3] in [-1, 1]. Both return
    `features`, float32 [N, ...]. The file holds the encoder's variables, always in float32, and
    nothing else.

    Args:
        encoder: built.
        size: S, the side in pixels of the images in training.
        folder: where to write.
    """
    portable = in_float32(encoder, (None, size, size, 3))

    def encode(images):
        return {"features": portable(images, training=False)}

    def serve(images):
        # Cut and rounded as in training, so that an image has the same feature in both signatures.
        top, left, height, width = tf.unstack(centred_square(*tf.unstack(tf.shape(images)[1:3])))
        square = images[:, top : top + height, left : left + width]
        resized = tf.image.resize(square, (size, size), antialias=True)
        return encode(normalize(tf.round(resized)))

    signatures = {
        "serving_default": (serve, tf.TensorSpec((None, None, None, 3), tf.uint8, "images")),
        "encode": (encode, tf.TensorSpec((None, size, size, 3), tf.float32, "images")),
    }
    description = {
        "input": {"name": "images", "dtype": "uint8", "range": [0, 255], "size": size},
        "split": encoder.split,
        "feature_shape": list(encoder.feature_shape(size)),
        "feature_dtype": "float32",
    }
    save_functions(portable, signatures, folder, {"encoder.json": description})


def export_classifier(
    classifier: keras.Model,
    feature_shape: tuple[int, ...],
    attributes: list[str],
    thresholds: np.ndarray,
    folder: Path,
    *,
    is_hard: bool = False,
) -> None:
    """Writes a SavedModel from `features` to `logits` and `probabilities`, float32 [N, A].

    A `Classifier` also gives `hidden`, its last hidden layer, float32 [N, K].
    `classifier.json` in it names the A attributes, in order, and their thresholds: a larger logit
    means yes. If `is_hard`, features are hard predictions: 1 and -1, with probabilities 1 and 0.
    """
    portable = in_float32(classifier, (None, *feature_shape))

    def classify(features):
        if isinstance(portable, Classifier):
            hidden, logits = portable.hidden_and_logits(features)
        else:
            hidden, logits = None, portable(features, training=False)
        probabilities = (1 + logits) / 2 if is_hard else tf.sigmoid(logits)
        outputs = {"logits": logits, "probabilities": probabilities}
        return outputs if hidden is None else outputs | {"hidden": hidden}

    spec = tf.TensorSpec((None, *feature_shape), tf.float32, "features")
    signatures = {"serving_default": (classify, spec)}
    description = {
        "feature_shape": list(feature_shape),
        "attributes": list(attributes),
        "thresholds": [float(threshold) for threshold in thresholds],
    }
    save_functions(portable, signatures, folder, {"classifier.json": description})


def in_float32(network: keras.Model, input_shape: tuple) -> keras.Model:
    """Returns a float32 copy, because bfloat16 is slow or missing on many machines.

    Args:
        network: built; its class takes the result of `get_config`, and `dtype`.
        input_shape: to build the copy for.
    """
    copy = type(network)(**(network.get_config() | {"dtype": "float32"}))
    copy.build(input_shape)
    copy.set_weights(network.get_weights())
    return copy


def save_functions(
    network: keras.Model,
    signatures: dict[str, tuple[Callable, tf.TensorSpec]],
    folder: Path | str,
    descriptions: dict[str, dict[str, Any]],
) -> None:
    """Writes functions of a network as a SavedModel that holds its variables and nothing else.

    Args:
        network: built.
        signatures: name to a function from one tensor to a dict, and its argument's spec.
        folder: where to write; replaced as a whole.
        descriptions: name to content of JSON files to write into the folder.
    """
    # A plain module keeps Keras's names and configuration out of the file.
    module = tf.Module()
    module.network_variables = [variable.value for variable in network.variables]
    functions = {
        name: tf.function(function, input_signature=[spec])
        for name, (function, spec) in signatures.items()
    }
    with atomic_write(Path(folder)) as partial:
        tf.saved_model.save(module, str(partial), signatures=functions)
        for name, content in descriptions.items():
            write_json(partial / name, content)
