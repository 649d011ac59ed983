"""What only YouTube-8M and its challenges have: the download, the fake test videos, the submission CSV."""
