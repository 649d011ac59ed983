"""Open a file of video or sound, and choose its streams. FFmpeg's demuxers that follow links are shut out."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from topgb.errors import InputError, TopgbError, install_extra
from topgb.files import refuse_special

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

# Demuxers that read one file and nothing else: playlists (HLS, DASH, concat) would open what a stranger's file names.
_FORMATS = (
    "3g2 3gp aac ac3 aiff alaw amr apng asf au av1 avi bmp_pipe caf dv eac3 f4v flac flv gif gxf h264 hevc ivf "
    "jpeg_pipe jpegls_pipe jpegxl_pipe m4a m4v matroska mj2 mjpeg mov mp3 mp4 mpeg mpegts mpegvideo mulaw mxf nsv "
    "nut obu ogg png_pipe ppm_pipe pgm_pipe qoi_pipe rm roq smjpeg swf tga_pipe tiff_pipe tta vc1 voc vvc w64 wav "
    "webm webp webp_pipe wtv wv y4m yuv4mpegpipe"
)
# For these files FFmpeg is given no name: it would take the name of a picture for a pattern of names.
PICTURE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_SUFFIXES = (
    ".3g2 .3gp .aac .aif .aiff .asf .avi .divx .dv .f4v .flac .flv .gif .m2ts .m4a .m4v .mka .mkv .mov .mp3 .mp4 "
    ".mpeg .mpg .mts .mxf .oga .ogg .ogv .opus .ts .vob .wav .webm .wma .wmv .y4m"
)
SUFFIXES = tuple(_SUFFIXES.split())
# 16 times the pixels of a picture in 4K.
_MOST_PIXELS = 1 << 27


class UnreadableVideoError(InputError):
    """The file `path` has no picture and no sound that can be read; `reason` says why, in words."""

    def __init__(self, path: str, reason: str):
        check = "that a player plays it" if os.access(path, os.R_OK) else "the path and its permissions"
        super().__init__(f"cannot read {path} as video or sound: {reason}; check {check}")
        self.path, self.reason = path, reason

    def __reduce__(self):
        return type(self), (self.path, self.reason)


def pyav() -> Any:
    """PyAV's module. Raises `TopgbError` where it is not installed."""
    try:
        import av
        import av.error
    except ImportError:
        raise TopgbError(f"reading videos needs PyAV, which is not installed here; {install_extra('video')}") from None
    return av


def ffmpeg_version() -> str:
    """The version of FFmpeg in PyAV. Raises as `pyav`."""
    return str(pyav().ffmpeg_version_info)


@contextmanager
def open_media(path: str) -> "Iterator[InputContainer]":
    """A block with a file open for demuxing.

    Raises `UnreadableVideoError` for anything that FFmpeg cannot read, `InputError` for FIFOs, sockets and devices,
    `TopgbError` without PyAV.
    """
    av = pyav()
    refuse_special(path)
    if os.path.isdir(path):
        raise UnreadableVideoError(path, "it is a folder")
    options = {"max_pixels": str(_MOST_PIXELS), "threads": "1"}
    formats = {"format_whitelist": ",".join(_FORMATS.split()), "protocol_whitelist": "file"}
    with ExitStack() as stack:
        try:
            file: Any = os.path.abspath(path)
            if path.lower().endswith(PICTURE_SUFFIXES):
                file = _Nameless(stack.enter_context(open(path, "rb")))
            container = av.open(file, options=options, container_options=formats, metadata_errors="replace")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise UnreadableVideoError(path, reason_of(error)) from None
        with container:
            yield container


def media_seconds(path: str) -> float:
    """The length of a video or sound as its file says it; 0 if it does not. Raises as `open_media`."""
    av = pyav()
    with open_media(path) as container:
        return max(0.0, float(container.duration or 0) / av.time_base)


def reason_of(error: BaseException) -> str:
    """The words of an error of FFmpeg or of the system, without the path."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if "Invalid data" in text or "Invalid argument" in text:
        return "it is damaged, or of a kind that is not supported"
    return " ".join(text.split())[:120]


def picture_stream(container: "InputContainer") -> "VideoStream | None":
    """The stream of pictures: a default one before others. Cover art and thumbnails are none."""
    av = pyav()
    none = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    usable = [s for s in container.streams.video if s.codec_context is not None and not s.disposition & none]
    return _default_first(usable)


def sound_stream(container: "InputContainer") -> "AudioStream | None":
    """The stream of sound: a default one before others."""
    return _default_first([s for s in container.streams.audio if s.codec_context is not None])


def _default_first(streams: list[Any]) -> Any:
    default = pyav().stream.Disposition.default
    return min(streams, key=lambda stream: (not stream.disposition & default, stream.index), default=None)


class _Nameless:
    """A file without a name, so that its content alone decides what it is."""

    def __init__(self, file: BinaryIO):
        self._file = file

    def read(self, size: int) -> bytes:
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()
