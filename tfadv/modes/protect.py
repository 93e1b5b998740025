"""--mode=protect: trains encoder and classifier against a simulated attacker, and exports both."""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfadv.attacks.black_box import SavedEncoder, load_classifier, predict
from tfadv.config.fields import PENALTIES, defences, flatten
from tfadv.config.files import atomic_write
from tfadv.config.run_folder import RunFolder
from tfadv.config.schema import Bottleneck, Config
from tfadv.config.validation import check_share
from tfadv.data.dataset import HELD_OUT, PRIVATE, TEST, TRAIN, WHOLE, Dataset
from tfadv.data.images import normalize, to_uint8
from tfadv.defences import batches
from tfadv.defences.build import build_protector, is_defended, needs_public
from tfadv.defences.protector import TOTAL, Protector
from tfadv.defences.terms import Reconstruction
from tfadv.evaluation.metrics.fisher import dfil
from tfadv.evaluation.metrics.utility import tuned_thresholds, utility_metrics
from tfadv.evaluation.recognition.embedding_cache import cache_folder, cached_embeddings
from tfadv.evaluation.recognition.recognizer import load_recognizer
from tfadv.models.build import load_vgg
from tfadv.models.encoder import Encoder
from tfadv.models.export import export_classifier, export_encoder
from tfadv.models.prediction_output import predictions_as_features
from tfadv.models.vgg import VGGFeatures
from tfadv.modes import tensorboard
from tfadv.modes.scope import Announce, in_scope, quiet
from tfadv.reporting import common
from tfadv.reporting import protect as page
from tfadv.reporting.page import Table
from tfadv.training import trainer as training
from tfadv.training.distribution import over_devices, replicas

_DFIL_IMAGES = 16
# A utility loss below this, with a Matthews correlation up to that, is a sign of overfitting.
_NO_LOSS, _PERFECT = 0.01, 0.95


@in_scope
def run(workdir: RunFolder, announce: Announce = quiet) -> None:
    """Trains, exports, measures and reports the encoder, after the baseline if it is asked for."""
    config = workdir.config
    precision = training.set_up(config.runtime)
    dataset = Dataset(config.data)
    # The user should see these mistakes before the baseline is trained.
    _training_batches(dataset, config, {}, start=0)
    vgg = load_vgg(config, workdir.mode)
    check_share(config, replicas())
    inputs = _defence_inputs(config, dataset, cache_folder(config.data.dir, workdir.path))
    workdir.begin(dataset=dataset.description, precision=precision)
    common.print_dataset(dataset, precision)
    others = {}
    if config.baseline and is_defended(config):
        announce("unprotected")
        others["unprotected"] = _baseline_metrics(workdir, dataset, precision)
    announce("protected")
    common.print_results(workdir, _protect(workdir, dataset, others, vgg, inputs))


def _baseline_metrics(workdir: RunFolder, dataset: Dataset, precision: str) -> dict[str, float]:
    """Returns the metrics of the same encoder without defence, which is trained if it has none."""
    config = workdir.config
    off = {name.removeprefix("loss."): 0.0 for name in PENALTIES}
    loss = dataclasses.replace(config.loss, **off)
    baseline = dataclasses.replace(config, baseline=False, loss=loss, bottleneck=Bottleneck())
    folder = RunFolder(workdir.path / "unprotected", workdir.mode, baseline)
    if folder.metrics is None:
        folder.begin(dataset=dataset.description, precision=precision)
        _protect(folder, dataset, others={}, vgg=None, inputs={})
    # Hidden predictions change what leaves the encoder, not how it is trained.
    only_predictions = Bottleneck(
        predictions=config.bottleneck.predictions, flip=config.bottleneck.flip
    )
    if loss == config.loss and config.bottleneck == only_predictions:
        inherit(folder.path, workdir.path)
    return folder.metrics


def _protect(
    workdir: RunFolder,
    dataset: Dataset,
    others: Mapping[str, Mapping[str, float]],
    vgg: VGGFeatures | None,
    inputs: Mapping[str, np.ndarray],
) -> Table:
    """Trains, exports, measures and reports one encoder; returns its comparison with the others."""
    config = workdir.config
    title = "protected" if is_defended(config) else "unprotected"
    keras.utils.set_random_seed(config.runtime.seed)
    columns = dataset.columns(config.task.attributes)
    attributes = [dataset.attributes[column] for column in columns]
    protector = build_protector(
        config,
        len(attributes),
        perceptual_network=vgg,
        people=1 + int(inputs["identity"].max()) if "identity" in inputs else 0,
        embedding=inputs["embeddings"].shape[1] if "embeddings" in inputs else 0,
    )
    trainer = training.Trainer(
        protector, config.train, workdir.path, title, describe=tensorboard.meaning
    )
    if trainer.step == 0:
        batches.adapt(protector.defences, dataset, columns, inputs)
    examples = config.report.examples if config.report.pictures else 0
    evaluate = Evaluation(protector, dataset, columns, trainer.writer, examples)
    trainer.run(lambda step: _training_batches(dataset, config, inputs, step), evaluate)

    encoder = _export(protector, dataset, attributes, config, workdir.path)
    metrics = _utility(workdir.path / "encoder", dataset, config)
    metrics["images_per_s"] = trainer.images_per_s
    bottleneck = config.bottleneck
    if bottleneck.noise and bottleneck.noise_kind == "gaussian" and not bottleneck.predictions:
        metrics["dfil"] = _mean_dfil(encoder, dataset, bottleneck.noise)
    tensorboard.write_metrics(trainer.writer, trainer.step, metrics)
    losses = [name for name in protector.measurements if name != TOTAL]
    table = page.write(
        workdir.path / "report.html",
        {title: metrics} | others,
        {name: trainer.history.series(name) for name in losses},
        defences=defences(flatten(config)),
        people_note=common.seen_in_training_note(dataset),
        details=common.details(workdir, dataset),
        note=_overfitting(trainer.history.series("utility")[1], metrics["mcc_task"]),
    )
    workdir.finish(metrics)
    return table


def _overfitting(losses: Sequence[float], mcc: float) -> str:
    """Returns a warning if training images have next to no loss, and test images have."""
    if not losses or losses[-1] > _NO_LOSS or mcc > _PERFECT:
        return ""
    return (
        f"The encoder has learned its training images by heart: their loss is {losses[-1]:.2g}, "
        f"but test images have a Matthews correlation of {mcc:.2f}. Try fewer steps or more images."
    )


def inherit(trained: Path, folder: Path) -> None:
    """Copies the training of another folder, for the same networks, steps and seed.

    Does nothing if the other folder's checkpoints were removed, or this one has its own.
    """
    target = folder / "checkpoints"
    if target.exists() or not (trained / "checkpoints").exists():
        return
    shutil.copy(trained / "history.jsonl", folder)
    with atomic_write(target) as partial:
        shutil.copytree(trained / "checkpoints", partial)


def _defence_inputs(config: Config, dataset: Dataset, cache: Path) -> dict[str, np.ndarray]:
    """Returns the inputs of the private images that defences need, in the images' order."""
    inputs = {}
    if config.loss.max_entropy:
        inputs["identity"] = batches.known_identities(dataset)
    if config.loss.excess_identity:
        fields = config.recognizer
        recognizer = load_recognizer(
            fields.path, fields.alignment, fields.layer, config.data.dataset
        )
        embedded = cached_embeddings(recognizer, dataset, PRIVATE, TRAIN, cache)
        inputs["embeddings"] = embedded.embedding
    return inputs


def _training_batches(
    dataset: Dataset, config: Config, inputs: Mapping[str, np.ndarray], start: int
) -> tf.data.Dataset:
    return batches.training_batches(
        dataset,
        dataset.columns(config.task.attributes),
        config.train,
        seed=config.runtime.seed,
        with_public=needs_public(config.loss),
        inputs=inputs,
        start=start,
    )


def _export(
    protector: Protector, dataset: Dataset, attributes: list[str], config: Config, folder: Path
) -> keras.Model:
    """Exports encoder and classifier with the best thresholds; returns the exported encoder."""
    encoder, classifier, size = protector.encoder, protector.classifier, config.data.size
    logits_of = over_devices(lambda images: protector(normalize(images)))
    labels, logits = predict(np.asarray, logits_of, dataset.batches(PRIVATE, HELD_OUT))
    thresholds = tuned_thresholds(labels[:, dataset.columns(attributes)], logits)
    if config.bottleneck.predictions:
        encoder, classifier = predictions_as_features(
            encoder,
            classifier,
            thresholds,
            size,
            hard=config.bottleneck.predictions == "hard",
            flip=config.bottleneck.flip,
        )
        thresholds = np.zeros_like(thresholds)
    export_encoder(encoder, size, folder / "encoder")
    feature_shape = encoder.feature_shape(size)
    export_classifier(
        classifier,
        feature_shape,
        attributes,
        thresholds,
        folder / "classifier",
        is_hard=config.bottleneck.predictions == "hard",
    )
    return encoder


class Evaluation:
    """Measures the task on held-out private images during training.

    Args:
        protector: measured.
        dataset: private images.
        columns: the task's attributes, as columns of the labels.
        writer: of TensorBoard.
        examples: images that TensorBoard shows with their reconstructions.
    """

    def __init__(
        self,
        protector: Protector,
        dataset: Dataset,
        columns: Sequence[int],
        writer: tf.summary.SummaryWriter,
        examples: int,
    ):
        self._protector = protector
        self._columns = columns
        self._writer = writer
        self._examples = examples
        self._names = [dataset.attributes[column] for column in columns]
        self._batches = dataset.batches(PRIVATE, HELD_OUT)
        self._classify = over_devices(lambda images: protector(normalize(images)))

    def __call__(self, step: int) -> tuple[dict[str, float], bool]:
        """Returns the MCC of each attribute and their mean, and True: training goes on.

        Raises:
            TrainingError: a logit is not finite.
        """
        labels, logits = predict(np.asarray, self._classify, self._batches)
        if not np.isfinite(logits).all():
            raise training.TrainingError(
                f"logits are not finite at step {step}; lower train.learning_rate or the loss "
                f"weights (the last checkpoint is kept)"
            )
        self._write_images(step)
        metrics = utility_metrics(self._names, labels[:, self._columns], logits)
        return {f"held_out_{name}": value for name, value in metrics.items()}, True

    def _write_images(self, step: int) -> None:
        defences = self._protector.defences
        decoders = [term.adversary for term in defences if isinstance(term, Reconstruction)]
        if not decoders or not self._examples:
            return
        images = next(iter(self._batches))["images"][: self._examples]
        features = self._protector.encoder(normalize(images), training=False)
        reconstructions = to_uint8(decoders[0](features).numpy())
        training.write_images(
            self._writer, step, "input over reconstruction", images.numpy(), reconstructions
        )


def _mean_dfil(encoder: Encoder, dataset: Dataset, noise: float) -> float:
    """Returns the mean dFIL of some test images, before quantisation, which can only lower it."""
    images = next(iter(dataset.batches(TEST, WHOLE, _DFIL_IMAGES)))["images"]
    return float(dfil(encoder.without_noise, normalize(images).numpy(), noise).mean())


def _utility(encoder: Path, dataset: Dataset, config: Config) -> dict[str, float]:
    """Returns the utility on the test split of an exported encoder and its classifier."""
    classify = load_classifier(str(encoder))
    black_box = SavedEncoder(str(encoder), config.black_box, config.data.size)
    labels, logits = predict(black_box, classify, dataset.batches(TEST, WHOLE))
    metrics = utility_metrics(
        dataset.attributes,
        labels,
        logits,
        thresholds=classify.thresholds,
        task=classify.attributes,
    )
    return metrics | {"test_examples": len(labels)}
