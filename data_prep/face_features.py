"""The parts of a head that show on every image of it: skin, ears, eyes, nose, mouth, beard."""

import cv2
import numpy as np

from data_prep.face_canvas import SIDES, Canvas, darker, ellipse, mirrored, ribbon, spline
from data_prep.face_conditions import Conditions
from data_prep.face_traits import Traits


def head_outline(t: Traits, c: Conditions) -> np.ndarray:
    """Closed curve, float [n, 2]; an open mouth lowers the chin."""
    drop = 0.35 * c.mouth_open
    right = [
        (0.0, -1.0),
        (0.6 * t.width * t.forehead, -0.88),
        (0.93 * t.width * t.forehead, -0.52),
        (t.width, -0.08),
        (0.97 * t.width, 0.2),
        (t.jaw * t.width, 0.62 + drop / 2),
        (t.chin * t.width, 0.93 * t.length + drop),
    ]
    chin = [(0.0, t.length + drop)]
    left = np.array(right[:0:-1]) * (-1, 1)
    return spline(np.concatenate([right, chin, left]))


def shade_face(canvas: Canvas) -> None:
    """Models the face on the skin: sockets, nose, cheeks, folds, lips, chin."""
    t, c = canvas.traits, canvas.conditions
    base = t.eye_y + t.nose_length
    lamp = 1 if c.light[0] > 0 else -1
    for side in SIDES:
        x = side * t.eye_x
        canvas.shade(ellipse(x * 0.9, t.eye_y - 0.06, 0.17, 0.12), (0.84, 0.76, 0.75), 0.05)
        canvas.shade(ellipse(x * 1.15, t.eye_y + 0.33, 0.12, 0.1), (1.09, 1.07, 1.06), 0.08)
        if c.rosy:
            canvas.shade(ellipse(x * 1.28, t.eye_y + 0.37, 0.13, 0.1), (1.05, 0.6, 0.64), 0.06)
        fold = 0.92 - 0.1 * (c.smile > 0) - 0.1 * t.age
        wing, corner = side * (t.nose_width + 0.03), side * (t.mouth_width + 0.09)
        line = [(wing, base - 0.03), (wing * 1.1, base), (corner, t.mouth_y), (corner * 0.94, 0.5)]
        canvas.shade(line, (fold, fold - 0.04, fold - 0.04), 0.025)
        canvas.shade(ellipse(side * t.width * 0.9, 0.45, 0.1, 0.3), (0.9, 0.86, 0.85), 0.1)
    flank = np.array([(0.03, t.eye_y), (0.13, t.eye_y + 0.02), (t.nose_width, base), (0.05, base)])
    canvas.shade(flank * (-lamp, 1), (0.8, 0.72, 0.7), 0.03, lift=0.05)
    bridge = mirrored([(0.03, t.eye_y - 0.1), (0.04, base - 0.1)])
    canvas.shade(bridge, (1.12, 1.12, 1.12), 0.025, lift=0.12)
    bulb = 0.96 - 0.06 * t.big_nose
    canvas.shade(ellipse(0, base - 0.03, t.nose_width, 0.1), (1, bulb, bulb - 0.04), 0.03, lift=0.1)
    canvas.shade(ellipse(0, base - 0.06, 0.06, 0.05), (1.12, 1.12, 1.12), 0.035, lift=0.16)
    canvas.shade(ellipse(0, base + 0.06, t.nose_width, 0.035), (0.8, 0.71, 0.7), 0.025)
    canvas.shade(ellipse(0, t.mouth_y + 0.16, 0.13, 0.025), (0.78, 0.7, 0.68), 0.03)
    canvas.shade(ellipse(0, t.length - 0.12, 0.12, 0.07), (1.07, 1.06, 1.05), 0.05)
    if t.stubble > 0.15:
        shadow = 1 - 0.3 * t.stubble
        jaw = head_outline(t, c)
        jaw = jaw[jaw[:, 1] > t.mouth_y - 0.12]
        canvas.shade(jaw, (shadow - 0.04, shadow, shadow + 0.02), 0.06)
    if t.hair != "bald":
        brow = ellipse(0, t.hairline - 0.18, 0.95 * t.width, 0.28)
        canvas.shade(brow, (0.78, 0.7, 0.68), 0.05)


def draw_ears(canvas: Canvas, skin: np.ndarray) -> None:
    """Draws both ears, to go behind the head; `skin` is a texture."""
    t = canvas.traits
    inside = cv2.convertScaleAbs(skin, alpha=0.72)
    for side in SIDES:
        x = side * t.width * 0.96
        ear = ellipse(x, 0.1, 0.62 * t.ear, t.ear)
        canvas.paste(ear + (ear[:, 1:] < 0.1) * (0.03 * side, 0), skin, depth=0, lift=-0.1)
        canvas.paste(ellipse(x, 0.08, 0.26 * t.ear, 0.6 * t.ear), inside, 0, -0.1, soft=0.02)


def draw_marks(canvas: Canvas, rng: np.random.Generator) -> None:
    """Freckles, a mole, the lines of age."""
    t = canvas.traits
    freckle = canvas.tone(0, 0.1, darker(t.skin, 0.74))
    for x, y in rng.normal((0, t.eye_y + 0.26), (0.26, 0.07), (t.freckles, 2)):
        canvas.fill(ellipse(x, y, 0.014, 0.012, 6), freckle)
    if t.mole:
        canvas.fill(ellipse(*t.mole, 0.026, 0.024, 8), (70, 40, 32))
    if t.age > 0.7 and not t.bangs:
        for y in (-0.42, -0.5):
            line = [(-0.26, y + 0.01), (0, y - 0.015), (0.26, y + 0.01)]
            canvas.stroke(spline(line, False), canvas.tone(0, y, darker(t.skin, 0.8)), 0.012)


def draw_nose(canvas: Canvas) -> None:
    """Draws wings, nostrils and tip; `shade_face` models the rest."""
    t = canvas.traits
    base = t.eye_y + t.nose_length
    dark, contour = (canvas.tone(0, base, darker(t.skin, g)) for g in (0.36, 0.68))
    width = t.nose_width
    for side in SIDES:
        wing = [
            (0.72 * width, base - 0.13),
            (1.02 * width, base - 0.06),
            (1.0 * width, base + 0.005),
            (0.72 * width, base + 0.03),
        ]
        canvas.stroke(spline(np.array(wing) * (side, 1), False), contour, 0.12 * width, lift=0.06)
        canvas.fill(ellipse(side * 0.5 * width, base + 0.015, 0.26 * width, 0.017), dark, lift=0.1)
    tip = [(-0.3 * width, base + 0.025), (0, base + 0.05), (0.3 * width, base + 0.025)]
    canvas.stroke(spline(tip, False), contour, 0.018, lift=0.12)


def _eye_outline(t: Traits, c: Conditions, side: int) -> np.ndarray:
    """Closed curve; its first half, inner to outer corner, is the upper lid."""
    a, b, tilt = t.eye_width, t.eye_height * c.eyes_open, t.eye_tilt
    points = [
        (-a, 0.012),
        (-0.55 * a, -0.72 * b),
        (0, -b),
        (0.55 * a, -0.8 * b - 0.5 * tilt),
        (a, -tilt),
        (0.55 * a, 0.55 * b - 0.4 * tilt),
        (0, 0.62 * b),
        (-0.55 * a, 0.45 * b),
    ]
    return spline(np.array(points) * (side, 1) + (side * t.eye_x, t.eye_y))


def draw_eyes(canvas: Canvas) -> None:
    """Draws eyeballs, lids and lashes."""
    t, c = canvas.traits, canvas.conditions
    face = canvas.image
    canvas.image = face.copy()  # whole eyeballs, to be shown through the lids
    radius = 0.078
    for side in SIDES:
        x, y = side * t.eye_x + c.gaze[0] * 0.08, t.eye_y - 0.008 + c.gaze[1] * 0.05
        canvas.fill(
            ellipse(side * t.eye_x, t.eye_y, 0.24, 0.14), canvas.tone(x, y, (244, 240, 238))
        )
        canvas.fill(ellipse(x, y, radius, radius), darker(t.eye_colour, 0.5))
        canvas.fill(ellipse(x, y, 0.8 * radius, 0.8 * radius), t.eye_colour)
        canvas.fill(ellipse(x, y, 0.42 * radius, 0.42 * radius), (14, 12, 14))
        glint = 0.03 if c.light[0] > 0 else -0.03
        canvas.fill(ellipse(x + glint, y - 0.028, 0.02, 0.02, 10), (255, 255, 255))
    eyes, canvas.image = canvas.image, face
    lash = (26, 18, 18) if c.lipstick else (52, 36, 32)
    for side in SIDES:
        outline = _eye_outline(t, c, side)
        upper = outline[: len(outline) // 2 + 1]
        fold = canvas.tone(side * t.eye_x, t.eye_y - 0.1, darker(t.skin, 0.62))
        canvas.stroke(upper[3:] - (0, t.crease), fold, 0.018)
        canvas.paste(outline, eyes)
        canvas.stroke(outline[len(upper) - 1 :], darker(fold, 0.85), 0.012)
        canvas.stroke(upper, lash, 0.042 if c.lipstick else 0.028)


def draw_brows(canvas: Canvas, hair: np.ndarray) -> None:
    """Draws both eyebrows; `hair` is a texture."""
    t, c = canvas.traits, canvas.conditions
    rise = t.eye_y - t.brow_y - 0.02 * (c.smile > 0)
    along = np.linspace(0, 1, 9)
    arch = t.brow_arch * np.sin(np.pi * np.minimum(1.25 * along, 1) * 0.9) + t.brow_tilt * along
    half = 0.5 * t.brow_thickness * (1 - 0.75 * along**2)
    x = t.eye_x - 0.19 + along * 0.37
    brow = ribbon(x, rise - arch - half, rise - arch + half)
    shade = cv2.convertScaleAbs(hair, alpha=0.5 if t.bushy else 0.7)
    for side in SIDES:
        canvas.paste(brow * (side, 1), shade, soft=0.012, opacity=0.95)


def draw_mouth(canvas: Canvas) -> None:
    """Draws lips, teeth and what is dark between them."""
    t, c = canvas.traits, canvas.conditions
    across = np.linspace(-1, 1, 17)
    dome = np.sqrt(1 - across**2)
    x = across * t.mouth_width * (1 + 0.34 * c.smile)
    middle = t.mouth_y + 0.03 * c.smile + (t.mouth_curve - 0.12 * c.smile) * across**2
    cupid = 1 - 0.3 * np.exp(-((across / 0.16) ** 2))
    gap = c.mouth_open * dome
    upper_in, lower_in = middle - 0.3 * gap, middle + 0.7 * gap
    upper_out = upper_in - t.upper_lip * (1 - 0.2 * c.smile) * dome**1.3 * cupid
    lower_out = lower_in + t.lower_lip * (1 - 0.15 * c.smile) * dome
    natural = np.asarray(t.skin) * (0.9, 0.68, 0.66)
    colour = canvas.tone(0, t.mouth_y, c.lipstick or natural)

    canvas.fill(ribbon(x, upper_out, upper_in), darker(colour, 0.8), lift=0.05)
    canvas.fill(ribbon(x, lower_in, lower_out), colour, lift=0.05)
    shine = lower_in + (lower_out - lower_in) * 0.35
    inner = slice(5, 12)
    gloss = np.array([x[inner], shine[inner]]).T
    canvas.stroke(gloss, darker(colour, 1.25), 0.02, lift=0.05)
    if c.mouth_open:
        canvas.fill(ribbon(x, upper_in, lower_in), (58, 18, 20), lift=0.05)
        teeth = np.minimum(lower_in, upper_in + 0.075 * dome)
        if c.smile:
            ivory = canvas.tone(0, t.mouth_y, (246, 242, 234))
            canvas.fill(ribbon(x, upper_in, teeth), ivory, lift=0.05)
    else:
        canvas.stroke(np.array([x, middle]).T, darker(colour, 0.45), 0.02, lift=0.05)


def draw_facial_hair(canvas: Canvas, hair: np.ndarray) -> None:
    """Draws a mustache and a goatee where the identity has them; `hair` is a texture."""
    t, c = canvas.traits, canvas.conditions
    beard = cv2.convertScaleAbs(hair, alpha=0.64)
    width, low = t.mouth_width * (1.1 + 0.3 * c.smile), t.mouth_y + c.mouth_open * 0.7
    if t.mustache:
        top, lip = t.eye_y + t.nose_length + 0.045, t.mouth_y - 0.3 * c.mouth_open - 0.01
        right = [
            (0, top),
            (0.5 * width, top + 0.02),
            (width, lip - 0.01),
            (1.08 * width, lip + 0.06),
        ]
        right += [(0.75 * width, lip + 0.005), (0.3 * width, lip - 0.01)]
        canvas.paste(spline(mirrored(right)), beard, lift=0.04, soft=0.012, opacity=0.95)
    if t.goatee:
        bottom = t.length + 0.35 * c.mouth_open
        right = [(0, low + t.lower_lip + 0.035), (0.6 * width, low + 0.09), (0.95 * width, low)]
        right += [(1.1 * width, low + 0.08), (0.95 * width, bottom - 0.08), (0, bottom + 0.05)]
        canvas.paste(spline(mirrored(right)), beard, lift=0.02, soft=0.018, opacity=0.95)
