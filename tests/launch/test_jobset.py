"""launch/jobset_*.yaml against the models of the Kubernetes and JobSet APIs in kubeflow-trainer-api."""

import copy
from typing import Any

import pytest
import yaml
from kubeflow_trainer_api.models.jobset_v1alpha2_failure_policy_rule import (
    JobsetV1alpha2FailurePolicyRule,
)
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet
from tiny_run import ROOT

TPU = yaml.safe_load((ROOT / "launch" / "jobset_tpu.yaml").read_text())
GPU = yaml.safe_load((ROOT / "launch" / "jobset_gpu.yaml").read_text())
both = pytest.mark.parametrize("manifest", [TPU, GPU], ids=["tpu", "gpu"])


def _is_valid(manifest: dict[str, Any]) -> bool:
    """Whether the API knows every field, and has a value of its type for it."""
    try:
        read = JobsetV1alpha2JobSet.from_dict(manifest)
    except ValueError:
        return False
    # Unknown fields are dropped, and required ones are filled in.
    return read is not None and read.to_dict() == manifest


def _job(manifest: dict[str, Any]) -> dict[str, Any]:
    [job] = manifest["spec"]["replicatedJobs"]
    return job["template"]["spec"]


def _pod(manifest: dict[str, Any]) -> dict[str, Any]:
    return _job(manifest)["template"]["spec"]


@both
def test_the_api_accepts_it(manifest: dict[str, Any]) -> None:
    assert manifest["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert manifest["kind"] == "JobSet"
    assert _is_valid(manifest)


@both
def test_the_api_refuses_mistakes(manifest: dict[str, Any]) -> None:
    """The test above notices fields that do not exist, are missing, or have the wrong type."""
    for break_it in (
        lambda m: m["spec"].update(maxRestarts=3),
        lambda m: m["spec"]["failurePolicy"]["rules"][0].pop("action"),
        lambda m: m["spec"]["failurePolicy"]["rules"][0].update(onJobFailureReasons="Any"),
        lambda m: _job(m).update(completionmode="Indexed"),
        lambda m: _job(m)["podFailurePolicy"]["rules"][1]["onExitCodes"].update(values=["143"]),
        lambda m: _pod(m)["containers"][0].update(arguments=[]),
        lambda m: _pod(m)["containers"][0]["ports"][0].update(containerPort="http"),
        lambda m: _pod(m)["volumes"][0]["emptyDir"].update(medum="Memory"),
        lambda m: _pod(m).update(terminationGracePeriodSeconds="long"),
    ):
        broken = copy.deepcopy(manifest)
        break_it(broken)
        assert not _is_valid(broken)


@both
def test_preempted_and_saved_runs_start_again_and_failed_ones_three_times(
    manifest: dict[str, Any],
) -> None:
    job = _job(manifest)
    disrupted, saved = job["podFailurePolicy"]["rules"]
    assert disrupted == {
        "action": "FailJob",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    assert saved == {
        "action": "FailJob",
        "onExitCodes": {"containerName": "train", "operator": "In", "values": [143]},
    }
    policy = manifest["spec"]["failurePolicy"]
    [rule] = policy["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    known = JobsetV1alpha2FailurePolicyRule.model_fields["action"].description
    assert known is not None
    assert rule["action"] in known.removesuffix(".").replace(",", "").split()
    assert policy["maxRestarts"] == 3
    assert job["backoffLimit"] == 0
    assert _pod(manifest)["restartPolicy"] == "Never"
    assert _pod(manifest)["terminationGracePeriodSeconds"] >= 120


@both
def test_there_is_one_process_on_each_node(manifest: dict[str, Any]) -> None:
    job = _job(manifest)
    assert job["completionMode"] == "Indexed"
    assert job["parallelism"] == job["completions"]
    [container] = _pod(manifest)["containers"]
    assert container["name"] == "train"
    assert container["command"] == ["python", "-m", "fgr_jax.main"]
    resources = container["resources"]
    assert resources["requests"] == resources["limits"]
    [accelerator] = resources["limits"]
    tolerated = {toleration["key"] for toleration in _pod(manifest)["tolerations"]}
    assert tolerated == {accelerator, "cloud.google.com/gke-spot"}
    for flag in ("--config=", "--workdir=gs://", "--config.data.data_dir=gs://"):
        assert [argument for argument in container["args"] if argument.startswith(flag)]


def test_a_tpu_slice_has_the_chips_of_its_topology() -> None:
    selector = _pod(TPU)["nodeSelector"]
    assert selector["cloud.google.com/gke-tpu-accelerator"] == "tpu-v6e-slice"
    rows, columns = map(int, selector["cloud.google.com/gke-tpu-topology"].split("x"))
    [container] = _pod(TPU)["containers"]
    assert container["resources"]["limits"]["google.com/tpu"] * _job(TPU)["completions"] == (
        rows * columns
    )
    assert "--distributed" in container["args"]


def test_gpu_nodes_find_each_other() -> None:
    [container] = _pod(GPU)["containers"]
    [job] = GPU["spec"]["replicatedJobs"]
    name = GPU["metadata"]["name"]
    [port] = container["ports"]
    assert GPU["spec"]["network"]["enableDNSHostnames"] is True
    assert container["args"][:3] == [
        # JobSet names a pod JOBSET-JOB-INDEX_OF_JOB-INDEX_OF_POD and its domain like itself.
        f"--coordinator={name}-{job['name']}-0-0.{name}:{port['containerPort']}",
        f"--process_count={_job(GPU)['completions']}",
        "--process_id=$(JOB_COMPLETION_INDEX)",  # Kubernetes sets it in every pod
    ]
    assert list(container["resources"]["limits"]) == ["nvidia.com/gpu"]
