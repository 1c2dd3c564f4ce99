"""The alerts and the dashboard in deploy/ use metrics and labels that exist, and the dashboard shows every metric."""

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from app.config import ROOT
from app.metrics import definitions
from app.metrics.definitions import REGISTRY

ALERTS: Final = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD: Final = ROOT / "deploy" / "grafana" / "wallet.json"
# Of postgres_exporter, with the labels that it sets.
OF_POSTGRES_EXPORTER: Final = {
    "pg_stat_activity_max_tx_duration": {"datname", "state"},
    "pg_replication_slots_pg_wal_lsn_diff": {"slot_name"},
}
# Of Prometheus itself, for each target.
OF_TARGETS: Final = {"instance", "job"}
NAME: Final = re.compile(r"\b((?:wallet|pg)_\w+)")
SELECTORS: Final = re.compile(r"\{([^}]*)\}")
GROUPING: Final = re.compile(r"\bby \(([^)]*)\)")


@cache
def labels_of_metrics() -> dict[str, set[str]]:
    """Every name that an expression may use, with the labels of its samples."""
    found = dict(OF_POSTGRES_EXPORTER)
    for metric in REGISTRY.collect():
        own = set(collector_of(metric.name)._labelnames)
        endings = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"], "gauge": [""]}[metric.type]
        found |= {f"{metric.name}{ending}": own | ({"le"} if ending == "_bucket" else set()) for ending in endings}
    return found


def collector_of(name: str) -> Any:
    return next(one for one, names in REGISTRY._collector_to_names.items() if name in names)


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text("utf-8"))["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    yield from (target["expr"] for panel in panels() for target in panel["targets"])


def labels_in(expression: str) -> set[str]:
    selected = [label for text in SELECTORS.findall(expression) for label in re.findall(r"(\w+)\s*=?[=!~]", text)]
    grouped = [label.strip() for text in GROUPING.findall(expression) for label in text.split(",")]
    return {*selected, *grouped}


@pytest.mark.parametrize("expression", list(expressions()))
def test_every_metric_and_label_of_an_expression_exists(expression: str) -> None:
    names = NAME.findall(expression)
    assert names or "up{job=" in expression
    known = labels_of_metrics()
    assert not [name for name in names if name not in known]
    assert labels_in(expression) <= OF_TARGETS.union(*(known[name] for name in names))


def test_the_dashboard_shows_every_metric() -> None:
    shown = " ".join(target["expr"] for panel in panels() for target in panel["targets"])
    assert [metric.name for metric in REGISTRY.collect() if not re.search(rf"\b{metric.name}(_|\b)", shown)] == []


def used_metrics(path: Path) -> set[str]:
    """The names of `definitions` that a module imports and uses."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module == definitions.__name__]
    names = {alias.asname or alias.name: alias.name for node in imports for alias in node.names}
    return {names[node.id] for node in nodes if isinstance(node, ast.Name) and node.id in names}


def test_every_metric_is_set_somewhere() -> None:
    metrics = {name for name, made in vars(definitions).items() if isinstance(made, MetricWrapperBase)}
    used: set[str] = set().union(*map(used_metrics, (ROOT / "app").rglob("*.py")))
    assert metrics - used == set()
    assert len(metrics) > 20


def test_no_metric_tells_tenants_apart() -> None:
    labels = set().union(*labels_of_metrics().values())
    assert not labels & {"tenant", "slug", "tenant_id", "schema", "user", "path", "wallet_id"}


def test_every_alert_says_how_urgent_it_is_and_what_is_wrong() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules()) > 10
    for rule in rules():
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"].keys() == {"summary"}
        assert re.fullmatch(r"[0-9]+m", rule.get("for", "0m"))
        in_summary = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert in_summary <= labels_in(rule["expr"]) | OF_TARGETS


def test_the_runbook_has_every_alert() -> None:
    runbook = (ROOT / "docs" / "operations.md").read_text("utf-8")
    assert [rule["alert"] for rule in rules() if f"`{rule['alert']}`" not in runbook] == []


def test_the_dashboard_can_be_imported_anywhere() -> None:
    """It names no data source of one installation, and no panel lies on another."""
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    assert dashboard["uid"] == "wallet"
    assert [variable["name"] for variable in dashboard["templating"]["list"]] == ["datasource", "instance"]
    text = json.dumps(dashboard)
    assert set(re.findall(r'"type": "prometheus", "uid": "([^"]*)"', text)) == {"${datasource}"}
    assert not re.search(r"https?://", text)
    everything = dashboard["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    cells = [cell for panel in everything for cell in cells_of(panel["gridPos"])]
    assert len(cells) == len(set(cells))


def cells_of(place: dict[str, int]) -> list[tuple[int, int]]:
    assert place["x"] + place["w"] <= 24
    columns, rows = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
    return [(x, y) for x in columns for y in rows]
