"""One process of `benchmarks.evaluation`: times every part of one side on generated data."""

import json
import time
from collections.abc import Callable
from types import SimpleNamespace

import cv2
import numpy as np
from absl import app, flags

from tfadv.attacks import linkage, ridge
from tfadv.evaluation.metrics import utility
from tfadv.evaluation.metrics.bootstrap import IdentityBootstrap, percentile_interval
from tfadv.evaluation.metrics.identity import identify
from tfadv.evaluation.metrics.image import psnr, ssim

FLAGS = flags.FLAGS
SIDES = ("ours", "peer")
ATTRIBUTES, EMBEDDING, IMAGES_PER_PERSON, REPLICATES = 40, 128, 5, 1000
BATCH = 256
TARGETS = 512  # pixels, at most, on which the strength of ridge regression is chosen

flags.DEFINE_enum("side", "ours", SIDES, "Side to time.")
flags.DEFINE_integer("people", 404, "People in the test split, five images each.", lower_bound=10)
flags.DEFINE_integer("features", 1000, "Values of a feature.")
flags.DEFINE_integer("size", 64, "Side of the images in pixels.")


def main(_) -> None:
    """Prints one line of JSON: part -> images_per_s and a number that sums up the result."""
    data = generate(FLAGS.people, FLAGS.features, FLAGS.size)
    side = SIDES.index(FLAGS.side)
    print(json.dumps({name: timed(sides[side], data) for name, sides in PARTS.items()}))


def timed(part: Callable, data: SimpleNamespace) -> dict[str, float]:
    """Times two runs and reports the faster; the first also loads libraries and starts threads."""
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        count, result = part(data)
        seconds.append(time.perf_counter() - began)
    return {"images_per_s": count / min(seconds), "result": float(result)}


def generate(people: int, features: int, size: int) -> SimpleNamespace:
    """Returns seeded images, labels, embeddings, and features that depend on the person."""
    random = np.random.default_rng(0)
    held_out = people // 5
    test, public = people * IMAGES_PER_PERSON, (2 * people - held_out) * IMAGES_PER_PERSON
    noise = random.normal(size=(test, size, size, 3)).astype(np.float32)
    blurred = np.stack([cv2.GaussianBlur(image, (0, 0), 3) for image in noise])
    labels = random.random((test, ATTRIBUTES)) < random.uniform(0.05, 0.6, ATTRIBUTES)
    person = random.normal(size=(people, EMBEDDING)).repeat(IMAGES_PER_PERSON, axis=0)
    embeddings = person + 1.5 * random.normal(size=person.shape)
    mixing = random.normal(size=(features, features)) * np.geomspace(1, 0.01, features)

    def features_of(count):
        person = random.normal(size=(count, features)).repeat(IMAGES_PER_PERSON, axis=0)
        person[:, 60:] = 0.0
        vectors = (person + random.normal(size=person.shape)) @ mixing
        return vectors.astype(np.float32), np.arange(count).repeat(IMAGES_PER_PERSON)

    train, held_out = features_of(2 * people - held_out), features_of(held_out)
    to_pixels = random.normal(size=(features, size * size * 3)) / np.linalg.norm(mixing)

    def pixels(vectors):
        noise = random.normal(scale=0.1, size=(len(vectors), size * size * 3))
        return (vectors @ to_pixels + noise).astype(np.float32)

    return SimpleNamespace(
        test=test,
        public=public,
        images=np.clip(4 * blurred, -1, 1),
        reconstructions=np.clip(4 * blurred + 0.3 * noise, -1, 1),
        labels=labels.astype(np.uint8),
        logits=(labels + random.normal(size=labels.shape) - 0.5).astype(np.float32),
        identities=np.arange(people).repeat(IMAGES_PER_PERSON),
        embeddings=embeddings.astype(np.float32),
        guesses=(embeddings + random.normal(size=embeddings.shape)).astype(np.float32),
        train=train,
        held_out=held_out,
        targets=pixels(train[0]),
        held_out_targets=pixels(held_out[0]),
        bootstrap=IdentityBootstrap(np.arange(people).repeat(IMAGES_PER_PERSON), REPLICATES),
    )


# Ours


def _our_ssim(data):
    return data.test, ssim(data.images, data.reconstructions).mean()


def _our_psnr(data):
    return data.test, psnr(data.images, data.reconstructions).mean()


def _our_mcc(data):
    return data.test, utility.mcc(data.labels, data.logits).mean()


def _our_thresholds(data):
    thresholds = utility.tuned_thresholds(data.labels, data.logits)
    return data.test, utility.mcc(data.labels, data.logits, thresholds).mean()


def _our_identify(data):
    metrics = identify(data.guesses, data.embeddings, data.identities, data.bootstrap).metrics
    names = ("reid_rank1", "reid_rank5", "verification_auc", "verification_eer")
    return data.test, sum(metrics[name] for name in names)


def _our_bootstrap(data):
    bootstrap = IdentityBootstrap(data.identities, REPLICATES)
    low, high = percentile_interval(bootstrap.means(data.embeddings[:, 0]))
    return data.test, high - low


def _our_ridge(data):
    def blocks(vectors, targets):
        starts = range(0, len(vectors), BATCH)
        return lambda: ((vectors[i : i + BATCH], targets[i : i + BATCH]) for i in starts)

    decoder = ridge.Ridge(
        blocks(data.train[0], data.targets), blocks(data.held_out[0], data.held_out_targets)
    )
    return data.public, np.square(decoder(data.held_out[0]) - data.held_out_targets).mean()


def _our_linkage(data):
    vectors, people = data.held_out
    metric = linkage.Linkage(*data.train, vectors, people)
    return data.public, _verification_auc(metric(vectors), people)


# The same with scikit-image, scikit-learn and SciPy


def _peer_ssim(data):
    from skimage.metrics import structural_similarity

    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    options |= {"data_range": 2, "channel_axis": -1, "full": True}
    values = [
        structural_similarity(*pair, **options)[1][5:-5, 5:-5].mean()
        for pair in zip(data.images, data.reconstructions, strict=True)
    ]
    return data.test, np.mean(values)


def _peer_psnr(data):
    from skimage.metrics import peak_signal_noise_ratio

    pairs = zip(data.images, data.reconstructions, strict=True)
    return data.test, np.mean([peak_signal_noise_ratio(*pair, data_range=2) for pair in pairs])


def _peer_mcc(data, thresholds=(0.0,) * ATTRIBUTES):
    from sklearn.metrics import matthews_corrcoef

    columns = zip(data.labels.T, data.logits.T, thresholds, strict=True)
    return data.test, np.mean([matthews_corrcoef(y, x > threshold) for y, x, threshold in columns])


def _peer_thresholds(data):
    from sklearn.metrics import roc_curve

    best = []
    for labels, logits in zip(data.labels.T, data.logits.T, strict=True):
        false, true, thresholds = roc_curve(labels, logits, drop_intermediate=False)
        share = labels.mean()
        positive = share * true + (1 - share) * false
        spread = np.sqrt(share * (1 - share) * positive * (1 - positive))
        scores = (true - false) * share * (1 - share) / np.where(spread > 0, spread, np.inf)
        best.append(np.nextafter(thresholds[scores.argmax()], np.float32(-np.inf)))
    return _peer_mcc(data, best)


def _peer_identify(data):
    from sklearn.metrics import roc_auc_score, roc_curve
    from sklearn.metrics.pairwise import cosine_similarity

    scores = cosine_similarity(data.guesses, data.embeddings)
    is_other = ~np.eye(len(scores), dtype=bool)
    order = np.argsort(-np.where(is_other, scores, -np.inf), axis=1)[:, :5]
    is_right = data.identities[order] == data.identities[:, None]
    is_same = (data.identities[:, None] == data.identities)[is_other]
    false, true, _ = roc_curve(is_same, scores[is_other])
    eer = false[np.argmin(np.abs(false - (1 - true)))]
    auc = roc_auc_score(is_same, scores[is_other])
    return data.test, is_right[:, 0].mean() + is_right.any(axis=1).mean() + auc + eer


def _peer_bootstrap(data):
    random = np.random.default_rng(0)
    people = np.unique(data.identities)
    rows = [np.flatnonzero(data.identities == person) for person in people]
    means = []
    for _ in range(REPLICATES):
        drawn = random.integers(len(people), size=len(people))
        means.append(data.embeddings[np.concatenate([rows[i] for i in drawn]), 0].mean())
    low, high = np.percentile(means, [2.5, 97.5])
    return data.test, high - low


def _peer_ridge(data):
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(data.train[0])
    inputs, held_out = scaler.transform(data.train[0]), scaler.transform(data.held_out[0])
    compared = slice(None, None, -(-data.targets.shape[1] // TARGETS) | 1)

    def fitted(strength, targets):
        return Ridge(alpha=len(inputs) * strength).fit(inputs, targets)

    def error(strength):
        predicted = fitted(strength, data.targets[:, compared]).predict(held_out)
        return np.square(predicted - data.held_out_targets[:, compared]).mean()

    # In float32, scikit-learn's normal equations need at least this penalty.
    strengths = np.maximum(ridge.STRENGTHS, 1e-6)
    decoder = fitted(min(strengths, key=error), data.targets)
    return data.public, np.square(decoder.predict(held_out) - data.held_out_targets).mean()


def _peer_linkage(data):
    from scipy.linalg import eigh
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(data.train[0])
    inputs, people = scaler.transform(data.train[0]).astype(np.float64), data.train[1]
    held_out = scaler.transform(data.held_out[0])
    means = np.stack([inputs[people == person].mean(0) for person in np.unique(people)])
    spread = inputs - means[people]
    within = spread.T @ spread / (len(inputs) - len(means))
    between = np.cov(means.T, bias=True)
    mean = np.trace(within) / len(within) * np.eye(len(within))
    most = min(len(means) - 1, len(within), linkage.COMPONENTS[-1])
    best = 0.0
    for shrinkage in linkage.SHRINKAGES:
        shares, basis = eigh(between, (1 - shrinkage) * within + shrinkage * mean)
        shares, basis = np.maximum(shares[::-1][:most], 0.0), basis[:, ::-1][:, :most]
        for emphasis in linkage.EMPHASES:
            codes = held_out @ (basis * (shares / (1 + shares)) ** emphasis)
            for components in sorted({min(count, most) for count in linkage.COMPONENTS}):
                best = max(best, _verification_auc(codes[:, :components], data.held_out[1]))
    return data.public, best


def _verification_auc(vectors, people):
    from sklearn.metrics import roc_auc_score
    from sklearn.metrics.pairwise import cosine_similarity

    first, second = np.triu_indices(len(people), 1)
    scores = cosine_similarity(vectors)[first, second]
    return roc_auc_score(people[first] == people[second], scores)


PARTS = {
    "ssim": (_our_ssim, _peer_ssim),
    "psnr": (_our_psnr, _peer_psnr),
    "mcc": (_our_mcc, _peer_mcc),
    "tuned_thresholds": (_our_thresholds, _peer_thresholds),
    "identify": (_our_identify, _peer_identify),
    "bootstrap": (_our_bootstrap, _peer_bootstrap),
    "ridge": (_our_ridge, _peer_ridge),
    "linkage": (_our_linkage, _peer_linkage),
}

if __name__ == "__main__":
    app.run(main)
