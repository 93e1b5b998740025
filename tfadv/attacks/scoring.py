"""Measures what attackers recovered of the pictures, and of who is in them."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from sklearn.preprocessing import normalize as unit_rows

from tfadv.attacks.black_box import SavedClassifier
from tfadv.attacks.pairs import Pairs
from tfadv.config.schema import Config
from tfadv.data.dataset import TEST, WHOLE, Dataset
from tfadv.data.images import normalize, to_uint8
from tfadv.evaluation.metrics.bootstrap import IdentityBootstrap, percentile_interval
from tfadv.evaluation.metrics.identity import Identification, cosine_similarity, identify
from tfadv.evaluation.metrics.image import psnr, ssim
from tfadv.evaluation.metrics.info_nce import choose_scale, info_nce
from tfadv.evaluation.metrics.utility import mcc, resampled_mcc, utility_metrics
from tfadv.evaluation.recognition.embedding_cache import embed_split
from tfadv.evaluation.recognition.recognizer import Embeddings, Recognizer

Batch = dict[str, np.ndarray]

# In dB, of the error of rounding to 8 bits: a nearest neighbour can be the very picture, and one
# infinity would leave no mean.
_FINEST_PSNR = 10 * np.log10(12 * 255**2)
_NOTHING = 1e-3  # of a direction of length 1: less than recognisers round


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one attacker recovered.

    Attributes:
        metrics: by the names of metrics.json; NAME_ci95 holds an interval, [low, high].
        pictures: reconstructions of the first pictures, uint8 [N, S, S, 3], of an attacker
            who makes some.
        identification: by recogniser, or by "" where none is needed.
        replicates: each metric that has an interval on resampled people, float64 [R].
        is_finished: whether an attacker that trains until it no longer improves did so.
    """

    metrics: dict[str, float | list[float]] = dataclasses.field(default_factory=dict)
    pictures: np.ndarray | None = None
    identification: dict[str, Identification] = dataclasses.field(default_factory=dict)
    replicates: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    is_finished: bool = True

    def add(self, identified: Identification, name: Callable[[str], str]) -> None:
        """Takes over how well people are recognised, each metric under another name."""
        for metric, values in identified.replicates.items():
            self.metrics[name(metric)] = identified.metrics[metric]
            self.metrics[f"{name(metric)}_ci95"] = identified.metrics[f"{metric}_ci95"]
            self.replicates[name(metric)] = values


class EvaluationSet:
    """Pictures that attackers are measured on, who is in them, and what face recognisers see.

    Args:
        dataset: where they are.
        recognizers: C; the first is the one that M learns from, its metrics have plain names. Those
            of the others are called METRIC/RECOGNISER.
        config: of the run.
        cache: folder for the embeddings of the real pictures.
        split: of the dataset; the test split, but where attackers are chosen among.
        part: of the split.
        is_centred: whether people are told apart by what the embedding of a reconstruction has
            beyond the mean of all, and a face's beyond that of all faces. Reconstructions have a
            blur in common, which whoever collects them can take off; the paper doesn't.
    """

    def __init__(
        self,
        dataset: Dataset,
        recognizers: list[Recognizer],
        config: Config,
        cache: Path,
        split: str = TEST,
        part: str = WHOLE,
        *,
        is_centred: bool = False,
    ):
        self._is_centred = is_centred
        self._dataset = dataset
        self._where = split, part
        self._recognizers = recognizers
        self._examples = config.report.examples
        self.identities, self.labels = dataset.annotations(split, part)
        self.bootstrap = IdentityBootstrap(
            self.identities, config.metrics.replicates, config.runtime.seed
        )
        self.embeddings = {
            recognizer.name: embed_split(recognizer, dataset, split, part, cache)
            for recognizer in recognizers
        }

    def batches(self) -> Iterable[Batch]:
        """Yields `images` uint8 [N, S, S, 3] and `index` of all pictures, in order."""
        for batch in self._dataset.batches(*self._where):
            yield {"images": batch["images"].numpy(), "index": batch["index"].numpy()}

    def of_pictures(
        self,
        batches: Iterable[Batch],
        reconstruct: Callable[[Batch], np.ndarray],
        embed: Callable[[Recognizer, Batch], Embeddings] | None = None,
    ) -> Finding:
        """Compares reconstructions with the pictures.

        Args:
            batches: of all pictures in order, with `images` and `index`, and with whatever
                `reconstruct` needs.
            reconstruct: a batch to pictures, float32 [N, S, S, 3] in [-1, 1].
            embed: what a recogniser sees in the reconstructions of a batch, where that is known
                already; embedding pictures is what takes longest here.
        """
        pixels = {"ssim": [], "psnr": [], "mse": []}
        guesses = {recognizer.name: [] for recognizer in self._recognizers}
        first = None
        for batch in batches:
            images = normalize(batch["images"]).numpy()
            rebuilt = np.asarray(reconstruct(batch), np.float32)
            for name, values in _pixels(images, rebuilt).items():
                pixels[name].append(values)
            for recognizer in self._recognizers:
                seen = embed(recognizer, batch) if embed else recognizer(rebuilt)
                guesses[recognizer.name].append(self._compare(recognizer, seen, batch["index"]))
            if first is None:
                first = to_uint8(rebuilt[: self._examples])
        finding = Finding(pictures=first)
        for name, values in pixels.items():
            self._add_mean(finding, name, np.concatenate(values))
        finding.metrics["test_examples"] = len(self.identities)
        for i, (name, parts) in enumerate(guesses.items()):
            embedding, face, inner = map(np.concatenate, zip(*parts, strict=True))
            suffix = f"/{name}" if i else ""
            pairs = embedding, self.embeddings[name].embedding
            identified = self._identify(*(map(_beyond_mean, pairs) if self._is_centred else pairs))
            finding.identification[name] = identified
            self._add_mean(finding, f"face_similarity{suffix}", face)
            self._add_mean(finding, f"face_similarity_inner{suffix}", inner)
            finding.add(identified, lambda metric, suffix=suffix: metric + suffix)
        return finding

    def of_first_pictures(
        self, batch: Batch, reconstruct: Callable[[Batch], np.ndarray]
    ) -> Finding:
        """Compares the pixels of reconstructions of the first pictures only.

        Args:
            batch: theirs, with `images` and whatever `reconstruct` needs.
            reconstruct: as for `of_pictures`.
        """
        images = normalize(batch["images"]).numpy()
        rebuilt = np.asarray(reconstruct(batch), np.float32)
        finding = Finding({"test_examples": len(images)}, to_uint8(rebuilt[: self._examples]))
        for name, values in _pixels(images, rebuilt).items():
            padded = np.full(len(self.identities), np.nan)  # the bootstrap leaves them out
            padded[: len(values)] = values
            self._add_mean(finding, name, padded)
        return finding

    def of_real_pictures(self) -> Finding:
        """Returns what recognisers make of the pictures themselves: no attacker does better."""
        finding = Finding()
        for i, (name, real) in enumerate(self.embeddings.items()):
            identified = self._identify(real.embedding, real.embedding)
            finding.identification[name] = identified
            suffix = f"/{name}" if i else ""
            finding.add(identified, lambda metric, suffix=suffix: metric + suffix)
        return finding

    def of_guesses(self, guesses: np.ndarray, centre: np.ndarray) -> Finding:
        """Compares guessed embeddings with C(X) of the first recogniser.

        People are told apart by what an embedding has beyond the mean: a guess is mostly mean, and
        that is near the same few pictures whoever is asked for.

        Args:
            guesses: M(Z), float32 [N, E].
            centre: the mean embedding of public pictures, float32 [E].
        """
        name, real = next(iter(self.embeddings.items()))
        finding = self.of_one_guess(guesses)
        identified = self._identify(guesses - centre, real.embedding - centre)
        finding.identification[name] = identified
        finding.add(identified, lambda metric: f"feature_{metric}")
        return finding

    def of_one_guess(self, guess: np.ndarray) -> Finding:
        """Returns how similar guessed embeddings are, [N, E], or one for all, [1, E]."""
        real = next(iter(self.embeddings.values())).embedding
        finding = Finding()
        similarity = cosine_similarity(np.broadcast_to(guess, real.shape), real)
        self._add_mean(finding, "feature_similarity", similarity)
        return finding

    def of_codes(self, codes: np.ndarray, scale: float | None = None) -> Finding:
        """Compares codes of features, float32 [N, K], with one another: linkage.

        Args:
            codes: of these pictures' features.
            scale: of a critic, from `info_nce.choose_scale` on other people; adds `info_nce_bits`.
        """
        identified = self._identify(codes, codes)
        finding = Finding(identification={"": identified})
        finding.add(identified, lambda metric: f"linkage_{metric.partition('_')[2]}")
        if scale is not None:
            try:
                nats, _ = info_nce(codes, self.identities, scale)
            except ValueError as error:
                print(f"information on identity isn't measured: {error}", flush=True)
            else:
                self._add_mean(finding, "info_nce_bits", nats / np.log(2))
        return finding

    def of_scores(
        self, scores: np.ndarray, columns: Sequence[int], thresholds: np.ndarray
    ) -> Finding:
        """Compares what probes read of attributes with what is true.

        Args:
            scores: of these pictures, [N, A].
            columns: of the labels, the A attributes that are read.
            thresholds: from other people, [A].
        """
        labels = self.labels[:, columns]
        replicates = resampled_mcc(labels, scores, thresholds, self.bootstrap).mean(axis=1)
        finding = Finding({"probe_mcc": float(mcc(labels, scores, thresholds).mean())})
        finding.metrics["probe_mcc_ci95"] = list(percentile_interval(replicates))
        finding.replicates["probe_mcc"] = replicates
        return finding

    def utility(
        self, classify: SavedClassifier | None, pairs: Pairs
    ) -> dict[str, float | list[float]]:
        """Returns how well f does its task on these pictures' features.

        Args:
            classify: f; None gives nothing, nor does one of other features or another dataset.
            pairs: of these pictures.
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

    def _compare(
        self, recognizer: Recognizer, seen: Embeddings, index: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The embeddings of reconstructions, and how alike they are to those of the pictures."""
        real = self.embeddings[recognizer.name]
        return (
            seen.embedding,
            cosine_similarity(seen.embedding, real.embedding[index]),
            cosine_similarity(seen.inner, real.inner[index]),
        )

    def _identify(self, probes: np.ndarray, gallery: np.ndarray) -> Identification:
        return identify(probes, gallery, self.identities, self.bootstrap)

    def _add_mean(self, finding: Finding, name: str, values: np.ndarray) -> None:
        """Adds the mean of a value per picture, NaN left out, with its interval."""
        replicates = self.bootstrap.means(values)
        finding.metrics[name] = float(np.nanmean(values))
        finding.metrics[f"{name}_ci95"] = list(percentile_interval(replicates))
        finding.replicates[name] = replicates


def _beyond_mean(embeddings: np.ndarray) -> np.ndarray:
    """What directions have beyond their mean, float [N, E]; 0 where that is next to nothing."""
    directions = unit_rows(embeddings)
    rest = directions - directions.mean(0)
    return np.where(np.linalg.norm(rest, axis=1, keepdims=True) > _NOTHING, rest, 0.0)


def critic_scale(codes: np.ndarray, identities: np.ndarray) -> float | None:
    """Returns the scale of a critic of codes [N, K], chosen on people held out; None of too few."""
    try:
        return choose_scale(codes, identities)
    except ValueError as error:
        print(f"information on identity isn't measured: {error}", flush=True)
        return None


def _pixels(images: np.ndarray, rebuilt: np.ndarray) -> dict[str, np.ndarray]:
    """How alike pictures in [-1, 1] and their reconstructions are, each [N]."""
    return {
        "ssim": ssim(images, rebuilt),
        "psnr": np.minimum(psnr(images, rebuilt), _FINEST_PSNR),
        "mse": np.square(images - rebuilt).mean(axis=(1, 2, 3)),
    }
