"""Draw moving pictures for the clips of the demo and of a benchmark."""

from collections.abc import Callable, Iterator

import numpy as np

# Pixels of the drawn things, of a picture's height.
_LEAST, _MOST = 0.12, 0.28
_THINGS = 4

# Rows and columns of the pixels float [H, 1], [1, W] and seconds to what is drawn there, bool [H, W].
Shape = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


def moving_picture(
    kind: str | None, background: np.ndarray, fps: int, frames: int, random: np.random.Generator
) -> Iterator[np.ndarray]:
    """Pictures uint8 [H, W, 3] of one of `KINDS` (None: of nothing) that moves before the `background` uint8 [H, W, 3].

    Colours, sizes, places and speeds are drawn at random.
    """
    height, width, _ = background.shape
    rows, columns = np.arange(height, dtype=float)[:, None], np.arange(width, dtype=float)[None]
    drawn = KINDS[kind](height, width, random) if kind is not None else None
    colour = _contrasting(background.mean((0, 1)), random)
    for number in range(frames):
        picture = background.copy()
        if drawn is not None:
            picture[drawn(rows, columns, number / fps)] = colour
        yield picture


def plain(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """A dark background of one colour, uint8 [H, W, 3]."""
    return np.full((height, width, 3), random.integers(0, 90, 3), np.uint8)


def textured(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """A bright background from one colour to another with grain, uint8 [H, W, 3]."""
    one, other = random.integers(110, 230, (2, 3))
    share = np.linspace(0, 1, width)[None, :, None]
    grain = random.normal(0, 12, (height, width, 1))
    return np.clip(one * (1 - share) + other * share + grain, 0, 255).astype(np.uint8)


def _contrasting(background: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A colour that is not near the background's."""
    while True:
        colour = random.integers(0, 256, 3)
        if np.abs(colour - background).sum() > 220:
            return colour.astype(np.uint8)


def _things(height: int, width: int, random: np.random.Generator, inside: Callable[..., np.ndarray]) -> Shape:
    """Some things that cross the picture and come back at its other side; `inside` says which pixels are of one."""
    sizes = random.uniform(_LEAST, _MOST, _THINGS) * height
    begin, speed = random.uniform(0, 1, (_THINGS, 2)), random.uniform(-0.25, 0.25, (_THINGS, 2))

    def draw(rows: np.ndarray, columns: np.ndarray, seconds: float) -> np.ndarray:
        found = np.zeros((height, width), bool)
        for size, place in zip(sizes, (begin + speed * seconds) % 1.0, strict=True):
            found |= inside(rows - place[0] * height, columns - place[1] * width, size)
        return found

    return draw


def _circles(height: int, width: int, random: np.random.Generator) -> Shape:
    return _things(height, width, random, lambda y, x, size: y**2 + x**2 < size**2)


def _crosses(height: int, width: int, random: np.random.Generator) -> Shape:
    def inside(y: np.ndarray, x: np.ndarray, size: float) -> np.ndarray:
        arm = size / 4
        return ((abs(y) < arm) & (abs(x) < size)) | ((abs(x) < arm) & (abs(y) < size))

    return _things(height, width, random, inside)


def _triangles(height: int, width: int, random: np.random.Generator) -> Shape:
    return _things(height, width, random, lambda y, x, size: (abs(y) < size) & (abs(x) < (y + size) / 2))


def _stripes(height: int, width: int, random: np.random.Generator) -> Shape:
    angle, period, speed = random.uniform(0, np.pi), random.uniform(0.12, 0.25) * height, random.uniform(-0.8, 0.8)
    across, along = np.sin(angle), np.cos(angle)
    return lambda y, x, seconds: ((y * across + x * along) / period + speed * seconds) % 1.0 < 0.5


def _checkers(height: int, width: int, random: np.random.Generator) -> Shape:
    side, speed = random.uniform(0.1, 0.2) * height, random.uniform(-0.8, 0.8, 2)

    def draw(rows: np.ndarray, columns: np.ndarray, seconds: float) -> np.ndarray:
        return (np.floor(rows / side + speed[0] * seconds) + np.floor(columns / side + speed[1] * seconds)) % 2 == 0

    return draw


KINDS: dict[str, Callable[[int, int, np.random.Generator], Shape]] = {
    "circles": _circles,
    "crosses": _crosses,
    "triangles": _triangles,
    "stripes": _stripes,
    "checkers": _checkers,
}
