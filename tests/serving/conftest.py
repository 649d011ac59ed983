"""What tests of uploads share."""

import tempfile

import pytest


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder for temporary files, in which nothing may stay."""
    folder = tmp_path_factory.mktemp("secret-uploads")
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    yield folder
    tempfile.tempdir = before
