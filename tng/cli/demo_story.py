"""What the demonstration does, in order: start, ask, show the verdict, meet the impostor.

In: a backend or none, a kind of spoiling or none.  Out: the exit status, and a report on the way.
Source: the requests are those that a vLLM user sends with `all_proxy` set.
Invariant: a spoiled egress that is accepted, or an impostor that sees one octet, is never
reported as success.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import signal
import tempfile
from typing import TYPE_CHECKING, Final

import httpx

from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.attest.tdx.simulator.spoil import Spoil
from tng.cli.demo import TAMPERINGS
from tng.cli.demo_impostor import Impostor
from tng.cli.demo_report import Report
from tng.cli.demo_stage import (
    HOST,
    PROXY_PORT,
    Ports,
    Stage,
    choose_ports,
    egress_config,
    ingress_config,
)
from tng.cli.demo_verdicts import PeerView, peers_of_ingress
from tng.endpoint import Endpoint
from tng.errors import StartError

if TYPE_CHECKING:
    from tng.clock import Clock

EXIT_DONE: Final = 0
EXIT_REFUSED: Final = 1
"""The egress was refused, as it has to be when its evidence is spoiled."""
EXIT_WRONG: Final = 3
"""Something went otherwise than it should; the report says what."""

_PROMPT: Final = "Do you know the book Traction by Gino Wickman"
_REQUEST_TIMEOUT: Final = 60.0
"""Seconds for one answer; a real model on a slow machine takes its time."""


class Story:
    """One run of the demonstration.

    Args:
        clock: time of the simulated platform's certificates.
        backend: a real server; None for the stand-in.
        tamper: a key of `TAMPERINGS`, or None.
        stay: keep running afterwards.
        report: where to tell it.
    """

    def __init__(
        self,
        clock: Clock,
        backend: Endpoint | None,
        tamper: str | None,
        *,
        stay: bool = False,
        report: Report | None = None,
    ) -> None:
        self._clock = clock
        self._backend = backend
        self._tamper = tamper
        self._stay = stay
        self._report = report or Report()
        self._ports: Ports = choose_ports()

    def tell(self) -> int:
        """Run it all; the exit status.

        Raises:
            StartError: a process did not become ready.
        """
        self._report.banner(
            "SIMULATED: no TEE stands behind this evidence. The demonstration shows\n"
            "how things work and protects nothing. Only `allow_simulated` makes an\n"
            "ingress accept such evidence."
        )
        with (
            tempfile.TemporaryDirectory(prefix="tng-demo-") as folder,
            Stage(pathlib.Path(folder)) as stage,
        ):
            self._start(stage, pathlib.Path(folder))
            proxy = f"http://{HOST}:{self._ports.proxy}"
            with httpx.Client(proxy=proxy, timeout=_REQUEST_TIMEOUT, trust_env=False) as client:
                status = self._ask(client)
                if self._tamper is None and status == EXIT_DONE:
                    status = self._meet_impostor(client)
            if self._stay:
                self._wait()
        return status

    def _start(self, stage: Stage, folder: pathlib.Path) -> None:
        self._report.step("Starting")
        ports, platform = self._ports, folder / "platform"
        spoil = Spoil(self._tamper.replace("-", "_")) if self._tamper else None
        SimulatedPlatform.create(platform, now=int(self._clock.now()), spoil=spoil)
        if self._tamper:
            self._report.fact("spoiled", TAMPERINGS[self._tamper])
        service = self._start_backend(stage)
        words = ["tng", "trustee", "--listen", f"{HOST}:{ports.trustee}"]
        words += ["--state", str(folder / "trustee"), "--allow-simulated", str(platform)]
        stage.start("trustee", words, f"http://{HOST}:{ports.trustee}/as/certificate")
        self._report.fact("attestation service", f"http://{HOST}:{ports.trustee}/as/ (embedded)")
        stage.launch("egress", egress_config(ports, service, platform), ports.egress_control)
        self._report.fact("egress", f"{HOST}:{ports.egress} (SIMULATED TDX) -> {service}")
        self._launch_ingress(stage)

    def _launch_ingress(self, stage: Stage) -> None:
        try:
            stage.launch("ingress", ingress_config(self._ports), self._ports.ingress_control)
        except StartError:
            # Somebody may have taken the port since it was found free, another demonstration,
            # and may even be gone again by now: once more, on whatever port is free.
            free = choose_ports(self._ports.proxy).proxy
            self._ports = dataclasses.replace(self._ports, proxy=free)
            stage.launch("ingress", ingress_config(self._ports), self._ports.ingress_control)
        if self._ports.proxy != PROXY_PORT:
            text = f"port {PROXY_PORT} is taken, {self._ports.proxy} stands in"
            self._report.fact("notice", text)
        self._report.fact("ingress", f"http://{HOST}:{self._ports.proxy} (HTTP proxy)")

    def _start_backend(self, stage: Stage) -> Endpoint:
        if self._backend is not None:
            self._report.fact("backend", f"http://{self._backend} (yours)")
            return self._backend
        service = Endpoint(HOST, self._ports.backend)
        words = ["tng.cli.stand_in", "--port", str(service.port)]
        stage.start("backend", words, f"http://{service}/health")
        self._report.fact("backend", f"http://{service} (tng-stand-in-backend, no model)")
        return service

    def _ask(self, client: httpx.Client) -> int:
        self._report.step(f"Asking http://{HOST}:{self._ports.egress} through the proxy")
        url = f"http://{HOST}:{self._ports.egress}"
        try:
            models = client.get(f"{url}/v1/models")
            if refusal := models.headers.get("x-tng-error"):
                return self._refused(refusal, models)
            model = models.raise_for_status().json()["data"][0]["id"]
            self._complete(client, url, model)
            self._chat(client, url, model)
        except (httpx.HTTPError, ValueError, LookupError) as error:
            self._report.bad(f"no usable answer: {error!r}")
            self._show_verdict()
            return EXIT_WRONG
        view = self._show_verdict()
        if self._tamper is not None:
            self._report.bad("the evidence was spoiled, and accepted all the same")
            return EXIT_WRONG
        if view is None or not view.accepted:
            self._report.bad("answers came, but no verdict accepts the egress")
            return EXIT_WRONG
        self._report.good("the egress was judged before anything was sent to it, and accepted")
        return EXIT_DONE

    def _complete(self, client: httpx.Client, url: str, model: str) -> None:
        body = {"model": model, "prompt": _PROMPT, "temperature": 0.0, "max_tokens": 24}
        answer = client.post(f"{url}/v1/completions", json=body).raise_for_status().json()
        self._report.fact("completion", answer["choices"][0]["text"].strip())

    def _chat(self, client: httpx.Client, url: str, model: str) -> None:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": _PROMPT}],
            "max_tokens": 24,
            "stream": True,
        }
        text, events = "", 0
        with client.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    choices = json.loads(line.removeprefix("data: "))["choices"]
                    text += (choices[0]["delta"].get("content") or "") if choices else ""
                    events += 1
        self._report.fact(f"chat, {events} events", text.strip())

    def _refused(self, code: str, answer: httpx.Response) -> int:
        view = self._show_verdict()
        failed = [check for check in view.checks if check.outcome == "fail"] if view else []
        for check in failed:
            self._report.bad(f"check {check.number}, {check.name}: {check.detail}")
        self._report.bad(f"HTTP {answer.status_code}, x-tng-error: {code}: {_message(answer)}")
        if self._backend is None:
            reached = self._requests_at_stand_in()
            if reached:
                self._report.bad(f"expected no request at the stand-in, it saw {reached}")
                return EXIT_WRONG
            self._report.good("no request reached the service behind the egress")
        return EXIT_REFUSED if self._tamper else EXIT_WRONG

    def _requests_at_stand_in(self) -> int:
        url = f"http://{HOST}:{self._ports.backend}/stand-in/stats"
        answer = httpx.get(url, trust_env=False, timeout=_REQUEST_TIMEOUT)
        return int(answer.raise_for_status().json()["requests"])

    def _show_verdict(self) -> PeerView | None:
        """The ingress's verdict on the egress, shown; None when it has none."""
        self._report.step("What the ingress verified")
        peer = f"{HOST}:{self._ports.egress}"
        view = self._peers().get(peer)
        if view is None:
            self._report.fact("verdict", "none was reached")
        else:
            self._report.verdict(peer, view)
        return view

    def _peers(self) -> dict[str, PeerView]:
        url = f"http://{HOST}:{self._ports.ingress_control}/status/attestation"
        answer = httpx.get(url, trust_env=False, timeout=_REQUEST_TIMEOUT)
        return peers_of_ingress(answer.content)

    def _meet_impostor(self, client: httpx.Client) -> int:
        self._report.step("The same with an impostor: TLS and a certificate, but no evidence")
        body = {"model": "any", "prompt": "secret", "max_tokens": 1}
        with Impostor(self._clock) as impostor:
            url = f"http://{HOST}:{impostor.port}/v1/completions"
            try:
                answer = client.post(url, json=body)
            except httpx.HTTPError as error:
                self._report.bad(f"expected a refusal in words, got {error!r}")
                return EXIT_WRONG
        code = answer.headers.get("x-tng-error")
        if code is None or impostor.octets or not impostor.handshakes:
            self._report.bad(
                f"expected a refusal and no octet sent, got HTTP {answer.status_code},"
                f" x-tng-error {code!r}, {impostor.octets} octets, {impostor.handshakes} handshakes"
            )
            return EXIT_WRONG
        self._report.good(f"refused: HTTP {answer.status_code}, {code}: {_message(answer)}")
        self._report.good(f"the impostor received {impostor.octets} octets of the request")
        return EXIT_DONE

    def _wait(self) -> None:
        self._report.step("Running until interrupted (Ctrl-C). Try:")
        body = json.dumps({"model": "any", "prompt": _PROMPT, "max_tokens": 24, "stream": False})
        self._report.plain(
            f"env all_proxy='http://{HOST}:{self._ports.proxy}/'"
            f" curl http://{HOST}:{self._ports.egress}/v1/completions"
            f" -H 'Content-Type: application/json' -d '{body}'"
        )
        try:
            while True:
                signal.pause()
        except KeyboardInterrupt:
            self._report.plain("")


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return answer.text[:200]
