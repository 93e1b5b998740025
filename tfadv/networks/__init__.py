"""The architectures: encoder, decoder and classifier. No losses, no training."""

from tfadv.networks.classifier import Classifier
from tfadv.networks.decoder import Decoder
from tfadv.networks.encoder import Encoder
from tfadv.networks.resnet import SPLITS
from tfadv.networks.weights import load_torchvision

__all__ = ["SPLITS", "Classifier", "Decoder", "Encoder", "load_torchvision"]
