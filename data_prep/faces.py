"""Synthetic faces: OpenCV draws them from identity, pose, light, expression and attributes.

Skin, hair and cloth are textures lit by one lamp; the parts are polygons pasted from these textures
at twice the size or more, back to front.
"""

import dataclasses

import cv2
import numpy as np

from data_prep import face_features
from data_prep.face_canvas import SIDES, Canvas, darker, ellipse, mirrored, spline
from data_prep.face_conditions import ATTRIBUTES, Conditions, hair_shows, label
from data_prep.face_traits import Traits

__all__ = ["ATTRIBUTES", "Face", "render_face"]


@dataclasses.dataclass(frozen=True)
class Face:
    """A synthetic face and its attributes."""

    image: np.ndarray  # uint8 [size, size, 3], RGB
    attributes: np.ndarray  # uint8 [len(ATTRIBUTES)], 0 or 1


def _draw_background(canvas: Canvas, rng: np.random.Generator) -> None:
    blobs = np.asarray(canvas.conditions.background) * rng.uniform(0.6, 1.25, (4, 4, 1))
    blobs = np.clip(blobs + rng.uniform(-18, 18, (4, 4, 3)), 0, 255).astype(np.uint8)
    canvas.image = cv2.resize(blobs, (canvas.side,) * 2, interpolation=cv2.INTER_CUBIC)


def _curls(outline: np.ndarray, t: Traits) -> np.ndarray:
    """The outline, with the bumps of wavy hair."""
    if not t.wavy:
        return outline
    bumps = 0.06 + 0.06 * np.sin(np.arange(len(outline)) * 2 * np.pi / 6.5)
    return outline * (1 + bumps[:, None] / np.hypot(*outline.T)[:, None])


def _hair_texture(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Strands that fan out from the crown, with a ring of shine."""
    t = canvas.traits
    side = canvas.side // 2
    grid = cv2.resize(canvas.grid, (side, side))
    x, y = grid[..., 0] - 0.3 * t.parting, grid[..., 1] + 0.85
    radius = np.sqrt(x * x + y * y)
    angle = cv2.phase(x, y + 0.3)
    if t.wavy:
        angle = angle + 0.12 * np.sin(13 * radius + 2 * x)
    strands = rng.uniform(-1, 1, 700).astype(np.float32)
    strands = strands + np.repeat(strands[:100], 7)
    contrast = 0.24 if t.wavy else 0.13
    light = cv2.resize(canvas.light, (side, side))
    shine = np.exp(-(((radius - 0.42) / 0.14) ** 2)) + 0.5 * np.exp(-(((radius - 1.5) / 0.2) ** 2))
    level = (0.3 + 0.68 * light) * (1 + contrast * strands[(angle * 110).astype(np.int32) % 700])
    gloss = 26 * light * shine
    texture = level[..., None] * np.array(t.hair_colour, np.float32) + gloss[..., None]
    texture = np.clip(texture, 0, 255).astype(np.uint8)
    return cv2.resize(texture, (canvas.side, canvas.side))


def _draw_hair_behind(canvas: Canvas, hair: np.ndarray) -> None:
    t = canvas.traits
    if t.hair == "bun":
        canvas.paste(_curls(ellipse(0, -1.1, 0.3, 0.24), t), hair, depth=0, lift=-0.3)
    if t.hair not in ("bob", "long"):
        return
    side, end = t.width + t.hair_volume, t.hair_length
    outline = mirrored(
        [
            (0.0, -1 - t.hair_volume),
            (0.75 * side, -0.85),
            (side + 0.02, -0.2),
            (side + 0.08, 0.45),
            (side + 0.04, end),
            (0.3, end + 0.08),
        ]
    )
    dark = cv2.convertScaleAbs(hair, alpha=0.68)
    canvas.paste(_curls(spline(outline), t), dark, depth=0, lift=-0.15)


def _draw_body(canvas: Canvas) -> None:
    t, c = canvas.traits, canvas.conditions
    canvas.shade(face_features.head_outline(t, c) * (0.95, 1) + (0, 0.12), (0.62, 0.52, 0.5), 0.07)
    neck = [(t.neck, 0.4), (t.neck, 0.95), (t.neck + 0.03, 1.15), (t.neck + 0.25, 1.3), (1.0, 2.2)]
    canvas.paste(spline(mirrored(neck)), canvas.skin_texture(), depth=0)
    canvas.relight_skin()  # the chin's shadow is for the neck alone
    cloth = canvas.cloth_texture(c.clothes_colour)
    shoulder = 1.12 + 0.16 * t.male
    low = 1.16 + c.neckline * (0.3 if c.necktie else 1)
    torso = [
        (0.0, low + 0.1),
        (t.neck * 0.6, low + 0.06),
        (t.neck + 0.07, 1.14),
        (0.75 * shoulder, 1.3),
        (shoulder, 1.52),
        (shoulder + 0.15, 2.2),
    ]
    canvas.paste(spline(mirrored(torso)), cloth, depth=0)
    if c.necktie:
        _draw_shirt_and_tie(canvas)
        return
    edge = np.array([(t.neck + 0.05, 1.15), (t.neck * 0.6, low + 0.06), (0, low + 0.1)])
    edge = np.concatenate([edge, edge[-2::-1] * (-1, 1)])
    canvas.stroke(spline(edge, closed=False), darker(c.clothes_colour, 0.55), 0.03, depth=0)


def _draw_shirt_and_tie(canvas: Canvas) -> None:
    t, c = canvas.traits, canvas.conditions
    canvas.fill(mirrored([(t.neck, 1.1), (t.neck + 0.12, 1.3), (0.22, 2.2)]), (226, 228, 232), 0)
    for side in SIDES:
        flap = [(t.neck + 0.02, 1.02), (t.neck + 0.14, 1.26), (0.2, 1.4), (0.07, 1.22)]
        canvas.fill(np.array(flap) * (side, 1), (248, 248, 250), 0)
        canvas.stroke(np.array(flap[1:]) * (side, 1), (168, 170, 178), 0.02, 0)
    canvas.fill(mirrored([(0.1, 1.34), (0.19, 2.2)]), c.tie_colour, 0)
    canvas.fill(mirrored([(0.14, 1.18), (0.085, 1.36)]), darker(c.tie_colour, 0.82), 0)


def _hair_edge(t: Traits, bangs: bool) -> list[tuple[float, float]]:
    """Where the hair ends on the forehead, from left to right."""
    if bangs:
        x = np.linspace(-0.8, 0.8, 15)
        y = t.eye_y - 0.33 + 0.05 * (np.arange(15) % 2) + 0.08 * x**2
        return list(zip(x * t.width, y, strict=True))
    falls = t.hair in ("bob", "long")  # two curtains from the parting, else combed back
    temple = -0.45 if falls else t.hairline + 0.14 - t.temples
    notch = 0.07 if falls else 0.16
    left, right = (
        [(side * 0.87 * t.width, -0.34 + 0.1 * falls), (side * 0.66 * t.width, temple)]
        for side in SIDES
    )
    top = [(t.parting - notch, t.hairline), (t.parting, t.hairline - 0.1)]
    return [*left, *top, (t.parting + notch, t.hairline), *right[::-1]]


def _hair_front(t: Traits, bangs: bool) -> np.ndarray:
    """Outline of the hair before the head: over the top, then back along the hairline."""
    side, top = t.width + t.hair_volume, -1 - t.hair_volume
    if t.hair in ("bob", "long"):
        outside = [(side + 0.06, t.hair_length), (side + 0.09, 0.4), (side + 0.03, -0.05)]
        inside = [(t.width * 0.86, t.hair_length), (t.width * 0.96, 0.5), (t.width * 0.93, 0.05)]
    else:
        outside = [(t.width * 1.0, 0.02), (t.width * 1.04, -0.1)]
        inside = [(t.width * 0.93, 0.0), (t.width * 0.94, -0.12)]
    outside += [(side * 0.98, -0.42), (0.78 * side, -0.82), (0.36, top + 0.05)]
    over = [*outside, (0, top), *((-x, y) for x, y in outside[::-1])]
    back = [*((-x, y) for x, y in inside), *_hair_edge(t, bangs), *inside[::-1]]
    return np.concatenate([_curls(spline(over, False), t), spline(back, False)])


def _draw_hair_front(canvas: Canvas, hair: np.ndarray) -> None:
    t, c = canvas.traits, canvas.conditions
    if hair_shows(t, c):
        outline = _hair_front(t, t.bangs and c.hat is None)
        canvas.paste(outline, hair, soft=0.008)
    elif t.hair == "bald":
        shine = np.full_like(canvas.image, 255)
        x = 0.3 if c.light[0] > 0 else -0.3
        canvas.paste(ellipse(x * 0.7, -0.72, 0.16, 0.09), shine, soft=0.06, opacity=0.4)


def _draw_hat(canvas: Canvas) -> None:
    t, c = canvas.traits, canvas.conditions
    side = (t.width + t.hair_volume + 0.05, 1)  # the outlines are for a hat of half width 1
    cloth = canvas.cloth_texture(c.hat_colour)
    band = canvas.cloth_texture(darker(c.hat_colour, 0.68))
    dome = [(0, -1.24), (0.62, -1.12), (1, -0.72), (1, -0.46), (0.5, -0.39)]
    canvas.paste(spline(mirrored(dome)) * side, cloth, depth=0.3)
    if c.hat == "cap":
        visor = [(0, -0.62), (0.7, -0.56), (1.02, -0.42), (0.55, -0.36)]
        canvas.paste(spline(mirrored(visor)) * side, band, depth=0.9)
        seam = spline([(0, -1.24), (0.02, -0.9), (0, -0.62)], closed=False)
        canvas.stroke(seam, darker(c.hat_colour, 0.6), 0.015, depth=0.6)
    elif c.hat == "beanie":
        cuff = [(0, -0.74), (0.6, -0.72), (1.03, -0.66), (1.04, -0.44), (0.5, -0.36)]
        canvas.paste(spline(mirrored(cuff)) * side, band, depth=0.3)
    else:
        brim = [(0, -0.7), (1, -0.66), (1.45, -0.52), (0.8, -0.4)]
        canvas.paste(spline(mirrored(brim)) * side, cloth, depth=0.3)
        hatband = [(0, -0.84), (0.96, -0.76), (0.98, -0.64), (0, -0.68)]
        canvas.paste(mirrored(hatband) * side, band, depth=0.3)


def _draw_eyeglasses(canvas: Canvas) -> None:
    t = canvas.traits
    angle = np.linspace(0, 2 * np.pi, 29)
    power = 2 / t.frame_roundness
    cos, sin = np.cos(angle), np.sin(angle)
    half_width = min(0.24, t.eye_x - 0.06)
    lens = np.stack([np.sign(cos) * abs(cos) ** power, np.sign(sin) * abs(sin) ** power], -1)
    lens = lens * (half_width, t.frame_height) + (0, t.eye_y + 0.02)
    glass = cv2.addWeighted(canvas.image, 0.86, np.full_like(canvas.image, 235), 0.14, 0)
    for side in SIDES:
        rim = lens + np.array([side * t.eye_x, 0])
        canvas.paste(rim, glass, lift=0.12)
        canvas.stroke(rim, t.frame_colour, 0.052, lift=0.12)
        temple = [(side * (t.eye_x + half_width), t.eye_y - 0.05), (side * t.width, t.eye_y)]
        canvas.stroke(temple, t.frame_colour, 0.045)
    inner = t.eye_x - half_width
    bridge = [(-inner, t.eye_y - 0.03), (0, t.eye_y - 0.06), (inner, t.eye_y - 0.03)]
    canvas.stroke(bridge, t.frame_colour, 0.045, lift=0.12)


def _draw_earrings(canvas: Canvas) -> None:
    t = canvas.traits
    gold = (240, 204, 84) if t.age < 0.6 else (232, 236, 244)
    for side in SIDES:
        x, y = side * (t.width + 0.05), 0.1 + t.ear
        canvas.fill(ellipse(x, y + 0.12, 0.075, 0.13), darker(gold, 0.55), 0, -0.05)
        canvas.fill(ellipse(x, y + 0.115, 0.06, 0.112), gold, 0, -0.05)
        canvas.fill(ellipse(x - 0.015, y + 0.08, 0.018, 0.03, 8), (255, 252, 236), 0, -0.05)


def _photograph(canvas: Canvas, size: int, rng: np.random.Generator) -> np.ndarray:
    """The canvas at its final size, with the exposure, blur and noise of a camera."""
    c = canvas.conditions
    image = cv2.resize(canvas.image, (size, size), interpolation=cv2.INTER_AREA)
    if c.blur:
        image = cv2.GaussianBlur(image, (0, 0), max(c.blur, 0.2) * size / 128)
    noise = rng.standard_normal((size, size, 1), np.float32) * np.float32(c.noise)
    exposed = image * np.array(c.exposure, np.float32) + noise
    return np.clip(exposed + 0.5, 0, 255).astype(np.uint8)


def render_face(identity: int, image: int, *, size: int = 128, seed: int = 0) -> Face:
    """Renders one image of an identity.

    Args:
        identity: number of the identity, 0 or more; with the seed it decides the person.
        image: number of the image, 0 or more: pose, light, expression and what is worn.
        size: side of the image in pixels.
        seed: of the whole set of people, 0 or more.

    Returns:
        The image and its attributes; the same arguments give the same bytes.

    Raises:
        ValueError: a number is below 0, or the size below 16.
    """
    if min(identity, image, seed) < 0 or size < 16:
        raise ValueError(
            f"render_face({identity=}, {image=}, {size=}, {seed=}): numbers start at 0, sizes at 16"
        )
    traits = Traits(seed, identity)
    # NumPy seeds (a, b) and (a, b, 0) alike, so that image 0 would repeat the traits' numbers.
    rng = np.random.default_rng((seed, identity, image + 1))
    conditions = Conditions(rng, traits)
    canvas = Canvas(size * max(2, -(-256 // size)), traits, conditions)
    hair = _hair_texture(canvas, rng)
    _draw_background(canvas, rng)
    _draw_hair_behind(canvas, hair)
    _draw_body(canvas)
    face_features.shade_face(canvas)
    skin = canvas.skin_texture()
    face_features.draw_ears(canvas, skin)
    canvas.paste(face_features.head_outline(traits, conditions), skin)
    face_features.draw_marks(canvas, rng)
    face_features.draw_nose(canvas)
    face_features.draw_eyes(canvas)
    face_features.draw_brows(canvas, hair)
    face_features.draw_facial_hair(canvas, hair)
    face_features.draw_mouth(canvas)
    if conditions.eyeglasses:
        _draw_eyeglasses(canvas)
    _draw_hair_front(canvas, hair)
    if conditions.hat:
        _draw_hat(canvas)
    if conditions.earrings:
        _draw_earrings(canvas)
    return Face(_photograph(canvas, size, rng), label(traits, conditions))
