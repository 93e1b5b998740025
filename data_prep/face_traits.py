"""The traits of a synthetic person, the same in all images of an identity.

Lengths are in head units: one unit is half the height of an average head, x points right, y
points down, and the origin is the middle of the head. Colours are RGB in [0, 255].
"""

import numpy as np

Colour = tuple[float, float, float]

# From pale to dark. Only the first is CelebA's Pale_Skin; a gap separates it from the others.
SKIN_TONES = np.array(
    [
        (230, 207, 199),
        (236, 193, 162),
        (226, 178, 142),
        (196, 142, 104),
        (150, 102, 72),
        (108, 72, 52),
    ],
    np.float32,
)
HAIR_COLOURS: dict[str, Colour] = {
    "Black_Hair": (34, 29, 31),
    "Brown_Hair": (104, 66, 40),
    "Blond_Hair": (222, 184, 112),
    "Gray_Hair": (172, 172, 174),
    "red": (158, 66, 30),
}
EYE_COLOURS: tuple[Colour, ...] = (
    (72, 44, 26),
    (104, 66, 34),
    (120, 112, 58),
    (78, 124, 88),
    (74, 128, 178),
    (116, 134, 148),
)


def jitter(rng: np.random.Generator, colour, amount: float) -> Colour:
    """The colour made lighter or darker as a whole, and each channel by a third as much."""
    gain = 1 + amount * rng.uniform(-1, 1) + amount / 3 * rng.uniform(-1, 1, 3)
    return tuple(np.clip(np.asarray(colour) * gain, 0, 255).tolist())


class Traits:
    """What stays the same over all images of one identity, drawn from the seed and its number."""

    def __init__(self, seed: int, identity: int):
        rng = np.random.default_rng((seed, identity))
        self.male = male = bool(rng.random() < 0.47)
        self.age = rng.random()  # 0 young, 1 old
        self.pale = bool(rng.random() < 0.15)
        depth = 0.0 if self.pale else 1 + 4 * rng.beta(1.0, 1.7)
        tone = [np.interp(depth, range(len(SKIN_TONES)), SKIN_TONES[:, c]) for c in range(3)]
        self.bushy = bool(rng.random() < (0.36 if male else 0.08))
        self.big_nose = bool(rng.random() < (0.36 if male else 0.16))
        has_mole = rng.random() < 0.2
        mole = (float(rng.choice([-1, 1]) * rng.uniform(0.2, 0.42)), float(rng.uniform(0.2, 0.7)))
        self.mole = mole if has_mole else None
        self.skin = jitter(rng, tone, 0.02 if self.pale else 0.05)
        self.width = rng.uniform(0.66, 0.78) + 0.02 * male  # half of the head, at the cheekbones
        # Widths of the forehead, of the jaw and of the chin, as shares of `width`.
        self.forehead = rng.uniform(0.88, 1.02)
        self.jaw = rng.uniform(0.68, 0.82) + 0.09 * male
        self.chin = rng.uniform(0.24, 0.38) + 0.08 * male
        self.length = rng.uniform(0.93, 1.06)  # y of the chin
        self.neck = rng.uniform(0.34, 0.4) + 0.08 * male
        self.ear = rng.uniform(0.15, 0.22)
        self.eye_x = rng.uniform(0.27, 0.355)
        self.eye_y = rng.uniform(-0.07, 0.03)
        self.eye_width = rng.uniform(0.145, 0.19)
        self.eye_height = rng.uniform(0.065, 0.105)
        self.eye_tilt = rng.uniform(-0.03, 0.045)
        self.eye_colour = jitter(rng, EYE_COLOURS[rng.integers(len(EYE_COLOURS))], 0.15)
        self.crease = rng.uniform(0.03, 0.07)  # distance of the fold above the upper lid
        self.brow_y = rng.uniform(0.21, 0.27)  # height above the eye
        self.brow_thickness = rng.uniform(0.1, 0.13) if self.bushy else rng.uniform(0.025, 0.042)
        self.brow_arch = rng.uniform(0, 0.04) if male else rng.uniform(0.015, 0.08)
        self.brow_tilt = rng.uniform(-0.01, 0.05)
        self.nose_length = rng.uniform(0.31, 0.4) + 0.08 * self.big_nose
        self.nose_width = rng.uniform(0.24, 0.29) if self.big_nose else rng.uniform(0.1, 0.14)
        self.mouth_y = rng.uniform(0.56, 0.64)
        self.mouth_width = rng.uniform(0.2, 0.28)
        self.mouth_curve = rng.uniform(-0.035, 0.012)  # how far its corners hang
        self.upper_lip = rng.uniform(0.03, 0.06)
        self.lower_lip = rng.uniform(0.045, 0.085)
        self.freckles = int(rng.integers(14, 30)) if depth < 2 and rng.random() < 0.25 else 0
        frames = ((28, 26, 30), (92, 48, 26), (120, 24, 30))
        self.frame_colour = jitter(rng, frames[rng.integers(3)], 0.2)
        self.frame_roundness = rng.uniform(2.2, 4.5)
        self.frame_height = rng.uniform(0.15, 0.2)
        # Chances that an image shows it.
        self.glasses_habit = 0.85 if rng.random() < 0.2 else 0.06
        self.lipstick_habit = 0.0 if male else rng.choice([0.15, 0.92], p=[0.35, 0.65])
        self.earrings_habit = 0.02 if male else rng.choice([0.1, 0.85], p=[0.5, 0.5])
        self.necktie_habit = (0.1 + 0.5 * (rng.random() < 0.5)) if male else 0.0
        self._sample_hair(rng, dark=depth > 3)
        style = rng.choice(["none", "mustache", "goatee", "both"], p=[0.54, 0.18, 0.14, 0.14])
        self.mustache = bool(male and style in ("mustache", "both"))
        self.goatee = bool(male and style in ("goatee", "both"))
        self.stubble = rng.uniform(0, 0.5) if male else 0.0

    def _sample_hair(self, rng: np.random.Generator, dark: bool) -> None:
        """Draws style and colour of the hair, given whether the skin is dark."""
        weights = np.array([0.62, 0.26, 0.02, 0, 0.02] if dark else [0.24, 0.27, 0.34, 0, 0.1])
        weights[3] = 1.2 if self.age > 0.78 else 0.02
        self.hair_name = str(rng.choice(list(HAIR_COLOURS), p=weights / weights.sum()))
        styles = {"bald": 0.26, "short": 0.7, "bob": 0.04} if self.male else {
            "short": 0.14, "bob": 0.26, "long": 0.46, "bun": 0.14,
        }  # fmt: skip
        self.hair = str(rng.choice(list(styles), p=list(styles.values())))
        self.hair_colour = jitter(rng, HAIR_COLOURS[self.hair_name], 0.14)
        self.hair_volume = rng.uniform(0.05, 0.17)
        self.hair_length = rng.uniform(0.55, 0.85) if self.hair == "bob" else rng.uniform(1.15, 1.6)
        self.hairline = rng.uniform(-0.72, -0.56)  # y of the hair's edge on the forehead
        # How far the hair recedes at the temples.
        self.temples = rng.uniform(0.0, 0.12) + 0.1 * self.male * self.age
        self.parting = rng.uniform(-0.4, 0.4)  # x
        has_hair = self.hair != "bald"
        self.wavy = has_hair and rng.random() < (0.26 if self.male else 0.42)
        self.bangs = has_hair and rng.random() < (0.2 if self.male else 0.34)
