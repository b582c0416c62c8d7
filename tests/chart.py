"""`make chart`: Helm itself lints deploy/chart and renders it, plain and with an ingress. Exit code 1 on a finding."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml
from helm_python.chart import Chart, lint

CHART = Path(__file__).parents[1] / "deploy" / "chart"
INFORMATION = 1


def main() -> int:
    report = lint(CHART, strict=True)
    found = [message for message in report["messages"] if message["severity"] > INFORMATION] + report["errors"]
    for message in found:
        print(message)
    for values in ({}, {"ingress": {"enabled": True, "tls": "cert"}, "config": "[log]\nrequests = false"}):
        rendered = Chart.load(CHART).render(values, name="moonpool")
        kinds = [each["kind"] for text in rendered.values() for each in yaml.safe_load_all(text) if each]
        print("rendered", ", ".join(sorted(kinds)))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
