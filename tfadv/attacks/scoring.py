"""Scores attacks: compares what they recovered of images and people with the truth."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import normalize as unit_rows

from tfadv.attacks.attack import AttributeScores, FittedAttack
from tfadv.attacks.black_box import SavedClassifier
from tfadv.attacks.knowledge import Pairs
from tfadv.data.dataset import Dataset
from tfadv.data.images import normalize, to_uint8
from tfadv.evaluation.identities import repeated_people
from tfadv.evaluation.metrics.bootstrap import IdentityBootstrap
from tfadv.evaluation.metrics.features import images_by_person, lda_metrics
from tfadv.evaluation.metrics.identity import Identification, cosine_similarity, identify
from tfadv.evaluation.metrics.image import psnr, ssim
from tfadv.evaluation.metrics.info_nce import info_nce
from tfadv.evaluation.metrics.utility import mcc, resampled_mcc, utility_metrics
from tfadv.evaluation.recognition.embedding_cache import cached_embeddings
from tfadv.evaluation.recognition.recognizer import Embeddings, Recognizer
from tfadv.evaluation.results import AttackResult, Flat, PairScores, Score

Batch = dict[str, np.ndarray]
EmbedImages = Callable[[Recognizer, Batch], Embeddings | None]

# In dB, of the rounding error of 8 bits. A nearest neighbour can be the very image, and one
# infinite value would leave no mean.
_HIGHEST_PSNR = 10 * np.log10(12 * 255**2)
_ROUNDING = 1e-3  # of a direction of length 1: smaller differences are rounding


class EvaluationSet:
    """Images that attacks are scored on, with their identities, labels and embeddings.

    Args:
        dataset, split, part: where the images come from.
        recognizers: the first one gives the plain metrics, those of others are METRIC/RECOGNIZER.
        cache: folder for the embeddings of the images.
        replicates: number of bootstrap samples of the people, for intervals.
        seed: of the bootstrap.
        examples: number of first reconstructions that a result keeps; 0: none.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        part: str,
        recognizers: Sequence[Recognizer],
        cache: Path,
        *,
        replicates: int = 1000,
        seed: int = 0,
        examples: int = 8,
    ):
        self._dataset, self._where = dataset, (split, part)
        self._recognizers, self._examples = recognizers, examples
        self.identities, self.labels = dataset.annotations(split, part)
        self.bootstrap = IdentityBootstrap(self.identities, replicates, seed)
        self.embeddings = {
            recognizer.name: cached_embeddings(recognizer, dataset, split, part, cache)
            for recognizer in recognizers
        }

    def batches(self) -> Iterable[Batch]:
        """Yields `images` uint8 [N, S, S, 3] and `index` of all images, in order."""
        for batch in self._dataset.batches(*self._where):
            yield {"images": batch["images"].numpy(), "index": batch["index"].numpy()}

    def score(self, fitted: FittedAttack, pairs: Pairs) -> AttackResult:
        """Returns what a fitted attack recovers of these images, given with their features."""
        if fitted.neighbours is not None:
            return self._score_neighbours(fitted, pairs)
        if fitted.reconstruct is not None:
            if fitted.examples:
                return self._score_first_images(fitted, pairs)
            reconstruct = fitted.reconstruct
            return self.score_images(pairs.batches(), lambda batch: reconstruct(batch["features"]))
        if fitted.embed is not None:
            guesses = [fitted.embed(batch["features"]) for batch in pairs.batches()]
            return self._score_guesses(np.concatenate(guesses), fitted.mean_embedding)
        if fitted.link is not None:
            codes = [fitted.link(batch["features"]) for batch in pairs.batches()]
            return self._score_codes(np.concatenate(codes), fitted.critic_scale)
        scores = [fitted.attributes.score(batch["features"]) for batch in pairs.batches()]
        return self._score_attributes(np.concatenate(scores), fitted.attributes)

    def score_images(
        self,
        batches: Iterable[Batch],
        reconstruct: Callable[[Batch], np.ndarray],
        embed: EmbedImages | None = None,
    ) -> AttackResult:
        """Compares reconstructions with the images.

        Identification runs twice: on the embeddings as they are, as in the paper, and after the
        mean is taken off (`_centred`). Reconstructions have a blur in common, which an attacker who
        collects them can take off.

        Args:
            batches: of all images in order, with `images`, `index` and what `reconstruct` needs.
            reconstruct: a batch to images, float32 [N, S, S, 3] in [-1, 1].
            embed: what a recognizer sees in the reconstructions of a batch, or None where that is
                not known. Embedding images is what takes longest here.
        """
        pixels = {"ssim": [], "psnr": [], "mse": []}
        faces = {recognizer.name: [] for recognizer in self._recognizers}
        first = None
        for batch in batches:
            rebuilt = _finite(reconstruct(batch))
            for name, values in _compare_pixels(batch["images"], rebuilt).items():
                pixels[name].append(values)
            for recognizer in self._recognizers:
                embedded = embed(recognizer, batch) if embed else None
                embedded = recognizer(rebuilt) if embedded is None else embedded
                real = self.embeddings[recognizer.name]
                face, inner = (
                    cosine_similarity(one, other[batch["index"]])
                    for one, other in zip(embedded, real, strict=True)
                )
                faces[recognizer.name].append((embedded.embedding, face, inner))
            if first is None and self._examples:
                first = to_uint8(rebuilt[: self._examples])
        scores = {name: self._mean(np.concatenate(values)) for name, values in pixels.items()}
        pairs = {}
        for i, (name, parts) in enumerate(faces.items()):
            embedding, face, inner = map(np.concatenate, zip(*parts, strict=True))
            real, suffix = self.embeddings[name].embedding, f"/{name}" if i else ""
            scores[f"face_similarity{suffix}"] = self._mean(face)
            scores[f"face_similarity_inner{suffix}"] = self._mean(inner)
            plain = self._identify(embedding, real)
            centred = self._identify(_centred(embedding), _centred(real))
            scores |= _named(plain, lambda metric, end=suffix: metric + end)
            scores |= _named(centred, lambda metric, end=suffix: f"{metric}_centred{end}")
            pairs |= _pairs(name, plain)
        return AttackResult(scores, first, pairs, examples=len(self.identities))

    def score_real_images(self) -> AttackResult:
        """Returns what recognizers see in the images themselves: no attack does better."""
        scores, pairs = {}, {}
        for i, (name, real) in enumerate(self.embeddings.items()):
            suffix = f"/{name}" if i else ""
            found = self._identify(real.embedding, real.embedding)
            scores |= _named(found, lambda metric, end=suffix: metric + end)
            pairs |= _pairs(name, found)
        return AttackResult(scores, pairs=pairs)

    def score_constant_guess(self, embedding: np.ndarray) -> AttackResult:
        """Returns how similar one guessed embedding, [E], is to all images."""
        real = next(iter(self.embeddings.values())).embedding
        similarity = cosine_similarity(np.broadcast_to(embedding, real.shape), real)
        return AttackResult({"feature_similarity": self._mean(similarity)})

    def utility(self, classify: SavedClassifier | None, pairs: Pairs) -> Flat:
        """Returns how well a classifier does its task on these images' features.

        Empty without a classifier, and for a classifier of other features or attributes.
        """
        known = self._dataset.attributes
        if classify is None or classify.feature_shape != pairs.feature_shape:
            return {}
        if not set(classify.attributes) <= set(known):
            return {}
        logits = np.concatenate([classify(batch["features"]) for batch in pairs.batches()])
        return utility_metrics(
            known,
            self.labels,
            logits,
            thresholds=classify.thresholds,
            task=classify.attributes,
            bootstrap=self.bootstrap,
        )

    def separation(self, pairs: Pairs) -> Flat:
        """Returns how far apart people lie in feature space (Table 3)."""
        order = images_by_person(self.identities)
        return lda_metrics(pairs.features(order), self.identities[order])

    def _score_neighbours(self, fitted: FittedAttack, pairs: Pairs) -> AttackResult:
        """Compares public images, found once for all pairs, with the images."""
        known = fitted.neighbour_images
        places = [fitted.neighbours(batch["features"]) for batch in pairs.batches()]
        places = np.concatenate(places)
        images = known.pairs.images(places)

        def embed(recognizer, batch):
            """The embeddings of public images are known for the first recognizer."""
            if known.embeddings is None or recognizer is not self._recognizers[0]:
                return None
            return Embeddings(*(each[places[batch["index"]]] for each in known.embeddings))

        return self.score_images(
            pairs.batches(), lambda batch: normalize(images[batch["index"]]).numpy(), embed
        )

    def _score_first_images(self, fitted: FittedAttack, pairs: Pairs) -> AttackResult:
        """Compares the pixels of reconstructions of the first images only."""
        batch = first_pairs(pairs, fitted.examples)
        rebuilt = _finite(fitted.reconstruct(batch["features"]))
        scores = {}
        for name, values in _compare_pixels(batch["images"], rebuilt).items():
            padded = np.full(len(self.identities), np.nan)  # the bootstrap leaves NaN out
            padded[: len(values)] = values
            scores[name] = self._mean(padded)
        first = to_uint8(rebuilt[: self._examples]) if self._examples else None
        return AttackResult(scores, first, examples=len(rebuilt))

    def _score_guesses(self, guesses: np.ndarray, mean: np.ndarray) -> AttackResult:
        """Compares guessed embeddings, [N, E], with those of the first recognizer.

        Identification runs on differences from the mean embedding of public images, [E]: a guess is
        mostly mean, and the mean is near the same few images for every query.
        """
        name, real = next(iter(self.embeddings.items()))
        similarity = self._mean(cosine_similarity(guesses, real.embedding))
        found = self._identify(guesses - mean, real.embedding - mean)
        scores = {"feature_similarity": similarity}
        scores |= _named(found, lambda metric: f"feature_{metric}")
        return AttackResult(scores, pairs=_pairs(name, found), examples=len(self.identities))

    def _score_codes(self, codes: np.ndarray, critic_scale: float | None) -> AttackResult:
        """Compares codes of features, [N, K], with one another: linkage."""
        found = self._identify(codes, codes)
        scores = _named(found, lambda metric: f"linkage_{metric.partition('_')[2]}")
        _, person = repeated_people(self.identities)
        if critic_scale is not None and person.max(initial=0) > 0:  # two people with two images
            nats = info_nce(codes, self.identities, critic_scale)
            scores["info_nce_bits"] = self._mean(nats / np.log(2))
        return AttackResult(scores, pairs=_pairs("", found), examples=len(self.identities))

    def _score_attributes(self, values: np.ndarray, attributes: AttributeScores) -> AttackResult:
        """Compares the scores of attributes, [N, A], with the labels."""
        labels = self.labels[:, attributes.columns]
        by_attribute = {
            "attribute_mcc": mcc(labels, values, attributes.mcc_thresholds),
            "attribute_accuracy": ((values > attributes.accuracy_thresholds) == labels).mean(0),
            "attribute_auc": _auc(labels, values),
            "attribute_majority_accuracy": (labels == attributes.majority).mean(0),
        }
        replicates = resampled_mcc(labels, values, attributes.mcc_thresholds, self.bootstrap)
        scores = {}
        for metric, found in by_attribute.items():
            if not np.isnan(found).all():
                scores[metric] = Score(float(np.nanmean(found)))
            for name, value in zip(attributes.names, found, strict=True):
                scores[f"{metric}/{name}"] = Score(float(value))
        scores["attribute_mcc"] = Score(scores["attribute_mcc"].value, replicates.mean(axis=1))
        return AttackResult(scores, examples=len(self.identities))

    def _identify(self, probes: np.ndarray, gallery: np.ndarray) -> Identification:
        return identify(probes, gallery, self.identities, self.bootstrap)

    def _mean(self, values: np.ndarray) -> Score:
        """The mean of a value per image; NaN is left out."""
        return Score(float(np.nanmean(values)), self.bootstrap.means(values))


def first_pairs(pairs: Pairs, count: int) -> Batch:
    """Returns the first pairs: `images`, `features` and `index`."""
    parts = []
    for batch in pairs.batches():
        parts.append({name: values[:count] for name, values in batch.items()})
        count -= len(parts[-1]["index"])
        if not count:
            break
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _named(found: Identification, name: Callable[[str], str]) -> dict[str, Score]:
    """The scores of an identification, each metric under another name."""
    return {
        name(metric): Score(found.metrics[metric], values)
        for metric, values in found.replicates.items()
    }


def _pairs(recognizer: str, found: Identification) -> dict[str, PairScores]:
    if not found.metrics:
        return {}
    return {recognizer: PairScores(found.roc, found.genuine, found.impostor)}


def _centred(embeddings: np.ndarray) -> np.ndarray:
    """Directions minus their mean, float [N, E]; 0 where nothing but rounding is left."""
    directions = unit_rows(embeddings)
    rest = directions - directions.mean(0)
    return np.where(np.linalg.norm(rest, axis=1, keepdims=True) > _ROUNDING, rest, 0.0)


def _finite(rebuilt: np.ndarray) -> np.ndarray:
    """Reconstructions as float32. A broken attack must not flatter the defence.

    Raises:
        ValueError: a value is not finite.
    """
    rebuilt = np.asarray(rebuilt, np.float32)
    if not np.isfinite(rebuilt).all():
        raise ValueError(
            f"{(~np.isfinite(rebuilt)).sum()} pixels of reconstructions are not finite"
        )
    return rebuilt


def _compare_pixels(images: np.ndarray, rebuilt: np.ndarray) -> dict[str, np.ndarray]:
    """How similar uint8 images and reconstructions in [-1, 1] are, each [N]."""
    images = normalize(images).numpy()
    return {
        "ssim": ssim(images, rebuilt),
        "psnr": np.minimum(psnr(images, rebuilt), _HIGHEST_PSNR),
        "mse": np.square(images - rebuilt).mean(axis=(1, 2, 3)),
    }


def _auc(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The area under each attribute's ROC curve, [A]; NaN for an attribute of one value."""
    return np.array(
        [
            roc_auc_score(label, score) if label.min() < label.max() else np.nan
            for label, score in zip(labels.T, scores.T, strict=True)
        ]
    )
