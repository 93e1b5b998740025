"""How much features say of who it is, at least: the InfoNCE bound on their mutual information.

Why it is a bound. Let V be a person, each as likely, and Z and Z' codes of two pictures of V that
are independent given V: a Markov chain Z - V - Z', so that I(Z; Z') <= I(Z; V) (data processing).
InfoNCE (van den Oord et al. 2018) is at most I(Z; Z') for any critic, where the candidates are
independent draws of people (Poole et al. 2019): people of a large population.

Of a finite population the K candidates' people S are not, since they all differ, and InfoNCE may
exceed I(Z; Z'). It still is at most I(Z; V). The place J of the right candidate is uniform whatever
S, their order and the candidates' codes are; so InfoNCE, log K less the cross-entropy of a guess at
J, is at most what Z tells of J given these, and that at most I(Z; V | S): given S and the order, J
is V, and Z depends on the candidates through V alone. And I(Z; V | S) <= I(Z; V), since the entropy
of Z over all people is at least its mean over such S, and that given V is the same.

Codes are made of features, so what holds for codes holds for features (data processing again).
"""

import math

import numpy as np

CANDIDATES = 256
ROUNDS = 10
SCALES = np.geomspace(0.25, 1024.0, 25)


def choose_scale(
    codes: np.ndarray,
    identities: np.ndarray,
    candidates: int = CANDIDATES,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> float:
    """The scale (inverse temperature) of `info_nce`'s critic with the highest bound, of `SCALES`.

    Args:
        codes: of people whom `info_nce` is not to be measured on, float [N, E].
        identities: who they are, integers, -1 unknown, [N].
        candidates: as for `info_nce`.
        rounds: the same.
        seed: the same.

    Returns:
        The scale.

    Raises:
        ValueError: as `info_nce`.
    """
    codes, person, _ = _of_people(codes, identities)
    bounds = _bounds(codes, person, SCALES, _size(candidates, person), rounds, seed)
    return float(SCALES[bounds.mean(axis=1).argmax()])


def info_nce(
    codes: np.ndarray,
    identities: np.ndarray,
    scale: float,
    candidates: int = CANDIDATES,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> tuple[np.ndarray, int]:
    """A lower bound on I(Z; V), what features Z say of the identity V (van den Oord et al. 2018).

    K people are drawn, and two pictures of each, with codes z_i and z'_i. A critic f looks for the
    person of z_i among the K candidates z'_j, and the bound is the mean of

        log K + f(z_i, z'_i) - log sum_j exp f(z_i, z'_j),

    with f = scale * cosine. People count alike, however many pictures they have; those with one
    picture, and pictures of nobody known, are left out.

    What it doesn't say:

    - A small value proves nothing. Another critic, other codes or more candidates may find more,
      and I(Z; Z') itself may be far below I(Z; V).
    - It can't exceed log K, the ceiling. A value near it says that there is more than K people can
      show.
    - Pictures of one occasion are not independent given the identity: the background and the light
      that they share count as identity here, and the value may exceed I(Z; V).
    - Codes and scale must come from other people than these; else there is no bound.
    - It is a bound in expectation: take the lower end of an interval for what has been shown. That
      of an `IdentityBootstrap` of these values keeps the candidates as they are, and says how much
      the people looked for matter.

    Args:
        codes: close, by cosine, where the person is the same: `attacks.linkage`'s; float [N, E].
        identities: integers, -1 unknown, [N].
        scale: of the critic, at least 0: from `choose_scale`, on other people.
        candidates: K, at least 2; all people where they are fewer.
        rounds: how often every person is looked for, by other pictures, among others.
        seed: of the pictures and candidates drawn.

    Returns:
        What each person adds to the bound, which is their mean: in nats, at one picture of each,
        NaN at all others, float64 [N]; and K.

    Raises:
        ValueError: codes are not finite [N, E], or identities not integers [N]; there are no two
            people with two pictures each; the scale is negative or not finite; or candidates are
            below 2 or rounds below 1.
    """
    if not 0 <= scale < np.inf:
        raise ValueError(f"scale must be at least 0 and finite, not {scale!r}")
    identities = np.asarray(identities)
    codes, person, places = _of_people(codes, identities)
    size = _size(candidates, person)
    values = np.full(len(identities), np.nan)
    first = places[np.unique(person, return_index=True)[1]]
    values[first] = _bounds(codes, person, np.array([scale]), size, rounds, seed)[0]
    return values, size


def _bounds(
    codes: np.ndarray, person: np.ndarray, scales: np.ndarray, size: int, rounds: int, seed: int
) -> np.ndarray:
    """What each person adds to the bound at each scale, [scales, P]."""
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, not {rounds!r}")
    random = np.random.default_rng(seed)
    counts = np.bincount(person)
    pictures = np.argsort(person, kind="stable")
    starts = np.cumsum(counts) - counts
    totals = np.zeros((len(scales), len(counts)))
    drawn = np.zeros(len(counts))
    for _ in range(rounds):
        groups = _groups(random, len(counts), size)
        anchor = random.integers(counts)
        positive = random.integers(counts - 1)
        positive += positive >= anchor  # another picture
        anchors, positives = (codes[pictures[starts + i]][groups] for i in (anchor, positive))
        cosines = anchors @ positives.transpose(0, 2, 1)
        drawn += np.bincount(groups.ravel(), minlength=len(counts))
        right = np.diagonal(cosines, axis1=1, axis2=2)
        nearest = cosines.max(axis=2)
        for total, scale in zip(totals, scales, strict=True):
            odds = np.exp(scale * (cosines - nearest[..., None])).sum(axis=2)
            found = math.log(size) + scale * (right - nearest) - np.log(odds)
            total += np.bincount(groups.ravel(), found.ravel(), len(counts))
    return totals / drawn


def _groups(random: np.random.Generator, people: int, size: int) -> np.ndarray:
    """All people, in groups of `size` different ones, [G, size]; the last takes some a 2nd time."""
    order = random.permutation(people)
    return np.resize(order, (-(-people // size), size))


def _size(candidates: int, person: np.ndarray) -> int:
    if candidates < 2:
        raise ValueError(f"candidates must be at least 2, not {candidates!r}")
    return min(candidates, person.max() + 1)


def _of_people(
    codes: np.ndarray, identities: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes of length 1 of people with several pictures, their numbers from 0 on, and places."""
    codes, identities = np.asarray(codes, np.float64), np.asarray(identities)
    if codes.ndim != 2 or identities.shape != codes.shape[:1]:
        raise ValueError(f"codes {codes.shape} must be [N, E], identities {identities.shape} [N]")
    if not np.issubdtype(identities.dtype, np.integer):
        raise ValueError(f"identities must be integers, not {identities.dtype}")
    if not np.isfinite(codes).all():
        raise ValueError(f"{(~np.isfinite(codes)).sum()} values of codes are not finite")
    _, person, count = np.unique(identities, return_inverse=True, return_counts=True)
    places = np.flatnonzero((count[person] > 1) & (identities >= 0))
    people, numbers = np.unique(person[places], return_inverse=True)
    if len(people) < 2:
        raise ValueError("there are no two known people with two pictures each")
    length = np.linalg.norm(codes[places], axis=1, keepdims=True)
    return codes[places] / np.where(length > 0, length, 1.0), numbers, places
