"""The manifests in deploy/: valid for Kubernetes, and whole: what refers to something finds it."""

import pathlib
import sys
import tomllib

import kubernetes_validate
import yaml

VERSION = "1.32"
DEPLOY = pathlib.Path(sys.argv[1])
FOLDER = DEPLOY / "kubernetes"


def documents(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def labels_of(template):
    return template["metadata"]["labels"]


def matches(selector, labels):
    wanted = selector.get("matchLabels", selector)
    return bool(wanted) and all(labels.get(key) == value for key, value in wanted.items())


resources, generated, tagged = [], set(), set()
for folder in (FOLDER, FOLDER / "gpu"):
    kustomization = documents(folder / "kustomization.yaml")[0]
    files = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == files, f"{folder}/kustomization.yaml lists not exactly {files}"
    for generator in kustomization["configMapGenerator"]:
        generated.add(generator["name"])
        for name in generator["files"]:
            assert (folder / name).exists(), f"{folder}/kustomization.yaml: there is no {name}"
    tagged |= {image["name"] for image in kustomization["images"]}
    resources += [document for name in sorted(files) for document in documents(folder / name)]
for resource in resources:
    kubernetes_validate.validate(resource, VERSION, strict=True)

workloads = {r["metadata"]["name"]: r for r in resources if r["kind"] in ("Deployment", "StatefulSet")}
pods = {name: workload["spec"]["template"] for name, workload in workloads.items()}
assert set(workloads) == {"coordinator", "worker", "gpu-worker", "etcd"}
ports = {}
for name, workload in workloads.items():
    pod = pods[name]["spec"]
    assert matches(workload["spec"]["selector"], labels_of(pods[name])), f"{name} selects none of its own pods"
    # Variables that Kubernetes would set for Services begin with WINDLASS_ where their names do.
    assert pod["enableServiceLinks"] is False, f"{name} has service links"
    for volume in pod.get("volumes", []):
        config = volume.get("configMap")
        assert not config or config["name"] in generated, f"{name}: no ConfigMap {volume}"
    for container in pod["containers"]:
        assert container["image"] in tagged, f"{name}: {container['image']} has no tag"
        ports[name] = {port["name"] for port in container["ports"]}
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        claims = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
        assert mounted == claims | {volume["name"] for volume in pod.get("volumes", [])}, f"{name}: {mounted}"

# Who finds others in etcd is let in there.
let_in = next(r for r in resources if r["kind"] == "NetworkPolicy" and r["metadata"]["name"] == "etcd")["spec"]["ingress"][0]["from"][0]
assert set(let_in["podSelector"]["matchExpressions"][0]["values"]) == set(workloads) - {"etcd"}, let_in

scaled = {}
for resource in resources:
    kind, name, spec = resource["kind"], resource["metadata"]["name"], resource.get("spec", {})
    if kind == "Service":
        found = [pod for pod in pods if matches(spec["selector"], labels_of(pods[pod]))]
        assert len(found) == 1, f"Service {name} selects {found}"
        targets = {port["targetPort"] for port in spec["ports"]}
        assert targets <= ports[found[0]], f"Service {name} has no ports {targets - ports[found[0]]}"
    elif kind == "PodDisruptionBudget":
        assert any(matches(spec["selector"], labels_of(pod)) for pod in pods.values()), f"{name} selects nothing"
    elif kind == "HorizontalPodAutoscaler":
        scaled[spec["scaleTargetRef"]["name"]] = spec
    elif kind == "NetworkPolicy":
        found = [pod for pod in pods if matches(spec["podSelector"], labels_of(pods[pod]))]
        used = {port["port"] for rule in spec["ingress"] for port in rule["ports"]}
        assert len(found) == 1 and used <= ports[found[0]], f"NetworkPolicy {name} is about {found}, ports {used}"
assert set(scaled) == {"coordinator", "worker"}
for name in scaled:
    # An HPA and a number of replicas in the manifest would fight.
    assert "replicas" not in workloads[name]["spec"], f"{name} has replicas beside its HPA"

# A pod has as many GPUs as its worker computes on.
settings = tomllib.loads((FOLDER / "gpu" / "windlass.toml").read_text())["worker"]
limits = pods["gpu-worker"]["spec"]["containers"][0]["resources"]["limits"]
assert int(limits["nvidia.com/gpu"]) == settings["tp"] * settings["stages"], f"gpu-worker has {limits}"
# The container has the compiler of kernels that the tests have.
wheels = (DEPLOY.parent / "tests" / "python" / "cuda-requirements.txt").read_text().split()
recipe = (DEPLOY / "container" / "Dockerfile").read_text()
assert all(wheel in recipe for wheel in wheels), f"container/Dockerfile does not install {wheels}"

compose = documents(DEPLOY / "compose.yaml")[0]
for name, service in compose["services"].items():
    dockerfile = DEPLOY.parent / service["build"]["dockerfile"]
    assert dockerfile.exists(), f"{name}: there is no {dockerfile}"
    assert set(service.get("depends_on", {})) <= set(compose["services"])
print(f"{len(resources)} resources are valid")
