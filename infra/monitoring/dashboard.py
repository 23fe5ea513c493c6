"""Writes the Grafana dashboard: `python -m infra.monitoring.dashboard > infra/monitoring/dashboard.json`.

The panels are a table (`panels`) and not two thousand lines by hand. A test holds the committed file against it, and
every expression against the metrics that exist.
"""

import json
from itertools import count
from typing import Any, Final

from infra.monitoring.panels import ROWS, Panel

_SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
_WIDTH: Final = 24


def _panel(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    custom = {"stacking": {"mode": "normal"}, "fillOpacity": 30} if panel.stacked else {"fillOpacity": 8}
    defaults: dict[str, Any] = {"unit": panel.unit} | ({"custom": custom} if panel.kind == "timeseries" else {})
    targets = [
        {
            "refId": chr(ord("A") + at),
            "expr": expression,
            "legendFormat": legend,
            "datasource": _SOURCE,
            "exemplar": True,
        }
        for at, (legend, expression) in enumerate(panel.expressions.items())
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": 4 if panel.kind == "stat" else 7},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": targets,
    }


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    numbers, y = count(1), 0
    for title, row in ROWS.items():
        panels.append(
            {"id": next(numbers), "type": "row", "title": title, "gridPos": {"x": 0, "y": y, "w": _WIDTH, "h": 1}}
        )
        x, y = 0, y + 1
        for panel in row:
            if x + panel.width > _WIDTH:
                x, y = 0, y + panels[-1]["gridPos"]["h"]
            panels.append(_panel(panel, next(numbers), x, y))
            x += panel.width
        y += panels[-1]["gridPos"]["h"]
    namespaces = "label_values(sparsewell_build_info, namespace)"
    return {
        "uid": "sparsewell",
        "title": "sparsewell",
        "tags": ["sparsewell"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                {"name": "source", "label": "Source", "type": "datasource", "query": "prometheus"},
                {
                    "name": "namespace",
                    "label": "Namespace",
                    "type": "query",
                    "datasource": _SOURCE,
                    "query": namespaces,
                    "includeAll": True,
                    # outside of Kubernetes there is no such label: ".*" takes that as well
                    "allValue": ".*",
                    "current": {"text": "All", "value": "$__all"},
                    "refresh": 2,
                },
            ]
        },
        "panels": panels,
    }


def main() -> None:
    """The command."""
    print(json.dumps(dashboard(), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
