"""The traits of a synthetic person, the same in all images of an identity.

Lengths are in head units: one unit is half the height of an average head, x points right, y
points down, and the origin is the middle of the head. Colours are RGB in [0, 255].
"""

import dataclasses

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


@dataclasses.dataclass(frozen=True)
class Traits:
    """What stays the same over all images of one identity."""

    male: bool
    age: float  # 0 young, 1 old
    skin: Colour
    pale: bool
    width: float  # half width of the head at the cheekbones
    forehead: float  # width of the forehead, of the jaw and of the chin, as shares of `width`
    jaw: float
    chin: float
    length: float  # y of the chin
    neck: float
    ear: float
    eye_x: float
    eye_y: float
    eye_width: float
    eye_height: float
    eye_tilt: float
    eye_colour: Colour
    crease: float  # distance of the fold above the upper lid
    brow_y: float  # height above the eye
    brow_thickness: float
    brow_arch: float
    brow_tilt: float
    bushy: bool
    nose_length: float
    nose_width: float
    big_nose: bool
    mouth_y: float
    mouth_width: float
    mouth_curve: float  # how far its corners hang
    upper_lip: float
    lower_lip: float
    hair: str  # bald, short, bob, long or bun
    hair_name: str  # key of HAIR_COLOURS
    hair_colour: Colour
    hair_volume: float
    hair_length: float
    hairline: float  # y of the hair's edge on the forehead
    temples: float  # how far the hair recedes at the temples
    parting: float  # x of the parting
    wavy: bool
    bangs: bool
    mustache: bool
    goatee: bool
    stubble: float
    freckles: int
    mole: tuple[float, float] | None
    frame_colour: Colour
    frame_roundness: float
    frame_height: float
    glasses_habit: float  # chance that an image shows it, also for the next three
    lipstick_habit: float
    earrings_habit: float
    necktie_habit: float


def jitter(rng: np.random.Generator, colour, amount: float) -> Colour:
    """The colour made lighter or darker as a whole, and each channel by a third as much."""
    gain = 1 + amount * rng.uniform(-1, 1) + amount / 3 * rng.uniform(-1, 1, 3)
    red, green, blue = np.clip(np.asarray(colour) * gain, 0, 255)
    return float(red), float(green), float(blue)


def _sample_hair(rng: np.random.Generator, male: bool, age: float, depth: float) -> dict:
    """Style and colour of the hair, given the age and the depth of the skin tone in [0, 5]."""
    dark = depth > 3
    weights = np.array([0.62, 0.26, 0.02, 0, 0.02] if dark else [0.24, 0.27, 0.34, 0, 0.1])
    weights[3] = 1.2 if age > 0.78 else 0.02
    name = str(rng.choice(list(HAIR_COLOURS), p=weights / weights.sum()))
    styles = {"bald": 0.26, "short": 0.7, "bob": 0.04} if male else {
        "short": 0.14, "bob": 0.26, "long": 0.46, "bun": 0.14,
    }  # fmt: skip
    style = str(rng.choice(list(styles), p=list(styles.values())))
    return {
        "hair": style,
        "hair_name": name,
        "hair_colour": jitter(rng, HAIR_COLOURS[name], 0.14),
        "hair_volume": rng.uniform(0.05, 0.17),
        "hair_length": rng.uniform(0.55, 0.85) if style == "bob" else rng.uniform(1.15, 1.6),
        "hairline": rng.uniform(-0.72, -0.56),
        "temples": rng.uniform(0.0, 0.12) + 0.1 * male * age,
        "parting": rng.uniform(-0.4, 0.4),
        "wavy": style != "bald" and rng.random() < (0.26 if male else 0.42),
        "bangs": style != "bald" and rng.random() < (0.2 if male else 0.34),
    }


def _sample_facial_hair(rng: np.random.Generator, male: bool) -> dict:
    style = rng.choice(["none", "mustache", "goatee", "both"], p=[0.54, 0.18, 0.14, 0.14])
    return {
        "mustache": bool(male and style in ("mustache", "both")),
        "goatee": bool(male and style in ("goatee", "both")),
        "stubble": rng.uniform(0, 0.5) if male else 0.0,
    }


def sample_traits(seed: int, identity: int) -> Traits:
    """Draws the identity, from the seed and its number alone."""
    rng = np.random.default_rng((seed, identity))
    male, age = bool(rng.random() < 0.47), rng.random()
    pale = bool(rng.random() < 0.15)
    depth = 0.0 if pale else 1 + 4 * rng.beta(1.0, 1.7)
    tone = [np.interp(depth, range(len(SKIN_TONES)), SKIN_TONES[:, c]) for c in range(3)]
    bushy = bool(rng.random() < (0.36 if male else 0.08))
    big_nose = bool(rng.random() < (0.36 if male else 0.16))
    has_mole = rng.random() < 0.2
    mole = (float(rng.choice([-1, 1]) * rng.uniform(0.2, 0.42)), float(rng.uniform(0.2, 0.7)))
    return Traits(
        male=male,
        age=age,
        skin=jitter(rng, tone, 0.02 if pale else 0.05),
        pale=pale,
        width=rng.uniform(0.66, 0.78) + 0.02 * male,
        forehead=rng.uniform(0.88, 1.02),
        jaw=rng.uniform(0.68, 0.82) + 0.09 * male,
        chin=rng.uniform(0.24, 0.38) + 0.08 * male,
        length=rng.uniform(0.93, 1.06),
        neck=rng.uniform(0.34, 0.4) + 0.08 * male,
        ear=rng.uniform(0.15, 0.22),
        eye_x=rng.uniform(0.27, 0.355),
        eye_y=rng.uniform(-0.07, 0.03),
        eye_width=rng.uniform(0.145, 0.19),
        eye_height=rng.uniform(0.065, 0.105),
        eye_tilt=rng.uniform(-0.03, 0.045),
        eye_colour=jitter(rng, EYE_COLOURS[rng.integers(len(EYE_COLOURS))], 0.15),
        crease=rng.uniform(0.03, 0.07),
        brow_y=rng.uniform(0.21, 0.27),
        brow_thickness=rng.uniform(0.1, 0.13) if bushy else rng.uniform(0.025, 0.042),
        brow_arch=rng.uniform(0, 0.04) if male else rng.uniform(0.015, 0.08),
        brow_tilt=rng.uniform(-0.01, 0.05),
        bushy=bushy,
        nose_length=rng.uniform(0.31, 0.4) + 0.08 * big_nose,
        nose_width=rng.uniform(0.24, 0.29) if big_nose else rng.uniform(0.1, 0.14),
        big_nose=big_nose,
        mouth_y=rng.uniform(0.56, 0.64),
        mouth_width=rng.uniform(0.2, 0.28),
        mouth_curve=rng.uniform(-0.035, 0.012),
        upper_lip=rng.uniform(0.03, 0.06),
        lower_lip=rng.uniform(0.045, 0.085),
        freckles=int(rng.integers(14, 30)) if depth < 2 and rng.random() < 0.25 else 0,
        mole=mole if has_mole else None,
        frame_colour=jitter(rng, ((28, 26, 30), (92, 48, 26), (120, 24, 30))[rng.integers(3)], 0.2),
        frame_roundness=rng.uniform(2.2, 4.5),
        frame_height=rng.uniform(0.15, 0.2),
        glasses_habit=0.85 if rng.random() < 0.2 else 0.06,
        lipstick_habit=0.0 if male else rng.choice([0.15, 0.92], p=[0.35, 0.65]),
        earrings_habit=0.02 if male else rng.choice([0.1, 0.85], p=[0.5, 0.5]),
        necktie_habit=(0.1 + 0.5 * (rng.random() < 0.5)) if male else 0.0,
        **_sample_hair(rng, male, age, depth),
        **_sample_facial_hair(rng, male),
    )
