"""All attackers on one encoder: what each recovers, and how hard those tried that are trained."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfadv.attacks import inversion, registry
from tfadv.attacks.black_box import SavedEncoder, load_classifier
from tfadv.attacks.inversion import Effort
from tfadv.attacks.knowledge import Measurement, Target, of_pictures
from tfadv.attacks.pairs import Pairs, vectors
from tfadv.attacks.probes import Examples, probe_attributes
from tfadv.attacks.ridge import NearestNeighbour
from tfadv.attacks.scoring import EvaluationSet, Finding
from tfadv.config.schema import Config
from tfadv.data.dataset import HELD_OUT, PUBLIC, TEST, TRAIN, WHOLE, Dataset
from tfadv.data.images import normalize
from tfadv.data.pipeline import UNKNOWN
from tfadv.evaluation.metrics.features import lda_metrics, pictures_by_person
from tfadv.evaluation.recognition.embedding_cache import embed_split
from tfadv.evaluation.recognition.recognizer import Embeddings, Recognizer
from tfadv.evaluation.whitening import Whitening
from tfadv.models.vgg import VGGFeatures
from tfadv.training import trainer
from tfadv.training.distribution import over_devices

# Attackers, in the order in which they are shown; the first one's metrics have plain names.
DECODER, RIDGE, RANDOM_FEATURES = "decoder", "ridge", "random_features"
NEAREST_NEIGHBOUR, INPUT_OPTIMISATION = "nearest_neighbour", "input_optimisation"
FEATURE_MAP, FEATURE_RIDGE, LINKAGE = "feature_map", "feature_ridge", "linkage"


@dataclasses.dataclass(frozen=True)
class Leak:
    """What an encoder is worth, and what leaks from it.

    Attributes:
        utility: of the encoder, by the names of metrics.json.
        attackers: what each of them found.
        efforts: how hard those tried that are trained.
        probes: how well attributes are read from the features that the task did not train.
        people: how far apart people lie in feature space; no attacker needed.
    """

    utility: dict[str, float | list[float]]
    attackers: dict[str, Finding]
    efforts: dict[str, Effort]
    probes: dict[str, float]
    people: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float | list[float]]:
        """All of it as one flat object."""
        flat = self.utility | self.probes | self.people
        for name, finding in self.attackers.items():
            plain = name in (DECODER, FEATURE_MAP, LINKAGE)
            prefix = "" if plain else f"{name}/"
            flat |= {prefix + metric: value for metric, value in finding.metrics.items()}
        for name, effort in self.efforts.items():
            prefix = "attack" if name == DECODER else name
            flat[f"{prefix}_steps"] = effort.steps
            flat[f"{prefix}_converged"] = float(effort.converged)
        decoder = self.efforts[DECODER]
        return flat | {
            "held_out_loss": decoder.held_out_loss,
            "images_per_s": decoder.images_per_s,
        }


class Battery:
    """All attackers on one encoder.

    Args:
        black_box: the encoder.
        dataset: public pictures to learn from, test pictures to be measured on.
        test: what the measures need of the latter.
        recognizers: C; M learns from the first.
        g: for the perceptual distance of Dec^a, if its loss has one.
        config: of the run.
        folder: for checkpoints and logs.
        name: what progress lines call the encoder.
    """

    def __init__(
        self,
        black_box: SavedEncoder,
        dataset: Dataset,
        test: EvaluationSet,
        recognizers: list[Recognizer],
        g: VGGFeatures | None,
        config: Config,
        folder: Path,
        name: str,
    ):
        self._black_box = black_box
        self._dataset = dataset
        self._test = test
        self._recognizers = recognizers
        self._g = g
        self._config = config
        self._folder = folder
        self._name = name
        shape, budget = black_box.feature_shape, config.attack.cache_mb
        self._train, self._held_out, self._tested = (
            Pairs(black_box, dataset, split, part, shape, budget)
            for split, part in ((PUBLIC, TRAIN), (PUBLIC, HELD_OUT), (TEST, WHOLE))
        )

    def run(self, cache: Path) -> Leak:
        """Lets every attacker try that the data and the recognisers allow."""
        target, attackers, efforts = self._aim(cache), {}, {}

        def attempt(name: str, attack: Callable[[Target], Measurement]) -> None:
            try:
                measure = attack(target)
            except ValueError as error:
                print(f"{name.replace('_', ' ')} isn't measured: {error}", flush=True)
            else:
                attackers[name] = measure(self._tested, self._test)

        attackers[DECODER], efforts[DECODER] = self._invert_pictures()
        attempt(RIDGE, registry.closed_form)
        attempt(RANDOM_FEATURES, registry.random_features)
        attackers[NEAREST_NEIGHBOUR] = self._nearest_neighbour(target.whitening, cache)
        if self._config.attack.white_box:
            attempt(INPUT_OPTIMISATION, registry.white_box)
        if target.embeddings is not None:
            attackers[FEATURE_MAP], efforts[FEATURE_MAP] = self._map_features(*target.embeddings)
            attempt(FEATURE_RIDGE, registry.feature_ridge)
        attempt(LINKAGE, registry.linkage)
        probes = self._probe(target.whitening)
        leak = Leak(self._utility(), attackers, efforts, probes, self._people())
        writer = tf.summary.create_file_writer(str(self._folder / "tensorboard"))
        trainer.write_metrics(writer, efforts[DECODER].steps, leak.metrics)
        return leak

    def _aim(self, cache: Path) -> Target:
        """What attackers have of the encoder."""
        parts, embeddings = (TRAIN, HELD_OUT), None
        if self._recognizers:
            embeddings = tuple(
                embed_split(self._recognizers[0], self._dataset, PUBLIC, part, cache).embedding
                for part in parts
            )
        return Target(
            name=self._name,
            train=self._train,
            held_out=self._held_out,
            identities=tuple(self._dataset.annotations(PUBLIC, part)[0] for part in parts),
            embeddings=embeddings,
            dataset=self._dataset,
            g=self._g,
            config=self._config,
            folder=self._folder,
            split=self._black_box.split,
            box=self._black_box,
        )

    def _invert_pictures(self) -> tuple[Finding, Effort]:
        inverter, effort = inversion.invert_pictures(
            self._train,
            self._held_out,
            self._dataset,
            self._config,
            self._black_box.split,
            self._g,
            self._folder,
            f"attack on {self._name}",
        )
        decode = over_devices(inverter)
        return of_pictures(decode)(self._tested, self._test), effort

    def _nearest_neighbour(self, whitening: Whitening, cache: Path) -> Finding:
        search = NearestNeighbour(self._train, self._held_out, whitening)
        nearest = np.concatenate([search(b["features"]) for b in self._tested.batches()])
        pictures = self._train.pictures(nearest)

        def reconstruct(batch):
            return normalize(pictures[batch["index"]]).numpy()

        def embed(recognizer, batch):
            if recognizer is not self._recognizers[0]:
                return recognizer(reconstruct(batch))
            # Of the first, M needs all public embeddings anyway.
            known = embed_split(recognizer, self._dataset, PUBLIC, TRAIN, cache)
            return Embeddings(*(each[nearest[batch["index"]]] for each in known))

        return self._test.of_pictures(self._tested.batches(), reconstruct, embed)

    def _map_features(self, train: np.ndarray, held_out: np.ndarray) -> tuple[Finding, Effort]:
        """M, from public pictures' embeddings."""
        inverter, effort = inversion.guess_embeddings(
            self._train,
            train,
            self._held_out,
            held_out,
            self._config,
            self._folder / FEATURE_MAP,
            f"identity attack on {self._name}",
        )
        guess = over_devices(inverter)
        guesses = [guess(batch["features"]) for batch in self._tested.batches()]
        return self._test.of_guesses(np.concatenate(guesses), train.mean(0)), effort

    def _probe(self, whitening: Whitening) -> dict[str, float]:
        """What probes read of the attributes that the task did not train."""
        classify = load_classifier(self._black_box.path)
        trained = classify.attributes if classify else self._config.task.attributes
        names = [name for name in self._dataset.attributes if name not in trained]
        if not names:
            return {}
        columns = self._dataset.columns(names)
        examples = [
            Examples(vectors(pairs), self._dataset.annotations(split, part)[1][:, columns])
            for pairs, split, part in (
                (self._train, PUBLIC, TRAIN),
                (self._held_out, PUBLIC, HELD_OUT),
                (self._tested, TEST, WHOLE),
            )
        ]
        # Those of further datasets lack some.
        is_known = (examples[0].labels != UNKNOWN).all(axis=1)
        if not is_known.all():
            examples[0], whitening = Examples(*(each[is_known] for each in examples[0])), None
        return probe_attributes(*examples, names, self._config.runtime.seed, whitening)

    def _people(self) -> dict[str, float]:
        """How far apart the test people lie in feature space."""
        order = pictures_by_person(self._test.identities)
        return lda_metrics(self._tested.features(order), self._test.identities[order])

    def _utility(self) -> dict[str, float | list[float]]:
        """The utility of an encoder on the test split, if its classifier lies beside it."""
        classify = load_classifier(self._black_box.path)
        return self._test.utility(classify, self._tested)
