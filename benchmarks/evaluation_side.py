"""One process of `benchmarks.evaluation`: every part of one side, timed on generated data."""

import json
import time
from collections.abc import Callable
from types import SimpleNamespace

import cv2
import numpy as np
from absl import app, flags

from tfadv.attacks import linkage
from tfadv.attacks import ridge as closed_form
from tfadv.evaluation.metrics import utility
from tfadv.evaluation.metrics.bootstrap import IdentityBootstrap
from tfadv.evaluation.metrics.identity import identify
from tfadv.evaluation.metrics.image import psnr, ssim

FLAGS = flags.FLAGS
ATTRIBUTES, EMBEDDING, EACH, REPLICATES = 40, 128, 5, 1000
BATCH = 256
TARGETS = 512  # that the strength of ridge regression is chosen on, at most

flags.DEFINE_enum("side", "ours", ["ours", "peer"], "Whose.")
flags.DEFINE_integer("people", 404, "In the test split, five pictures each.", lower_bound=10)
flags.DEFINE_integer("features", 1000, "Values of a feature.")
flags.DEFINE_integer("size", 64, "Side of the pictures in pixels.")


def main(_) -> None:
    """Prints one line of JSON: part -> pictures_per_s and a number that sums up the result."""
    data = generate(FLAGS.people, FLAGS.features, FLAGS.size)
    print(json.dumps({name: timed(part, data) for name, part in PARTS[FLAGS.side].items()}))


def timed(part: Callable, data: SimpleNamespace) -> dict[str, float]:
    """The faster of two runs: the first also loads libraries and starts threads."""
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        count, result = part(data)
        seconds.append(time.perf_counter() - began)
    return {"pictures_per_s": count / min(seconds), "result": float(result)}


def generate(people: int, features: int, size: int) -> SimpleNamespace:
    """Returns seeded pictures, labels, embeddings and features with people in them."""
    random = np.random.default_rng(0)
    held_out = people // 5
    test, public = people * EACH, (2 * people - held_out) * EACH
    noise = random.normal(size=(test, size, size, 3)).astype(np.float32)
    pictures = np.stack([cv2.GaussianBlur(each, (0, 0), 3) for each in noise])
    labels = random.random((test, ATTRIBUTES)) < random.uniform(0.05, 0.6, ATTRIBUTES)
    who = random.normal(size=(people, EMBEDDING)).repeat(EACH, axis=0)
    real = who + 1.5 * random.normal(size=who.shape)
    mixing = random.normal(size=(features, features)) * np.geomspace(1, 0.01, features)

    def seen(count):
        known = random.normal(size=(count, features)).repeat(EACH, axis=0)
        known[:, 60:] = 0.0
        vectors = (known + random.normal(size=known.shape)) @ mixing
        return vectors.astype(np.float32), np.arange(count).repeat(EACH)

    train, asked = seen(2 * people - held_out), seen(held_out)
    to_pixels = random.normal(size=(features, size * size * 3)) / np.linalg.norm(mixing)

    def pixels(vectors):
        noise = random.normal(scale=0.1, size=(len(vectors), size * size * 3))
        return (vectors @ to_pixels + noise).astype(np.float32)

    return SimpleNamespace(
        test=test,
        public=public,
        images=np.clip(4 * pictures, -1, 1),
        rebuilt=np.clip(4 * pictures + 0.3 * noise, -1, 1),
        labels=labels.astype(np.uint8),
        logits=(labels + random.normal(size=labels.shape) - 0.5).astype(np.float32),
        identities=np.arange(people).repeat(EACH),
        real=real.astype(np.float32),
        guessed=(real + random.normal(size=real.shape)).astype(np.float32),
        train=train,
        held_out=asked,
        targets=pixels(train[0]),
        held_out_targets=pixels(asked[0]),
        bootstrap=IdentityBootstrap(np.arange(people).repeat(EACH), REPLICATES),
    )


# Ours


def _our_ssim(data):
    return data.test, ssim(data.images, data.rebuilt).mean()


def _our_psnr(data):
    return data.test, psnr(data.images, data.rebuilt).mean()


def _our_mcc(data):
    return data.test, utility.mcc(data.labels, data.logits).mean()


def _our_thresholds(data):
    thresholds = utility.tuned_thresholds(data.labels, data.logits)
    return data.test, utility.mcc(data.labels, data.logits, thresholds).mean()


def _our_identify(data):
    found = identify(data.guessed, data.real, data.identities, data.bootstrap).metrics
    names = ("reid_rank1", "reid_rank5", "verification_auc", "verification_eer")
    return data.test, sum(found[name] for name in names)


def _our_bootstrap(data):
    bootstrap = IdentityBootstrap(data.identities, REPLICATES)
    low, high = bootstrap.mean(data.real[:, 0])
    return data.test, high - low


def _our_ridge(data):
    def blocks(vectors, targets):
        starts = range(0, len(vectors), BATCH)
        return lambda: ((vectors[i : i + BATCH], targets[i : i + BATCH]) for i in starts)

    ridge = closed_form.Ridge(
        blocks(data.train[0], data.targets), blocks(data.held_out[0], data.held_out_targets)
    )
    return data.public, np.square(ridge(data.held_out[0]) - data.held_out_targets).mean()


def _our_linkage(data):
    learned = linkage.Linkage(*data.train, *data.held_out)
    vectors, person = linkage._first(*data.held_out)
    return data.public, linkage._auc(learned(vectors), *linkage._pairs(person))


# The same, as one would write it with the libraries


def _peer_ssim(data):
    from skimage.metrics import structural_similarity

    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    options |= {"data_range": 2, "channel_axis": -1, "full": True}
    values = [
        structural_similarity(*pair, **options)[1][5:-5, 5:-5].mean()
        for pair in zip(data.images, data.rebuilt, strict=True)
    ]
    return data.test, np.mean(values)


def _peer_psnr(data):
    from skimage.metrics import peak_signal_noise_ratio

    pairs = zip(data.images, data.rebuilt, strict=True)
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

    scores = cosine_similarity(data.guessed, data.real)
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
        means.append(data.real[np.concatenate([rows[i] for i in drawn]), 0].mean())
    low, high = np.percentile(means, [2.5, 97.5])
    return data.test, high - low


def _peer_ridge(data):
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(data.train[0])
    inputs, asked = scaler.transform(data.train[0]), scaler.transform(data.held_out[0])
    some = slice(None, None, -(-data.targets.shape[1] // TARGETS) | 1)

    def fitted(strength, targets):
        return Ridge(alpha=len(inputs) * strength).fit(inputs, targets)

    def error(strength):
        predicted = fitted(strength, data.targets[:, some]).predict(asked)
        return np.square(predicted - data.held_out_targets[:, some]).mean()

    # In float32 weaker penalties than these are beyond scikit-learn's normal equations.
    strengths = np.maximum(closed_form.STRENGTHS, 1e-6)
    ridge = fitted(min(strengths, key=error), data.targets)
    return data.public, np.square(ridge.predict(asked) - data.held_out_targets).mean()


def _peer_linkage(data):
    from scipy.linalg import eigh
    from sklearn.metrics import roc_auc_score
    from sklearn.preprocessing import StandardScaler, normalize

    scaler = StandardScaler().fit(data.train[0])
    inputs, people = scaler.transform(data.train[0]).astype(np.float64), data.train[1]
    asked, person = linkage._first(*data.held_out)
    asked = scaler.transform(asked)
    means = np.stack([inputs[people == each].mean(0) for each in np.unique(people)])
    spread = inputs - means[people]
    within = spread.T @ spread / (len(inputs) - len(means))
    between = np.cov(means.T, bias=True)
    first, second = np.triu_indices(len(asked), 1)
    mean = np.trace(within) / len(within) * np.eye(len(within))
    most = min(len(means) - 1, len(within), linkage.COMPONENTS[-1])
    best = 0.0
    for shrinkage in linkage.SHRINKAGES:
        shares, basis = eigh(between, (1 - shrinkage) * within + shrinkage * mean)
        shares, basis = np.maximum(shares[::-1][:most], 0.0), basis[:, ::-1][:, :most]
        for emphasis in linkage.EMPHASES:
            codes = asked @ (basis * (shares / (1 + shares)) ** emphasis)
            for components in sorted({min(each, most) for each in linkage.COMPONENTS}):
                unit = normalize(codes[:, :components])
                scores = (unit @ unit.T)[first, second]
                best = max(best, roc_auc_score(person[first] == person[second], scores))
    return data.public, best


PARTS = {
    "ours": {
        "ssim": _our_ssim,
        "psnr": _our_psnr,
        "mcc": _our_mcc,
        "tuned_thresholds": _our_thresholds,
        "identify": _our_identify,
        "bootstrap": _our_bootstrap,
        "ridge": _our_ridge,
        "linkage": _our_linkage,
    },
    "peer": {
        "ssim": _peer_ssim,
        "psnr": _peer_psnr,
        "mcc": _peer_mcc,
        "tuned_thresholds": _peer_thresholds,
        "identify": _peer_identify,
        "bootstrap": _peer_bootstrap,
        "ridge": _peer_ridge,
        "linkage": _peer_linkage,
    },
}

if __name__ == "__main__":
    app.run(main)
