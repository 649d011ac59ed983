"""The files of the page and of the documentation, which load nothing from elsewhere."""

from importlib.resources import files

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_PATHS = {"index.html": "/", "docs.html": "/docs"}


def page_files() -> dict[str, tuple[bytes, str]]:
    """The content and the media type of each file by the path under which it is served."""
    found = {}
    for file in sorted(files("topgb.serving").joinpath("page").iterdir(), key=lambda file: file.name):
        kind = _TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:
            found[_PATHS.get(file.name, f"/page/{file.name}")] = file.read_bytes(), kind
    return found
