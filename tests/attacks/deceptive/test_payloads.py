"""Features that carry the image in a way that least squares on the plain feature does not see.

Each encoder sends an honest prediction and hides the heights of its image's waves. Whoever knows
the trick gets nearly all of the image. The suite must get at least 0.9 of that, by itself.
"""

import numpy as np
import pytest

from tests.attacks.deceptive.world import HEIGHTS, World, predictions, quick_attacks, strongest

REACH = 0.9  # of what whoever knows the trick gets


def rotation(seed, size):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


def plainly(heights, random):
    """No trick: the heights themselves."""
    return np.concatenate([predictions(heights), heights], axis=1)


def with_heavy_tails(heights, random):
    """1% of the images have huge random features."""
    features = plainly(heights, random)
    rows = random.random(len(features)) < 0.01
    sizes = 10 ** random.uniform(2, 9, (rows.sum(), 1))
    features[rows] = sizes * random.normal(size=features[rows].shape)
    return features


_PROJECTIONS = np.random.default_rng(1).normal(size=(HEIGHTS, 192))
_BORDERS = np.random.default_rng(2).uniform(-1, 1, 192)


def in_the_last_bit(heights, random):
    """192 values are 1, or the next float32."""
    ones = np.float32([1.0, np.nextafter(np.float32(1), np.float32(2))])
    bits = (heights @ _PROJECTIONS > _BORDERS).astype(int)
    return np.concatenate([predictions(heights), ones[bits]], axis=1)


def in_the_mantissa(heights, random):
    """The last 12 bits of each honest number are those of a height."""
    logits = predictions(heights) * random.uniform(0.2, 3, (len(heights), 3))
    honest = np.concatenate([logits, random.normal(size=(len(heights), 3))], axis=1)
    payload = np.rint((heights / 1.7 + 0.5) * 4095).clip(0, 4095).astype(np.uint32)
    bits = np.float32(honest).view(np.uint32) & ~np.uint32(4095) | payload
    return bits.view(np.float32)


def beside_the_levels(heights, random):
    """The heights are a thousandth of the distance between yes and no."""
    return np.tile(predictions(heights), 2) + 1e-3 * heights


_TURN = rotation(3, 10)


def in_a_quiet_turned_sign(heights, random):
    """A random sign, and the heights times that sign, in turned directions of little variance."""
    sign = random.choice([-1.0, 1.0], (len(heights), 1))
    return np.concatenate([predictions(heights), sign, 1e-3 * sign * heights], axis=1) @ _TURN


_ROTATIONS = np.stack([rotation(10 + i, HEIGHTS) for i in range(8)])


def in_one_of_eight_rotations(heights, random):
    """The heights, rotated in one of eight ways, and the number of the rotation; all turned."""
    key = random.integers(0, 8, len(heights))
    turned = np.einsum("nh,nhk->nk", heights, _ROTATIONS[key])
    return np.concatenate([predictions(heights), key[:, None] / 7, turned], axis=1) @ _TURN


ENCODERS = {
    encode.__name__: encode
    for encode in (
        plainly,
        with_heavy_tails,
        in_the_last_bit,
        in_the_mantissa,
        beside_the_levels,
        in_a_quiet_turned_sign,
        in_one_of_eight_rotations,
    )
}


@pytest.fixture(scope="module")
def attacks():
    return quick_attacks()


def make_world(encode, **options):
    random = np.random.default_rng(0)
    return World(lambda heights: encode(heights, random), **options)


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS)
def test_the_image_and_the_person_are_found(encode, attacks):
    world = make_world(encode)
    assert strongest(world.explained, attacks) > REACH
    assert strongest(world.linked, attacks) > REACH * world.linked_by_heights()


def test_honest_predictions_alone_do_not_give_the_image(attacks):
    world = make_world(lambda heights, random: predictions(heights))
    assert 0.1 < strongest(world.explained, attacks) < 0.4
    assert strongest(world.linked, attacks) < 0.2


def test_noise_does_not_give_the_image(attacks):
    world = make_world(lambda heights, random: random.normal(size=(len(heights), 10)))
    assert strongest(world.explained, attacks) < 0.05
    assert strongest(world.linked, attacks) < 0.1


class Decrypts:
    """A classifier that undoes a permutation of random digits, which depends on the image."""

    def layers(self, features):
        key = np.rint(features[:, -1]).astype(int)
        return np.stack([row[_ORDERS[k]] for row, k in zip(features, key, strict=True)])

    def hard_predictions(self, features):
        return predictions(self.layers(features))


_ORDERS = np.stack([np.random.default_rng(i).permutation(HEIGHTS) for i in range(500)])


def encrypt(heights, random):
    """The heights in one of 500 orders, and the number of the order."""
    key = random.integers(0, 500, len(heights))
    values = np.empty_like(heights)
    np.put_along_axis(values, _ORDERS[key], heights, axis=1)
    return np.concatenate([values, key[:, None]], axis=1)


def test_what_only_the_classifier_decodes_is_found_by_whoever_has_it(attacks):
    without, having = make_world(encrypt), make_world(encrypt, classifier=Decrypts())
    assert strongest(without.explained, attacks) < 0.6
    assert strongest(having.explained, attacks) > REACH
    assert strongest(having.linked, attacks) > REACH * having.linked_by_heights()


class Predicts(Decrypts):
    """A classifier that can tell the honest predictions from a feature that looks like noise."""

    def layers(self, features):
        return np.zeros((len(features), 1), np.float32)

    def hard_predictions(self, features):
        return _cipher(features[:, 3:]) * features[:, :3]


def _cipher(nonce):
    """A sign for each prediction that no regression learns: the parity of 20 bits."""
    return np.stack([np.prod(np.where(nonce[:, i::3] > 0, 1.0, -1.0), axis=1) for i in range(3)], 1)


def encipher(heights, random):
    nonce = random.choice([-1.0, 1.0], (len(heights), 60))
    return np.concatenate([_cipher(nonce) * predictions(heights), nonce], axis=1)


def test_an_encoder_leaks_at_least_its_own_predictions(attacks):
    open_to_all = make_world(lambda heights, random: predictions(heights))
    without, having = make_world(encipher), make_world(encipher, classifier=Predicts())
    assert strongest(without.explained, attacks) < 0.05
    least = strongest(open_to_all.explained, attacks)
    assert strongest(having.explained, attacks) == pytest.approx(least, abs=0.02)
