"""One typed tree of settings.

A file in `configs/` defines `get_config(mode)`, which returns a `Config`; an audit has the settings
of an attack. `run.py` applies `--config.FIELD=VALUE` to it and lets `checks` look at it. Nothing
here imports TensorFlow.
"""

import dataclasses
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MODES = ("protect", "attack", "audit", "recognizer", "reproduce")
SCALES = ("paper", "small")
SPLITS = ("conv1", "conv2", "conv3", "conv4", "avgpool", "fc")
VECTORS = ("avgpool", "fc")  # of these; the others are maps
# Before each pooling of VGG19 (Simonyan and Zisserman 2015, Table 1, column E).
VGG19_LAYERS = tuple(
    f"block{block}_conv{i}"
    for block, count in enumerate((2, 2, 4, 4, 4), start=1)
    for i in range(1, count + 1)
)
ON_ERROR = ("stop", "skip")
STRATEGIES = ("one", "mirrored", "multi_worker")
NOISES = ("gaussian", "laplace")
PREDICTIONS = ("", "logits", "hard")
LOSSES = ("pixels", "gan", "perceptual", "recognizer")
DECODERS = ("figure6", "residual")
PRECISIONS = ("auto", "float32", "mixed_bfloat16")


@dataclass(slots=True)
class Data:
    """Where the pictures come from."""

    dir: str = "data"  # the folder of the TFDS datasets
    dataset: str = "synthetic"  # TFDS name, with its config where it has several: celeba/identity
    extra: tuple[str, ...] = ()  # further datasets, whose pictures all join the public ones
    private: str = "private"  # X1, of the service: a split, or a part of it such as train[:80%]
    public: str = "public"  # X2, which attackers learn from
    test: str = "test"  # T, which everything is measured on
    labels: str = "attributes"  # feature of 0/1 labels: vector, dict of booleans or two classes
    size: int = 64  # pixels a side of the square pictures; a multiple of 32
    held_out: float = 0.1  # share of a split's identities never trained on, for tuning and stopping
    on_error: str = "stop"  # at a damaged record; skip: leave all out, which takes a pass first
    skip_at_most: float = 0.01  # share of a split's records; more of them stop it even so
    shuffle_buffer: int = 10_000  # encoded pictures to shuffle among, at most 512 MiB of them


@dataclass(slots=True)
class Task:
    """What the encoder is for."""

    attributes: tuple[str, ...] = ()  # the attributes that f predicts; empty: all of the dataset


@dataclass(slots=True)
class Model:
    """Enc, f, Dec, D; in attack mode Dec^a and D; in recognizer mode `depth` and `width` of C."""

    depth: int = 50  # of the ResNet: 18, 34 or 50 (the paper's)
    width: float = 1.0  # multiplies the ResNet's channels
    split: str = "fc"  # the layer whose output is the feature Z
    decoder: str = "figure6"  # Dec and Dec^a: as in the paper's Figure 6, or residual
    decoder_width: float = 1.0  # multiplies the channels of Dec and Dec^a
    discriminator_width: float = 1.0  # multiplies the channels of D
    weights: str = ""  # torchvision-named .safetensors or .npz to start Enc and f from


@dataclass(slots=True)
class Bottleneck:
    """What Enc makes of its feature before it leaves, in this order; by default nothing."""

    downscale: int = 1  # the picture is first shrunk by this factor and enlarged again
    blur: float = 0.0  # standard deviation, in pixels, of a blur of the picture
    size: int = 0  # values of a linear layer behind the split point; 0: none
    variational: float = 0.0  # weight of a variational bottleneck's KL per value; 0: none
    noise: float = 0.0  # standard deviation of noise on values of variance 1, fixed by the picture
    noise_kind: str = "gaussian"  # or laplace
    bits: int = 0  # of each value, in levels at even distances; 1: its sign; 0: as it is
    predictions: str = ""  # logits or hard: what leaves is f's answers and no feature
    flip: float = 0.0  # chance that a hard answer is turned round, fixed by the picture


@dataclass(slots=True)
class Loss:
    """The weights of the loss terms: lambda of Enc, mu of Dec and, in attack mode, of Dec^a."""

    lambda1: float = 1.0  # negative pixel reconstruction loss in Eq. 9; both lambda 0: no Dec
    lambda2: float = 0.0  # negative perceptual distance in Eq. 9
    mu1: float = 0.0  # adversarial loss in Eq. 5, from a discriminator D; 0: no D
    mu2: float = 0.0  # perceptual distance in Eq. 5
    nopeek: float = 0.0  # distance correlation of Z and the picture
    excess_pixels: float = 0.0  # distance correlation of Z and what the labels don't say of it
    excess_identity: float = 0.0  # the same of a face embedding, by recognizer.path
    max_entropy: float = 0.0  # negative entropy of an adversary's guess who it is
    warm_up: float = 0.0  # share of the steps over which defences grow from 0 to their weights
    saturating: bool = False  # Dec minimises log(1 - D(X_hat)) as printed in Eq. 2, not -log D


@dataclass(slots=True)
class Train:
    """Training: of the protector, of Dec^a in attack mode, of C in recognizer mode."""

    steps: int = 10_000  # in attack mode a cap: it stops before, once it no longer improves
    batch: int = 64  # pictures in a batch
    learning_rate: float = 1e-3  # Adam's; cosine decay to 0, but in attack mode
    decoder_learning_rate: float = 1e-3  # Adam's for Dec in protect mode, constant
    discriminator_learning_rate: float = 2e-4  # Adam's for D, constant
    decoder_steps: int = 1  # updates (a) of Dec for each update (b) of Enc and f
    clip_norm: float = 5.0  # global norm that gradients are clipped to; 0: not clipped
    log_every: int = 50  # steps between two rows of the log
    evaluate_every: int = 500  # steps between two evaluations on held-out pictures
    checkpoint_every: int = 500  # steps between two checkpoints
    rollbacks: int = 0  # times that it goes back to the last one at 0.3 of its rates, not to stop


@dataclass(slots=True)
class Attack:
    """What the attacker tries, and for how long."""

    patience: int = 5  # evaluations without improvement before the rate falls, or it all ends
    rate_drops: int = 2  # times that the learning rate falls to 0.3 of itself before the end
    cache_mb: int = 4096  # MiB for features and pictures of each part, else computed every time
    random_features: int = 2000  # of the closed-form decoder that is not linear
    white_box: int = 0  # test pictures searched for by gradients through Enc: beyond a black box


@dataclass(slots=True)
class Audit:
    """How thorough an audit is."""

    unprotected: str = ""  # the same encoder without defence; empty: that trained beside the first
    decoders: tuple[str, ...] = ("figure6", "residual")  # architectures of Dec^a
    losses: tuple[str, ...] = ("pixels",)  # of Dec^a: pixels, gan, perceptual, recognizer
    steps: int = 500  # of the smallest of three budgets; the others are twice and four times it
    seeds: int = 1  # initial weights that each decoder is tried from
    few: tuple[str, ...] = ("250", "500", "1000", "2000")  # public pictures of poorer attackers
    domain: str = ""  # a dataset of another domain: what leaks if attackers learn from it alone
    repeats: int = 16  # queries for a picture, averaged, where the encoder is random
    fail_above: tuple[str, ...] = ()  # MEASURE:VALUE; a larger leak ends the run with exit code 3


@dataclass(slots=True)
class FeatureMap:
    """M of Eq. 10, which guesses the face embedding C(X) from the feature Z."""

    pooling: str = "flatten"  # of maps: flatten, or average over height and width
    hidden: int = 1024  # units of its hidden layer, and of loss.max_entropy's classifier
    steps: int = 50_000  # a cap: it stops before, once it no longer improves
    learning_rate: float = 1e-3  # Adam's


@dataclass(slots=True)
class Perceptual:
    """g of Eq. 4 and 8, VGG19."""

    weights: str = "imagenet"  # imagenet: Keras's own, downloaded; or an .h5 file
    layers: tuple[str, ...] = ()  # compared at; empty: block1_conv1, ..., block5_conv1


@dataclass(slots=True)
class Recognizer:
    """C, the face recogniser that identity is measured with."""

    path: str = ""  # .t7, .caffemodel, .onnx or the SavedModel of --mode=recognizer; M learns it
    others: tuple[str, ...] = ()  # further recognisers, which only measure
    alignment: str = "auto"  # celeba: as CelebA's faces lie; whole: the picture as it is; or auto
    layer: str = ""  # inner layer of path, where faces are compared too; empty: a default
    split: str = "public"  # recognizer mode: the split whose identities it learns


@dataclass(slots=True)
class Metrics:
    """How the measures are estimated."""

    replicates: int = 1000  # bootstrap samples of the test identities, for the 95% intervals


@dataclass(slots=True)
class BlackBox:
    """How to call an encoder that is not ours; an encoder of ours says it itself."""

    output: str = ""  # name of the output to attack, where there are several
    low: float = -1.0  # what black is on a floating-point input
    high: float = 1.0  # what white is
    timeout: float = 600.0  # seconds, after which a call that gives nothing ends the run


@dataclass(slots=True)
class Runtime:
    """The machine."""

    strategy: str = "mirrored"  # a batch is divided among visible GPUs; multi_worker: hosts; or one
    synchronised: bool = False  # batch normalisation in training over the whole batch, not a share
    precision: str = "auto"  # auto: mixed_bfloat16 where the hardware is fast at it, else float32
    seed: int = 0  # of initial weights and data order
    deterministic: bool = False  # bit-identical repeats, slower


@dataclass(slots=True)
class Report:
    """What the report shows."""

    pictures: bool = True  # False: no picture of the dataset leaves for report or TensorBoard
    examples: int = 8  # pictures in a grid


@dataclass(slots=True)
class Config:
    """Everything that a run depends on."""

    encoder: tuple[
        str, ...
    ] = ()  # attack, audit: SavedModels; empty: of the same config's protect run
    scale: str = "paper"  # reproduce: paper, or small: 64 px, for two cores
    baseline: bool = False  # protect: also train the same encoder without defence, to compare
    data: Data = field(default_factory=Data)
    task: Task = field(default_factory=Task)
    model: Model = field(default_factory=Model)
    bottleneck: Bottleneck = field(default_factory=Bottleneck)
    loss: Loss = field(default_factory=Loss)
    train: Train = field(default_factory=Train)
    attack: Attack = field(default_factory=Attack)
    audit: Audit = field(default_factory=Audit)
    feature_map: FeatureMap = field(default_factory=FeatureMap)
    perceptual: Perceptual = field(default_factory=Perceptual)
    recognizer: Recognizer = field(default_factory=Recognizer)
    metrics: Metrics = field(default_factory=Metrics)
    black_box: BlackBox = field(default_factory=BlackBox)
    runtime: Runtime = field(default_factory=Runtime)
    report: Report = field(default_factory=Report)


# Field -> what a defence is called, and the value with which it does nothing.
DEFENCES = {
    "loss.lambda1": ("λ₁", 0.0),
    "loss.lambda2": ("λ₂", 0.0),
    "loss.nopeek": ("NoPeek", 0.0),
    "loss.excess_pixels": ("excess pixels", 0.0),
    "loss.excess_identity": ("excess identity", 0.0),
    "loss.max_entropy": ("maximum entropy", 0.0),
    "bottleneck.downscale": ("downscale", 1),
    "bottleneck.blur": ("blur", 0.0),
    "bottleneck.size": ("size", 0),
    "bottleneck.variational": ("variational", 0.0),
    "bottleneck.noise": ("noise", 0.0),
    "bottleneck.bits": ("bits", 0),
    "bottleneck.predictions": ("predictions", ""),
    "bottleneck.flip": ("flip", 0.0),
}
PENALTIES = tuple(name for name in DEFENCES if name.startswith("loss."))


def defences(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the defences of an encoder: what each is called, and how strong it is.

    Args:
        values: of the config's fields, as `flatten` gives them; what is missing does nothing.
    """
    return {
        title: values[name]
        for name, (title, off) in DEFENCES.items()
        if values.get(name, off) != off
    }


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of a tree of dataclasses as {"data.size": 64, ...}."""
    leaves = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            leaves |= flatten(value, f"{prefix}{item.name}.")
        else:
            leaves[prefix + item.name] = value
    return leaves


def describe() -> str:
    """Returns every field with its default and what it is: the comments of this file."""
    lines = ["config fields, and their values where a config file sets no other:"]
    groups = {"": Config} | {f"{g.name}.": g.type for g in dataclasses.fields(Config)}
    for prefix, group in groups.items():
        if dataclasses.is_dataclass(group):
            for name, default, meaning in _FIELD.findall(inspect.getsource(group)):
                shown = prefix + name + "=" + default.replace(", ", ",")
                lines.append(f"  --config.{shown:<34} {meaning}")
    return "\n".join(lines)


_FIELD = re.compile(r"^    (\w+): [^=]+ = (.+?)  # (.+)$", re.MULTILINE)
