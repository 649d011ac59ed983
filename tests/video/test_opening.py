"""Files that cannot be opened: the reason, and what to do about it."""

import pytest

from topgb.video.opening import UnreadableVideoError, open_media


@pytest.mark.parametrize("name", ["a.mp4", "a.wav", "a.png"])
def test_a_file_that_is_not_there_is_not_said_to_be_damaged(tmp_path, name):
    path = tmp_path / name
    with (
        pytest.raises(UnreadableVideoError, match=r"No such file or directory; check the path and its permissions$"),
        open_media(str(path)),
    ):
        pass
    path.write_bytes(b"garbage")
    with (
        pytest.raises(UnreadableVideoError, match=r"damaged.*; check that a player plays it$"),
        open_media(str(path)),
    ):
        pass
