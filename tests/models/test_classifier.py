import numpy as np
import pytest
import tensorflow as tf

from tfadv.models.classifier import Classifier
from tfadv.models.encoder import Encoder
from tfadv.models.resnet import SPLITS

SMALL = {"depth": 18, "width": 0.125}


@pytest.mark.parametrize("split", SPLITS)
def test_encoder_and_classifier_give_one_logit_per_attribute(split):
    encoder = Encoder(**SMALL, split=split)
    classifier = Classifier(split, 5, **SMALL, hidden=16)
    logits = classifier(encoder(tf.zeros((2, 64, 64, 3))))
    assert logits.shape == (2, 5)
    assert logits.dtype == tf.float32


@pytest.mark.parametrize("split", SPLITS)
def test_encoder_and_classifier_share_out_the_whole_resnet(split):
    encoder = Encoder(**SMALL, split=split)
    classifier = Classifier(split, 5, **SMALL)
    assert [stage.name for stage in encoder.stages + classifier.stages] == list(SPLITS)


def test_two_fully_connected_layers_follow_the_resnet():
    classifier = Classifier("fc", 40)
    classifier.build((None, 1000))
    shapes = [variable.shape for variable in classifier.variables]
    assert shapes == [(1000, 512), (512,), (512, 40), (40,)]


def test_build_creates_all_variables():
    shape = Encoder(**SMALL, split="conv3").feature_shape(64)
    classifier = Classifier("conv3", 5, **SMALL)
    classifier.build((None, *shape))
    count = len(classifier.variables)
    classifier(tf.zeros((2, *shape)), training=True)
    assert count == len(classifier.variables)


def test_inference_leaves_the_moving_statistics():
    shape = Encoder(**SMALL, split="conv3").feature_shape(64)
    classifier = Classifier("conv3", 5, **SMALL)
    classifier.build((None, *shape))
    before = classifier.get_weights()
    tf.function(classifier)(tf.ones((2, *shape)), training=False)
    np.testing.assert_equal(classifier.get_weights(), before)


def test_mixed_precision_keeps_variables_and_logits_float32():
    classifier = Classifier("avgpool", 5, **SMALL, dtype="mixed_bfloat16")
    assert classifier(tf.zeros((2, 64))).dtype == tf.float32
    assert classifier.head[0].compute_dtype == "bfloat16"
    assert {variable.dtype for variable in classifier.variables} == {"float32"}


def test_config_rebuilds_the_architecture():
    classifier = Classifier("avgpool", 5, **SMALL, hidden=24)
    rebuilt = Classifier(**classifier.get_config())
    for model in (classifier, rebuilt):
        model.build((None, 64))
    assert [v.shape for v in rebuilt.variables] == [v.shape for v in classifier.variables]


@pytest.mark.parametrize("name", ["attributes", "hidden"])
def test_a_number_that_is_not_positive_is_refused(name):
    with pytest.raises(ValueError, match=r"units.*: units=0"):
        Classifier(**{"split": "fc", "attributes": 5, name: 0})
