"""The canvas on which faces are painted: a head in three dimensions, one lamp, soft polygons.

The head is an ellipsoid that carries its features, so a turned head shifts and foreshortens them.
Lengths and axes are those of `face_traits`.
"""

import functools

import cv2
import numpy as np

from data_prep.face_conditions import Conditions
from data_prep.face_traits import Colour, Traits

DEPTH = 0.62  # how far the middle of the face stands out from its outline
SIDES = (-1, 1)  # left and right in the image
_SUBPIXEL_BITS = 4  # OpenCV's polygons take fixed-point corners
_WARM_SHADE = np.array([0.56, 0.36, 0.32], np.float32)  # of skin that no light reaches


def spline(points, closed: bool = True, steps: int = 6) -> np.ndarray:
    """Catmull-Rom curve through the points: float [n, 2] to float [n * steps, 2] or so."""
    points = np.asarray(points, np.float64)
    ends = (points[-1:], points[:2]) if closed else (points[:1], points[-1:])
    padded = np.concatenate([ends[0], points, ends[1]])
    windows = np.array([padded[:-3], padded[1:-2], padded[2:-1], padded[3:]])
    curve = _catmull_rom(steps) @ windows.reshape(4, -1)
    curve = curve.reshape(steps, -1, 2).swapaxes(0, 1).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, points[-1:]])


@functools.cache
def _catmull_rom(steps: int) -> np.ndarray:
    """Weights of four neighbouring points: float64 [steps, 4]."""
    t = np.arange(steps) / steps
    before, after = -(t**3) + 2 * t**2 - t, t**3 - t**2
    start, end = 3 * t**3 - 5 * t**2 + 2, -3 * t**3 + 4 * t**2 + t
    return np.array([before, start, end, after]).T / 2


@functools.cache
def _unit_circle(steps: int) -> np.ndarray:
    angle = np.arange(steps) * 2 * np.pi / steps
    return np.array([np.cos(angle), np.sin(angle)]).T


def ellipse(
    x: float, y: float, half_width: float, half_height: float, steps: int = 20
) -> np.ndarray:
    """Closed outline: float [steps, 2]."""
    return _unit_circle(steps) * (half_width, half_height) + (x, y)


def mirrored(right_half) -> np.ndarray:
    """Closed outline from the points of its right half, top to bottom."""
    right = np.asarray(right_half, np.float64)
    return np.concatenate([right, right[::-1] * (-1, 1)])


def ribbon(x: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Closed outline of what lies between two curves over the same x."""
    upper, lower = np.array([x, top]).T, np.array([x, bottom]).T
    return np.concatenate([upper, lower[::-1]])


def darker(colour, gain: float) -> Colour:
    """The colour times the gain."""
    red, green, blue = colour
    return gain * red, gain * green, gain * blue


class Canvas:
    """An image being painted with polygons in head units.

    `image` is uint8 [side, side, 3], RGB. A texture is an image of the same size, for
    `paste`. The skin is kept at a quarter of it, where soft shadows are cheap.
    """

    def __init__(self, side: int, traits: Traits, conditions: Conditions):
        self.side = side
        self.traits = traits
        self.conditions = conditions
        self.image = np.zeros((side, side, 3), np.uint8)
        self.unit = conditions.scale * side  # one head unit in pixels
        cos, sin = np.cos(conditions.roll), np.sin(conditions.roll)
        self._upright = np.array([[cos, -sin], [sin, cos]]) / conditions.scale
        self._placed = np.array([[cos, sin], [-sin, cos]]) * conditions.scale
        self._sin_yaw, self._cos_yaw = np.sin(conditions.yaw), np.cos(conditions.yaw)
        self._sin_pitch = np.sin(conditions.pitch)
        pixels = (np.arange(side // 4) + 0.5) / (side // 4)
        grid = np.stack(np.meshgrid(pixels, pixels), -1) - conditions.centre
        self.grid = (grid @ self._upright).astype(np.float32)  # [side / 4, side / 4, 2]
        self.light = self._lambert()
        self.relight_skin()

    def _lambert(self) -> np.ndarray:
        """Brightness of an ellipsoid the size of the head: float32 [side / 4, side / 4], to 1."""
        x, y = self.grid[..., 0] / (1.25 * self.traits.width), self.grid[..., 1] / 1.35
        z = np.sqrt(np.maximum(1 - x * x - y * y, 0.04))
        lamp_x, lamp_y, lamp_z = self.conditions.light
        diffuse = np.maximum(x * lamp_x + y * lamp_y + z * lamp_z, 0)
        return self.conditions.ambient + (1 - self.conditions.ambient) * diffuse

    def relight_skin(self) -> None:
        """The skin without the shadows that `shade` has laid on it."""
        light = self.light[..., None]
        skin = np.array(self.traits.skin, np.float32)
        self._skin = skin * (_WARM_SHADE * (1 - light) + np.float32(1.1) * light)

    def skin_texture(self) -> np.ndarray:
        """The skin with its shadows."""
        return self._enlarged(self._skin)

    def cloth_texture(self, colour: Colour) -> np.ndarray:
        """One colour in the light."""
        light = 0.25 + 0.8 * self.light
        return self._enlarged(light[..., None] * np.array(colour, np.float32))

    def _enlarged(self, texture: np.ndarray) -> np.ndarray:
        small = np.clip(texture, 0, 255).astype(np.uint8)
        return cv2.resize(small, (self.side, self.side), interpolation=cv2.INTER_LINEAR)

    def tone(self, x: float, y: float, colour) -> Colour:
        """The colour in the light that falls on a point of the face."""
        last = len(self.light) - 1
        column, row = np.clip(self.project([(x, y)])[0] * last, 0, last).astype(int)
        return darker(colour, 0.35 + 0.68 * float(self.light[row, column]))

    def project(self, points, depth: float = DEPTH, lift: float = 0.0) -> np.ndarray:
        """Head units to shares of the image's side, after the turn of the head.

        Args:
            points: float [n, 2].
            depth: how much the points follow the head's roundness; 0 for what hangs beside it.
            lift: how far they stand in front of the head (negative: behind).
        """
        turned = np.array(points, np.float64)
        z = lift
        if depth:
            reach = np.where(turned[:, 1] > 0, 1 / 1.3**2, 1 / 1.05**2)  # the chin is no edge
            across = (turned[:, 0] / (1.02 * self.traits.width)) ** 2
            z = lift + depth * np.sqrt(np.maximum(1 - across - reach * turned[:, 1] ** 2, 0))
        turned[:, 0] = turned[:, 0] * self._cos_yaw + z * self._sin_yaw
        turned[:, 1] += z * self._sin_pitch
        return turned @ self._placed + self.conditions.centre

    def _corners(self, points, side: int, depth: float, lift: float) -> np.ndarray:
        """`project` in OpenCV's fixed-point pixels of an image of that side: int32 [n, 2]."""
        pixels = self.project(points, depth, lift) * side - 0.5
        return np.round(pixels * 2**_SUBPIXEL_BITS).astype(np.int32)

    def fill(self, points, colour, depth: float = DEPTH, lift: float = 0.0) -> None:
        """Fills a polygon with one colour."""
        corners = self._corners(points, self.side, depth, lift)
        cv2.fillPoly(self.image, [corners], colour, cv2.LINE_AA, _SUBPIXEL_BITS)

    def stroke(self, points, colour, width: float, depth: float = DEPTH, lift: float = 0.0) -> None:
        """Draws a line; `width` is in head units, at least a pixel."""
        corners = [self._corners(points, self.side, depth, lift)]
        pixels = max(1, round(width * self.unit))
        cv2.polylines(self.image, corners, False, colour, pixels, cv2.LINE_AA, _SUBPIXEL_BITS)

    def paste(
        self, points, texture, depth=DEPTH, lift=0.0, *, soft: float = 0.0, opacity: float = 1.0
    ) -> None:
        """Copies the texture inside a polygon.

        Args:
            points: float [n, 2].
            texture: uint8 [side, side, 3].
            depth: as in `project`.
            lift: as in `project`.
            soft: standard deviation of the edge's blur, in head units.
            opacity: share of the texture in the result.
        """
        box, mask = _soft_mask(
            self._corners(points, self.side, depth, lift), self.side, soft * self.unit
        )
        if mask.size:
            mask *= np.float32(opacity)
            self.image[box] = cv2.blendLinear(texture[box], self.image[box], mask, 1 - mask)

    def shade(self, points, gain, soft: float, lift: float = 0.0) -> None:
        """Multiplies the skin's channels by `gain` inside a soft polygon."""
        side = len(self._skin)
        corners = self._corners(points, side, DEPTH, lift)
        box, mask = _soft_mask(corners, side, soft * self.unit / 4)
        self._skin[box] *= 1 + mask[..., None] * (np.array(gain, np.float32) - 1)


def _soft_mask(
    corners: np.ndarray, side: int, blur: float
) -> tuple[tuple[slice, slice], np.ndarray]:
    """The polygon's cover, float32 in [0, 1], and the box of the image that it lies in."""
    margin = 2 + int(3 * blur)
    low = np.maximum((corners.min(0) >> _SUBPIXEL_BITS) - margin, 0)
    high = np.minimum((corners.max(0) >> _SUBPIXEL_BITS) + margin + 1, side)
    (left, top), (right, bottom) = low.tolist(), np.maximum(high, low).tolist()
    mask = np.zeros((bottom - top, right - left), np.float32)
    if mask.size:
        cover = mask.astype(np.uint8)
        local = corners - (low << _SUBPIXEL_BITS).astype(np.int32)
        cv2.fillPoly(cover, [local], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        if blur:
            cover = cv2.GaussianBlur(cover, (0, 0), blur)
        mask = cover * np.float32(1 / 255)
    return (slice(top, bottom), slice(left, right)), mask
