"""The HTTP API over a `Service`."""

import asyncio
import json
import traceback
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from topgb import terminal
from topgb.errors import InputError, TopgbError, printable
from topgb.serving import schemas
from topgb.serving.bodies import JSON, MOST_JSON, NPY, Choice, from_json, from_npy, from_texts
from topgb.serving.bounds import Bounds
from topgb.serving.examples import Examples
from topgb.serving.file_tagger import FileTagger
from topgb.serving.gate import Gate
from topgb.serving.heads import Heads
from topgb.serving.measures import RequestCounter
from topgb.serving.page_files import page_files
from topgb.serving.problems import ProblemError, problem_response
from topgb.serving.service import Answered, Service
from topgb.serving.uploads import received
from topgb.serving.wording import Worded
from topgb.version import __version__

# Nginx's status for a client that has hung up; only the figures show it.
_GONE = 499


def create_app(service: Service) -> FastAPI:
    """The application; it closes the service when it is shut down."""

    tagger = FileTagger(service)

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(tagger.close)
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="topgb",
        version=__version__,
        description="Tags of videos and of features of videos.",
        docs_url=None,
        redoc_url=None,
        # A redirection would name the scheme that this server speaks, which is not that of a proxy before it.
        redirect_slashes=False,
        lifespan=running,
    )
    settings = service.settings
    # The last one is the outermost.
    app.add_middleware(Bounds, settings=settings, measures=service.measures)
    app.add_middleware(Gate, token=settings.token, hosts=settings.hosts)
    app.add_middleware(RequestCounter, measures=service.measures)
    app.add_middleware(Worded)
    app.add_middleware(Heads)
    _refuse_in_problems(app)
    _add_pages(app)
    _add_calls(app, service)
    _add_files(app, service, tagger)
    return app


def _add_calls(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", summary="Whether the server is there", response_model=schemas.Health)
    async def healthz() -> Any:
        return {"status": "ok"}

    @app.get("/v1/models", summary="The models", response_model=schemas.Models)
    async def models() -> Any:
        return {"models": [model.about() for model in service.models.values()]}

    @app.get("/v1/thresholds", summary="The thresholds of a model", response_model=schemas.Thresholds)
    async def thresholds(request: Request) -> Any:
        model = service.model(from_texts(Choice, request.query_params))
        own = model.header.thresholds
        return {"model": model.name, "thresholds": None if own is None else own.tolist()}

    @app.get("/metrics", summary="Figures for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(service.measures.page(), media_type=service.measures.CONTENT_TYPE)

    @app.post(
        "/v1/predict",
        summary="Classes of features",
        response_model=schemas.Predictions,
        responses=schemas.PROBLEMS,
        openapi_extra=schemas.PREDICT,
    )
    async def predict(request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in (JSON, NPY):
            raise ProblemError(415, f"the body's content type is {kind[:60]!r}; send {JSON} or {NPY} with a .npy file")
        body = await request.body()
        if kind == NPY:
            asked = from_npy(body, request.query_params)
        elif len(body) > MOST_JSON:
            raise ProblemError(413, f"a body of JSON may have {MOST_JSON:,} bytes; send a .npy file as {NPY} instead")
        else:
            asked = await service.in_thread(lambda: from_json(body))
        return answer_json(await service.predict(asked, waiting(request)))


def _add_files(app: FastAPI, service: Service, tagger: FileTagger) -> None:
    examples = Examples(service)

    @app.post(
        "/v1/tag",
        summary="Tags of a video, a sound or a file of features",
        response_model=schemas.Tagged,
        responses=schemas.PROBLEMS,
        openapi_extra=schemas.TAG,
    )
    async def tag(request: Request) -> Response:
        async with received(request, service) as upload:
            try:
                return answer_json(await tagger.tag(upload.path, upload.name, upload.choice, waiting(request)))
            except TopgbError as error:
                raise upload.renamed(error) from None

    @app.get("/v1/examples", summary="Files to try", response_model=schemas.Examples)
    async def listed() -> Any:
        return {"examples": examples.listed()}

    @app.get("/v1/examples/{name}", summary="One of the files to try", response_class=Response)
    async def example(name: str) -> Response:
        return Response(await service.in_thread(lambda: examples.read(name)), media_type=NPY)


def waiting(request: Request) -> Callable[["Future[Any]"], Any]:
    """A function that waits for a future, but not longer than the client, whose body has been read, stays connected."""

    async def wait(future: "Future[Any]") -> Any:
        answer = asyncio.wrap_future(future)
        gone = asyncio.ensure_future(request.receive())
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                # Cancel at once: asyncio would do so in a later turn of its loop.
                future.cancel()
                raise ClientDisconnect
            return answer.result()
        finally:
            gone.cancel()
            answer.cancel()

    return wait


def answer_json(answered: Answered) -> Response:
    """An answer with its times in milliseconds in a header that browsers show (`Server-Timing`)."""
    timing = ", ".join(f"{name};dur={1000 * seconds:.2f}" for name, seconds in answered.timing.items())
    return Response(json.dumps(answered.value), media_type=JSON, headers={"server-timing": timing})


def _add_pages(app: FastAPI) -> None:
    for path, (content, kind) in page_files().items():
        app.add_api_route(path, _page(content, kind), include_in_schema=False, response_class=Response)


def _page(content: bytes, kind: str) -> Callable[[], Any]:
    async def page() -> Response:
        return Response(content, media_type=kind)

    return page


def _refuse_in_problems(app: FastAPI) -> None:
    """Answer every error with a problem (RFC 9457)."""

    async def on_problem(request: Request, error: Any) -> Response:
        return problem_response(error.status, error.detail, error.headers)

    async def on_wrong_input(request: Request, error: Any) -> Response:
        return problem_response(422, str(error))

    async def on_failure(request: Request, error: Any) -> Response:
        return problem_response(503, str(error), {"retry-after": "1"})

    async def on_http(request: Request, error: Any) -> Response:
        said = {404: "there is nothing at this path; see /docs", 405: "this path does not know the method; see /docs"}
        detail = said.get(error.status_code, printable(str(error.detail)))
        # A 405 must say which methods there are (RFC 9110).
        return problem_response(error.status_code, detail, error.headers)

    async def on_gone(request: Request, error: Any) -> Response:
        return Response(status_code=_GONE)

    async def on_defect(request: Request, error: Any) -> Response:
        terminal.tell(*"".join(traceback.format_exception(error)).splitlines())
        return problem_response(500, "the server failed; what went wrong is in its log")

    app.add_exception_handler(ProblemError, on_problem)
    app.add_exception_handler(InputError, on_wrong_input)
    app.add_exception_handler(RequestValidationError, on_wrong_input)
    app.add_exception_handler(TopgbError, on_failure)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(ClientDisconnect, on_gone)
    app.add_exception_handler(Exception, on_defect)
