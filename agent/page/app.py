"""The routes of the page. Handlers that read or write files or the ledger run in threads."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from agent.errors import UserError
from agent.fs.folders import list_names
from agent.languages import translate
from agent.ledger.reader import LedgerError, Reader, Unreadable, open_reader
from agent.page import actions, facts, plain
from agent.page.feed import Feed
from agent.page.files import read_record, serve_avatar, serve_file
from agent.page.guard import Guard
from agent.page.login import COOKIE, COOKIE_S, Logins
from agent.page.uploads import Uploads

if TYPE_CHECKING:
    from agent.settings import Settings

log = logging.getLogger("musedrop.page")

STATIC = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "setup.js": "text/javascript",
    "texts.json": "application/json",
    "options.json": "application/json",
    "icon.svg": "image/svg+xml",
}


class Page:
    """The handlers, and what they share."""

    def __init__(
        self,
        settings: Settings,
        describe_absence: Callable[[], str],
        logins: Logins | None = None,
        source: Path = Path("musedrop.toml"),
    ) -> None:
        """`source`: the settings file that commands name."""
        self.settings, self.logins, self.source = settings, logins, source
        self.feed = Feed(settings, describe_absence)
        self.uploads = Uploads(settings)
        self._static = {name: (files("agent.page") / "static" / name).read_bytes() for name in (*STATIC, "page.html")}

    def build_app(self) -> Starlette:
        routes = [
            Route("/", self.show),
            Route("/plain", self.show_plain),
            Route("/login", self.log_in),
            Route("/static/{name}", self.send_static),
            Route("/live", self.stream),
            Route("/setup", self.show_setup),
            Route("/setup/{name}", self.send_example),
            Route("/jobs", self.list_jobs),
            Route("/jobs", self.submit, methods=["POST"]),
            Route("/jobs/{uid}", self.show_job),
            Route("/jobs/{uid}/{verb}", self.control_job, methods=["POST"]),
            Route("/files/{uid}/{name}", self.send_file),
            Route("/avatars", self.add_avatar, methods=["POST"]),
            Route("/avatars/{name}", self.send_avatar),
            Route("/avatars/{name}/forget", self.forget_avatar, methods=["POST"]),
            Route("/drafts", self.submit_draft, methods=["POST"]),
            Route("/uploads", self.upload, methods=["POST"]),
            Route("/queue/{verb}", self.control_queue, methods=["POST"]),
            Route("/devices/{device:path}/{verb}", self.control_device, methods=["POST"]),
        ]
        guard = Middleware(Guard, hosts=self.settings.page.hosts, logins=self.logins)
        handlers: dict[Any, Any] = {
            HTTPException: lambda _, error: _say(error.status_code, error.detail),
            LedgerError: lambda _, error: _say(503, str(error)),
            UserError: lambda _, error: _say(422, str(error)),
            FileNotFoundError: lambda *_: _say(422, "there is no inbox: is the share mounted?"),
            OSError: lambda _, error: _say(507, f"the inbox takes no file: {error.strerror}"),
        }
        return Starlette(routes=routes, middleware=[guard], exception_handlers=handlers, lifespan=self._live)

    @asynccontextmanager
    async def _live(self, _app: Starlette) -> AsyncIterator[None]:
        yield
        self.feed.close()
        self.uploads.drop_all()

    # reading ---------------------------------------------------------------------------------------------------------

    async def show(self, _request: Request) -> Response:
        return HTMLResponse(self._static["page.html"])

    async def show_plain(self, request: Request) -> Response:
        sections = await self.feed.read_now()
        return HTMLResponse(plain.render(sections, plain.choose_language(request.headers.get("accept-language", ""))))

    async def send_static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in STATIC:
            raise HTTPException(404, "there is no such file")
        return Response(self._static[name], media_type=STATIC[name], headers={"cache-control": "no-cache"})

    async def show_setup(self, _request: Request) -> Response:
        """The steps of a set-up, which this process reads and can't change."""
        from agent.page import first_run  # it imports what only a first run needs

        return JSONResponse(await run_in_threadpool(first_run.list_steps, self.settings, self.source))

    async def send_example(self, request: Request) -> Response:
        from agent.page import first_run

        name = request.path_params["name"]
        data = await run_in_threadpool(first_run.read_example, name)
        if data is None:
            raise HTTPException(404, "there is no such file")
        return Response(data, media_type=first_run.EXAMPLE[name])

    async def stream(self, _request: Request) -> Response:
        async def events() -> AsyncIterator[str]:
            yield "retry: 1000\n\n"
            async for name, text in self.feed.follow():
                yield f"event: {name}\ndata: {text}\n\n" if name else ":\n\n"

        return StreamingResponse(events(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    async def list_jobs(self, request: Request) -> Response:
        return JSONResponse(await self._query(lambda db: facts.list_jobs(db, request.query_params)))

    async def show_job(self, request: Request) -> Response:
        return JSONResponse(await self._query(lambda db: self._describe_job(db, request.path_params["uid"])))

    def _describe_job(self, db: Reader, uid: str) -> dict[str, Any]:
        row = _require_job(db, uid)
        try:
            record = json.loads(read_record(db, row, self.settings.folders, facts.MAX_RECORD_BYTES))
        except (OSError, ValueError, RecursionError, HTTPException):
            record = None
        events = list(db.query("SELECT * FROM job_events WHERE uid = ? ORDER BY at", [uid]))
        return {"row": row, "events": events, "record": record}

    async def send_file(self, request: Request) -> Response:
        words = request.path_params
        folders, download = self.settings.folders, "download" in request.query_params
        answer: Response = await self._query(
            lambda db: serve_file(db, _require_job(db, words["uid"]), folders, words["name"], download=download)
        )
        return answer

    async def send_avatar(self, request: Request) -> Response:
        def find() -> Response:
            folders = self.settings.folders
            try:
                return serve_avatar(folders, list_names(folders.avatars), request.path_params["name"])
            except OSError:
                raise HTTPException(404, "there is no library") from None

        return await run_in_threadpool(find)

    # writing ---------------------------------------------------------------------------------------------------------

    async def upload(self, request: Request) -> Response:
        given = request.query_params.get("name", "")
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.settings.limits.media_mib << 20:
            raise HTTPException(413, f"a file may have {self.settings.limits.media_mib} MiB")
        word = await self.uploads.receive(given, aiter(request.stream()))
        return JSONResponse({"upload": word})

    async def submit(self, request: Request) -> Response:
        asked = await self._read_json(request)
        made = await run_in_threadpool(actions.submit_jobs, self.settings, self.uploads, asked)
        return JSONResponse(made, 201)

    async def submit_draft(self, request: Request) -> Response:
        asked = await self._read_json(request)
        return JSONResponse(await run_in_threadpool(actions.submit_draft, self.settings, self.uploads, asked), 201)

    async def control_job(self, request: Request) -> Response:
        words = request.path_params
        text = (await self._read_body(request)).decode("utf-8", "replace")
        await self._query(lambda db: actions.control_job(self.settings, db, words["uid"], words["verb"], text))
        return Response(status_code=204)

    async def add_avatar(self, request: Request) -> Response:
        asked = await self._read_json(request)
        await run_in_threadpool(actions.add_avatar, self.settings, self.uploads, asked)
        return Response(status_code=204)

    async def forget_avatar(self, request: Request) -> Response:
        name = request.path_params["name"]
        await self._query(lambda db: actions.forget_avatar(self.settings, db, name))
        return Response(status_code=204)

    async def control_device(self, request: Request) -> Response:
        words = request.path_params
        await self._query(lambda db: actions.control_device(self.settings, db, words["device"], words["verb"]))
        return Response(status_code=204)

    async def control_queue(self, request: Request) -> Response:
        await run_in_threadpool(actions.control_queue, self.settings, request.path_params["verb"])
        return Response(status_code=204)

    async def _read_json(self, request: Request) -> Any:
        data = await self._read_body(request)
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise HTTPException(400, "that is not JSON") from None

    async def _read_body(self, request: Request) -> bytes:
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > self.settings.inbox.max_job_bytes:
                raise HTTPException(413, "that is too long for jobs")
        return bytes(data)

    # who may ---------------------------------------------------------------------------------------------------------

    async def log_in(self, request: Request) -> Response:
        if self.logins is None:
            return RedirectResponse("/", 303)
        cookie = self.logins.redeem(request.query_params.get("ticket", ""))
        if cookie is None:
            raise HTTPException(401, "this link is too old or was used before: `musedrop page --link` makes another")
        log.info("%s has logged in", request.client.host if request.client else "somebody")
        response = HTMLResponse(plain.FORWARD)
        secure = request.url.scheme == "https"
        response.set_cookie(
            COOKIE, cookie, max_age=int(COOKIE_S), httponly=True, samesite="strict", secure=secure, path="/"
        )
        return response

    async def _query(self, read: Callable[[Reader], Any]) -> Any:
        """Call `read` with a reader of its own, in a thread."""

        def run() -> Any:
            try:
                db = open_reader(self.settings.folders.ledger)
                try:
                    return read(db)
                finally:
                    db.close()
            except Unreadable as error:
                raise HTTPException(503, f"the ledger can't be read now: {error}") from None

        return await run_in_threadpool(run)


def _require_job(db: Reader, uid: str) -> dict[str, Any]:
    row = facts.find_job(db, uid)
    if row is None:
        raise HTTPException(404, "there is no such job")
    return row


def _say(status: int, text: str) -> Response:
    return JSONResponse({"error": text, "error_zh": translate(text)}, status)
