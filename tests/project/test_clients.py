"""Each client of the README's table is served when it is set up as that table says."""

from __future__ import annotations

import contextlib
import json
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from stage.certificates import self_signed, write_pem
from stage.recorder import Recorder
from tng.cli.demo_stage import HOST, Ports, Stage, choose_ports

pytestmark = pytest.mark.slow

UNDICI = pathlib.Path(__file__).resolve().parents[2] / ".reference/node/node_modules/undici"

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
needs_node = pytest.mark.skipif(
    shutil.which("node") is None or not UNDICI.is_dir(),
    reason="node or undici is not installed: tools/reference",
)

CURL = 'curl --silent --show-error --insecure --max-time 10 --output /dev/null -w "%{http_code}\n"'
REQUESTS = "import requests\nprint(requests.get(url).status_code)"
HTTPX = "import httpx\nprint(httpx.get(url).status_code)"
OPENAI = """
import httpx, openai
with openai.OpenAI(base_url=url.removesuffix("/models"), api_key="x", %s) as client:
    print(client.models.with_raw_response.list().status_code)
"""
AIOHTTP = """
import aiohttp, asyncio
async def main():
    async with aiohttp.ClientSession(%s) as session:
        async with session.get(url, %s) as answer:
            print(answer.status)
asyncio.run(main())
"""
URLLIB = "import urllib.request\nprint(urllib.request.urlopen(url).status)"
NODE = """
%s
fetch(url).then(answer => answer.text().then(() => console.log(answer.status)))
"""
DISPATCHER = f"""
const {{setGlobalDispatcher, ProxyAgent}} = require({json.dumps(str(UNDICI))})
setGlobalDispatcher(new ProxyAgent(proxy))
"""

AS_THE_TABLE_SAYS = {
    "curl": ("curl", ["all_proxy", "http_proxy"], f"{CURL} $url"),
    "curl, argument": ("curl", [""], f"{CURL} --proxy $proxy $url"),
    "requests": ("python", ["all_proxy", "http_proxy"], REQUESTS),
    "requests, argument": (
        "python",
        [""],
        "import requests\nprint(requests.get(url, proxies={'http': proxy}).status_code)",
    ),
    "httpx": ("python", ["all_proxy", "http_proxy"], HTTPX),
    "httpx, argument": (
        "python",
        [""],
        "import httpx\nwith httpx.Client(proxy=proxy) as client:\n"
        "    print(client.get(url).status_code)",
    ),
    "openai": ("python", ["all_proxy", "http_proxy"], OPENAI % ""),
    "openai, argument": ("python", [""], OPENAI % "http_client=httpx.Client(proxy=proxy)"),
    "aiohttp": ("python", ["http_proxy"], AIOHTTP % ("trust_env=True", "")),
    "aiohttp, argument": ("python", [""], AIOHTTP % ("", "proxy=proxy")),
    "urllib": ("python", ["http_proxy"], URLLIB),
    "node fetch": ("node", [""], NODE % DISPATCHER),
}
"""Client to what runs it, the variables of the environment that each alone are enough, and how."""

NOT_READ = {
    "aiohttp": ("python", ["all_proxy"], AIOHTTP % ("trust_env=True", "")),
    "urllib": ("python", ["all_proxy"], URLLIB),
    "node fetch": ("node", ["all_proxy", "http_proxy"], NODE % ""),
    "curl": ("curl", ["https_proxy"], f"{CURL} $url"),
}
"""The same for variables that the table says are not read, or are for other URLs."""


def cases(table: dict[str, tuple[str, list[str], str]]) -> list[object]:
    marks = {"curl": [needs_curl], "node": [needs_node], "python": []}
    return [
        pytest.param(runner, variable, program, marks=marks[runner], id=f"{name} {variable}")
        for name, (runner, variables, program) in table.items()
        for variable in variables
    ]


def run_client(
    runner: str, program: str, url: str, proxy: str, variable: str, home: pathlib.Path
) -> subprocess.CompletedProcess[str]:
    """Run a client that prints the status of the answer; its environment is `variable` alone."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home)}
    if variable:
        environment[variable] = proxy
    if runner == "curl":
        environment |= {"url": url, "proxy": proxy}
        command = ["/bin/sh", "-c", program]
    elif runner == "node":
        constants = f"const url = {json.dumps(url)}, proxy = {json.dumps(proxy)}"
        command = [shutil.which("node") or "node", "-e", f"{constants}\n{program}"]
    else:
        constants = f"url, proxy = {json.dumps(url)}, {json.dumps(proxy)}"
        command = [sys.executable, "-c", f"{constants}\n{program}"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def both_ends(ports: Ports, service: int) -> dict[str, object]:
    """An egress before a service, and a proxy; without attestation, which clients never see."""
    egress = {
        "mapping": {
            "in": {"host": HOST, "port": ports.egress},
            "out": {"host": HOST, "port": service},
        },
        "no_ra": True,
    }
    ingress = {"http_proxy": {"proxy_listen": {"host": HOST, "port": ports.proxy}}, "no_ra": True}
    control = {"restful": {"host": HOST, "port": ports.ingress_control}}
    return {"add_egress": [egress], "add_ingress": [ingress], "control_interface": control}


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    """A stand-in behind both ends of a tunnel."""
    ports = choose_ports(0)
    with contextlib.ExitStack() as stack:
        stage = stack.enter_context(Stage(tmp_path_factory.mktemp("clients")))
        words = ["tng.cli.stand_in", "--port", str(ports.backend), "--pause", "0"]
        stage.start("backend", words, f"http://{HOST}:{ports.backend}/health")
        stage.launch("gateway", both_ends(ports, ports.backend), ports.ingress_control)
        yield ports


@pytest.mark.parametrize(("runner", "variable", "program"), cases(AS_THE_TABLE_SAYS))
def test_a_client_set_up_as_the_readme_says_is_served(
    runner: str, variable: str, program: str, ports: Ports, tmp_path: pathlib.Path
) -> None:
    # The egress speaks TLS alone, so that a client which goes past the proxy gets no answer.
    url = f"http://{HOST}:{ports.egress}/v1/models"
    proxy = f"http://{HOST}:{ports.proxy}"
    ended = run_client(runner, program, url, proxy, variable, tmp_path)
    assert ended.stdout.strip() == "200", ended.stderr


@pytest.mark.parametrize(("runner", "variable", "program"), cases(NOT_READ))
def test_a_variable_that_the_readme_calls_unread_leads_past_the_proxy(
    runner: str, variable: str, program: str, ports: Ports, tmp_path: pathlib.Path
) -> None:
    url = f"http://{HOST}:{ports.egress}/v1/models"
    proxy = f"http://{HOST}:{ports.proxy}"
    ended = run_client(runner, program, url, proxy, variable, tmp_path)
    assert ended.stdout.strip() != "200"


@needs_curl
@pytest.mark.parametrize("variable", ["https_proxy", "all_proxy"])
def test_an_https_url_is_for_a_service_that_speaks_tls_itself(
    variable: str, tmp_path: pathlib.Path
) -> None:
    pem = write_pem(tmp_path, *self_signed())
    ports = choose_ports(0)
    with Recorder(pem, ["http/1.1"]) as service, Stage(tmp_path) as stage:
        stage.launch("gateway", both_ends(ports, service.port), ports.ingress_control)
        url = f"https://{HOST}:{ports.egress}/"
        proxy = f"http://{HOST}:{ports.proxy}"
        ended = run_client("curl", f"{CURL} $url", url, proxy, variable, tmp_path)
        assert ended.stdout.strip() == "200", ended.stderr
        assert service.handshakes == 1
