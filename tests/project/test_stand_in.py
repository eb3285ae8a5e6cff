"""The stand-in backend answers as an OpenAI server does, and says that it is none."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import httpx
import openai
import pytest

from tng.cli.stand_in import MAX_BODY, NAME, StandIn, main, serving
from tng.clock import FixedClock

SEED = {
    "model": "/tmp/model",
    "prompt": "Do you know the book Traction by Gino Wickman",
    "temperature": 0.0,
    "best_of": 1,
    "max_tokens": 132,
    "stream": False,
}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "one two three"}]}


class Backend:
    """A stand-in served from a thread of its own."""

    def __init__(self, pause_s: float) -> None:
        self.stand_in = StandIn(FixedClock(1_795_300_800.0), pause_s)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self.port = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        async with serving(self.stand_in, "127.0.0.1", 0) as self.port:
            self._ready.set()
            await self._stop.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    backend = Backend(0.0)
    yield backend
    backend.close()


def test_the_article_s_request_is_answered_with_so_many_words(backend: Backend) -> None:
    answer = httpx.post(f"{backend.url}/v1/completions", json=SEED).json()
    assert answer["model"] == "/tmp/model"
    assert answer["usage"] == {
        "prompt_tokens": 9,
        "completion_tokens": 132,
        "total_tokens": 141,
    }
    assert NAME in answer["choices"][0]["text"]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["created"] == 1_795_300_800


def test_the_same_request_gives_the_same_words(backend: Backend) -> None:
    texts = {
        httpx.post(f"{backend.url}/v1/chat/completions", json=CHAT).json()["choices"][0]["message"][
            "content"
        ]
        for _ in range(2)
    }
    assert len(texts) == 1
    assert "no model runs here" in texts.pop()


@pytest.mark.parametrize(("path", "body"), [("completions", SEED), ("chat/completions", CHAT)])
def test_a_stream_says_what_the_whole_answer_says(backend: Backend, path, body) -> None:
    url = f"{backend.url}/v1/{path}"
    whole = httpx.post(url, json=body).json()
    streamed = httpx.post(url, json={**body, "stream": True})
    assert streamed.headers["content-type"] == "text/event-stream"
    *events, done, rest = streamed.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    if path == "completions":
        said = "".join(chunk["choices"][0]["text"] for chunk in chunks)
        assert said == whole["choices"][0]["text"]
    else:
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
        assert deltas[0]["role"] == "assistant"
        assert (
            "".join(d.get("content", "") for d in deltas)
            == (whole["choices"][0]["message"]["content"])
        )
    assert chunks[-1]["usage"] == whole["usage"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_the_openai_client_is_content(backend: Backend) -> None:
    with openai.OpenAI(base_url=f"{backend.url}/v1", api_key="none") as client:
        assert [model.id for model in client.models.list()] == [NAME]
        chunks = client.chat.completions.create(
            model=NAME, messages=[{"role": "user", "content": "hello"}], stream=True
        )
        assert NAME in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def test_health_is_an_empty_200(backend: Backend) -> None:
    answer = httpx.get(f"{backend.url}/health")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    ("path", "content", "word"),
    [
        ("completions", b"no json", "JSON"),
        ("completions", b"{}", "prompt"),
        ("completions", b'{"prompt":"x","max_tokens":0}', "max_tokens"),
        ("chat/completions", b'{"messages":[]}', "messages"),
        ("chat/completions", b"[]", "object"),
    ],
)
def test_a_wrong_body_is_refused_in_openai_s_form(backend: Backend, path, content, word) -> None:
    answer = httpx.post(f"{backend.url}/v1/{path}", content=content)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert word in answer.json()["error"]["message"]


def test_a_body_over_the_limit_is_refused(backend: Backend) -> None:
    answer = httpx.post(f"{backend.url}/v1/completions", content=b" " * (MAX_BODY + 1))
    assert answer.status_code == 413


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_is_counted(stream: bool) -> None:
    backend = Backend(pause_s=0.02 if stream else 20.0)
    body = {**SEED, "max_tokens": 4000, "stream": stream}
    try:
        with httpx.Client(timeout=0.3) as client:
            if stream:
                with client.stream("POST", f"{backend.url}/v1/completions", json=body) as answer:
                    next(answer.iter_raw())
            else:
                with pytest.raises(httpx.ReadTimeout):
                    client.post(f"{backend.url}/v1/completions", json=body)
        counted = {}
        with httpx.Client() as client:
            for _ in range(500):
                counted = client.get(f"{backend.url}/stand-in/stats").json()
                if counted["cancelled"]:
                    break
        assert counted == {"requests": 1, "finished": 0, "cancelled": 1}
    finally:
        backend.close()


@pytest.mark.slow
def test_the_process_says_where_it_listens_and_ends_with_zero() -> None:
    command = [sys.executable, "-m", "tng.cli.stand_in", "--port", "0", "--pause", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(f"{NAME} (no model) listening on http://127.0.0.1:")
        assert httpx.get(f"{line.split()[-1]}/health").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_a_port_in_use_is_told(backend: Backend, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", str(backend.port)]) == 1
    assert "cannot listen" in capsys.readouterr().err
