"""The pages and the interface of the server."""

import asyncio
import importlib.resources
import ipaddress
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fgr_jax.data.images import Image, ImageError
from fgr_jax.serve import uploads
from fgr_jax.serve.answers import Options, RequestError, Writer
from fgr_jax.serve.batching import Batcher
from fgr_jax.serve.classifier import Answer, Classifier
from fgr_jax.serve.neighbors import Neighbors

_AT_ONCE = 16  # requests that are read, decoded and answered; others wait, without memory
_UPLOAD_S = 60.0  # in which an image must have arrived
_TYPES = ("image/", "application/octet-stream")
_FILES = {
    "": ("index.html", "text/html"),
    "page.js": ("page.js", "text/javascript"),
    "engine.js": ("engine.js", "text/javascript"),
    "style.css": ("style.css", "text/css"),
    "openapi.json": ("openapi.json", "application/json"),
}
# The page may load from this server and from nowhere else.
_HEADERS = {
    b"content-security-policy": b"default-src 'self'; img-src 'self' data: blob:; base-uri 'none'; "
    b"form-action 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
}


def build_app(
    classifier: Classifier, writer: Writer, *, top: int, nearest: int, max_bytes: int, host: str
) -> Starlette:
    """Builds the server.

    Args:
      classifier: classifies the images.
      writer: writes the answers.
      top: the largest number of classes in an answer, and that of the page.
      nearest: likewise, of training images for each class; 0: none.
      max_bytes: of an upload.
      host: the address that the server listens at. On loopback addresses, requests must name one as
        their host, so that no page on another site can reach the server by a name of its own.
    """
    server = _Server(classifier, writer, top, nearest, max_bytes)
    routes = [Route(f"/{path}", server.file, name=path) for path in _FILES]
    routes += [
        Route("/predict", server.predict, methods=["POST"]),
        Route("/model", server.model),
        Route("/training/{index}", server.training_image),
    ]
    middleware = [Middleware(_WithHeaders)]
    if is_loopback(host):
        middleware.append(
            Middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", host])
        )
    handlers: dict[Any, Any] = {
        HTTPException: lambda _, error: _problem(error.status_code, error.detail),
        RequestError: lambda _, error: _problem(error.status, str(error)),
    }
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)


def is_loopback(host: str) -> bool:
    """Returns whether only this machine can reach a server at `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Server:
    def __init__(
        self, classifier: Classifier, writer: Writer, top: int, nearest: int, max_bytes: int
    ):
        self._writer, self._top, self._nearest = writer, top, nearest
        self._max_bytes = max_bytes
        self._batcher: Batcher[Image, Answer] = Batcher(classifier, classifier.largest)
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._threads = ThreadPoolExecutor(_AT_ONCE, "requests")
        # Of all threads, those that may use a core, and the memory of a decoded image.
        self._busy = threading.Semaphore(writer.run.config.runtime.decode_threads)
        folder = importlib.resources.files("fgr_jax.serve") / "page"
        self._files = {path: (folder / name).read_bytes() for path, (name, _) in _FILES.items()}

    async def file(self, request: Request) -> Response:
        path = request.url.path.removeprefix("/")
        return Response(self._files[path], media_type=_FILES[path][1])

    async def model(self, _: Request) -> Response:
        run, trained = self._writer.run, self._writer.trained
        return JSONResponse(
            {
                "workdir": run.workdir.name,
                "step": trained.step,
                "classes": run.class_names,
                "top": self._top,
                "nearest": self._nearest,
                "max_bytes": self._max_bytes,
            }
        )

    async def predict(self, request: Request) -> Response:
        options = Options.read(request.query_params.multi_items(), self._top, self._nearest)
        _check_sender(request)
        async with self._slots:
            try:
                async with asyncio.timeout(_UPLOAD_S):
                    encoded = await self._body(request)
            except TimeoutError:
                raise RequestError(408, f"the image did not arrive in {_UPLOAD_S:g} s") from None
            except ClientDisconnect:
                return Response(status_code=400)  # to nobody
            return await self._in_thread(self._classify, encoded, options)

    async def training_image(self, request: Request) -> Response:
        neighbors, index = self._writer.neighbors, request.path_params["index"]
        is_number = index.isascii() and index.isdigit() and len(index) < 10
        if neighbors is None or not is_number or int(index) >= len(neighbors):
            raise RequestError(404, "there is no such training image")
        try:
            jpeg = await self._in_thread(self._jpeg, neighbors, int(index))
        except ImageError as error:
            raise RequestError(404, f"the training image {error}") from error
        return Response(jpeg, media_type="image/jpeg")

    def _classify(self, encoded: bytes, options: Options) -> Response:
        data, network = self._writer.run.config.data, self._writer.trained.network
        try:
            with self._busy:
                upload = uploads.read(encoded, data, network.padding, to_show=options.heatmaps)
        except ImageError as error:
            raise RequestError(422, f"the image {error}") from error
        answer = self._batcher.submit(upload.crop)
        with self._busy:
            return JSONResponse(self._writer.write(upload, answer, options))

    def _jpeg(self, neighbors: Neighbors, index: int) -> bytes:
        with self._busy:
            return neighbors.jpeg(index)

    async def _body(self, request: Request) -> bytes:
        """Reads the body of a request."""
        too_large = RequestError(413, f"an image may have up to {self._max_bytes:,} bytes")
        length = request.headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length) > self._max_bytes:
            raise too_large
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._max_bytes:
                raise too_large
        if not body:
            raise RequestError(400, "the body is empty: send the bytes of an image")
        return bytes(body)

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def _check_sender(request: Request) -> None:
    """Refuses requests that another site's page makes a browser send."""
    kind = request.headers.get("content-type", "").lower()
    if not kind.startswith(_TYPES):
        raise RequestError(
            415, f"content type {kind!r}: send the bytes of an image as image/… or {_TYPES[1]}"
        )
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise RequestError(403, f"requests from pages of {origin} are not answered")


def _problem(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status_code=status)


class _WithHeaders:
    """Adds `_HEADERS` to every response."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS.items()]
            await send(message)

        await self._app(scope, receive, send_with_headers)
