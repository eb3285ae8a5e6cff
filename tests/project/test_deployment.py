"""The image and the manifests ask for no privileges, and their configurations are good ones."""

from __future__ import annotations

import json
import pathlib
import re
import textwrap

import pytest

from stage.dockerfile import instructions
from tng.config.cai_env import config_from_cai_env, parse_cai_env
from tng.config.loader import prepare_config

ROOT = pathlib.Path(__file__).resolve().parents[2]
MANIFESTS = [ROOT / "deploy/compose.yaml", ROOT / "deploy/kubernetes-sidecar.yaml"]


def embedded_config(path: pathlib.Path) -> str:
    """The JSON of the literal block that follows `content: |` or `config.json: |`."""
    text = path.read_text(encoding="utf-8")
    match = re.search(r"^( *)(?:content|config\.json): \|\n((?:\1 +.*\n)+)", text, re.MULTILINE)
    assert match is not None
    return textwrap.dedent(match[2])


def test_the_last_stage_runs_as_nobody_in_particular() -> None:
    words = instructions()
    last = max(at for at, (word, _) in enumerate(words) if word == "FROM")
    users = [rest for word, rest in words[last:] if word == "USER"]
    assert users == ["65532:65532"]


def test_base_images_are_pinned_to_a_version() -> None:
    for word, rest in instructions():
        if word == "FROM":
            image = rest.split()[0]
            assert re.fullmatch(r"[\w./-]+:\d[\w.-]*", image), image


def test_the_image_asks_readyz_whether_it_is_healthy() -> None:
    words = dict(instructions())
    assert "TNG_READYZ" in words["HEALTHCHECK"]
    assert "/readyz" in words["ENV"]


def test_only_what_is_known_stands_in_the_dockerfile() -> None:
    known = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "CMD"}
    assert {word for word, _ in instructions()} <= known
    for word, rest in instructions():
        assert word != "RUN" or "curl" not in rest
        if word == "COPY" and "--from" not in rest:
            for name in rest.split()[:-1]:
                assert (ROOT / name).exists(), name


def test_the_default_command_is_a_command_of_ours() -> None:
    assert dict(instructions())["CMD"].startswith('["tng", "launch"')


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_the_configuration_in_a_manifest_is_a_good_one(path: pathlib.Path) -> None:
    config = prepare_config(embedded_config(path))
    assert len(config.add_egress) == 1
    assert config.control_interface is not None


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_manifest_asks_for_no_privileges_and_no_latest(path: pathlib.Path) -> None:
    text = re.sub(r"#.*", "", path.read_text(encoding="utf-8"))
    assert not re.search(r"privileged:\s*true|NET_ADMIN|SYS_ADMIN|hostNetwork", text)
    assert "\t" not in text
    for image in re.findall(r"image: (\S+)", text):
        assert re.fullmatch(r"[\w./-]+:v?\d[\w.-]*", image), image
    assert "ALL" in text
    assert "no-new-privileges:true" in text or "allowPrivilegeEscalation: false" in text


@pytest.mark.parametrize("side", ["ingress", "egress"])
def test_the_example_of_cai_env_gives_both_sides(side: str) -> None:
    values = parse_cai_env((ROOT / "deploy/cai.env.example").read_text(encoding="utf-8"))
    config = config_from_cai_env(values, role=side)
    prepare_config(json.dumps(config))
    assert f"add_{side}" in config
