"""Log-mel statistics of a second of sound: a feature that needs no net."""

from functools import cache

import numpy as np

from topgb.video.sound import RATE

BANDS, LOW_HZ, HIGH_HZ = 64, 125.0, 7500.0
WINDOW, HOP, FFT = 400, 160, 512
# Added before the logarithm; of samples in -1 to 1, this is quieter than a quiet room.
FLOOR = 1e-6
SIZE = 2 * BANDS
# Scale to about the norms of the other features: a model that normalises whole frames would otherwise see little of
# those.
MEAN, SCALE, DEVIATION_SCALE = -5.0, 0.2, 0.5


def mel_statistics(samples: np.ndarray) -> np.ndarray:
    """Mean and standard deviation over time of each band's log energy, scaled, float32 [128], of samples [16000].

    Bands, windows and hops are those of YouTube-8M's sound features (VGGish). The sums run in NumPy's own loops: BLAS
    adds in an order that depends on the number of threads.
    """
    windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    spectrum = np.fft.rfft(windows * _hann(), FFT)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    energy = np.log(np.einsum("tf,mf->tm", power, _filters()) + FLOOR)
    return np.concatenate(((energy.mean(0) - MEAN) * SCALE, energy.std(0) * DEVIATION_SCALE)).astype(np.float32)


@cache
def _hann() -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)


@cache
def _filters() -> np.ndarray:
    """Triangles on HTK's mel scale, float64 [64, 257]."""
    mel = 1127.0 * np.log1p(np.fft.rfftfreq(FFT, 1 / RATE) / 700.0)
    low, high = 1127.0 * np.log1p(np.array((LOW_HZ, HIGH_HZ)) / 700.0)
    edges = np.linspace(low, high, BANDS + 2)
    lower, centre, upper = (edges[i : i + BANDS, None] for i in range(3))
    return np.maximum(0.0, np.minimum((mel - lower) / (centre - lower), (upper - mel) / (upper - centre)))
