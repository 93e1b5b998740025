"""--mode=protect: trains Enc and f against a simulated attacker and exports both."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from tfadv import data, training
from tfadv.config import Config, UserError
from tfadv.data import HELD_OUT, PRIVATE, PUBLIC, TEST, TRAIN, WHOLE, Dataset, to_uint8
from tfadv.distribution import in_scope, over_devices
from tfadv.encoders import (
    SavedEncoder,
    export_classifier,
    export_encoder,
    load_classifier,
    predict,
)
from tfadv.metrics.utility import tuned_thresholds, utility_metrics
from tfadv.modes import models, pages
from tfadv.networks import Classifier, Encoder, load_torchvision
from tfadv.networks.normalisation import synchronise
from tfadv.perceptual import VGGFeatures
from tfadv.protector import Protector
from tfadv.report import Table
from tfadv.workdir import Workdir


@in_scope
def run(workdir: Workdir) -> None:
    """Trains, exports, measures and reports, first the baseline if it is asked for."""
    config = workdir.config
    precision = training.set_up(config.runtime)
    dataset = Dataset(config.data)
    # Mistakes show now, and not after the baseline is trained.
    training_batches(dataset, config, start=0)
    g = models.load_g(config, workdir.mode)
    workdir.begin(dataset=dataset.description, precision=precision)
    pages.print_start(dataset, precision)
    others = {}
    if config.baseline and models.is_defended(config):
        loss = dataclasses.replace(config.loss, lambda1=0.0, lambda2=0.0)
        baseline = dataclasses.replace(config, baseline=False, loss=loss)
        folder = Workdir(workdir.path / "unprotected", workdir.mode, baseline)
        if folder.metrics is None:
            folder.begin(dataset=dataset.description, precision=precision)
            protect(folder, dataset, others, g=None)
        others["unprotected"] = folder.metrics
    pages.print_result(workdir, protect(workdir, dataset, others, g))


def protect(
    workdir: Workdir, dataset: Dataset, others: dict[str, dict[str, float]], g: VGGFeatures | None
) -> Table:
    """Trains, exports, measures and reports one encoder; returns its table beside the others'."""
    config, name = workdir.config, title(workdir.config)
    keras.utils.set_random_seed(config.runtime.seed)
    attributes = [dataset.attributes[i] for i in dataset.columns(config.task.attributes)]
    protector = build(config, len(attributes), g)
    trainer = training.Trainer(protector, config.train, workdir.path, name)
    if protector.adversary is not None and trainer.step == 0:
        models.measure_scale(protector.adversary, dataset)
    evaluate = Evaluation(protector, dataset, config, trainer.writer)
    trainer.run(lambda step: training_batches(dataset, config, step), evaluate)

    encoder, size = protector.encoder, config.data.size
    path = str(workdir.path / "encoder")
    export_encoder(encoder, size, path)
    shape = encoder.feature_shape(size)
    export_classifier(protector.classifier, shape, attributes, workdir.path / "classifier")
    metrics = measure_utility(path, dataset, config) | {"images_per_s": trainer.images_per_s}
    trainer.write_metrics(metrics)
    table = pages.write_protect_page(workdir, dataset, {name: metrics} | others, trainer.history)
    workdir.finish(metrics)
    return table


def title(config: Config) -> str:
    """Returns what progress and tables call an encoder trained with this config."""
    return "protected" if models.is_defended(config) else "unprotected"


def build(config: Config, attributes: int, g: VGGFeatures | None) -> Protector:
    """Returns a compiled protector, without an adversary if no loss weight asks for one."""
    model, loss, size = config.model, config.loss, config.data.size
    encoder = Encoder(model.depth, model.width, model.split)
    encoder.build((None, size, size, 3))
    feature_shape = encoder.feature_shape(size)
    classifier = Classifier(model.split, attributes, model.depth, model.width)
    classifier.build((None, *feature_shape))
    if model.weights:
        try:
            load_torchvision(model.weights, encoder, classifier)
        except (ValueError, OSError) as error:
            raise UserError(f"model.weights: {error}") from None
    adversary = None
    if models.is_defended(config):
        adversary = models.build_adversary(config, feature_shape, model.split, g)
        adversary.compile(
            training.adam(config.train.decoder_learning_rate, config.train.clip_norm),
            models.discriminator_optimizer(config),
        )
    protector = Protector(
        encoder,
        classifier,
        adversary,
        lambda1=loss.lambda1,
        lambda2=loss.lambda2,
        warm_up=round(loss.warm_up * config.train.steps),
    )
    if config.runtime.synchronised:
        synchronise(protector)
    protector.compile(
        training.adam(
            config.train.learning_rate, config.train.clip_norm, decay_steps=config.train.steps
        )
    )
    return protector


def training_batches(dataset: Dataset, config: Config, start: int) -> tf.data.Dataset:
    """Returns what `Protector.train_step` takes, from step `start` on."""
    columns = dataset.columns(config.task.attributes)
    train, seed = config.train, config.runtime.seed
    private = dataset.training_batches(PRIVATE, TRAIN, train.batch, seed=seed, start=start).map(
        lambda batch: {
            "images": batch["images"],
            "labels": tf.gather(batch["labels"], columns, axis=1),
        }
    )
    if not models.is_defended(config):
        return private.map(lambda batch: {"private": batch})
    public = dataset.training_batches(
        PUBLIC, WHOLE, train.batch * train.decoder_steps, seed=seed + 1, start=start
    )

    def pair(private, public):
        images = public["images"]
        images = tf.reshape(images, (-1, train.decoder_steps, *images.shape[1:]))
        return {"private": private, "public": {"images": images}}

    return tf.data.Dataset.zip(private, public).map(pair)


class Evaluation:
    """What is measured during training: the task, on held-out private pictures."""

    def __init__(self, protector: Protector, dataset: Dataset, config: Config, writer):
        self._protector = protector
        self._config = config
        self._writer = writer
        self._columns = dataset.columns(config.task.attributes)
        self._names = [dataset.attributes[column] for column in self._columns]
        self._batches = dataset.batches(PRIVATE, HELD_OUT)
        self._classify = over_devices(lambda images: protector(data.normalise(images)))

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
        if protector.adversary is None or not report.pictures:
            return
        images = next(iter(self._batches))["images"][: report.examples]
        features = protector.encoder(data.normalise(images), training=False)
        reconstructions = to_uint8(protector.adversary(features).numpy())
        training.write_pictures(
            self._writer, step, "input over reconstruction", images.numpy(), reconstructions
        )


def measure_utility(encoder: str, dataset: Dataset, config: Config) -> dict[str, float]:
    """Returns the utility on the test split of an encoder and the classifier exported beside it.

    Thresholds for `mcc_tuned` come from held-out private pictures.
    """
    classify = load_classifier(encoder)
    black_box = SavedEncoder(encoder, config.black_box, config.data.size)
    labels, logits = predict(black_box, classify, dataset.batches(PRIVATE, HELD_OUT))
    thresholds = tuned_thresholds(labels[:, dataset.columns(classify.attributes)], logits)
    labels, logits = predict(black_box, classify, dataset.batches(TEST, WHOLE))
    metrics = utility_metrics(
        dataset.attributes, labels, logits, thresholds=thresholds, task=classify.attributes
    )
    return metrics | {"test_examples": len(labels)}
