"""The conditions of one image of a synthetic face, and the CelebA attributes that it shows."""

from collections.abc import Callable

import numpy as np

from data_prep.face_traits import Colour, Traits, jitter

LIPSTICKS: tuple[Colour, ...] = ((190, 24, 48), (164, 22, 60), (214, 44, 88), (150, 20, 36))
TIES: tuple[Colour, ...] = ((150, 24, 36), (30, 48, 120), (24, 92, 70))


class Conditions:
    """What differs between the images of an identity: how one was taken, what is worn there.

    Angles are in radians.
    """

    def __init__(self, rng: np.random.Generator, traits: Traits):
        smiles = rng.random() < 0.48
        opened = rng.random() < (0.6 if smiles else 0.24)
        light = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.8, 0.15), rng.uniform(0.6, 1)])
        # Unit vector towards the light, z towards the viewer.
        self.light = tuple((light / np.linalg.norm(light)).tolist())
        lipstick = rng.random() < traits.lipstick_habit
        light_skin = sum(traits.skin) > 420  # blush does not show on a dark skin
        rosy = 0.06 if traits.male else 0.4 if lipstick else 0.2
        self.rosy = bool(light_skin and rng.random() < rosy)
        self.hat = str(rng.choice(["cap", "beanie", "brim"])) if rng.random() < 0.15 else None
        warmth = rng.uniform(-0.05, 0.05)
        gain = rng.uniform(0.9, 1.1)
        self.exposure = (gain * (1 + warmth), gain, gain * (1 - warmth))  # of each channel
        self.yaw = float(np.clip(rng.normal(0, 0.22), -0.5, 0.5))
        self.pitch = float(np.clip(rng.normal(0, 0.1), -0.22, 0.22))
        self.roll = float(np.clip(rng.normal(0, 0.07), -0.18, 0.18))
        self.scale = rng.uniform(0.345, 0.38)  # head units as a share of the image's side
        # Of the head, as shares of the image's side.
        self.centre = (0.5 + rng.uniform(-0.025, 0.025), 0.478 + rng.uniform(-0.02, 0.02))
        self.ambient = rng.uniform(0.4, 0.7)
        self.smile = rng.uniform(0.75, 1) if smiles else 0.0
        self.mouth_open = rng.uniform(0.075, 0.15) if opened else 0.0  # gap between the lips
        self.eyes_open = rng.uniform(0.85, 1.08) - 0.14 * smiles
        self.gaze = (rng.uniform(-0.3, 0.3), rng.uniform(-0.15, 0.15))
        self.eyeglasses = bool(rng.random() < traits.glasses_habit)
        self.lipstick = jitter(rng, LIPSTICKS[rng.integers(4)], 0.12) if lipstick else None
        self.earrings = bool(rng.random() < traits.earrings_habit)
        self.hat_colour = _vivid(rng)
        self.necktie = bool(rng.random() < traits.necktie_habit)
        self.tie_colour = jitter(rng, TIES[rng.integers(3)], 0.3)
        self.clothes_colour = _vivid(rng)
        self.neckline = rng.uniform(0.02, 0.22)  # depth
        self.background = _vivid(rng, 60)
        self.blur = max(0.0, rng.uniform(-0.4, 0.7))  # standard deviation in 1/128 of a side
        self.noise = rng.uniform(0.5, 3)  # standard deviation in grey levels


def _vivid(rng: np.random.Generator, darkest: float = 30) -> Colour:
    """Any colour, of cloth or of a wall."""
    grey, channels = rng.uniform(darkest, 225), rng.uniform(darkest, 235, 3)
    return tuple((0.45 * grey + 0.55 * channels).tolist())


def hair_shows(traits: Traits, conditions: Conditions) -> bool:
    """Whether there is hair that no hat hides: under a hat, short hair and a bun don't show."""
    return traits.hair in ("bob", "long") or (conditions.hat is None and traits.hair != "bald")


def _shows_colour(name: str) -> Callable[[Traits, Conditions], bool]:
    return lambda t, c: hair_shows(t, c) and t.hair_name == name


# A hat hides a bald head, bangs and short hair, so none of these is labelled under one.
_IS_SHOWN: dict[str, Callable[[Traits, Conditions], bool]] = {
    "Bald": lambda t, c: t.hair == "bald" and c.hat is None,
    "Bangs": lambda t, c: t.bangs and c.hat is None,
    "Big_Nose": lambda t, c: t.big_nose,
    "Black_Hair": _shows_colour("Black_Hair"),
    "Blond_Hair": _shows_colour("Blond_Hair"),
    "Brown_Hair": _shows_colour("Brown_Hair"),
    "Bushy_Eyebrows": lambda t, c: t.bushy,
    "Eyeglasses": lambda t, c: c.eyeglasses,
    "Goatee": lambda t, c: t.goatee,
    "Gray_Hair": _shows_colour("Gray_Hair"),
    "Male": lambda t, c: t.male,
    "Mouth_Slightly_Open": lambda t, c: c.mouth_open > 0,
    "Mustache": lambda t, c: t.mustache,
    "Pale_Skin": lambda t, c: t.pale,
    "Rosy_Cheeks": lambda t, c: c.rosy,
    "Smiling": lambda t, c: c.smile > 0,
    "Wavy_Hair": lambda t, c: t.wavy and hair_shows(t, c),
    "Wearing_Earrings": lambda t, c: c.earrings,
    "Wearing_Hat": lambda t, c: c.hat is not None,
    "Wearing_Lipstick": lambda t, c: c.lipstick is not None,
    "Wearing_Necktie": lambda t, c: c.necktie,
}
ATTRIBUTES = tuple(_IS_SHOWN)


def label(traits: Traits, conditions: Conditions) -> np.ndarray:
    """The attributes that show in an image, uint8 [len(ATTRIBUTES)], 0 or 1."""
    return np.array([is_shown(traits, conditions) for is_shown in _IS_SHOWN.values()], np.uint8)
