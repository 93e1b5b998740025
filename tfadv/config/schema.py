"""All settings of a run: one tree of dataclasses whose fields declare themselves.

A file in `configs/` defines `get_config(mode)`, which returns a `Config`. An audit uses the
settings of an attack. The command line applies `--config.FIELD=VALUE` and then validates the
config. Nothing here imports TensorFlow.
"""

from dataclasses import dataclass, field

from tfadv.config.setting import setting

MODES = ("demo", "protect", "attack", "audit", "recognizer", "reproduce")
SPLITS = ("conv1", "conv2", "conv3", "conv4", "avgpool", "fc")
VECTORS = ("avgpool", "fc")  # the split points whose features are vectors; the others are maps
# VGG19's layers before each pooling (Simonyan and Zisserman 2015, Table 1, column E).
VGG19_LAYERS = tuple(
    f"block{block}_conv{i}"
    for block, count in enumerate((2, 2, 4, 4, 4), start=1)
    for i in range(1, count + 1)
)
NOISES = ("gaussian", "laplace")
_DECODERS = ("figure6", "residual")
_LOSSES = ("pixels", "gan", "perceptual", "recognizer")
_RATE = {"low": 1e-9, "high": 10}
_WIDTH = {"low": 0.05, "high": 4}


@dataclass(slots=True)
class Data:
    """The images."""

    dir: str = setting("data", "folder of the prepared TFDS datasets")
    dataset: str = setting("synthetic", "name of the TFDS dataset, such as celeba/identity")
    extra: tuple[str, ...] = setting((), "more datasets; all their images count as public")
    private: str = setting("private", "X1, the service's split, or a part such as train[:80%]")
    public: str = setting("public", "X2, the split that attackers learn from")
    test: str = setting("test", "T, the split that measures are taken on")
    labels: str = setting("attributes", "feature of the dataset that holds the 0/1 labels")
    size: int = setting(64, "images' height and width in pixels", low=32, high=1024, multiple_of=32)
    held_out: float = setting(
        0.1, "share of identities for tuning and stopping", low=0.01, high=0.5
    )
    on_error: str = setting("stop", "what to do at damaged records", choices=("stop", "skip"))
    skip_at_most: float = setting(0.01, "share of records that may be skipped", low=0, high=1)
    shuffle_buffer: int = setting(
        10_000, "encoded images in the shuffle buffer, up to 512 MiB", low=1
    )


@dataclass(slots=True)
class Task:
    """The task that the features must still do."""

    attributes: tuple[str, ...] = setting((), "attributes to predict; empty: all of the dataset")


@dataclass(slots=True)
class Model:
    """The networks; in recognizer mode the recognizer has this depth and width."""

    depth: int = setting(50, "depth of the ResNet; the paper's is 50", choices=(18, 34, 50))
    width: float = setting(1.0, "factor on the ResNet's channels", **_WIDTH)
    split: str = setting("fc", "layer whose output is the feature Z", choices=SPLITS)
    decoder: str = setting("figure6", "decoders; figure6 is the paper's", choices=_DECODERS)
    decoder_width: float = setting(1.0, "factor on the channels of decoders", **_WIDTH)
    discriminator_width: float = setting(1.0, "factor on the discriminator's channels", **_WIDTH)
    weights: str = setting("", "initial weights: a torchvision-named .safetensors or .npz file")


@dataclass(slots=True)
class Bottleneck:
    """What happens to an image or a feature before the feature is sent, in this order."""

    downscale: int = setting(
        1, "factor by which the image is shrunk and enlarged again", low=1, high=1024, off=1
    )
    blur: float = setting(
        0.0, "standard deviation of a blur of the image, in pixels", low=0, high=32, off=0.0
    )
    size: int = setting(
        0, "values after a linear layer at the split point", low=0, high=65_536, off=0
    )
    variational: float = setting(
        0.0, "KL weight per value of a variational bottleneck", low=0, off=0.0
    )
    noise: float = setting(
        0.0,
        "standard deviation of noise, fixed per image, on values of variance 1",
        low=0,
        high=1_000_000,
        off=0.0,
    )
    noise_kind: str = setting("gaussian", "distribution of the noise", choices=NOISES)
    bits: int = setting(
        0, "bits per value, in evenly spaced levels; 1: the sign", low=0, high=16, off=0
    )
    predictions: str = setting(
        "", "send the classifier's predictions, no feature", choices=("", "logits", "hard"), off=""
    )
    flip: float = setting(
        0.0, "probability of flipping a hard prediction, fixed per image", low=0, high=0.5, off=0.0
    )


@dataclass(slots=True)
class Loss:
    """Weights of the terms in the loss: lambda for the encoder, mu for decoders."""

    lambda1: float = setting(
        1.0, "negative reconstruction error in Eq. 9", low=0, off=0.0, defence="λ₁"
    )
    lambda2: float = setting(
        0.0, "negative perceptual distance in Eq. 9", low=0, off=0.0, defence="λ₂"
    )
    mu1: float = setting(0.0, "adversarial loss in Eq. 5", low=0)
    mu2: float = setting(0.0, "perceptual distance in Eq. 5", low=0)
    nopeek: float = setting(
        0.0, "distance correlation of feature and image", low=0, off=0.0, defence="NoPeek"
    )
    excess_pixels: float = setting(
        0.0, "the same for what the labels do not explain of the image", low=0, off=0.0
    )
    excess_identity: float = setting(
        0.0, "the same for the face embedding of recognizer.path", low=0, off=0.0
    )
    max_entropy: float = setting(
        0.0,
        "negative entropy of an adversary's predictions",
        low=0,
        off=0.0,
        defence="maximum entropy",
    )
    warm_up: float = setting(0.0, "share of steps in which weights grow from 0", low=0, high=1)
    saturating: bool = setting(False, "minimise log(1 - D(X_hat)) as in Eq. 2, not -log D(X_hat)")


@dataclass(slots=True)
class Train:
    """Training of the mode's network: the protector, the attacker's decoder or the recognizer."""

    steps: int = setting(10_000, "training steps; an attack may stop earlier", low=1)
    batch: int = setting(64, "images in a batch", low=2)
    learning_rate: float = setting(
        1e-3, "Adam's learning rate; cosine decay to 0, except in attack mode", **_RATE
    )
    decoder_learning_rate: float = setting(
        1e-3, "Adam's learning rate of the decoder in protect mode, constant", **_RATE
    )
    discriminator_learning_rate: float = setting(
        2e-4, "Adam's learning rate of the discriminator, constant", **_RATE
    )
    decoder_steps: int = setting(
        1, "updates of the decoder per update of the encoder", low=1, high=100
    )
    clip_norm: float = setting(5.0, "largest global norm of the gradients; 0: no limit", low=0)
    log_every: int = setting(50, "steps between two rows of the log", low=1)
    evaluate_every: int = setting(500, "steps between two evaluations on held-out images", low=1)
    checkpoint_every: int = setting(500, "steps between two checkpoints", low=1)
    rollbacks: int = setting(
        0,
        "restarts of a diverged training, from its last checkpoint at 0.3 of the rates",
        low=0,
        high=100,
    )


@dataclass(slots=True)
class Attack:
    """How hard the attacks try."""

    patience: int = setting(5, "evaluations without improvement before the rate drops", low=1)
    rate_drops: int = setting(
        2, "drops of the learning rate, to 0.3 of itself, before training ends", low=0, high=20
    )
    cache_mb: int = setting(
        4096, "MiB of memory for features and images; without space they are computed again", low=0
    )
    white_box: int = setting(0, "test images to attack with the encoder's gradients", low=0)


@dataclass(slots=True)
class Audit:
    """How thorough an audit is."""

    unprotected: str = setting(
        "", "SavedModel without a defence; empty: the protect run's baseline"
    )
    decoders: tuple[str, ...] = setting(
        _DECODERS, "architectures of the attackers' decoders", choices=_DECODERS
    )
    losses: tuple[str, ...] = setting(
        ("pixels",), "losses of the attackers' decoders", choices=_LOSSES
    )
    steps: int = setting(
        500, "steps of the smallest of three budgets; the others are 2 and 4 times as large", low=1
    )
    seeds: int = setting(1, "initial weights that each decoder starts from", low=1, high=100)
    few: tuple[str, ...] = setting(
        ("250", "500", "1000", "2000"), "numbers of public images, for attackers with less data"
    )
    domain: str = setting("", "dataset of another domain, for attackers without images of this one")
    repeats: int = setting(16, "queries per image if the encoder is random", low=1, high=10_000)
    fail_above: tuple[str, ...] = setting(
        (),
        "limits on leaks, such as face_rank1:0.2; a larger leak ends the run with exit code 3",
    )
    fail_below: tuple[str, ...] = setting(
        (), "limits on the utility, such as mcc_task:0.45; less ends the run with exit code 3"
    )
    baseline: str = setting(
        "", "an earlier audit.json; more leakage or less utility ends the run with exit code 3"
    )


@dataclass(slots=True)
class FeatureMap:
    """M of Eq. 10, which predicts the face embedding C(X) from the feature Z."""

    pooling: str = setting("flatten", "what M does with maps", choices=("flatten", "average"))
    hidden: int = setting(1024, "hidden units of M and of max_entropy's adversary", low=1)
    steps: int = setting(50_000, "training steps; M may stop earlier", low=1)
    learning_rate: float = setting(1e-3, "Adam's learning rate", **_RATE)


@dataclass(slots=True)
class Perceptual:
    """VGG19, g of Eq. 4 and 8."""

    weights: str = setting("imagenet", "imagenet, which Keras downloads, or an .h5 file")
    layers: tuple[str, ...] = setting(
        (), "layers to compare; empty: the first of each block", choices=VGG19_LAYERS
    )


@dataclass(slots=True)
class Recognizer:
    """The face recognizer C, which measures identity."""

    path: str = setting("", "a .t7, .caffemodel, .onnx or SavedModel; M learns its embeddings")
    others: tuple[str, ...] = setting((), "more recognizers, used to measure only")
    alignment: str = setting(
        "auto",
        "celeba: placed as in CelebA; whole: whole image",
        choices=("auto", "celeba", "whole"),
    )
    layer: str = setting("", "inner layer at which faces are also compared; empty: a default")
    split: str = setting(
        "public", "split that recognizer mode learns", choices=("private", "public")
    )


@dataclass(slots=True)
class Metrics:
    """How measures are estimated."""

    replicates: int = setting(
        1000, "bootstrap samples of the test identities for 95% intervals", low=10, high=100_000
    )


@dataclass(slots=True)
class BlackBox:
    """How to call an encoder that tfadv has not exported."""

    output: str = setting("", "name of the output to attack, if there are several")
    low: float = setting(-1.0, "value of black in floating-point input")
    high: float = setting(1.0, "value of white in floating-point input")
    timeout: float = setting(
        600.0, "seconds after which a call without result ends the run", low=1, high=1_000_000
    )


@dataclass(slots=True)
class Runtime:
    """The machine."""

    strategy: str = setting(
        "mirrored",
        "one device, this machine's GPUs, or several machines",
        choices=("one", "mirrored", "multi_worker"),
    )
    synchronised: bool = setting(False, "normalise over the whole batch, not each device's share")
    precision: str = setting(
        "auto",
        "auto: mixed_bfloat16 where it is fast, else float32",
        choices=("auto", "float32", "mixed_bfloat16"),
    )
    seed: int = setting(0, "seed of initial weights and data order", low=0)
    deterministic: bool = setting(False, "repeat a run bit for bit; slower")


@dataclass(slots=True)
class Report:
    """The report."""

    pictures: bool = setting(True, "show images of the dataset in the report and TensorBoard")
    examples: int = setting(8, "images in a grid", low=1, high=64)


@dataclass(slots=True)
class Config:
    """Everything that a run depends on."""

    encoder: tuple[str, ...] = setting((), "SavedModels to attack; empty: that of the protect run")
    scale: str = setting(
        "paper", "reproduce: the paper's, or 64 pixels on two cores", choices=("paper", "small")
    )
    baseline: bool = setting(False, "protect: also train the same encoder without a defence")
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
