"""Each client of the README's table is served when it is set up as that table says."""

from __future__ import annotations

import contextlib
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tng.cli.demo_stage import HOST, Ports, Stage, choose_ports

pytestmark = pytest.mark.slow

PROGRAMS = {
    "requests-all_proxy": ("all_proxy", "import requests; print(requests.get(url).status_code)"),
    "requests-argument": (
        "",
        "import requests; print(requests.get(url, proxies={'http': proxy}).status_code)",
    ),
    "httpx-all_proxy": ("all_proxy", "import httpx; print(httpx.get(url).status_code)"),
    "httpx-argument": ("", "import httpx; print(httpx.Client(proxy=proxy).get(url).status_code)"),
    "openai-all_proxy": (
        "all_proxy",
        "import openai\n"
        "with openai.OpenAI(base_url=url.removesuffix('/models'), api_key='x') as client:\n"
        "    print(client.models.with_raw_response.list().status_code)",
    ),
    "aiohttp-http_proxy": (
        "http_proxy",
        "import aiohttp, asyncio\n"
        "async def main():\n"
        "    async with aiohttp.ClientSession(trust_env=True) as session:\n"
        "        async with session.get(url) as answer: print(answer.status)\n"
        "asyncio.run(main())",
    ),
    "aiohttp-argument": (
        "",
        "import aiohttp, asyncio\n"
        "async def main():\n"
        "    async with aiohttp.ClientSession() as session:\n"
        "        async with session.get(url, proxy=proxy) as answer: print(answer.status)\n"
        "asyncio.run(main())",
    ),
    "urllib-http_proxy": (
        "http_proxy",
        "import urllib.request; print(urllib.request.urlopen(url).status)",
    ),
}


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    """A stand-in behind an egress, and a proxy; without attestation, which clients never see."""
    ports = choose_ports(0)
    egress = {
        "mapping": {
            "in": {"host": HOST, "port": ports.egress},
            "out": {"host": HOST, "port": ports.backend},
        },
        "no_ra": True,
    }
    ingress = {"http_proxy": {"proxy_listen": {"host": HOST, "port": ports.proxy}}, "no_ra": True}
    control = {"restful": {"host": HOST, "port": ports.ingress_control}}
    both = {"add_egress": [egress], "add_ingress": [ingress], "control_interface": control}
    with contextlib.ExitStack() as stack:
        stage = stack.enter_context(Stage(tmp_path_factory.mktemp("clients")))
        words = ["tng.cli.stand_in", "--port", str(ports.backend), "--pause", "0"]
        stage.start("backend", words, f"http://{HOST}:{ports.backend}/health")
        stage.launch("gateway", both, ports.ingress_control)
        yield ports


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_client_set_up_as_the_readme_says_is_served(
    name: str, ports: Ports, tmp_path: pathlib.Path
) -> None:
    variable, program = PROGRAMS[name]
    proxy = f"http://{HOST}:{ports.proxy}"
    # The egress speaks TLS alone, so that a client which goes past the proxy gets no answer.
    url = f"http://{HOST}:{ports.egress}/v1/models"
    code = f"url, proxy = {json.dumps(url)}, {json.dumps(proxy)}\n{program}"
    environment = {variable: proxy} if variable else {}
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": "", "HOME": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.stdout.strip() == "200", ended.stderr
