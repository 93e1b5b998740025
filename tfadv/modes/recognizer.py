"""--mode=recognizer: trains a face recogniser on the people of a split and exports it."""

from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from tfadv.config import run_folder
from tfadv.config.errors import UserError
from tfadv.config.run_folder import RunFolder
from tfadv.config.schema import Config
from tfadv.data import streams
from tfadv.data.dataset import HELD_OUT, TEST, TRAIN, WHOLE, Dataset
from tfadv.data.images import normalize
from tfadv.evaluation.metrics.bootstrap import IdentityBootstrap
from tfadv.evaluation.metrics.identity import identify
from tfadv.evaluation.recognition.identity_classifier import (
    FaceEmbedder,
    IdentityClassifier,
    export_embedder,
)
from tfadv.models.batch_normalization import synchronize
from tfadv.models.bottleneck import downscaled
from tfadv.modes.scope import in_scope
from tfadv.reporting import common
from tfadv.reporting import recognizer as page
from tfadv.training import trainer as training
from tfadv.training.distribution import over_devices

Embed = Callable[[np.ndarray], np.ndarray]

_KEPT = 2**30  # bytes of decoded pictures: to decode a small one takes a third of a step
_COMPARED = 2000  # pictures compared with each other during training: two million pairs


@in_scope
def run(workdir: RunFolder) -> None:
    """Trains, exports, measures and reports."""
    config = workdir.config
    precision = training.set_up(config.runtime)
    dataset = Dataset(config.data)
    people = people_to_learn(dataset, config)
    check_test(dataset, config)
    pictures = Pictures(dataset, config, people)
    pictures.batches(0)  # a batch larger than the part shows now
    workdir.begin(dataset=dataset.description, precision=precision)
    common.print_dataset(dataset, precision)

    classifier = build(config, len(people))
    trainer = training.Trainer(classifier, config.train, workdir.path, "recogniser")
    # The last point counts: at the end of the cosine decay it is as good as any, and too few people
    # are held out to choose between points by them.
    trainer.run(pictures.batches, Evaluation(classifier, dataset, config))

    folder = workdir.path / "recognizer"
    export_embedder(
        classifier.embedder,
        config.data.size,
        folder,
        identities=len(people),
        split=config.recognizer.split,
        dataset=dataset.description["name"],
    )
    metrics = measure(_load(folder), dataset, config)
    metrics |= {"identities": len(people), "images_per_s": trainer.images_per_s}
    scalars = {name: value for name, value in metrics.items() if not name.endswith("_ci95")}
    trainer.write_metrics(scalars)
    table = page.write(
        workdir.path / "report.html",
        metrics,
        loss=trainer.history.series("identity"),
        held_out_auc=trainer.history.series("held_out_auc"),
        split=config.recognizer.split,
        people_note=common.seen_in_training_note(dataset),
        details=run_folder.summary(workdir.mode, config, dataset.description),
    )
    workdir.finish(metrics)
    common.print_results(workdir, table)


def build(config: Config, identities: int) -> IdentityClassifier:
    """Returns a compiled classifier of that many people."""
    keras.utils.set_random_seed(config.runtime.seed)
    embedder = FaceEmbedder(config.model.depth, config.model.width)
    embedder.build((None, config.data.size, config.data.size, 3))
    classifier = IdentityClassifier(embedder, identities)
    if config.runtime.synchronised:
        synchronize(classifier)
    train = config.train
    classifier.compile(training.adam(train.learning_rate, train.clip_norm, train.steps))
    return classifier


def people_to_learn(dataset: Dataset, config: Config) -> np.ndarray:
    """Returns the identities to train on, int64 [K], in order.

    Raises:
        UserError: there are fewer than two.
    """
    split = config.recognizer.split
    identities, _ = dataset.annotations(split, TRAIN)
    people = np.unique(identities[identities >= 0])
    if len(people) < 2:
        count = ("nobody that is known", "one known person")[len(people)]
        raise UserError(
            f"the train part of split {split} of dataset {config.data.dataset} shows {count}; a "
            f"recogniser learns to tell people apart, so make the dataset with identities"
        )
    return people


def check_test(dataset: Dataset, config: Config) -> None:
    """Raises a UserError if no two pictures of the test split, or all, show the same person."""
    identities, _ = dataset.annotations(TEST)
    _, pictures = np.unique(identities[identities >= 0], return_counts=True)
    if len(pictures) < 2 or pictures.max() < 2:
        raise UserError(
            f"split {TEST} of dataset {config.data.dataset} has no two known people of whom one "
            f"has two pictures, so that a recogniser can't be measured; make it with identities"
        )


class Pictures:
    """Pictures of the people to learn, with each one's number; kept in memory if they fit.

    Args:
        dataset: where they come from.
        config: of the run.
        people: the identities to learn, in order; the pictures of nobody known are left out.
    """

    def __init__(self, dataset: Dataset, config: Config, people: np.ndarray):
        self._dataset = dataset
        self._config = config
        self._people = people
        self._split = config.recognizer.split
        self._kept = None
        if dataset.count(self._split, TRAIN) * 3 * dataset.size**2 <= _KEPT:
            self._kept = self._keep()

    def batches(self, start: int) -> tf.data.Dataset:
        """Returns what `IdentityClassifier.train_step` takes, from step `start` on."""
        batch, seed = self._config.train.batch, self._config.runtime.seed
        if self._kept is not None:
            return streams.in_memory_batches(self._kept, batch, seed=seed, start=start)

        def number(pictures):
            identity = pictures["identity"]
            place = tf.searchsorted(self._people, identity, out_type=tf.int64)
            # To drop the unknown here would change the order where training resumes.
            labels = tf.where(identity < 0, np.int64(-1), place)
            return {"images": pictures["images"], "labels": labels}

        return self._dataset.training_batches(
            self._split, TRAIN, batch, seed=seed, start=start
        ).map(number)

    def _keep(self) -> dict[str, np.ndarray]:
        images, identities = [], []
        for batch in self._dataset.batches(self._split, TRAIN).as_numpy_iterator():
            is_known = batch["identity"] >= 0
            images.append(batch["images"][is_known])
            identities.append(batch["identity"][is_known])
        labels = np.searchsorted(self._people, np.concatenate(identities))
        return {"images": np.concatenate(images), "labels": labels.astype(np.int64)}


class Evaluation:
    """What is measured during training: verification, on held-out people of the same split."""

    def __init__(self, classifier: IdentityClassifier, dataset: Dataset, config: Config):
        embedder = classifier.embedder
        self._embed = over_devices(lambda images: embedder(normalize(images))["embedding"])
        self._batches = dataset.batches(config.recognizer.split, HELD_OUT)

    def __call__(self, step: int) -> tuple[dict[str, float], bool]:
        """Returns the verification AUC, if pairs of both kinds are there; training goes on."""
        identities, (embeddings,) = embed_known(self._batches, [self._embed])
        if not np.isfinite(embeddings).all():
            raise training.TrainingError(
                f"embeddings are not finite at step {step}; lower train.learning_rate (the last "
                f"checkpoint is kept)"
            )
        auc = pairwise_auc(embeddings, identities)
        return ({} if auc is None else {"held_out_auc": auc}), True


def pairwise_auc(embeddings: np.ndarray, identities: np.ndarray) -> float | None:
    """Returns the AUC of cosines for telling pairs of one person from pairs of two.

    Args:
        embeddings: float [N, E] of length 1.
        identities: int [N]; of more than 2000, those of the lowest identities count.

    Returns:
        Between 0 and 1; None if all pairs are of the same kind.
    """
    rows = np.argsort(identities, kind="stable")[:_COMPARED]
    embeddings, identities = embeddings[rows], identities[rows]
    one, other = np.triu_indices(len(rows), k=1)
    is_same = identities[one] == identities[other]
    if is_same.all() or not is_same.any():
        return None
    return float(roc_auc_score(is_same, (embeddings @ embeddings.T)[one, other]))


def embed_known(
    batches: Iterable[dict[str, tf.Tensor]], embedders: list[Embed]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns the identities, int64 [N], of pictures of known people, and embeddings, each [N, E].

    Args:
        batches: as `Dataset.batches` gives them.
        embedders: each from uint8 [N, S, S, 3] to float [N, E].
    """
    identities, embeddings = [], [[] for _ in embedders]
    for batch in batches:
        is_known = batch["identity"].numpy() >= 0
        identities.append(batch["identity"].numpy()[is_known])
        images = batch["images"].numpy()
        for embed, results in zip(embedders, embeddings, strict=True):
            results.append(embed(images)[is_known])
    return np.concatenate(identities), [np.concatenate(results) for results in embeddings]


def _load(folder) -> Embed:
    model = tf.saved_model.load(str(folder))  # it dies with its last reference
    embed = over_devices(lambda images: model.signatures["serving_default"](images=images))
    return lambda images: embed(images)["embedding"]


def measure(embed: Embed, dataset: Dataset, config: Config) -> dict[str, float | list[float]]:
    """Returns how well people of the test split are told apart.

    Each picture is compared with the other pictures; and, under `blurred/`, each as if enlarged
    from a quarter of its side with the other pictures as they are.
    """

    def embed_blurred(images):
        soft = downscaled(tf.cast(images, tf.float32), 4)
        return embed(tf.cast(tf.round(soft), tf.uint8).numpy())

    identities, (sharp, soft) = embed_known(dataset.batches(TEST, WHOLE), [embed, embed_blurred])
    bootstrap = IdentityBootstrap(identities, config.metrics.replicates, config.runtime.seed)
    metrics = dict(identify(sharp, sharp, identities, bootstrap).metrics)
    found = identify(soft, sharp, identities, bootstrap).metrics
    metrics |= {f"blurred/{name}": value for name, value in found.items()}
    return metrics | {"test_examples": len(identities)}
