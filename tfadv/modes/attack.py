"""--mode=attack: trains Dec^a against encoders it can only call; measures what it recovers."""

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfadv import training
from tfadv.attackers import ImageInverter, Pairs, Plateau
from tfadv.config import Config, Report
from tfadv.data import HELD_OUT, PUBLIC, TEST, TRAIN, WHOLE, Dataset, normalise, to_uint8
from tfadv.encoders import SavedEncoder, load_classifier, predict
from tfadv.metrics.image import psnr, ssim
from tfadv.metrics.utility import utility_metrics
from tfadv.modes import pages
from tfadv.networks import Decoder
from tfadv.workdir import Workdir

UNPROTECTED = "unprotected"
MEAN_FACE = "mean_face"


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one attack recovered.

    Attributes:
        metrics: by the names of metrics.json.
        pictures: reconstructions of the first test pictures, uint8 [N, S, S, 3].
        curve: steps, and the loss on held-out public pictures at them.
    """

    metrics: dict[str, float]
    pictures: np.ndarray
    curve: tuple[list[int], list[float]] = ((), ())


def run(workdir: Workdir) -> None:
    """Attacks each encoder, compares with a guess that needs no features, and reports."""
    config = workdir.config
    precision = training.set_up(config.runtime)
    dataset = Dataset(config.data)
    encoders = named_encoders(config.encoder)
    # All are called once now, so that a mistake about the last one shows before any attack.
    black_boxes = {
        name: SavedEncoder(path, config.black_box, dataset.size) for name, path in encoders.items()
    }
    workdir.begin(dataset=dataset.description, precision=precision, encoders=encoders)
    pages.print_start(dataset, precision)
    findings = {}
    for name, black_box in black_boxes.items():
        folder = workdir.path / name if findings else workdir.path
        findings[name] = attack(black_box, dataset, config, folder, name)
    findings[MEAN_FACE] = guess_mean_face(dataset, config)
    pictures = first_pictures(dataset, config)
    table = pages.write_attack_page(workdir, dataset, findings, pictures)
    workdir.finish(flat_metrics(findings))
    pages.print_result(workdir, table)


def named_encoders(paths: tuple[str, ...]) -> dict[str, str]:
    """Names the encoders for tables; adds the baseline trained beside the first, if any."""
    names = {}
    for path in map(Path, paths):
        name = _name(path)
        names[name if name not in names else f"{name}_{len(names) + 1}"] = str(path)
    baseline = Path(paths[0]).parent / UNPROTECTED / "encoder"
    if baseline.exists() and str(baseline) not in names.values():
        names[UNPROTECTED] = str(baseline)
    return names


def _name(path: Path) -> str:
    """What an encoder of ours was trained as; the folder's name of any other."""
    record = path.parent / "config.json"
    if not (path / "encoder.json").exists() or not record.exists():
        return path.resolve().name
    loss = json.loads(record.read_text())["config"]["loss"]
    return "protected" if loss["lambda1"] else UNPROTECTED


def attack(
    black_box: SavedEncoder, dataset: Dataset, config: Config, folder: Path, name: str
) -> Finding:
    """Trains Dec^a on public pictures until it stops improving; measures it on the test split."""
    keras.utils.set_random_seed(config.runtime.seed)
    shape, budget = black_box.feature_shape, config.attack.cache_mb
    train = Pairs(black_box, dataset, TRAIN, shape, budget)
    held_out = Pairs(black_box, dataset, HELD_OUT, shape, budget)

    decoder = Decoder(shape, dataset.size, black_box.split, config.model.decoder_width)
    decoder.build((None, *shape))
    inverter = ImageInverter(decoder, shape)
    inverter.standardisation.adapt(batch["features"] for batch in train.batches())
    inverter.compile(training.adam(config.train.learning_rate, config.train.clip_norm))
    plateau = Plateau(inverter, config.attack.patience, config.attack.rate_drops)

    title = f"attack on {name}"
    trainer = training.Trainer(inverter, config.train, folder, title, plateau=plateau)
    if not plateau.ended:
        trainer.run(
            lambda step: train.training_batches(
                config.train.batch, seed=config.runtime.seed, start=step
            ),
            Evaluation(inverter, held_out, plateau, trainer.writer, config.report),
        )
    plateau.restore_best()
    reason = "held-out pictures no longer improve" if plateau.ended else "train.steps is reached"
    print(
        f"{title}: ended at step {trainer.step:,}, as {reason}; its best point counts", flush=True
    )
    metrics, pictures = measure(black_box, inverter, dataset, config)
    metrics |= utility(black_box, dataset)
    metrics |= {
        "held_out_loss": plateau.lowest,
        "attack_steps": trainer.step,
        "attack_converged": float(plateau.ended),
        "images_per_s": trainer.images_per_s,
    }
    trainer.write_metrics(metrics)
    return Finding(metrics, pictures, trainer.history.series("held_out_loss"))


class Evaluation:
    """The loss on held-out public pictures, which decides when the attack ends."""

    def __init__(
        self,
        inverter: ImageInverter,
        held_out: Pairs,
        plateau: Plateau,
        writer: tf.summary.SummaryWriter,
        report: Report,
    ):
        self._inverter = inverter
        self._held_out = held_out
        self._plateau = plateau
        self._writer = writer
        self._report = report
        self._loss = tf.function(inverter.test_step, reduce_retracing=True)

    def __call__(self, step: int) -> tuple[dict[str, float], bool]:
        """Returns the loss, and whether to go on."""
        total = 0.0
        for batch in self._held_out.batches():
            total += float(self._loss(batch)["reconstruction"]) * len(batch["images"])
        loss = total / self._held_out.count
        self._plateau.update(loss)
        if self._report.pictures:
            self._write_pictures(step)
        rate = float(self._inverter.optimizer.learning_rate)
        return {"held_out_loss": loss, "learning_rate": rate}, not self._plateau.ended

    def _write_pictures(self, step: int) -> None:
        batch = next(self._held_out.batches())
        few = {name: values[: self._report.examples] for name, values in batch.items()}
        training.write_pictures(
            self._writer,
            step,
            "input over reconstruction",
            few["images"],
            to_uint8(self._inverter(few["features"]).numpy()),
        )


def measure(
    black_box: SavedEncoder, inverter: ImageInverter, dataset: Dataset, config: Config
) -> tuple[dict[str, float], np.ndarray]:
    """Returns SSIM and PSNR on the test split, and its first reconstructions."""
    reconstruct = tf.function(inverter, reduce_retracing=True)

    def invert(images):
        return reconstruct(tf.convert_to_tensor(black_box(images))).numpy()

    return _compare(invert, dataset, config)


def guess_mean_face(dataset: Dataset, config: Config) -> Finding:
    """What an attacker without any feature could say: the mean public picture, for everyone."""
    total = np.zeros((dataset.size, dataset.size, 3))
    for batch in dataset.batches(PUBLIC, WHOLE):
        total += normalise(batch["images"]).numpy().sum(0)
    mean = (total / dataset.count(PUBLIC)).astype(np.float32)
    return Finding(*_compare(lambda images: np.stack([mean] * len(images)), dataset, config))


def _compare(invert, dataset: Dataset, config: Config) -> tuple[dict[str, float], np.ndarray]:
    """Compares what `invert` makes of each test picture with the picture."""
    structure, noise, first = [], [], None
    for batch in dataset.batches(TEST, WHOLE):
        reconstructions = invert(batch["images"].numpy())
        images = normalise(batch["images"]).numpy()
        structure.append(ssim(images, reconstructions))
        noise.append(psnr(images, reconstructions))
        if first is None:
            first = reconstructions[: config.report.examples]
    structure, noise = np.concatenate(structure), np.concatenate(noise)
    metrics = {"ssim": float(structure.mean()), "psnr": float(noise.mean())}
    return metrics | {"test_examples": len(noise)}, to_uint8(first)


def utility(black_box: SavedEncoder, dataset: Dataset) -> dict[str, float]:
    """Returns the utility of an encoder on the test split, if its classifier lies beside it."""
    classify = load_classifier(black_box.path)
    if classify is None or classify.feature_shape != black_box.feature_shape:
        return {}
    if not set(classify.attributes) <= set(dataset.attributes):
        return {}  # trained on another dataset
    labels, logits = predict(black_box, classify, dataset.batches(TEST, WHOLE))
    return utility_metrics(dataset.attributes, labels, logits, task=classify.attributes)


def first_pictures(dataset: Dataset, config: Config) -> np.ndarray:
    """Returns the first test pictures, uint8 [N, S, S, 3], that a report shows."""
    batch = next(iter(dataset.batches(TEST, WHOLE, config.report.examples)))
    return batch["images"].numpy()


def flat_metrics(findings: dict[str, Finding]) -> dict[str, float]:
    """Names the first encoder's metrics plainly, those of the others NAME/METRIC."""
    flat = {}
    for i, (name, finding) in enumerate(findings.items()):
        prefix = f"{name}/" if i else ""
        flat |= {prefix + metric: value for metric, value in finding.metrics.items()}
    return flat
