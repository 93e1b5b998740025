"""--mode=protect: trains Enc and f against a simulated attacker and exports both."""

import dataclasses
import shutil
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfadv.attacks.black_box import SavedEncoder, load_classifier, predict
from tfadv.config.errors import UserError
from tfadv.config.run_folder import RunFolder
from tfadv.config.schema import PENALTIES, Bottleneck, Config
from tfadv.data.dataset import HELD_OUT, PRIVATE, PUBLIC, TEST, TRAIN, WHOLE, Dataset
from tfadv.data.images import normalize, to_uint8
from tfadv.defences import build as defence_build
from tfadv.defences.protector import Protector
from tfadv.defences.terms import Defence, Excess, Reconstruction
from tfadv.evaluation.metrics.fisher import dfil
from tfadv.evaluation.metrics.utility import tuned_thresholds, utility_metrics
from tfadv.evaluation.recognition.embedding_cache import cache_folder, embed_split
from tfadv.evaluation.recognition.recognizer import Recognizer, load_recognizer
from tfadv.models import build as models
from tfadv.models.classifier import Classifier
from tfadv.models.encoder import Encoder
from tfadv.models.export import export_classifier, export_encoder
from tfadv.models.normalisation import synchronise
from tfadv.models.prediction_output import Identity, PredictionOutput
from tfadv.models.vgg import VGGFeatures
from tfadv.models.weights import load_torchvision
from tfadv.modes.scope import in_scope
from tfadv.reporting import common
from tfadv.reporting import protect as pages
from tfadv.reporting.page import Table
from tfadv.training import trainer as training
from tfadv.training.distribution import over_devices, replicas

_DFIL_PICTURES = 16


@in_scope
def run(workdir: RunFolder) -> None:
    """Trains, exports, measures and reports, first the baseline if it is asked for."""
    config = workdir.config
    precision = training.set_up(config.runtime)
    dataset = Dataset(config.data)
    # Mistakes show now, and not after the baseline is trained.
    training_batches(dataset, config, {}, start=0)
    g = models.load_g(config, workdir.mode)
    recognizer = load_identity(config)
    check_share(config)
    beside = private_facts(dataset, config, recognizer, cache_folder(workdir))
    workdir.begin(dataset=dataset.description, precision=precision)
    common.print_dataset(dataset, precision)
    others = {}
    if config.baseline and defence_build.is_defended(config):
        off = {name.removeprefix("loss."): 0.0 for name in PENALTIES}
        loss = dataclasses.replace(config.loss, **off)
        baseline = dataclasses.replace(config, baseline=False, loss=loss, bottleneck=Bottleneck())
        folder = RunFolder(workdir.path / "unprotected", workdir.mode, baseline)
        if folder.metrics is None:
            folder.begin(dataset=dataset.description, precision=precision)
            protect(folder, dataset, others)
        others["unprotected"] = folder.metrics
        if (
            loss == config.loss
            and dataclasses.replace(config.bottleneck, predictions="", flip=0.0) == Bottleneck()
        ):
            inherit(folder.path, workdir.path)
    common.print_results(workdir, protect(workdir, dataset, others, g, beside))


def protect(
    workdir: RunFolder,
    dataset: Dataset,
    others: dict[str, dict[str, float]],
    g: VGGFeatures | None = None,
    beside: dict[str, np.ndarray] | None = None,
) -> Table:
    """Trains, exports, measures and reports one encoder; returns its table beside the others'."""
    beside = beside or {}
    config, name = workdir.config, title(workdir.config)
    keras.utils.set_random_seed(config.runtime.seed)
    attributes = [dataset.attributes[i] for i in dataset.columns(config.task.attributes)]
    people = 1 + int(beside["identity"].max()) if "identity" in beside else 0
    embedding = beside["embeddings"].shape[1] if "embeddings" in beside else 0
    around = defence_build.Surroundings(g, people, embedding)
    protector = build(config, len(attributes), around)
    trainer = training.Trainer(protector, config.train, workdir.path, name)
    if trainer.step == 0:
        for defence in protector.defences:
            adapt(defence, dataset, config, beside)
    evaluate = Evaluation(protector, dataset, config, trainer.writer)
    trainer.run(lambda step: training_batches(dataset, config, beside, step), evaluate)

    encoder, classifier, size = protector.encoder, protector.classifier, config.data.size
    thresholds = tune(protector, dataset, config)
    if config.bottleneck.predictions:
        encoder, classifier = in_answers(protector, thresholds, config)
        thresholds = np.zeros_like(thresholds)
    path = str(workdir.path / "encoder")
    export_encoder(encoder, size, path)
    shape = encoder.feature_shape(size)
    export_classifier(classifier, shape, attributes, thresholds, workdir.path / "classifier")
    metrics = measure_utility(path, dataset, config) | {"images_per_s": trainer.images_per_s}
    if (
        config.bottleneck.noise
        and config.bottleneck.noise_kind == "gaussian"
        and not config.bottleneck.predictions
    ):
        metrics["dfil"] = measure_dfil(encoder, dataset, config)
    trainer.write_metrics(metrics)
    table = pages.write_protect_page(workdir, dataset, {name: metrics} | others, trainer.history)
    workdir.finish(metrics)
    return table


def inherit(trained: Path, folder: Path) -> None:
    """Starts a training where another of the same networks, steps and seed ended.

    Where the other's checkpoints were removed, it is trained anew.
    """
    target = folder / "checkpoints"
    if target.exists() or not (trained / "checkpoints").exists():
        return
    shutil.copy(trained / "history.jsonl", folder)
    partial = folder / "checkpoints.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(trained / "checkpoints", partial)
    partial.rename(target)


def title(config: Config) -> str:
    """Returns what progress and tables call an encoder trained with this config."""
    return "protected" if defence_build.is_defended(config) else "unprotected"


def check_share(config: Config) -> None:
    """Raises a UserError if a device's share of a batch is too small for a defence."""
    share, loss = config.train.batch // replicas(), config.loss
    for name in ("nopeek", "excess_pixels", "excess_identity"):
        if getattr(loss, name) and share < 4:
            raise UserError(
                f"train.batch is {config.train.batch}, {share} for each of {replicas()} devices; "
                f"loss.{name} needs at least 4 on each"
            )


def load_identity(config: Config) -> Recognizer | None:
    """Returns the face recogniser whose embeddings a defence needs, if one does."""
    if not config.loss.excess_identity:
        return None
    fields = config.recognizer
    return load_recognizer(fields.path, fields.alignment, fields.layer, config.data.dataset)


def build(config: Config, attributes: int, around: defence_build.Surroundings) -> Protector:
    """Returns a compiled protector, with the defences that the config asks for."""
    model = config.model
    encoder = models.build_encoder(config)
    feature_shape = encoder.feature_shape(config.data.size)
    classifier = Classifier(model.split, attributes, model.depth, model.width)
    classifier.build((None, *feature_shape))
    if model.weights:
        try:
            load_torchvision(model.weights, encoder, classifier)
        except (ValueError, OSError) as error:
            raise UserError(f"model.weights: {error}") from None
    protector = Protector(
        encoder,
        classifier,
        defence_build.build_defences(config, feature_shape, attributes, around),
        warm_up=round(config.loss.warm_up * config.train.steps),
    )
    if config.runtime.synchronised:
        synchronise(protector)
    protector.compile(
        training.adam(
            config.train.learning_rate, config.train.clip_norm, decay_steps=config.train.steps
        )
    )
    return protector


def private_facts(
    dataset: Dataset, config: Config, recognizer: Recognizer | None, cache: Path
) -> dict[str, np.ndarray]:
    """Returns what defences need of the private pictures that are trained on, in their order.

    Raises:
        UserError: nobody is known in them, and a defence hides who it is.
    """
    facts = {}
    if config.loss.max_entropy:
        identities, _ = dataset.annotations(PRIVATE, TRAIN)
        is_known = identities >= 0
        people = np.unique(identities[is_known])
        if len(people) < 2:
            raise UserError(
                f"loss.max_entropy is {config.loss.max_entropy:g}, and the train part of split "
                f"{PRIVATE} of dataset {config.data.dataset} shows fewer than two known people; "
                f"make the dataset with identities"
            )
        facts["identity"] = np.where(is_known, np.searchsorted(people, identities), -1)
    if recognizer is not None:
        embedded = embed_split(recognizer, dataset, PRIVATE, TRAIN, cache)
        facts["embeddings"] = embedded.embedding
    return facts


def adapt(
    defence: Defence, dataset: Dataset, config: Config, beside: dict[str, np.ndarray]
) -> None:
    """Has a defence measure what it needs to know before the first step."""
    if isinstance(defence, Reconstruction):
        models.measure_scale(defence.adversary, dataset)
    if isinstance(defence, Excess):
        columns = dataset.columns(config.task.attributes)
        pick = _picker(columns, beside)
        batches = dataset.batches(PRIVATE, TRAIN).map(pick)
        defence.adapt(batch | {"images": normalize(batch["images"])} for batch in batches)


def _picker(columns: list[int], beside: dict[str, np.ndarray]):
    """From a batch of a dataset to what `Protector` and its defences take of it."""
    tables = {name: tf.constant(values) for name, values in beside.items()}

    def pick(batch):
        facts = {name: tf.gather(values, batch["index"]) for name, values in tables.items()}
        labels = tf.gather(batch["labels"], columns, axis=1)
        return {"images": batch["images"], "labels": labels, **facts}

    return pick


def training_batches(
    dataset: Dataset, config: Config, beside: dict[str, np.ndarray], start: int
) -> tf.data.Dataset:
    """Returns what `Protector.train_step` takes, from step `start` on."""
    columns = dataset.columns(config.task.attributes)
    train, seed = config.train, config.runtime.seed
    private = dataset.training_batches(PRIVATE, TRAIN, train.batch, seed=seed, start=start)
    private = private.map(_picker(columns, beside))
    if not defence_build.needs_public(config):
        return private.map(lambda batch: {"private": batch})
    public = dataset.training_batches(
        PUBLIC, WHOLE, train.batch * train.decoder_steps, seed=seed + 1, start=start
    )

    def pair(private, public):
        images = public["images"]
        images = tf.reshape(images, (-1, train.decoder_steps, *images.shape[1:]))
        return {"private": private, "public": {"images": images}}

    return tf.data.Dataset.zip(private, public).map(pair)


def tune(protector: Protector, dataset: Dataset, config: Config) -> np.ndarray:
    """Returns the thresholds of f's logits that are best on held-out private pictures, [A]."""
    logits_of = over_devices(lambda images: protector(normalize(images)))
    labels, logits = predict(np.asarray, logits_of, dataset.batches(PRIVATE, HELD_OUT))
    return tuned_thresholds(labels[:, dataset.columns(config.task.attributes)], logits)


def in_answers(
    protector: Protector, thresholds: np.ndarray, config: Config
) -> tuple[PredictionOutput, Identity]:
    """Returns an Enc whose features are f's answers, and the f that gives them back."""
    networks = protector.encoder.get_config(), protector.classifier.get_config()
    answers = PredictionOutput(
        *networks, hard=config.bottleneck.predictions == "hard", flip=config.bottleneck.flip
    )
    answers.build((None, config.data.size, config.data.size, 3))
    answers.encoder.set_weights(protector.encoder.get_weights())
    answers.classifier.set_weights(protector.classifier.get_weights())
    answers.thresholds.assign(thresholds)
    return answers, Identity()


class Evaluation:
    """What is measured during training: the task, on held-out private pictures."""

    def __init__(self, protector: Protector, dataset: Dataset, config: Config, writer):
        self._protector = protector
        self._config = config
        self._writer = writer
        self._columns = dataset.columns(config.task.attributes)
        self._names = [dataset.attributes[column] for column in self._columns]
        self._batches = dataset.batches(PRIVATE, HELD_OUT)
        self._classify = over_devices(lambda images: protector(normalize(images)))

    def __call__(self, step: int) -> tuple[dict[str, float], bool]:
        """Returns the MCC of each attribute and its mean; training goes on."""
        labels, logits = predict(np.asarray, self._classify, self._batches)
        if not np.isfinite(logits).all():
            raise training.TrainingError(
                f"logits are not finite at step {step}; lower train.learning_rate or the loss "
                f"weights (the last checkpoint is kept)"
            )
        self._write_pictures(step)
        metrics = utility_metrics(self._names, labels[:, self._columns], logits)
        return {f"held_out_{name}": value for name, value in metrics.items()}, True

    def _write_pictures(self, step: int) -> None:
        protector, report = self._protector, self._config.report
        decoders = [d.adversary for d in protector.defences if isinstance(d, Reconstruction)]
        if not decoders or not report.pictures:
            return
        images = next(iter(self._batches))["images"][: report.examples]
        features = protector.encoder(normalize(images), training=False)
        reconstructions = to_uint8(decoders[0](features).numpy())
        training.write_pictures(
            self._writer, step, "input over reconstruction", images.numpy(), reconstructions
        )


def measure_dfil(encoder: Encoder, dataset: Dataset, config: Config) -> float:
    """Returns the mean dFIL of some test pictures, before quantisation, which only takes away."""
    images = next(iter(dataset.batches(TEST, WHOLE, _DFIL_PICTURES)))["images"]
    images = normalize(images).numpy()
    return float(dfil(encoder.without_noise, images, config.bottleneck.noise).mean())


def measure_utility(encoder: str, dataset: Dataset, config: Config) -> dict[str, float]:
    """Returns the utility on the test split of an encoder and the classifier exported beside it."""
    classify = load_classifier(encoder)
    black_box = SavedEncoder(encoder, config.black_box, config.data.size)
    labels, logits = predict(black_box, classify, dataset.batches(TEST, WHOLE))
    metrics = utility_metrics(
        dataset.attributes,
        labels,
        logits,
        thresholds=classify.thresholds,
        task=classify.attributes,
    )
    return metrics | {"test_examples": len(labels)}
