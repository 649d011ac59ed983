"""Apply one function to many pieces of work."""

from collections import deque
from collections.abc import Sequence

from topgb.jobs.engine import LOCAL, Engine, Piece, Result, Take, Work
from topgb.progress import SILENT, Progress


def dispatch(
    work: Work[Result],
    pieces: Sequence[Piece],
    take: Take[Result],
    engine: Engine = LOCAL,
    progress: Progress = SILENT,
    shared: Sequence[str] = (),
) -> None:
    """Call `work(number, progress)` for each of `pieces`, and in this process `take(number, result)` after each.

    With the local engine `work` reports to `progress` itself. On a cluster `work` must be picklable, and objects that
    are expensive to open should travel as `opened_there`. Each worker unpickles `work` once and gives it a silent
    `progress`; the real one advances by a piece's size when the piece is finished. `shared` are local files that every
    node must see under the same paths.

    If a worker dies or fails in an unforeseen way, another worker takes its piece; after three failures a `TopgbError`
    names the piece. A `TopgbError` of `work` itself is raised here as it is. However the call ends, it ends every
    worker. Raises `InputError` if Ray is absent or a node does not see `shared`, `TopgbError` if there is no such
    cluster.
    """
    if engine.kind == "ray":
        # Ray is an extra, and takes half a second to import.
        from topgb.jobs.pool import dispatch_on_cluster

        dispatch_on_cluster(work, pieces, take, engine, progress, shared)
        return
    for piece in pieces:
        take(piece.number, work(piece.number, progress))


def in_order(pieces: Sequence[Piece], take: Take[Result]) -> Take[Result]:
    """A `take` for `dispatch` that passes results on in the order of `pieces`, in whatever order they arrive."""
    early: dict[int, Result] = {}
    left = deque(piece.number for piece in pieces)

    def hand_on(number: int, result: Result) -> None:
        early[number] = result
        while left and left[0] in early:
            following = left.popleft()
            take(following, early.pop(following))

    return hand_on
