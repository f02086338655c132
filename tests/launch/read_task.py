"""Prints, as JSON, what SkyPilot makes of tasks; runs in SkyPilot's environment.

python read_task.py ARGS FILE... reads each file as `sky jobs launch FILE --env ARGS=ARGS` does.
"""

import json
import sys

from sky.backends import CloudVmRayBackend  # type: ignore[import-not-found]
from sky.jobs.recovery_strategy import StrategyExecutor  # type: ignore[import-not-found]
from sky.skylet import log_lib  # type: ignore[import-not-found]
from sky.utils import dag_utils  # type: ignore[import-not-found]

# Of the nodes of a job; SkyPilot gives 137 to those that it ends because another one has failed.
STATUSES = ([143], [143, 137], [1], [3], [1, 137], [130], [134], [137])


def read(path: str, arguments: str) -> dict[str, object]:
    """Returns the task of a file, and the statuses after which SkyPilot starts it again."""
    dag = dag_utils.load_dag_from_yaml(path, env_overrides=[("ARGS", arguments)])
    dag_utils.fill_default_config_in_dag_for_job_launch(dag)
    [task] = dag.tasks
    [resources] = task.resources
    backend = CloudVmRayBackend()
    executor = StrategyExecutor.make("cluster", backend, task, 1, 0, None, set(), None, None)
    return {
        "workdir": task.workdir,
        "num_nodes": task.num_nodes,
        "setup": task.setup,
        # What a node runs with `bash -i`; SkyPilot exports other variables of its own in it, too.
        "script": log_lib.make_task_bash_script(task.run, env_vars=task.envs),
        "accelerators": resources.accelerators,
        "cloud": str(resources.cloud),
        "use_spot": resources.use_spot,
        "starts_again_after": [
            each for each in STATUSES if executor.should_restart_on_failure(exit_codes=each)
        ],
    }


def error_without_arguments(path: str) -> str | None:
    """Returns what SkyPilot says where ARGS is not given."""
    try:
        dag_utils.load_dag_from_yaml(path)
    except ValueError as error:
        return str(error)
    return None


def main(arguments: str, *paths: str) -> None:
    """Prints a dictionary of the tasks, by path."""
    tasks = {path: read(path, arguments) for path in paths}
    for path, task in tasks.items():
        task["error_without_arguments"] = error_without_arguments(path)
    print(json.dumps(tasks))


if __name__ == "__main__":
    main(*sys.argv[1:])
