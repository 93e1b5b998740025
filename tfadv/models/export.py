"""The SavedModels that a service ships: they need TensorFlow alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfadv.data.images import centred_square, normalize


def export_encoder(encoder: keras.Model, size: int, folder: Path) -> None:
    """Writes Enc as a SavedModel with `encoder.json` beside its graph.

    `serving_default` takes `images`, uint8 [N, H, W, 3] of any H and W, and cuts their largest
    centred square; `encode` takes `images`, float32 [N, S, S, 3] in [-1, 1]. Both return
    `features`, float32 [N, ...]. It holds Enc's variables, in float32 whatever the precision of
    training, and nothing else.

    Args:
        encoder: built.
        size: S, the pixels a side that the encoder was trained at.
        folder: where to write.
    """
    portable = in_float32(encoder, (None, size, size, 3))

    def encode(images):
        return {"features": portable(images, training=False)}

    def serve(images):
        # Cut and rounded as the training pictures were: a picture has one feature however it comes.
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
) -> None:
    """Writes f as a SavedModel from `features` to `logits` and `probabilities`, float32 [N, A].

    `classifier.json` beside its graph names the A attributes, in order, and the logits from which
    on they are there.
    """
    portable = in_float32(classifier, (None, *feature_shape))

    def classify(features):
        logits = portable(features, training=False)
        return {"logits": logits, "probabilities": tf.sigmoid(logits)}

    spec = tf.TensorSpec((None, *feature_shape), tf.float32, "features")
    signatures = {"serving_default": (classify, spec)}
    description = {
        "feature_shape": list(feature_shape),
        "attributes": list(attributes),
        "thresholds": [float(each) for each in thresholds],
    }
    save_functions(portable, signatures, folder, {"classifier.json": description})


def in_float32(network: keras.Model, input_shape: tuple) -> keras.Model:
    """Returns a copy that runs the same on any machine: bfloat16 is slow or missing on many.

    Args:
        network: built; what its `get_config` gives and `dtype` make another of it.
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

    All or nothing: what a killed run had begun is replaced.

    Args:
        network: built.
        signatures: name to a function of one tensor, which returns a dict, and what it takes.
        folder: where to write.
        descriptions: name to content of JSON files to write beside the graph.
    """
    # A plain module: Keras's own bookkeeping, with names and configuration, stays out of the file.
    module = tf.Module()
    module.network_variables = [variable.value for variable in network.variables]
    functions = {
        name: tf.function(function, input_signature=[spec])
        for name, (function, spec) in signatures.items()
    }
    folder = Path(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    tf.saved_model.save(module, str(partial), signatures=functions)
    for name, content in descriptions.items():
        (partial / name).write_text(json.dumps(content, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
