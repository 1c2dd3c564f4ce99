"""`make run` for a newcomer: a real server, a real HTTP client, and the promises of the README's first page."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from app.config import ROOT
from tenant_schemas import embedded
from tests.factories.ports import free_port

START_SECONDS = 60


def environment(folder: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.endswith("DATABASE_URL")}
    return kept | {"DATA_DIR": str(folder / "data"), "LOG_LEVEL": "warning"} | more


@contextmanager
def served(folder: Path, **more: str) -> Iterator[tuple[str, str, subprocess.Popen[str]]]:
    """Run `python -m scripts.serve` until it prints its examples; yields its URL, its output and the process."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.serve"],
        cwd=ROOT,
        env=environment(folder, PORT=str(port), **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        said = ""
        while "/api/km/wallet/payments" not in said:
            line = process.stdout.readline()
            assert line, f"the server ended: {said}"
            said += line
        yield f"http://127.0.0.1:{port}", said, process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(START_SECONDS)
        process.stdout.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def metrics_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(folder: Path, metrics_port: int) -> Iterator[tuple[str, str]]:
    with served(folder, METRICS_PORT=str(metrics_port)) as (url, said, process):
        yield url, said
        started = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(START_SECONDS) == 0
        assert time.monotonic() - started < 20
    log = (folder / "data" / "postgres" / "data" / "server.log").read_text()
    assert "database system is shut down" in log.splitlines()[-1], log[-2000:]


class Caller:
    """A user, logged in over real HTTP."""

    def __init__(self, url: str, who: str) -> None:
        self.http = httpx.Client(base_url=url)
        body = {"email": f"{who}@example.com", "password": "wallet-demo-login"}
        answer = self.http.post("/api/auth/login", json=body)
        assert answer.status_code == 200, answer.text
        self.http.headers["Authorization"] = f"Bearer {answer.json()['accessToken']}"
        self.memberships = answer.json()["memberships"]

    def __enter__(self) -> httpx.Client:
        return self.http

    def __exit__(self, *_: object) -> None:
        self.http.close()


def test_the_three_lines_it_prints_work_when_pasted(server: tuple[str, str]) -> None:
    lines = [line for line in server[1].splitlines() if "curl" in line]
    assert len(lines) == 3
    done = subprocess.run(["bash", "-euc", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert '"currency":"EUR"' in done.stdout
    assert '"type":"payment","amount":"-1.50"' in done.stdout


def test_one_member_has_two_wallets_by_header_and_by_path(server: tuple[str, str]) -> None:
    with Caller(server[0], "member") as http:
        for slug, currency in (("eur", "EUR"), ("km", "BAM")):
            by_header = http.get("/api/wallet", headers={"X-Tenant": slug}).json()
            assert by_header["currency"] == currency
            assert by_header["tenantId"] == slug
            assert http.get(f"/api/{slug}/wallet").json() == by_header


def test_a_repeated_payment_is_answered_and_not_repeated(server: tuple[str, str]) -> None:
    with Caller(server[0], "member") as http:
        request: dict[str, Any] = {
            "json": {"amount": "0.50"},
            "headers": {"X-Tenant": "eur", "Idempotency-Key": "served-1"},
        }
        first, second = (http.post("/api/wallet/payments", **request) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"


def test_no_tenant_is_400_and_unknown_and_foreign_ones_are_the_same_404(server: tuple[str, str]) -> None:
    with Caller(server[0], "outsider") as http:
        assert http.get("/api/wallet").json()["code"] == "tenant_required"
        unknown, foreign = (http.get("/api/wallet", headers={"X-Tenant": slug}) for slug in ("nope", "eur"))
    assert unknown.status_code == foreign.status_code == 404
    assert unknown.content == foreign.content
    varying = {"x-request-id", "date"}
    assert {k: v for k, v in unknown.headers.items() if k not in varying} == {
        k: v for k, v in foreign.headers.items() if k not in varying
    }


def test_no_header_moves_a_part_of_the_path_out_of_it(server: tuple[str, str]) -> None:
    """A proxy on this machine may have a rule about /api/admin/ that the whole path decides."""
    url, _ = server
    for name in ("SCRIPT_NAME", "Script-Name", "X-Forwarded-Prefix", "X-Script-Name"):
        assert httpx.get(f"{url}/public/api/me", headers={name: "/public"}).status_code == 404, name


@pytest.mark.parametrize(
    ("who", "tenants"),
    [("member", ["eur", "km"]), ("admin", ["eur", "km"]), ("operator", []), ("outsider", ["km"])],
)
def test_the_demo_people_belong_where_the_readme_says(server: tuple[str, str], who: str, tenants: list[str]) -> None:
    caller = Caller(server[0], who)
    with caller as http:
        assert [membership["tenantId"] for membership in caller.memberships] == tenants
        assert http.get("/api/me").json()["isOperator"] == (who == "operator")


def test_a_mail_of_the_demo_is_written_to_the_folder_that_was_printed(server: tuple[str, str], folder: Path) -> None:
    url, printed = server
    assert f"Mails to users are written to {folder / 'data' / 'mail'}" in printed
    body = {"email": "outsider@example.com"}
    assert httpx.post(f"{url}/api/auth/password/forgotten", json=body).status_code == 202
    deadline = time.monotonic() + 20
    while not (found := list((folder / "data" / "mail").glob("*.eml"))) and time.monotonic() < deadline:
        time.sleep(0.1)
    (file,) = found
    assert "To: outsider@example.com" in file.read_text()


def test_flask_commands_and_psql_reach_the_running_server(server: tuple[str, str], folder: Path) -> None:
    audit = subprocess.run(
        [str(Path(sys.executable).with_name("flask")), "wallets", "audit"],
        cwd=ROOT, env=environment(folder), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "2 tenants audited, 0 with findings" in audit.stdout
    url = subprocess.run(
        [sys.executable, "-m", "scripts.database_url", "--tenant", "km"],
        cwd=ROOT, env=environment(folder), capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT current_user, current_schema()").fetchone() == ("tenant_km", "km_schema")
    assert httpx.get(f"{server[0]}/readyz").status_code == 200, "the command must leave the server running"


def test_the_tour_of_the_readme_and_its_page_works_when_pasted(server: tuple[str, str], folder: Path) -> None:
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/tour.md"))
    tour = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(tour) == 7
    script = "\n".join(tour).replace("http://127.0.0.1:8000", server[0])
    script = script.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    binaries = f"{embedded.binary('psql').parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-uc", script],
        cwd=ROOT, env=environment(folder, PATH=binaries), capture_output=True, text=True, check=False,
    )  # fmt: skip
    for expected in (
        '"currency":"EUR"',
        '"currency":"BAM"',
        "Idempotent-Replayed: true",
        '"creditLimit":"50.00"',
        '"type":"refund","amount":"1.20"',
        '"type":"payment","amount":"-12.50"',
        '"status":"voided"',
        '"status":"cancelled"',
        '"amount":"-5.00"',
        "closingBalance",
        "eur: imported 3 rows",
        "km: reconciled, 0 differences",
        '"currency":"JPY"',
        '"account":"wallets"',
        "3 tenants audited, 0 with findings",
        "Tenant jp is ready",
        "owed to members",
    ):
        assert expected in done.stdout, (expected, done.stdout, done.stderr)
    assert "permission denied for schema km_schema" in done.stderr


def test_metrics_have_a_port_of_their_own(server: tuple[str, str], metrics_port: int) -> None:
    assert "wallet_http_request_seconds_bucket" in httpx.get(f"http://127.0.0.1:{metrics_port}/metrics").text
    assert httpx.get(f"http://127.0.0.1:{metrics_port}/livez").status_code == 404
    assert httpx.get(f"{server[0]}/metrics").status_code == 404


def test_a_taken_port_is_refused(server: tuple[str, str], folder: Path) -> None:
    taken, free = server[0].rpartition(":")[2], str(free_port())
    for own, of_metrics, told in (
        (taken, "0", "Set PORT"),
        (free, taken, "Set METRICS_PORT"),
        (free, free, "both"),
    ):
        refused = subprocess.run(
            [sys.executable, "-m", "scripts.serve"],
            cwd=ROOT, env=environment(folder, PORT=own, METRICS_PORT=of_metrics),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert refused.returncode == 2
        assert told in refused.stderr


def test_ctrl_c_drains_running_requests_and_a_second_run_has_the_same_data(tmp_path: Path) -> None:
    def balance(http: httpx.Client) -> Decimal:
        return Decimal(http.get("/api/eur/wallet").json()["balance"])

    with served(tmp_path) as (url, _, process), Caller(url, "member") as http:
        first = balance(http)
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as slow:
            authorization = http.headers["Authorization"]
            head = (
                "POST /api/eur/wallet/payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                f"Idempotency-Key: drained\r\nAuthorization: {authorization}\r\nContent-Length: 18\r\n\r\n"
            )
            slow.sendall(head.encode())
            time.sleep(0.3)
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.3)
            slow.sendall(b'{"amount": "1.00"}')
            assert b"201 CREATED" in slow.recv(65536)
        assert process.wait(START_SECONDS) == 0
    with served(tmp_path) as (url, _, _process), Caller(url, "member") as http:
        assert balance(http) == first - 1
