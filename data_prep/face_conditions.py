"""The conditions of one image of a synthetic face, and the CelebA attributes that it shows."""

import dataclasses

import numpy as np

from data_prep.face_traits import HAIR_COLOURS, Colour, Traits, jitter

ATTRIBUTES: tuple[str, ...] = (
    "Bald",
    "Bangs",
    "Big_Nose",
    "Black_Hair",
    "Blond_Hair",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Eyeglasses",
    "Goatee",
    "Gray_Hair",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "Pale_Skin",
    "Rosy_Cheeks",
    "Smiling",
    "Wavy_Hair",
    "Wearing_Earrings",
    "Wearing_Hat",
    "Wearing_Lipstick",
    "Wearing_Necktie",
)

LIPSTICKS: tuple[Colour, ...] = ((190, 24, 48), (164, 22, 60), (214, 44, 88), (150, 20, 36))


@dataclasses.dataclass(frozen=True)
class Conditions:
    """What differs between the images of an identity. Angles are in radians."""

    yaw: float
    pitch: float
    roll: float
    scale: float  # head units as a share of the image's side
    centre: tuple[float, float]  # of the head, as shares of the image's side
    light: tuple[float, float, float]  # unit vector towards the light, z towards the viewer
    ambient: float
    exposure: Colour  # gain of each channel
    smile: float  # 0 none, else 0.7 to 1
    mouth_open: float  # gap between the lips, in head units
    eyes_open: float
    gaze: tuple[float, float]
    eyeglasses: bool
    lipstick: Colour | None
    rosy: bool
    earrings: bool
    hat: str | None  # None, cap, beanie or brim
    hat_colour: Colour
    necktie: bool
    tie_colour: Colour
    clothes_colour: Colour
    neckline: float  # depth
    background: Colour
    blur: float  # standard deviation in 1/128 of the image's side
    noise: float  # standard deviation in grey levels


def sample_conditions(rng: np.random.Generator, traits: Traits) -> Conditions:
    """Draws how one image of the identity was taken, and what it wears there."""
    smiling = rng.random() < 0.48
    opened = rng.random() < (0.6 if smiling else 0.24)
    direction = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.8, 0.15), rng.uniform(0.6, 1)])
    light = direction / np.linalg.norm(direction)
    lipstick = rng.random() < traits.lipstick_habit
    light_skin = sum(traits.skin) > 420  # blush does not show on a dark skin
    rosy = light_skin and rng.random() < (0.06 if traits.male else 0.4 if lipstick else 0.2)
    hat = str(rng.choice(["cap", "beanie", "brim"])) if rng.random() < 0.15 else None
    warmth = rng.uniform(-0.05, 0.05)
    gain = rng.uniform(0.9, 1.1)
    return Conditions(
        yaw=float(np.clip(rng.normal(0, 0.22), -0.5, 0.5)),
        pitch=float(np.clip(rng.normal(0, 0.1), -0.22, 0.22)),
        roll=float(np.clip(rng.normal(0, 0.07), -0.18, 0.18)),
        scale=rng.uniform(0.345, 0.38),
        centre=(0.5 + rng.uniform(-0.025, 0.025), 0.478 + rng.uniform(-0.02, 0.02)),
        light=(float(light[0]), float(light[1]), float(light[2])),
        ambient=rng.uniform(0.4, 0.7),
        exposure=(gain * (1 + warmth), gain, gain * (1 - warmth)),
        smile=rng.uniform(0.75, 1) if smiling else 0.0,
        mouth_open=rng.uniform(0.075, 0.15) if opened else 0.0,
        eyes_open=rng.uniform(0.85, 1.08) - 0.14 * smiling,
        gaze=(float(rng.uniform(-0.3, 0.3)), float(rng.uniform(-0.15, 0.15))),
        eyeglasses=bool(rng.random() < traits.glasses_habit),
        lipstick=jitter(rng, LIPSTICKS[rng.integers(4)], 0.12) if lipstick else None,
        rosy=bool(rosy),
        earrings=bool(rng.random() < traits.earrings_habit),
        hat=hat,
        hat_colour=_vivid(rng),
        necktie=bool(rng.random() < traits.necktie_habit),
        tie_colour=jitter(rng, [(150, 24, 36), (30, 48, 120), (24, 92, 70)][rng.integers(3)], 0.3),
        clothes_colour=_vivid(rng),
        neckline=rng.uniform(0.02, 0.22),
        background=_vivid(rng, 60),
        blur=max(0.0, rng.uniform(-0.4, 0.7)),
        noise=rng.uniform(0.5, 3),
    )


def hair_shows(traits: Traits, conditions: Conditions) -> bool:
    """Whether there is hair that no hat hides: under a hat, short hair and a bun don't show."""
    return traits.hair in ("bob", "long") or (conditions.hat is None and traits.hair != "bald")


def label(traits: Traits, conditions: Conditions) -> np.ndarray:
    """The attributes that show in the image.

    A hat hides a bald head, bangs and short hair, so none of these is labelled under one.

    Args:
        traits: of the identity.
        conditions: of the image.

    Returns:
        uint8 [len(ATTRIBUTES)], 0 or 1.
    """
    bare = conditions.hat is None
    hair = hair_shows(traits, conditions)
    shown = {
        "Bald": traits.hair == "bald" and bare,
        "Bangs": traits.bangs and bare,
        "Big_Nose": traits.big_nose,
        "Bushy_Eyebrows": traits.bushy,
        "Eyeglasses": conditions.eyeglasses,
        "Goatee": traits.goatee,
        "Male": traits.male,
        "Mouth_Slightly_Open": conditions.mouth_open > 0,
        "Mustache": traits.mustache,
        "Pale_Skin": traits.pale,
        "Rosy_Cheeks": conditions.rosy,
        "Smiling": conditions.smile > 0,
        "Wavy_Hair": traits.wavy and hair,
        "Wearing_Earrings": conditions.earrings,
        "Wearing_Hat": not bare,
        "Wearing_Lipstick": conditions.lipstick is not None,
        "Wearing_Necktie": conditions.necktie,
    }
    shown |= {name: hair and traits.hair_name == name for name in HAIR_COLOURS}
    return np.array([shown[name] for name in ATTRIBUTES], np.uint8)


def _vivid(rng: np.random.Generator, darkest: float = 30) -> Colour:
    """Any colour, of cloth or of a wall."""
    grey, channels = rng.uniform(darkest, 225), rng.uniform(darkest, 235, 3)
    red, green, blue = 0.45 * grey + 0.55 * channels
    return float(red), float(green), float(blue)
