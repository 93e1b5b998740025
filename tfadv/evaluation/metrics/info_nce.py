"""How much features say about identity, at least: the InfoNCE bound on mutual information.

Let V be a person, each equally likely, and Z and Z' codes of two images of V that are independent
given V. Then I(Z; Z') <= I(Z; V) (data processing inequality). InfoNCE (van den Oord et al. 2018)
is at most I(Z; Z') for any critic, if the candidates are independent draws of people from a large
population (Poole et al. 2019).

Here the people S of the K candidates all differ, and InfoNCE may exceed I(Z; Z'), but not I(Z; V).
The position J of the right candidate is uniform for any S, order of S, and codes of the candidates.
So InfoNCE, log K minus the cross-entropy of a guess of J, is at most the information of Z on J
given these. That is at most I(Z; V | S): given S and its order, J determines V, and Z depends on
the candidates through V alone. I(Z; V | S) <= I(Z; V), because S lowers the mean entropy of Z and
leaves that of Z given V. The same holds for features, of which codes are functions.
"""

import math

import numpy as np
from sklearn.preprocessing import normalize as unit_rows

from tfadv.evaluation.identities import repeated_people

CANDIDATES = 256
ROUNDS = 10
SCALES = np.geomspace(0.25, 1024.0, 25)


def choose_scale(codes: np.ndarray, identities: np.ndarray) -> float:
    """Returns the scale (inverse temperature) of `SCALES` that gives `info_nce` its highest bound.

    Args:
        codes: of people on whom `info_nce` is not measured, float [N, E].
        identities: integers, -1 unknown, [N].

    Raises:
        ValueError: as `info_nce`.
    """
    codes, person, _ = _repeated(codes, identities)
    bounds = _bounds(codes, person, SCALES, CANDIDATES, ROUNDS, seed=0)
    return float(SCALES[bounds.mean(axis=1).argmax()])


def info_nce(
    codes: np.ndarray,
    identities: np.ndarray,
    scale: float,
    candidates: int = CANDIDATES,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> np.ndarray:
    """Returns a lower bound on I(Z; V), the information of features Z on the identity V.

    From van den Oord et al. (2018). K people are drawn, and two images of each, with codes z_i and
    z'_i. A critic f looks for the person of z_i among the K candidates z'_j. The bound is the mean
    of

        log K + f(z_i, z'_i) - log sum_j exp f(z_i, z'_j),

    with f = scale * cosine. People count equally, however many images they have. People with one
    image and images of unknown people are left out.

    Limits:

    - A small value proves nothing. Another critic, other codes or more candidates may give more,
      and I(Z; Z') itself may be far below I(Z; V).
    - It cannot exceed log K. A value near log K means that the information may be larger than K
      people can show.
    - Images from one occasion are not independent given the identity. The background and light that
      they share count as identity here, and the value may exceed I(Z; V).
    - Codes and scale must come from other people than these; otherwise there is no bound.
    - It is a bound in expectation: report the lower end of an interval. The interval of an
      `IdentityBootstrap` of these values resamples the anchors' people and keeps the candidates.

    Args:
        codes: close, by cosine, where the person is the same: `attacks.linkage`'s; float [N, E].
        identities: integers, -1 unknown, [N].
        scale: of the critic, at least 0: from `choose_scale`, on other people.
        candidates: K, at least 2; all people if they are fewer.
        rounds: how often each person is an anchor, with other images and other candidates.
        seed: of the draws of images and candidates.

    Returns:
        Each person's contribution to the bound, in nats, at one image of the person, and NaN at all
        other images, float64 [N]: the mean is the bound.

    Raises:
        ValueError: codes are not finite [N, E], or identities not integers [N]; there are no two
            people with two images each; the scale is negative or not finite; or candidates are
            below 2 or rounds below 1.
    """
    if not 0 <= scale < np.inf:
        raise ValueError(f"scale must be at least 0 and finite, not {scale!r}")
    used, person, positions = _repeated(codes, identities)
    values = np.full(len(identities), np.nan)
    first = positions[np.unique(person, return_index=True)[1]]
    values[first] = _bounds(used, person, np.array([scale]), candidates, rounds, seed)[0]
    return values


def _bounds(
    codes: np.ndarray,
    person: np.ndarray,
    scales: np.ndarray,
    candidates: int,
    rounds: int,
    seed: int,
) -> np.ndarray:
    """Each person's contribution to the bound at each scale, [scales, P]."""
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, not {rounds!r}")
    if candidates < 2:
        raise ValueError(f"candidates must be at least 2, not {candidates!r}")
    random = np.random.default_rng(seed)
    counts = np.bincount(person)
    size = min(candidates, len(counts))
    images = np.argsort(person, kind="stable")
    starts = np.cumsum(counts) - counts
    totals = np.zeros((len(scales), len(counts)))
    drawn = np.zeros(len(counts))
    for _ in range(rounds):
        groups = _groups(random, len(counts), size)
        anchor = random.integers(counts)
        positive = random.integers(counts - 1)
        positive += positive >= anchor  # another image
        anchors, positives = (codes[images[starts + i]][groups] for i in (anchor, positive))
        cosines = anchors @ positives.transpose(0, 2, 1)
        drawn += np.bincount(groups.ravel(), minlength=len(counts))
        right = np.diagonal(cosines, axis1=1, axis2=2)
        nearest = cosines.max(axis=2)
        for total, scale in zip(totals, scales, strict=True):
            odds = np.exp(scale * (cosines - nearest[..., None])).sum(axis=2)
            nats = math.log(size) + scale * (right - nearest) - np.log(odds)
            total += np.bincount(groups.ravel(), nats.ravel(), len(counts))
    return totals / drawn


def _groups(random: np.random.Generator, people: int, size: int) -> np.ndarray:
    """All people in groups of `size` different ones, [G, size]; the last group repeats people."""
    order = random.permutation(people)
    return np.resize(order, (-(-people // size), size))


def _repeated(
    codes: np.ndarray, identities: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes of length 1 of people with at least two images, their numbers, and positions."""
    codes = np.asarray(codes, np.float64)
    if codes.ndim != 2 or np.shape(identities) != codes.shape[:1]:
        raise ValueError(
            f"codes {codes.shape} must be [N, E], identities {np.shape(identities)} [N]"
        )
    if not np.isfinite(codes).all():
        raise ValueError(f"{(~np.isfinite(codes)).sum()} values of codes are not finite")
    positions, person = repeated_people(identities)
    if person.max(initial=0) < 1:
        raise ValueError("there are no two known people with two images each")
    return unit_rows(codes[positions]), person, positions
