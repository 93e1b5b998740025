"""The architectures: encoder, decoder, discriminator, classifier. No losses, no training."""

from tfadv.networks.answers import Answers, Identity
from tfadv.networks.classifier import Classifier
from tfadv.networks.decoder import Decoder
from tfadv.networks.discriminator import Discriminator
from tfadv.networks.encoder import Encoder
from tfadv.networks.feature_map import FeatureMap
from tfadv.networks.residual_decoder import ResidualDecoder
from tfadv.networks.resnet import SPLITS
from tfadv.networks.weights import load_torchvision

__all__ = [
    "SPLITS",
    "Answers",
    "Classifier",
    "Decoder",
    "Discriminator",
    "Encoder",
    "FeatureMap",
    "Identity",
    "ResidualDecoder",
    "load_torchvision",
]
