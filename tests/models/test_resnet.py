import numpy as np
import pytest

from tfadv.models import resnet
from tfadv.models.encoder import Encoder


def parameters(depth):
    shape, count = (None, 64, 64, 3), 0
    for stage in resnet.stages(depth):
        stage.build(shape)
        shape = stage.compute_output_shape(shape)
        count += sum(np.prod(variable.shape) for variable in stage.trainable_variables)
    return count


# Counts published with torchvision's weights.
@pytest.mark.parametrize(
    ("depth", "expected"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032)]
)
def test_parameter_count_is_torchvisions(depth, expected):
    assert parameters(depth) == expected


# The design's table for ResNet-50 at 224 px, and by the same strides at the other sizes.
@pytest.mark.parametrize("size", [64, 96, 128, 224])
@pytest.mark.parametrize(
    ("split", "stride", "channels"),
    [("conv1", 2, 64), ("conv2", 4, 256), ("conv3", 8, 512), ("conv4", 16, 1024)],
)
def test_maps_have_the_designs_shapes(split, stride, channels, size):
    expected = (size // stride, size // stride, channels)
    assert Encoder(50, split=split).feature_shape(size) == expected


@pytest.mark.parametrize(("split", "expected"), [("avgpool", (2048,)), ("fc", (1000,))])
def test_vectors_have_the_designs_lengths(split, expected):
    assert Encoder(50, split=split).feature_shape(224) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 101}, "depth must be one of 18, 34, 50, not 101"),
        ({"depth": 50, "width": 0.0}, r"width must be above 0, not 0\.0"),
        ({"depth": 50, "split": "layer3"}, "split must be one of conv1, .*, not 'layer3'"),
    ],
)
def test_error_names_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        Encoder(**arguments)
