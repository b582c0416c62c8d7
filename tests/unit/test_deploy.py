"""deploy/: what the compose file and the Helm chart start is what this program takes.

The chart's templates are rendered by Go's own template engine with the functions charts use (py-go-template);
`make chart` lints and renders it with Helm itself.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from go_template import render

from moonpool import settings
from moonpool.web import ops

DEPLOY = Path(__file__).parents[2] / "deploy"
CHART = DEPLOY / "chart"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
INGRESS = {"enabled": True, "className": "nginx", "host": "api.example", "tls": "cert", "annotations": {"a/b": "c"}}
VARIANTS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "with an ingress": {"ingress": INGRESS, "trustedProxies": ["10.0.0.0/8", "fd00::/8"]},
    "with more settings": {"config": '[log]\nrequests = false\n\n[hosts.mine]\nbase_url = "http://vllm:8000/v1"\n'},
    "with a password and an authority of one's own": {"limits": "env:MOONPOOL_LIMITS", "certificates": "own-ca"},
    "without resources": {"resources": {}, "workers": 4, "image": {**VALUES["image"], "tag": "9.9"}},
}


def _rendered(variant: str) -> dict[str, Any]:
    """Kind -> object, of every template."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    about = {
        "Values": {**VALUES, **VARIANTS[variant]},
        "Release": {"Name": "mp"},
        "Chart": {"AppVersion": chart["appVersion"]},
    }
    found: dict[str, Any] = {}
    for template in sorted((CHART / "templates").glob("*.yaml")):
        for each in yaml.safe_load_all(render(template, about).decode()):
            if each is not None:
                found[each["kind"]] = each
    return found


def _settings(text: str, folder: Path) -> settings.Settings:
    path = folder / "moonpool.toml"
    path.write_text(text)
    return settings.load(path, {"MOONPOOL_VAULT_KEY": "x" * 40, "PGPASSWORD": "x"}, {"home": str(folder)})


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_chart_writes_settings_that_are_taken(variant: str, tmp_path: Path) -> None:
    """The file a pod gets is one this program reads, with the store, the limits and the drain of the values."""
    text = _rendered(variant)["ConfigMap"]["data"]["moonpool.toml"]
    found = _settings(text, tmp_path)
    values = {**VALUES, **VARIANTS[variant]}
    assert (found.store, found.limits, found.workers) == (values["store"], values["limits"], values["workers"])
    assert found.edge.drain_s == values["drainSeconds"]
    assert found.edge.trusted_proxies == values["trustedProxies"]
    assert found.log.requests is (variant != "with more settings")


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_chart_is_of_one_piece(variant: str) -> None:
    """The service finds the pods, the pods find their settings and secret, the ingress finds the service."""
    found = _rendered(variant)
    assert set(found) >= {"ConfigMap", "Deployment", "Service", "PodDisruptionBudget"}
    assert ("Ingress" in found) is (variant == "with an ingress")
    spec = found["Deployment"]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == found["Service"]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert {volume["name"] for volume in pod["volumes"]} == {mount["name"] for mount in container["volumeMounts"]}
    assert pod["volumes"][0]["configMap"]["name"] == found["ConfigMap"]["metadata"]["name"]
    mounted = [volume["configMap"]["name"] for volume in pod["volumes"] if volume["name"] == "certificates"]
    assert mounted == (["own-ca"] if "authority" in variant else [])
    assert container["envFrom"] == [{"secretRef": {"name": VALUES["secret"]}}]
    assert container["image"] == "moonpool:" + ("9.9" if variant == "without resources" else "0.1.0")
    assert pod["terminationGracePeriodSeconds"] > VALUES["drainSeconds"] + 5
    if "Ingress" in found:
        backend = found["Ingress"]["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
        assert backend["name"] == found["Service"]["metadata"]["name"]
        assert backend["port"]["name"] == found["Service"]["spec"]["ports"][0]["name"]


def test_probes_ask_for_pages_that_there_are() -> None:
    """Liveness and readiness are asked at addresses the server has, in the chart and in the compose file."""
    (container,) = _rendered("as it comes")["Deployment"]["spec"]["template"]["spec"]["containers"]
    asked = {container[name]["httpGet"]["path"] for name in ("livenessProbe", "readinessProbe")}
    assert asked == {"/health", "/ready"} <= set(ops._PAGES)
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert "/ready" in compose["services"]["moonpool"]["healthcheck"]["test"][-1]


def test_the_compose_file_is_of_one_piece(tmp_path: Path) -> None:
    """Its nodes read settings that are taken, with the addresses of services that it starts; every secret it needs is
    in example.env, and none has a value there."""
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = compose["services"]
    found = _settings((DEPLOY / "moonpool.toml").read_text(), tmp_path)
    assert found.store.partition("@")[2].partition("/")[0] in services
    assert found.limits.partition("://")[2].partition(":")[0] in services
    wanted = {name for name, text in services["moonpool"]["environment"].items() if ":?" in text} - {"PGPASSWORD"}
    lines = (DEPLOY / "example.env").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert wanted | {"POSTGRES_PASSWORD"} <= set(given)
    assert not any(given.values())
    for volume in services["moonpool"]["volumes"] + services["proxy"]["volumes"]:
        assert (DEPLOY / volume.partition(":")[0]).exists()


def test_the_chart_is_of_this_version() -> None:
    """The image that the chart names by itself is that of this program."""
    from moonpool import __version__

    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())
    assert "many" in project["project"]["optional-dependencies"]
