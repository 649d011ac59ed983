"""The extractors: which features they make of pictures and sound, and how."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

from topgb.errors import InputError, option
from topgb.extractor_identity import difference, digest, shown
from topgb.features import Feature
from topgb.files import file_sha256
from topgb.video import lite0, mel, sound, speech
from topgb.video.frames import picture_identity
from topgb.video.opening import pyav
from topgb.video.sessions import Net

# Raise this whenever the features change although the nets are the same.
VERSION = 1
IMAGE, SPEECH, MEL = "image", "speech", "mel"
# The features of the extractors that need nothing but the extra.
BUILT_IN = {
    "default": (IMAGE, SPEECH, MEL),
    "image": (IMAGE,),
    "sound": (SPEECH, MEL),
    "fast": (IMAGE, SPEECH, MEL),
}
TORCH_KINDS = ("timm", "open_clip")
# More vectors per second would serve no purpose: each covers a second.
MOST_FPS, LEAST_FPS = 30.0, 1 / 60


@dataclass(frozen=True)
class Extractor:
    """A way to make features of videos.

    identity  JSON values by name: everything that the features depend on
    """

    identity: dict[str, Any]
    _nets: Mapping[str, Callable[[], Net]] = field(repr=False, compare=False)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the identity's canonical JSON, in hexadecimal."""
        return digest(self.identity)

    @property
    def name(self) -> str:
        return self.identity["name"]

    @property
    def fps(self) -> float:
        """Vectors a second."""
        return self.identity["fps"]

    @property
    def features(self) -> tuple[Feature, ...]:
        """The features, as floats, in the order in which records hold them."""
        return tuple(Feature(name, made["size"], "float32") for name, made in self.identity["features"].items())

    @property
    def picture_names(self) -> tuple[str, ...]:
        """The features that are made from pictures. All have the same scaling, so that a frame is scaled once."""
        return tuple(name for name, made in self.identity["features"].items() if made["of"] == "picture")

    @property
    def sound_names(self) -> tuple[str, ...]:
        """The features that are made of sound."""
        return tuple(name for name, made in self.identity["features"].items() if made["of"] == "sound")

    def prepare(self) -> None:
        """Make the files that nets are opened from, so that several processes need not all make them.

        Raises `TopgbError` if a package is not installed.
        """
        pyav()
        if self.identity["name"] in BUILT_IN and IMAGE in self.identity["features"]:
            lite0.lite0_session()

    @cached_property
    def nets(self) -> Mapping[str, Net]:
        """The net of each feature; it takes a picture uint8 [side, side, 3] or sound float32 [16000]. Opened once."""
        return {name: opened() for name, opened in self._nets.items()}


def find_extractor(name: str, fps: float = 1.0) -> Extractor:
    """The extractor `name`: `default`, `image`, `sound`, `fast`, `timm:NAME` or `open_clip:NAME`.

    `fast` decodes keyframes only. Raises `InputError` for other names, or for `fps` beyond a sixtieth to 30;
    `TopgbError` if a package is not installed.
    """
    if not (isinstance(fps, int | float) and math.isfinite(fps) and LEAST_FPS <= fps <= MOST_FPS):
        raise InputError(f"{option('fps')} is {fps}; it must be from 1/60 to {MOST_FPS:g} vectors a second")
    kind, colon, model = name.partition(":")
    if colon and model and kind in TORCH_KINDS:
        from topgb.video.torch_pictures import torch_picture

        identity, opened = torch_picture(cast(Any, kind), model)
        return _extractor(name, fps, {IMAGE: identity}, {IMAGE: opened})
    if name not in BUILT_IN:
        known = ", ".join((*BUILT_IN, "timm:NAME", "open_clip:NAME"))
        raise InputError(f"{option('extractor', name)} is no extractor; known are {known}")
    makers: dict[str, tuple[Callable[[bool], dict[str, Any]], Callable[[], Net]]] = {
        IMAGE: (_image, lite0.Lite0),
        SPEECH: (_speech, speech.Speech),
        MEL: (_mel, lambda: mel.mel_statistics),
    }
    made = {feature: makers[feature] for feature in BUILT_IN[name]}
    described = {feature: describe(name == "fast") for feature, (describe, _) in made.items()}
    return _extractor(name, fps, described, {feature: net for feature, (_, net) in made.items()})


def extractor_of(identity: dict[str, Any]) -> Extractor:
    """The extractor with the identity that a `dataset.yaml` or a model file keeps.

    Raises `InputError` if it is no identity, or if the extractor of this name would not make the same features here;
    `TopgbError` if a package is not installed.
    """
    name, fps = (identity.get(key) if isinstance(identity, dict) else None for key in ("name", "fps"))
    if not isinstance(name, str) or not isinstance(fps, int | float) or isinstance(fps, bool):
        raise InputError("the extractor has no name and fps; it is not one that topgb extract wrote down")
    found = find_extractor(name, fps)
    other = difference(found.identity, identity)
    if other is not None:
        raise InputError(
            f"the extractor {shown(identity)} is not the one of this topgb, {shown(found.identity)}, in which {other}; "
            "install the versions of topgb and of the packages it was made with"
        )
    return found


def _extractor(
    name: str, fps: float, features: dict[str, dict[str, Any]], nets: Mapping[str, Callable[[], Net]]
) -> Extractor:
    # A whole number is the same JSON however it was given.
    rate = int(fps) if float(fps).is_integer() else float(fps)
    return Extractor({"name": name, "version": VERSION, "fps": rate, "features": features}, nets)


def _image(keyframes: bool) -> dict[str, Any]:
    return {
        "size": lite0.SIZE,
        "net": "efficientnet-lite0, pooled",
        "weights": file_sha256(lite0.weights_file()),
        "mean": lite0.MEAN,
        "std": lite0.SCALE,
        **picture_identity(lite0.SIDE, lite0.SIDE, "BICUBIC", "key" if keyframes else "all"),
    }


_SAMPLES = {"of": "sound", "rate": sound.RATE, "channels": "mono", "window": "1 s from k/fps"}


def _speech(_: bool) -> dict[str, Any]:
    return {
        "size": speech.SIZE,
        "net": "google speech embedding",
        "weights": [file_sha256(path) for path in speech.speech_files()],
        "scale": speech.SAMPLE_SCALE,
        "decibels": [speech.DECIBEL_SCALE, speech.DECIBEL_OFFSET],
        "frames": [speech.FRAMES, *speech.STARTS],
        "output": speech.OUTPUT_SCALE,
        **_SAMPLES,
    }


def _mel(_: bool) -> dict[str, Any]:
    return {
        "size": mel.SIZE,
        "net": "log mel, mean and deviation",
        "bands": [mel.BANDS, mel.LOW_HZ, mel.HIGH_HZ],
        "frames": [mel.WINDOW, mel.HOP, mel.FFT],
        "floor": mel.FLOOR,
        "output": [mel.MEAN, mel.SCALE, mel.DEVIATION_SCALE],
        **_SAMPLES,
    }
