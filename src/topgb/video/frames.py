"""Pick the frames that are shown at the points of a grid in time, and make upright square pictures of them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from topgb.video.clock import MOST_GAP_SECONDS, Clock
from topgb.video.decoding import Decoding
from topgb.video.opening import pyav
from topgb.video.passing import Needed, PassedOverError

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

Scaling = Literal["BICUBIC", "BILINEAR"]

# Containers round time stamps to a thousandth of a second.
ROUNDING_SECONDS = 0.001
# The most that the long side of a scaled picture may be, as a multiple of the short side: a line of pixels would
# otherwise become a huge picture.
_MOST_LONG = 8
# Pictures above this height that do not state their colour matrix are taken for HD.
_SD_HEIGHT = 576


def shown_frames(decoding: Decoding, clock: Clock, fps: float, most: int) -> "Iterator[tuple[VideoFrame, int]]":
    """The frames that are shown at 0, 1/fps, 2/fps … seconds from the first, with the number of these points for each.

    There are `most` points at most, and one at least if a frame decodes. The last frame is shown for its duration.
    Raises `PassedOverError` if one of them was passed over.
    """
    point = 0
    shown: Any = None
    start = end = 0.0
    before = False
    for frame, stamp, duration in decoding:
        time = clock.seconds(stamp, duration)
        if before:
            if time < start:
                # Out of order: the one that is shown stays.
                continue
            count = min(_points_before(time, fps), most) - point
            if count > 0:
                yield _decoded(shown), count
                point += count
                if point == most:
                    return
        shown, start, end, before = frame, time, time + duration, True
    if not before:
        return
    if decoding.end is not None:
        # If only keyframes are decoded, the last one stands for the frames after it.
        last = decoding.end - clock.shift
        end = last if end < last <= end + MOST_GAP_SECONDS else end
    count = min(max(_points_before(end, fps), 1), most) - point
    if count > 0:
        yield _decoded(shown), count


def looked_at(clock: Clock, fps: float) -> Needed:
    """Whether a frame that is shown from one time stamp to another will be one of `shown_frames`.

    Not for certain, as time stamps may jump: where one is passed over that should not, `shown_frames` raises.
    """

    def needed(begin: float, end: float) -> bool:
        return _points_before(end - clock.shift, fps) > _points_before(begin - clock.shift, fps)

    return needed


def _decoded(frame: Any) -> Any:
    if frame is None:
        raise PassedOverError
    return frame


def _points_before(time: float, fps: float) -> int:
    """The number of grid points that come before `time`."""
    return max(0, int(np.ceil((time - ROUNDING_SECONDS) * fps)))


def picture_identity(
    side: int, resize: int, scaling: Scaling, frames: Literal["all", "key"] = "all", squashed: bool = False
) -> dict[str, Any]:
    """The part of an identity that says how pictures are made; `extract_video` works by it."""
    return {
        "of": "picture",
        "frames": frames,
        "pick": "shown at k/fps from the first",
        "resize": resize,
        "scaling": f"swscale {scaling} accurate_rnd bitexact",
        "crop": f"centre {side}",
        "colours": "RGB",
        **({"shape": "squashed"} if squashed else {}),
    }


class Pictures:
    """Makes square pictures [side, side, 3] of frames: uint8, RGB, upright.

    side      width and height
    resize    the short side before the centre is cropped
    filter    FFmpeg's scaling filter, such as `BICUBIC`
    aspect    width of a pixel by its height
    squashed  scale both sides to `resize`, whatever the picture's shape
    """

    def __init__(
        self,
        side: int,
        resize: int,
        filter: str,  # noqa: A002 - FFmpeg's word
        aspect: float = 1.0,
        squashed: bool = False,
    ):
        av = pyav()
        from av.video.reformatter import Interpolation, VideoReformatter

        self._side, self._resize, self._aspect, self._squashed = side, resize, aspect, squashed
        # Exact arithmetic: the fast one rounds differently on other processors.
        self._filter = Interpolation[filter] | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
        self._reformatter = VideoReformatter()
        self._spaces = av.video.reformatter.Colorspace

    def __call__(self, frame: "VideoFrame") -> np.ndarray:
        """The picture of a frame, turned as its file says."""
        wide, high = (1.0, 1.0) if self._squashed else (frame.width * self._aspect, float(frame.height))
        scale = self._resize / min(wide, high)
        width, height = (min(max(round(n * scale), self._side), _MOST_LONG * self._resize) for n in (wide, high))
        scaled = self._reformatter.reformat(
            frame, width, height, "rgb24", self._colours(frame), interpolation=self._filter, threads=1
        )
        image = scaled.to_ndarray()
        top, left = (height - self._side) // 2, (width - self._side) // 2
        image = image[top : top + self._side, left : left + self._side]
        # FFmpeg's angle is counterclockwise, as NumPy's is.
        turns = round(frame.rotation / 90) % 4 if frame.rotation % 90 == 0 else 0
        return np.ascontiguousarray(np.rot90(image, turns))

    def _colours(self, frame: "VideoFrame") -> int | None:
        """FFmpeg's matrix of a YUV frame; the picture's height decides where the file does not say."""
        spaces = {1: self._spaces.ITU709, 4: self._spaces.FCC, 5: self._spaces.ITU601, 6: self._spaces.ITU601}
        spaces |= {7: self._spaces.SMPTE240M, 9: self._spaces.BT2020, 10: self._spaces.BT2020}
        if frame.format.is_rgb or frame.format.name.startswith("gray"):
            return None
        guess = self._spaces.ITU601 if min(frame.width, frame.height) <= _SD_HEIGHT else self._spaces.ITU709
        return spaces.get(frame.colorspace, guess)
