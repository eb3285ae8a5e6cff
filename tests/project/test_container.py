"""The steps of the Dockerfile, done in a folder instead of an image.

Each instruction is translated as simply as possible: paths of the image become paths below a
temporary folder, and the interpreter is the one that runs the tests.
"""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import pytest

import tng
from stage.dockerfile import ROOT, instructions
from stage.gateways import free_port, http_proxy
from stage.processes import running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # what is installed is fetched first

INSTALLED = "/opt/tng"
"""The one path of the image that the last stage takes from the first."""


class Image:
    """What the Dockerfile makes.

    Attributes:
        environment: as the last stage's ENV has it.
        command: CMD.
        healthcheck: the command of HEALTHCHECK.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._workdir = folder
        self.environment = {"PATH": f"{pathlib.Path(sys.executable).parent}:/usr/bin:/bin"}
        self.command: list[str] = []
        self.healthcheck: list[str] = []
        for word, rest in instructions():
            self._do(word, rest)

    def _here(self, text: str) -> str:
        return text.replace(INSTALLED, str(self._folder) + INSTALLED)

    def _do(self, word: str, rest: str) -> None:
        match word:
            case "WORKDIR":
                self._workdir = self._folder / rest.lstrip("/")
                self._workdir.mkdir(parents=True)
            case "COPY":
                self._copy(*rest.split())
            case "RUN":
                self._run(["/bin/sh", "-c", self._here(rest)])
            case "ENV":
                for pair in shlex.split(self._here(rest)):
                    name, _, value = pair.partition("=")
                    self.environment[name] = value.replace("$PATH", self.environment["PATH"])
            case "CMD":
                self.command = json.loads(rest)
            case "HEALTHCHECK":
                self.healthcheck = json.loads(rest.partition(" CMD ")[2])
            case _:
                assert word in {"FROM", "USER", "EXPOSE"}, f"{word} is not translated"

    def _copy(self, *words: str) -> None:
        if words[0].startswith("--from="):
            assert words[1:] == (INSTALLED, INSTALLED)  # it is there already
            return
        *sources, target = words
        for source in sources:
            found, place = ROOT / source, self._workdir / target
            if found.is_dir():
                shutil.copytree(found, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(found, place)

    def _run(self, command: list[str]) -> None:
        environment = {
            **self.environment,
            **{name: value for name, value in os.environ.items() if name.startswith("PIP_")},
            "HOME": os.environ.get("HOME", "/"),  # where pip's configuration may be
            "PIP_NO_COMPILE": "1",  # half of the time, and it would tell us nothing
        }
        ended = subprocess.run(
            command, cwd=self._workdir, env=environment, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr

    def call(self, *command: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run a command as in a container."""
        environment = {**self.environment, **changes}
        program = shutil.which(command[0], path=environment["PATH"])
        assert program is not None
        return subprocess.run(
            [program, *command[1:]],
            cwd=self._folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def find(self, program: str) -> str:
        """The path of a program that the image brings."""
        found = shutil.which(program, path=self.environment["PATH"])
        assert found is not None
        assert found.startswith(str(self._folder))
        return found


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return Image(tmp_path_factory.mktemp("image"))


def test_the_image_holds_the_gateway_and_not_its_tests_tools(image: Image) -> None:
    assert tng.__version__ in image.call("tng", "--version").stdout
    listed = image.call("python", "-m", "pip", "list", "--format=json").stdout
    names = {item["name"].lower() for item in json.loads(listed)}
    assert {"tng-gateway", "trio", "cryptography"} <= names
    assert not names & {"pytest", "mypy", "ruff", "hypothesis"}


def test_what_it_holds_has_the_versions_of_the_lock(image: Image) -> None:
    pins = {
        line.strip().lower().replace("_", "-")
        for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    }
    frozen = image.call("python", "-m", "pip", "freeze", "--exclude", "tng-gateway").stdout
    for line in frozen.splitlines():
        assert line.lower().replace("_", "-") in pins


def test_its_command_serves_and_its_health_check_tells(
    image: Image, tmp_path: pathlib.Path
) -> None:
    control = free_port()
    readyz = f"http://127.0.0.1:{control}/readyz"
    assert image.environment["TNG_READYZ"] == "http://127.0.0.1:50000/readyz"
    assert image.call(*image.healthcheck, TNG_READYZ=readyz).returncode != 0

    path = tmp_path / "config.json"
    config = {
        "add_ingress": [{**http_proxy(free_port()), "no_ra": True}],
        "control_interface": {"restful": {"host": "127.0.0.1", "port": control}},
    }
    path.write_text(json.dumps(config))
    program, *arguments = image.command
    arguments = [word.replace("/etc/tng/config.json", str(path)) for word in arguments]
    assert str(path) in arguments
    with running(tmp_path, "container", *arguments, program=image.find(program)) as process:
        process.await_http(control, "/readyz")
        healthy = image.call(*image.healthcheck, TNG_READYZ=readyz)
        assert healthy.returncode == 0, healthy.stderr
        # A proxy of the environment is not asked for what is on this machine.
        assert image.call(*image.healthcheck, TNG_READYZ=readyz, http_proxy="x").returncode == 0
        assert process.stop() == 0
    assert image.call(*image.healthcheck, TNG_READYZ=readyz).returncode != 0
