"""Figures of the server, for Prometheus."""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_VIDEOS = (1, 2, 4, 8, 16, 32, 64, 128)
_CALLS = ("/v1/predict", "/v1/tag", "/v1/models", "/v1/thresholds", "/v1/examples")
PATHS = (*_CALLS, "/metrics", "/healthz", "/docs", "/openapi.json", "/")


class Measures:
    """Counters of one server."""

    CONTENT_TYPE = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self.requests = Counter(
            "topgb_requests", "Requests by path and status.", ("path", "status"), registry=self._registry
        )
        self.seconds = Histogram(
            "topgb_request_seconds", "Seconds of a request.", ("path",), buckets=_SECONDS, registry=self._registry
        )
        self._videos = Histogram(
            "topgb_batch_videos", "Videos of a model's call.", ("model",), buckets=_VIDEOS, registry=self._registry
        )
        self._calls = Histogram(
            "topgb_model_seconds", "Seconds of a model's call.", ("model",), buckets=_SECONDS, registry=self._registry
        )

    def watch_queue(self, waiting: Callable[[], int]) -> None:
        """Show how many videos wait."""
        Gauge("topgb_waiting_videos", "Videos that wait.", registry=self._registry).set_function(waiting)

    def watch_bytes(self, held: Callable[[], int], stored: Callable[[], int]) -> None:
        """Show how many bytes of bodies are in memory, and of files on the disk."""
        taken = Gauge("topgb_body_bytes", "Bytes of bodies that have come.", ("where",), registry=self._registry)
        taken.labels("memory").set_function(held)
        taken.labels("disk").set_function(stored)

    def observe_call(self, model: str, videos: int, seconds: float) -> None:
        """Count a call of a model."""
        self._videos.labels(model).observe(videos)
        self._calls.labels(model).observe(seconds)

    def page(self) -> bytes:
        """All figures in Prometheus's text format."""
        return generate_latest(self._registry)


class RequestCounter:
    """An ASGI middleware that counts and times requests; paths that the server does not have count as `other`."""

    def __init__(self, app: ASGIApp, measures: Measures):
        self._app, self._measures = app, measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in PATHS else "other"
        began, status = time.perf_counter(), "none"

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_counted)
        finally:
            self._measures.requests.labels(path, status).inc()
            self._measures.seconds.labels(path).observe(time.perf_counter() - began)
