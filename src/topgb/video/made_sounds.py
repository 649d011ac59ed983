"""Compute sounds for the clips of the demo and of a benchmark."""

from collections.abc import Callable

import numpy as np

Maker = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def made_sound(
    kind: str | None, seconds: float, rate: int, hertz: tuple[float, float], random: np.random.Generator
) -> np.ndarray:
    """Samples float32 [N] of one of `KINDS` (None: of next to nothing), its pitch in the range `hertz`.

    Loudness, pitch and rhythm are drawn at random; there is always a faint noise.
    """
    times = np.arange(round(seconds * rate)) / rate
    low, high = np.log(hertz)
    pitch = float(np.exp(random.uniform(low, high)))
    samples = random.normal(0, 0.004, len(times))
    if kind is not None:
        samples = samples + random.uniform(0.15, 0.5) * KINDS[kind](times, pitch, random)
    return np.clip(samples, -1, 1).astype(np.float32)


def _tone(times: np.ndarray, pitch: float, random: np.random.Generator) -> np.ndarray:
    overtones = random.uniform(0, 0.4, 3)
    parts = [share * np.sin(2 * np.pi * pitch * (2 + k) * times) for k, share in enumerate(overtones)]
    return np.sin(2 * np.pi * pitch * times) + np.sum(parts, axis=0)


def _siren(times: np.ndarray, pitch: float, random: np.random.Generator) -> np.ndarray:
    """A tone that rises and falls by half an octave."""
    swing = np.sin(2 * np.pi * random.uniform(0.8, 2.0) * times)
    frequency = pitch * 2 ** (0.5 * swing)
    return np.sin(2 * np.pi * np.cumsum(frequency) * (times[1] - times[0]))


def _beeps(times: np.ndarray, pitch: float, random: np.random.Generator) -> np.ndarray:
    return np.sin(2 * np.pi * pitch * times) * ((times * random.uniform(2.5, 5.0)) % 1.0 < 0.4)


def _drum(times: np.ndarray, pitch: float, random: np.random.Generator) -> np.ndarray:
    since = (times * random.uniform(1.5, 3.5)) % 1.0
    return 2 * random.normal(0, 0.4, len(times)) * np.exp(-18 * since)


def _wind(times: np.ndarray, pitch: float, random: np.random.Generator) -> np.ndarray:
    gusts = 0.6 + 0.4 * np.sin(2 * np.pi * random.uniform(0.2, 0.6) * times)
    return random.normal(0, 0.4, len(times)) * gusts


KINDS: dict[str, Maker] = {"tone": _tone, "siren": _siren, "beeps": _beeps, "drum": _drum, "wind": _wind}
