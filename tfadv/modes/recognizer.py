"""--mode=recognizer: trains a face recognizer on the people of a split and exports it."""

import keras

from tfadv.config.run_folder import RunFolder
from tfadv.config.schema import Config
from tfadv.data.dataset import Dataset
from tfadv.evaluation.recognition.identity_classifier import (
    FaceEmbedder,
    IdentityClassifier,
    export_embedder,
)
from tfadv.evaluation.recognition.identity_training import (
    HeldOutVerification,
    TrainingImages,
    check_test_people,
    measure_recognizer,
    people_to_learn,
)
from tfadv.models.batch_normalization import synchronize
from tfadv.modes import tensorboard
from tfadv.modes.scope import Announce, in_scope, quiet
from tfadv.reporting import common
from tfadv.reporting import recognizer as page
from tfadv.training import trainer as training


@in_scope
def run(workdir: RunFolder, announce: Announce = quiet) -> None:
    """Trains, exports, measures and reports."""
    config, split = workdir.config, workdir.config.recognizer.split
    batch, seed = config.train.batch, config.runtime.seed
    precision = training.set_up(config.runtime)
    dataset = Dataset(config.data)
    people = people_to_learn(dataset, split)
    check_test_people(dataset)
    images = TrainingImages(dataset, split, people)
    images.batches(batch, seed)  # fails now if there are fewer images than a batch takes
    workdir.begin(dataset=dataset.description, precision=precision)
    common.print_dataset(dataset, precision)
    announce("")

    classifier = build(config, len(people))
    trainer = training.Trainer(
        classifier, config.train, workdir.path, "recognizer", describe=tensorboard.meaning
    )
    # The last point counts: at the end of the cosine decay it is as good as any, and too few people
    # are held out to choose between points by them.
    trainer.run(
        lambda step: images.batches(batch, seed, step),
        HeldOutVerification(classifier.embedder, dataset, split),
    )

    folder = workdir.path / "recognizer"
    export_embedder(
        classifier.embedder,
        config.data.size,
        folder,
        identities=len(people),
        split=split,
        dataset=dataset.description["name"],
    )
    metrics = measure_recognizer(folder, dataset, config.metrics.replicates, seed)
    metrics |= {"identities": len(people), "images_per_s": trainer.images_per_s}
    tensorboard.write_metrics(trainer.writer, trainer.step, metrics)
    table = page.write(
        workdir.path / "report.html",
        metrics,
        loss=trainer.history.series("identity"),
        held_out_auc=trainer.history.series("held_out_auc"),
        split=split,
        people_note=common.seen_in_training_note(dataset),
        details=common.details(workdir, dataset),
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
