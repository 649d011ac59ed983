"""YouTube-8M and its challenges: the download, the fake test videos, the submission CSV."""
