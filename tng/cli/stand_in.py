"""A stand-in for a model server, so that the gateway can be tried without a model.

In: requests of the OpenAI API as vLLM serves it: `/v1/models`, `/v1/completions`,
`/v1/chat/completions` (whole or streamed), `/health`.  Out: fixed sentences that say where they
come from.  `/stand-in/stats` counts requests and clients that went away before the end.
Source: OpenAI API reference (completions, chat completions, streaming by server-sent events).
Invariant: every answer names itself `tng-stand-in-backend`; no one can take it for a model.

    python -m tng.cli.stand_in --port 8080
"""

from __future__ import annotations

import abc
import argparse
import asyncio
import contextlib
import dataclasses
import json
import signal
import sys
from typing import TYPE_CHECKING, Final, Literal

import pydantic
from aiohttp import web

from tng.clock import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

NAME: Final = "tng-stand-in-backend"
"""Name of the server and of its only model."""

MAX_BODY: Final = 8 * 1024 * 1024
"""Octets of a request body; long contexts fit, mistakes do not."""

MAX_TOKENS: Final = 4096
"""Words in one answer at most."""

_SHUTDOWN_TIMEOUT: Final = 1.0
"""Seconds that leaving waits for answers under way."""

_SENTENCE: Final = (
    f"This is the {NAME}: no model runs here, and these words are the same for every prompt."
    " They came through an attested tunnel if you asked through the gateway."
).split()


class _Request(pydantic.BaseModel, abc.ABC):
    """Fields that both kinds of request share; unknown ones are ignored, as vLLM does."""

    model: str = NAME
    max_tokens: int | None = pydantic.Field(default=None, ge=1)
    stream: bool = False

    @property
    def words(self) -> list[str]:
        """The answer, cut to `max_tokens` words."""
        wanted = min(self.max_tokens or len(_SENTENCE), MAX_TOKENS)
        rounds = -(-wanted // len(_SENTENCE))
        return (_SENTENCE * rounds)[:wanted]

    @property
    @abc.abstractmethod
    def prompt_words(self) -> int:
        """Words in the prompt."""


class CompletionRequest(_Request):
    """Body of `POST /v1/completions`."""

    prompt: str | list[str]

    @property
    def prompt_words(self) -> int:
        """Words in the prompt."""
        return len(self.prompt.split() if isinstance(self.prompt, str) else self.prompt)


class ChatMessage(pydantic.BaseModel):
    """One message of a conversation."""

    role: str
    content: str | list[dict[str, object]] | None = None


class ChatRequest(_Request):
    """Body of `POST /v1/chat/completions`."""

    messages: list[ChatMessage] = pydantic.Field(min_length=1)

    @property
    def prompt_words(self) -> int:
        """Words in all messages."""
        return sum(len(str(message.content or "").split()) for message in self.messages)


@dataclasses.dataclass(slots=True)
class Stats:
    """What happened so far.

    Attributes:
        requests: requests to anything under `/v1`.
        finished: of those, answered to the end.
        cancelled: of those, given up by the client before the end.
    """

    requests: int = 0
    finished: int = 0
    cancelled: int = 0


class StandIn:
    """The stand-in's handlers.

    Args:
        clock: for the `created` fields.
        pause_s: seconds between two words of a stream, and before an answer that is whole.
    """

    def __init__(self, clock: Clock, pause_s: float = 0.0) -> None:
        self._clock = clock
        self._pause_s = pause_s
        self.stats = Stats()

    def application(self) -> web.Application:
        """The aiohttp application; for one event loop."""
        app = web.Application(client_max_size=MAX_BODY)
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/v1/models", self._models),
                web.post("/v1/completions", self._completions),
                web.post("/v1/chat/completions", self._chat),
                web.get("/stand-in/stats", self._stats),
            ]
        )
        return app

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _stats(self, _: web.Request) -> web.Response:
        return _json(dataclasses.asdict(self.stats))

    async def _models(self, _: web.Request) -> web.Response:
        self.stats.requests += 1
        self.stats.finished += 1
        model = {"id": NAME, "object": "model", "created": self._created(), "owned_by": NAME}
        return _json({"object": "list", "data": [model]})

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, CompletionRequest, "text_completion")

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, ChatRequest, "chat.completion")

    async def _answer(
        self,
        request: web.Request,
        model: type[CompletionRequest | ChatRequest],
        kind: Literal["text_completion", "chat.completion"],
    ) -> web.StreamResponse:
        self.stats.requests += 1
        try:
            body = model.model_validate_json(await request.read())
        except pydantic.ValidationError as error:
            self.stats.finished += 1
            return _refusal(error)
        answer = _Answer(body, kind, f"{NAME}-{self.stats.requests}", self._created())
        try:
            if body.stream:
                response = await self._stream(request, answer)
            else:
                await asyncio.sleep(self._pause_s)
                response = _json(answer.whole())
        except (asyncio.CancelledError, ConnectionResetError):
            self.stats.cancelled += 1
            raise
        self.stats.finished += 1
        return response

    async def _stream(self, request: web.Request, answer: _Answer) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store",
                "Server": NAME,
            }
        )
        await response.prepare(request)
        for event in answer.events():
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
            await asyncio.sleep(self._pause_s)
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    def _created(self) -> int:
        return int(self._clock.now())


@dataclasses.dataclass(frozen=True, slots=True)
class _Answer:
    """One answer, whole or in events."""

    body: CompletionRequest | ChatRequest
    kind: Literal["text_completion", "chat.completion"]
    identifier: str
    created: int

    @property
    def _is_chat(self) -> bool:
        return self.kind == "chat.completion"

    def whole(self) -> dict[str, object]:
        """The answer as one object, with its usage."""
        text = " ".join(self.body.words)
        content: dict[str, object] = (
            {"message": {"role": "assistant", "content": text}}
            if self._is_chat
            else {"text": text, "logprobs": None}
        )
        return self._envelope(self.kind, [self._choice(content, "stop")], usage=True)

    def events(self) -> list[dict[str, object]]:
        """The answer as the objects of a stream: one per word, then the reason to stop."""
        kind = "chat.completion.chunk" if self._is_chat else self.kind
        made = []
        for position, word in enumerate(self.body.words):
            text = word if position == 0 else f" {word}"
            content: dict[str, object] = {"text": text, "logprobs": None}
            if self._is_chat:
                role = {"role": "assistant"} if position == 0 else {}
                content = {"delta": {**role, "content": text}}
            made.append(self._envelope(kind, [self._choice(content, None)]))
        last: dict[str, object] = {"delta": {}} if self._is_chat else {"text": ""}
        made.append(self._envelope(kind, [self._choice(last, "stop")], usage=True))
        return made

    def _choice(self, content: dict[str, object], reason: str | None) -> dict[str, object]:
        return {"index": 0, **content, "finish_reason": reason}

    def _envelope(
        self, kind: str, choices: list[dict[str, object]], *, usage: bool = False
    ) -> dict[str, object]:
        made: dict[str, object] = {
            "id": self.identifier,
            "object": kind,
            "created": self.created,
            "model": self.body.model,
            "system_fingerprint": NAME,
            "choices": choices,
        }
        if usage:
            prompt, answer = self.body.prompt_words, len(self.body.words)
            made["usage"] = {
                "prompt_tokens": prompt,
                "completion_tokens": answer,
                "total_tokens": prompt + answer,
            }
        return made


def _json(value: dict[str, object], status: int = 200) -> web.Response:
    return web.json_response(value, status=status, headers={"Server": NAME})


def _refusal(error: pydantic.ValidationError) -> web.Response:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    message = f"{where}: {first['msg']}" if where else first["msg"]
    body = {"message": message, "type": "invalid_request_error", "param": where or None}
    return _json({"error": {**body, "code": None}}, status=400)


@contextlib.asynccontextmanager
async def serving(stand_in: StandIn, host: str, port: int) -> AsyncIterator[int]:
    """Serve while the context is open.

    Yields:
        The port that is listened on.
    """
    runner = web.AppRunner(
        stand_in.application(),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=_SHUTDOWN_TIMEOUT,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        address: tuple[str, int] = runner.addresses[0]
        yield address[1]
    finally:
        await runner.cleanup()


async def _serve_until_signalled(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    stand_in = StandIn(SystemClock(), arguments.pause)
    async with serving(stand_in, arguments.host, arguments.port) as port:
        print(f"{NAME} (no model) listening on http://{arguments.host}:{port}", flush=True)
        await stop.wait()


def main(words: Sequence[str] | None = None) -> int:
    """Run the stand-in until SIGTERM or SIGINT; the process's exit status."""
    parser = argparse.ArgumentParser(prog=NAME, description="A stand-in for a model server.")
    parser.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8080, help="port, 0 for any (default: 8080)")
    parser.add_argument(
        "--pause", type=float, default=0.02, metavar="SECONDS", help="between two words"
    )
    try:
        asyncio.run(_serve_until_signalled(parser.parse_args(words)))
    except OSError as error:
        print(f"{NAME}: cannot listen: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
