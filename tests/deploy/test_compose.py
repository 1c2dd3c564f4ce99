"""The compose file, whose syntax is checked by hand: no image can be had here."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.config import ROOT
from scripts.serve import DRAIN_SECONDS
from scripts.support.demo.rabbitmq import COMMANDS_BOUND, DEAD_BOUND
from tests.factories.command_lines import parse

FOLDER = ROOT / "deploy" / "compose"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OF_SCRIPTS = [name for name, service in SERVICES.items() if "-m scripts." in service.get("command", "")]
# Of the compose specification; those that this file uses, with the types of their values.
KEYS: dict[str, type] = {
    **dict.fromkeys(("build", "depends_on", "environment", "healthcheck"), dict),
    **dict.fromkeys(("cap_drop", "ports", "secrets", "security_opt", "tmpfs", "volumes"), list),
    **dict.fromkeys(("command", "env_file", "hostname", "image", "restart", "stop_grace_period"), str),
    **dict.fromkeys(("init", "read_only"), bool),
}
CONDITIONS = {"service_started": "image", "service_healthy": "healthcheck", "service_completed_successfully": "command"}


def test_the_file_has_the_parts_of_the_specification() -> None:
    assert {name for name in COMPOSE if not name.startswith("x-")} == {"name", "services", "volumes", "secrets"}
    for name, service in SERVICES.items():
        assert [key for key, value in service.items() if not isinstance(value, KEYS[key])] == [], name
        assert service["restart"] in {"no", "always", "on-failure", "unless-stopped"}, name


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_names_exists(name: str) -> None:
    service = SERVICES[name]
    for other, needed in service.get("depends_on", {}).items():
        assert CONDITIONS[needed["condition"]] in SERVICES[other], other
    for volume in service.get("volumes", ()):
        source = volume.partition(":")[0]
        is_made_later = source == "../../.clients/python"  # By `make clients`.
        assert is_made_later or source in COMPOSE["volumes"] or (FOLDER / source).exists(), source
    assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"])
    if "build" in service:
        context = (FOLDER / service["build"]["context"]).resolve()
        assert context == ROOT
        assert (context / service["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize("name", OF_SCRIPTS)
def test_the_command_of_a_service_exists(name: str) -> None:
    (arguments,) = re.findall(r"\bpython (-m scripts\.[^']*)", SERVICES[name]["command"])
    parse(shlex.split(arguments))
    assert int(SERVICES[name]["stop_grace_period"].rstrip("s")) > DRAIN_SECONDS


def test_the_broker_has_the_bounds_of_the_document() -> None:
    document = (ROOT / "docs" / "brokers.md").read_text()
    (settings,) = re.findall(r"```ini\n(.*?)```", document, re.DOTALL)
    own = (FOLDER / "rabbitmq.conf").read_text()
    assert set(settings.splitlines()) <= set(own.splitlines())
    file = re.findall(r"^load_definitions = (\S+)$", own, re.MULTILINE)
    assert [f"./rabbitmq-definitions.json:{name}:ro" for name in file] == SERVICES["rabbitmq"]["volumes"][2:]

    said = re.findall(r"rabbitmqctl set_policy (\S+) '(\S+)' \\\n +'(.+)' --apply-to queues", document)
    definitions = json.loads((FOLDER / "rabbitmq-definitions.json").read_text())
    assert "users" not in definitions
    policies = {each["name"]: each for each in definitions["policies"]}
    assert {name: (each["pattern"], each["definition"]) for name, each in policies.items()} == {
        name: (pattern, json.loads(definition)) for name, pattern, definition in said
    }
    assert [each["definition"] for each in definitions["policies"]] == [COMMANDS_BOUND, DEAD_BOUND]


def test_the_gateway_knows_the_services_and_their_ports() -> None:
    named = dict(re.findall(r"server (\w+):(\d+);", (FOLDER / "upstreams.conf").read_text()))
    assert set(named) == {"api", "streams", "main"}
    for name, port in named.items():
        assert f"--host 0.0.0.0 --port {port}" in SERVICES[name]["command"]
    own, shipped = (upstreams(path) for path in (FOLDER / "upstreams.conf", *snippets("wallet-upstreams.conf")))
    assert own == shipped


def snippets(name: str) -> list[Path]:
    return [ROOT / "deploy" / "nginx" / "snippets" / name]


def upstreams(path: Path) -> list[str]:
    return re.findall(r"^upstream (\w+) \{", path.read_text(), re.MULTILINE)


def test_the_image_copies_no_secret() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    secrets = [FOLDER / service["env_file"] for service in SERVICES.values() if "env_file" in service]
    secrets += [FOLDER / secret["file"] for secret in COMPOSE["secrets"].values()]
    assert {str(path.resolve().relative_to(ROOT)) for path in secrets} <= set(ignored)
    assert {".git", ".data", ".venv"} <= set(ignored)
