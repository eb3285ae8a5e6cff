"""A service that is killed while administrators write: the next one has everything, and whole."""

from __future__ import annotations

import base64
import itertools
import json
import signal
import threading
import time

import httpx
import pytest

from stage.processes import running
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.trustee.policy import HARDWARE_ONLY_TEXT, TRUST_ALL_TEXT

PATH = "/kbs/v0/resource/default/aliyun/model-decryption-key"
TEXTS = (HARDWARE_ONLY_TEXT, TRUST_ALL_TEXT)
ROUNDS = 2


class Writers:
    """Three administrators, each with one kind of thing, until nobody answers any more."""

    def __init__(self, url, headers, first):
        self.url, self.headers, self.first = url, headers, first
        self.answered = {"policy": first - 1, "secret": first - 1, "value": first - 1}
        self.threads = [
            threading.Thread(target=self._write, args=(kind,)) for kind in self.answered
        ]

    def run_until(self, each, kill):
        for thread in self.threads:
            thread.start()
        end = time.monotonic() + 30
        while min(self.answered.values()) < self.first + each and time.monotonic() < end:
            time.sleep(0.002)
        kill()
        for thread in self.threads:
            thread.join(20)
        assert min(self.answered.values()) >= self.first + each

    def _write(self, kind):
        with httpx.Client(base_url=self.url, headers=self.headers, trust_env=False) as http:
            for number in itertools.count(self.first):
                try:
                    answer = self._one(http, kind, number)
                except httpx.TransportError:
                    return
                assert answer.status_code == 200, answer.text
                self.answered[kind] = number

    def _one(self, http, kind, number):
        if kind == "secret":
            return http.post(PATH, content=b"%d." % number * 2000)
        if kind == "policy":
            text = base64.urlsafe_b64encode(TEXTS[number % 2].encode()).rstrip(b"=").decode()
            body = {"policy_id": f"p{number % 200}", "policy": text}
            return http.post("/kbs/v0/attestation-policy", json=body)
        values = base64.b64encode(json.dumps({"x": number, "y": number}).encode()).decode()
        message = {"version": "0.1.0", "type": "sample", "payload": values}
        return http.post("/kbs/v0/rvps/register", json=message)


@pytest.fixture
def service(tmp_path, admin_key):
    """Start `tng trustee` on one state directory, again and again."""
    words = ["-m", "tng", "trustee", "--listen", "127.0.0.1:0", "--state", str(tmp_path / "state")]
    words += ["--allow-simulated", str(tmp_path / "platform"), "--release-to-simulated"]
    words += ["--admin-key", str(admin_key)]

    def start(name):
        return running(tmp_path, name, *words)

    return start


def url_of(process):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        for line in process.log.splitlines(keepends=True):
            if line.startswith("listening on http") and line.endswith("\n"):
                return line.split()[-1]
        assert process.popen.poll() is None, process.log
        time.sleep(0.02)
    raise AssertionError(process.log)


@pytest.mark.slow
def test_after_kill_9_of_the_service_everything_it_said_yes_to_is_there(
    tmp_path, service, admin, stranger_at
):
    now = int(time.time())
    headers = admin.headers(iat=now, exp=now + 3600)
    first = 0
    with service("first") as process:
        writers = Writers(url_of(process), headers, first)
        writers.run_until(4, lambda: process.popen.send_signal(signal.SIGKILL))
        assert process.wait() == -signal.SIGKILL
    for number in range(ROUNDS):
        with service(f"again-{number}") as process:
            url = url_of(process)
            _check(url, headers, writers, stranger_at(url, SimulatedPlatform, tmp_path))
            drafts = [path for path in (tmp_path / "state").rglob(".*") if path.is_file()]
            assert drafts == []
            first = max(writers.answered.values()) + 2
            writers = Writers(url, headers, first)
            writers.run_until(4, lambda: process.popen.send_signal(signal.SIGKILL))
            process.wait()


def _check(url, headers, writers, one):
    """What was answered is there, or what came right behind it; nothing is a mixture."""
    with httpx.Client(base_url=url, headers=headers, trust_env=False) as http:
        values = http.get("/kbs/v0/rvps/query").json()
        assert values["x"] == values["y"]
        assert values["x"] - writers.answered["value"] in (0, 1)
        for number in range(writers.first, writers.answered["policy"] + 1):
            shown = http.get(f"/kbs/v0/attestation-policy/p{number % 200}").text
            assert base64.urlsafe_b64decode(shown + "==").decode() == TEXTS[number % 2]
    one.auth()
    assert one.attest().status_code == 200
    secret = one.open(one.get())
    last = writers.answered["secret"]
    assert secret in (b"%d." % last * 2000, b"%d." % (last + 1) * 2000)


@pytest.fixture
def stranger_at(stranger_class):
    made = []

    def make(url, platforms, tmp_path):
        made.append(stranger_class(url, platforms.load(tmp_path / "platform").evidence))
        return made[-1]

    yield make
    for one in made:
        one.http.close()
