"""Small encoders and classifiers to be exported, ours and others."""

import numpy as np
import tensorflow as tf

from tfadv.models.classifier import Classifier
from tfadv.models.encoder import Encoder
from tfadv.models.export import export_classifier, export_encoder
from tfadv.models.resnet import SPLITS

SIZE = 32
ATTRIBUTES = ["Smiling", "Wearing_Hat", "Young"]
THRESHOLDS = np.array([-0.5, 0.1, 2.0])


def make_encoder(split="fc", dtype="float32"):
    """Returns an encoder whose moving statistics have changed."""
    tf.keras.utils.set_random_seed(SPLITS.index(split))
    encoder = Encoder(18, 0.125, split, dtype=dtype)
    encoder(tf.random.uniform((4, SIZE, SIZE, 3), -1, 1), training=True)
    return encoder


def make_classifier(encoder):
    classifier = Classifier(encoder.split, len(ATTRIBUTES), 18, 0.125, dtype="float32")
    classifier.build((None, *encoder.feature_shape(SIZE)))
    return classifier


def export_all(encoders, folder):
    """Exports encoders to `folder`/NAME/encoder, and a classifier beside the one called fc."""
    for name, encoder in encoders.items():
        export_encoder(encoder, SIZE, folder / name / "encoder")
    classifier = make_classifier(encoders["fc"])
    export_classifier(classifier, (1000,), ATTRIBUTES, THRESHOLDS, folder / "fc" / "classifier")
    return folder


def features_of(encoder, images):
    """Returns the features that the model itself gives of uint8 images of its size."""
    return encoder(tf.cast(images, tf.float32) / 127.5 - 1.0, training=False).numpy()


def assert_same_features(features, expected):
    assert features.dtype == np.float32
    assert features.shape == expected.shape
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


# Encoders that are not ours

PIXELS = (None, None, None, 3)


def save(folder, function, shape=PIXELS, dtype=tf.float32, names=("serving_default",)):
    """Saves a function of images as a SavedModel; returns its path."""
    module = tf.Module()
    call = tf.function(function, input_signature=[tf.TensorSpec(shape, dtype, "images")])
    tf.saved_model.save(module, str(folder), signatures=dict.fromkeys(names, call))
    return str(folder)


def mean_colour(images):
    """Returns the mean colour, [N, 3], of images of any type."""
    return {"colour": tf.reduce_mean(tf.cast(images, tf.float32), (1, 2))}


def colours(*values):
    """Returns images of one colour each."""
    return np.stack([np.full((SIZE, SIZE, 3), value, np.uint8) for value in values])


def two_outputs(images):
    colour = mean_colour(images)["colour"]
    return {"logits": colour[:, :1] + 1.0, "embedding": colour}
