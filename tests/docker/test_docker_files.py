"""The files under docker/, checked as far as that is possible without an engine or a cloud."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.command_runner import _with_interactive

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SCRIPTS = [*sorted(DOCKER.glob("*.sh")), ROOT / "tests" / "fresh_machine.sh"]


def tool(name: str) -> str:
    """A program beside this Python or on the path; the test is skipped where there is none."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def load(name: str) -> Any:
    return yaml.safe_load((DOCKER / name).read_text())


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return load("compose.yaml")


@pytest.fixture(scope="module")
def kubernetes() -> dict[str, dict[str, Any]]:
    return {item["kind"]: item for item in yaml.safe_load_all((DOCKER / "kuberay.yaml").read_text())}


def test_docker_is_not_a_package() -> None:
    assert not list(DOCKER.glob("**/__init__.py")), "it would shadow the docker SDK"


# Dockerfile


def stages() -> dict[str, str]:
    text = (DOCKER / "Dockerfile").read_text()
    parts = re.split(r"^FROM (\S+) AS (\S+)$", text, flags=re.MULTILINE)
    return {parts[i + 1]: f"FROM {parts[i]}\n{parts[i + 2]}" for i in range(1, len(parts), 3)}


def lineage(stage: str) -> str:
    """Everything that ends up in a stage's image by FROM, not by COPY."""
    found = stages()
    text = found[stage]
    base = text.split()[1]
    return text + (lineage(base) if base in found else "")


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([tool("hadolint"), str(DOCKER / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("target", ["cpu", "cuda", "mlflow"])
def test_final_images_have_no_build_tools_and_no_root(target: str) -> None:
    text = lineage(target)
    assert "build-essential" not in text
    assert "pip install" not in text
    assert "uninstall --yes --root-user-action ignore setuptools wheel pip" in text
    users = re.findall(r"^USER (.+)$", text, flags=re.MULTILINE)
    assert users == ["1000:1000"]
    assert "HEALTHCHECK" in stages()[target]
    assert "RAY_AUTH_MODE=token" in text


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_the_images_are_what_ray_up_expects(target: str) -> None:
    """Ray's launcher works in login shells, whose /etc/profile forgets PATH; it mounts the token of a machine's first
    user; and on the head it starts workers through ssh, asking AWS through boto3."""
    text = lineage(target)
    assert _with_interactive("ray stop")[:2] == ["bash", "--login"]
    (line,) = re.findall(r'echo "(PATH=.*)" > /etc/profile\.d/longrange\.sh', text)
    shell = ["sh", "-c", 'PATH=/usr/bin; . /dev/stdin; echo "$PATH"']
    told = subprocess.run(shell, input=line.replace("\\$", "$"), capture_output=True, text=True, check=True)
    assert told.stdout == "/opt/longrange/bin:/usr/bin\n"
    installed = re.findall(r"--no-install-recommends ([\w -]+) &&", text)
    assert {"openssh-client", "rsync"} <= set(" ".join(installed).split())
    assert "useradd --uid 1000 " in text
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", stages()[f"build-{target}"])
    assert "cluster" in extras.split(",")
    cluster = PROJECT["project"]["optional-dependencies"]["cluster"]
    assert any(line.startswith("boto3") for line in cluster)


def test_every_install_is_pinned_by_the_constraints() -> None:
    installs = re.findall(r"pip install .*", (DOCKER / "Dockerfile").read_text())
    assert len(installs) == 6
    assert all("-c constraints.txt" in line or "--no-deps --force-reinstall ." in line for line in installs), installs


def test_the_images_run_what_a_sweep_file_can_ask_for() -> None:
    """Searches everywhere, DeepSpeed where GPUs are."""
    extras = {name: re.findall(r"'\.\[([\w,]+)\]'", stages()[f"build-{name}"]) for name in ("cpu", "cuda")}
    assert extras == {"cpu": ["cluster,search"], "cuda": ["cluster,deepspeed,search"]}


def test_the_build_context_holds_all_packages_and_no_secrets() -> None:
    allowed = {line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    copied = set(re.findall(r"^COPY (?!--from)(?:--\S+ )*(.+) \S+$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE))
    sources = {source for line in copied for source in line.split()}
    assert sources == allowed
    assert all((ROOT / source).exists() for source in sources)


# Shell


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    done = subprocess.run([tool("shellcheck"), str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_secrets_are_random_private_and_never_overwritten(tmp_path: Path) -> None:
    script = shutil.copy(DOCKER / "secrets.sh", tmp_path)
    first = subprocess.run(["sh", script], capture_output=True, text=True, check=True)
    written = tmp_path / ".env"
    values = dict(line.split("=", 1) for line in written.read_text().splitlines())
    assert values.pop("COMPOSE_PROJECT_NAME") == "longrange"
    assert all(re.fullmatch(r"[0-9a-f]{64}", value) for value in values.values())
    assert len(set(values.values())) == len(values)
    assert written.stat().st_mode & 0o777 == 0o600
    assert not any(value in first.stdout + first.stderr for value in values.values())
    assert subprocess.run(["sh", script], capture_output=True).returncode == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [".env", "secrets.sh"]


def test_secrets_file_is_ignored_by_git() -> None:
    assert ".env" in (DOCKER / ".gitignore").read_text().splitlines()


# compose.yaml


def asked_for() -> set[str]:
    return set(re.findall(r"(?<!\$)\$\{(\w+):\?", (DOCKER / "compose.yaml").read_text()))


def test_secrets_script_writes_what_compose_asks_for() -> None:
    listed = re.search(r"for name in (.*?); do", (DOCKER / "secrets.sh").read_text(), flags=re.DOTALL)
    assert listed is not None
    assert set(listed[1].replace("\\\n", " ").split()) == asked_for()


def test_no_secret_has_a_default() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    defaults = set(re.findall(r"(?<!\$)\$\{(\w+):-", text))
    assert defaults == {"LONGRANGE_IMAGE", "LONGRANGE_TARGET", "RAY_SHM", "WORKER_CPUS"}
    plain = re.findall(r"^\s+(\w*(?:PASSWORD|TOKEN|SECRET|KEY)\w*): (.+)$", text, flags=re.MULTILINE)
    assert len(plain) >= 12
    assert all(re.fullmatch(r"\$\{\w+:\?run docker/secrets\.sh first\}", value) for _, value in plain)


def test_published_ports_are_on_loopback(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert sorted(ports) == ["127.0.0.1:5000:5000", "127.0.0.1:8050:8050", "127.0.0.1:8265:8265"]


def test_services_are_hardened(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        assert service.get("network_mode") is None, name
        assert not any("docker.sock" in str(volume) for volume in service.get("volumes", ())), name


def test_workers_hold_the_token_and_no_other_secret(compose: dict[str, Any]) -> None:
    worker = compose["services"]["worker"]
    assert set(worker["environment"]) == {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}
    assert worker["networks"] == ["ray"]
    for name in ("ray-head", "worker"):
        assert compose["services"][name]["environment"]["RAY_AUTH_MODE"] == "token"


def test_every_third_image_is_pinned(compose: dict[str, Any]) -> None:
    images = [service["image"] for service in compose["services"].values()]
    foreign = [image for image in images if "longrange" not in image]
    assert len(foreign) == 2
    assert all(re.search(r":\d", image) for image in foreign)


def test_every_service_says_when_it_is_well(compose: dict[str, Any]) -> None:
    """By a check of its own: what the image of `longrange` checks is that the program starts."""
    without = {name for name, service in compose["services"].items() if "healthcheck" not in service}
    assert without == {"mlflow"}
    assert "/health" in stages()["mlflow"]


def test_every_named_volume_is_used(compose: dict[str, Any]) -> None:
    mounts = [str(volume) for service in compose["services"].values() for volume in service.get("volumes", ())]
    assert set(compose["volumes"]) == {mount.partition(":")[0] for mount in mounts if not mount.startswith(".")}


def test_compose_reads_its_file_only_with_secrets(tmp_path: Path) -> None:
    (tmp_path / "none").touch()
    command = [
        tool("docker-compose"),
        "-f",
        str(DOCKER / "compose.yaml"),
        "--env-file",
        str(tmp_path / "none"),
        "config",
    ]
    bare = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    without = subprocess.run(command, env=bare, capture_output=True, text=True)
    assert without.returncode != 0
    assert "run docker/secrets.sh first" in without.stderr
    secrets = dict.fromkeys(asked_for(), "a1b2c3")
    done = subprocess.run(command, env=bare | secrets, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) == set(load("compose.yaml")["services"])


def test_mlflow_knows_its_users_and_permits_them_nothing_by_default() -> None:
    text = (DOCKER / "mlflow.sh").read_text()
    command = re.search(r"^exec mlflow server (.+?)(?<!\\)$", text, re.MULTILINE | re.DOTALL)
    assert command is not None
    assert command[1].startswith("--app-name basic-auth ")
    assert "--disable-security-middleware" not in command[1]
    assert re.search("^default_permission = NO_PERMISSIONS$", (DOCKER / "mlflow-auth.ini").read_text(), re.MULTILINE)


# ray-cluster.yaml


def test_ray_cluster_fits_rays_own_schema() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler/ray-schema.json").read_text())
    jsonschema.Draft7Validator(schema).validate(load("ray-cluster.yaml"))


def test_ray_cluster_is_reached_by_ssh_alone_and_asks_for_the_token() -> None:
    cluster = load("ray-cluster.yaml")
    rules = cluster["provider"]["security_group"]["IpPermissions"]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in rules] == [(22, 22)]
    assert all(item["CidrIp"].endswith("/32") for rule in rules for item in rule["IpRanges"])
    options = cluster["docker"]["run_options"]
    assert "--env RAY_AUTH_MODE=token" in options
    path = next(option.rpartition("=")[2] for option in options if "RAY_AUTH_TOKEN_PATH" in option)
    assert cluster["file_mounts"][path] == "~/.ray/auth_token"
    assert not any("privileged" in option for option in options)
    heads = " ".join(cluster["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in heads


def test_ray_cluster_has_spot_workers_with_and_without_gpu() -> None:
    types = load("ray-cluster.yaml")["available_node_types"]
    spot = {name for name, kind in types.items() if "InstanceMarketOptions" in kind["node_config"]}
    assert spot == {"gpu_spot", "cpu_spot"}
    assert {name for name in spot if types[name]["resources"].get("GPU")} == {"gpu_spot"}
    assert types["head"]["resources"] == {"CPU": 0}


# kuberay.yaml


def pods(kubernetes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    spec = kubernetes["RayCluster"]["spec"]
    groups = {"head": spec["headGroupSpec"], **{group["groupName"]: group for group in spec["workerGroupSpecs"]}}
    return {name: group["template"]["spec"] for name, group in groups.items()}


def test_ray_on_kubernetes_asks_for_the_token(kubernetes: dict[str, dict[str, Any]]) -> None:
    spec = kubernetes["RayCluster"]["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["rayVersion"] == ray.__version__, "the images hold the Ray of constraints.txt"
    for name, pod in pods(kubernetes).items():
        assert {"name": "RAY_AUTH_MODE", "value": "token"} in pod["containers"][0]["env"], name


def test_pods_are_restricted_and_sized(kubernetes: dict[str, dict[str, Any]]) -> None:
    for name, pod in pods(kubernetes).items():
        assert pod["securityContext"]["runAsUser"] == 1000, name
        assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), name
        assert not any("hostPath" in volume for volume in pod["volumes"]), name
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["runAsNonRoot"], name
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert "privileged" not in context, name
            assert container["resources"]["requests"] == container["resources"]["limits"], name
            assert not container["image"].endswith(":latest"), name
            named = {volume["name"] for volume in pod["volumes"]}
            assert {mount["name"] for mount in container["volumeMounts"]} == named, name


def test_secrets_on_kubernetes_come_from_a_secret_and_stay_on_the_head(kubernetes: dict[str, dict[str, Any]]) -> None:
    for name, pod in pods(kubernetes).items():
        env = {item["name"]: item for item in pod["containers"][0]["env"]}
        secret = {key for key in env if re.search("PASSWORD|USERNAME|TOKEN", key)}
        assert all("value" not in env[key] for key in secret), name
        assert bool(secret) == (name == "head"), name
        assert name == "head" or pod["automountServiceAccountToken"] is False


def test_groups_with_and_without_gpu_share_one_folder(kubernetes: dict[str, dict[str, Any]]) -> None:
    found = pods(kubernetes)
    assert set(found) == {"head", "gpu", "cpu"}
    assert {name for name, pod in found.items() if "nvidia.com/gpu" in pod["containers"][0]["resources"]["limits"]} == {
        "gpu"
    }
    claim = kubernetes["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in found.values():
        assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_the_job_and_the_network_policy_name_this_cluster(kubernetes: dict[str, dict[str, Any]]) -> None:
    cluster = kubernetes["RayCluster"]["metadata"]
    assert kubernetes["RayJob"]["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["name"]}
    policy = kubernetes["NetworkPolicy"]["spec"]
    assert policy["podSelector"] == {"matchLabels": {"ray.io/cluster": cluster["name"]}}
    assert policy["policyTypes"] == ["Ingress"]
    assert {item["metadata"]["namespace"] for item in kubernetes.values()} == {"longrange"}


@pytest.mark.parametrize("name", ["compose.yaml", "ray-cluster.yaml", "kuberay.yaml", "README.md"])
def test_commands_in_the_files_are_ours(name: str) -> None:
    """Every `longrange ...` with its options exists."""
    import shlex

    from orchestrator.cli import cli

    text = (DOCKER / name).read_text()
    text = re.sub(r"\\?\n[# ]*(?=--)", " ", text)
    commands = re.findall(r"longrange (?:run|ui|plan) [^\n'#`]+", text)
    assert commands or name == "README.md"
    for command in commands:
        verb, *arguments = shlex.split(command)[1:]
        found = cli.get_command(None, verb)  # type: ignore[arg-type]
        assert found is not None
        found.make_context(verb, [item for item in arguments if item != "\\"], resilient_parsing=False)
