"""A small world where the truth is known: people, their images, and encoders that hide a payload.

An image shows a few waves. Their heights, 6 numbers, are what there is to know of an image: a
person has heights, which vary a little. A recognizer sees the heights. An encoder is a function
from heights to features; it answers an honest task, whether three sums of heights are positive,
and sends the heights as well, hidden in some way.
"""

from pathlib import Path

import numpy as np

from tests.public_images import SIZE, FixedPairs, embeddings_of, make_knowledge
from tfadv.attacks.registry import build_attacks
from tfadv.config import schema
from tfadv.evaluation.metrics.bootstrap import IdentityBootstrap
from tfadv.evaluation.metrics.identity import identify

HEIGHTS = 6
_MIX = np.linalg.qr(np.random.default_rng(5).normal(size=(HEIGHTS, HEIGHTS)))[0]


def predictions(heights):
    """The honest task: yes, 1, or no, -1, of three attributes."""
    return np.where(heights @ _MIX[:, :3] > 0, 1.0, -1.0)


def draw_people(people, seed, images_each=4):
    """Returns heights [N, 6], images uint8 [N, S, S, 3], and identities [N]."""
    random = np.random.default_rng(seed)
    own = random.uniform(-0.7, 0.7, (people, HEIGHTS)).repeat(images_each, axis=0)
    heights = own + random.uniform(-0.1, 0.1, own.shape)
    places = np.arange(SIZE) / SIZE
    waves = np.stack([np.cos(np.pi * k * places) for k in (1, 2, 3)])
    levels = np.einsum("nk,ky->ny", heights[:, :3], waves)[:, :, None]
    levels = levels + np.einsum("nk,kx->nx", heights[:, 3:], waves)[:, None, :]
    images = np.rint(127.5 * (1 + levels[..., None] / 5)).clip(0, 255).astype(np.uint8)
    return heights, images.repeat(3, axis=-1), np.arange(people).repeat(images_each) + 1000 * seed


class World:
    """What an attacker of one encoder knows, and the truth about unseen people.

    Args:
        encode: heights [N, 6] to features [N, ...]; it is called for each part.
        classifier: of the encoder, if the attacker has it.
        people: public people to learn from.
    """

    def __init__(self, encode, classifier=None, people=200):
        parts = [draw_people(*each) for each in ((people, 1), (60, 2), (60, 3))]
        pairs = [FixedPairs(images, encode(heights)) for heights, images, _ in parts]
        self.knowledge = make_knowledge(
            *pairs[:2],
            identities=[part[2] for part in parts[:2]],
            embeddings=[embeddings_of(part[0] + 2.0) for part in parts[:2]],
            classifier=classifier,
        )
        self._fits = {}
        self._tested, (self._heights, self._images, self._identities) = pairs[2], parts[2]

    def explained(self, attack):
        """Returns the share of the images' variance that an attack explains; None if it can't."""
        reconstruct = self._fitted(attack).reconstruct
        if reconstruct is None:
            return None
        truth = self._images / 127.5 - 1.0
        found = reconstruct(self._tested.all_features)
        return 1 - np.square(found - truth).mean() / truth.var(0).mean()

    def linked(self, attack):
        """Returns how many unseen images have a nearest code of the same person, or None."""
        link = self._fitted(attack).link
        return None if link is None else self._rank1(link(self._tested.all_features))

    def linked_by_heights(self):
        """Returns the same for whoever knows the heights."""
        return self._rank1(self._heights)

    def _fitted(self, attack):
        if attack.title not in self._fits:
            self._fits[attack.title] = attack.fit(self.knowledge, Path())
        return self._fits[attack.title]

    def _rank1(self, codes):
        bootstrap = IdentityBootstrap(self._identities, 10, 0)
        return identify(codes, codes, self._identities, bootstrap).metrics["reid_rank1"]


def quick_attacks():
    """Returns the attacks in closed form by pixels and by linkage."""
    attacks = build_attacks(schema.Config(), lambda adversary: None)
    return [
        attacks[name]
        for name in (
            "ridge",
            "kernel",
            "linkage",
            "linkage_by_guesses",
            "linkage_by_kernel_guesses",
        )
    ]


def strongest(measure, attacks):
    """Returns the largest result of a measure of attacks: `World.explained` or `World.linked`."""
    found = (measure(attack) for attack in attacks)
    return max(value for value in found if value is not None)
