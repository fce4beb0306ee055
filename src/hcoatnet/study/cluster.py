"""Cells on a Dask cluster whose workers see the same files under the same paths.

A worker starts each cell as a process of its own, just as ``study run`` does on one machine. If a worker dies, its
cells end with it, the scheduler gives them to other workers, and there they continue after their last epoch.
"""

import asyncio
import importlib
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hcoatnet import __version__
from hcoatnet.errors import ConfigError
from hcoatnet.study.cell import Lifelines, Outcome, plain_settings, run_cell
from hcoatnet.study.plan import StudyDirectory, Task
from hcoatnet.study.runner import Started

PATIENCE = 15.0
"""Seconds to wait for the scheduler, and for its first worker."""

_LIFELINES: dict[str, Lifelines] = {}
"""On a worker: the cells that run there, by the call of ``study run`` that they belong to."""


class ClusterRunner:
    """Trains cells on a Dask cluster.

    Args:
        address: Of the scheduler, such as ``tcp://10.0.0.1:8786``.
        directory: The study.

    Raises:
        ConfigError: Dask is not installed, or there is no scheduler with workers at the address.
    """

    def __init__(self, address: str, directory: StudyDirectory) -> None:
        try:
            self.dask: Any = importlib.import_module("distributed")
        except ImportError as error:
            raise ConfigError("--cluster needs Dask. Install it with `pip install 'hcoatnet[cluster]'`.") from error
        self.directory = directory
        self.token = f"hcoatnet-{uuid.uuid4().hex}"
        self.client: Any = None
        try:
            self.client = self.dask.Client(address, timeout=PATIENCE, set_as_default=False)
            self.client.wait_for_workers(1, timeout=PATIENCE)
        except (OSError, ValueError, TimeoutError) as error:
            if self.client is not None:
                self.client.close()
            raise ConfigError(
                f"--cluster {address}: no Dask scheduler with workers answers there. Start one with `dask scheduler` "
                "and `dask worker ADDRESS --nthreads 1`."
            ) from error
        self.slots = self._slots()
        self.jobs = sum(self.slots.values())

    def _slots(self) -> dict[str, int]:
        """How many cells can run on each machine at a time."""
        slots: Counter[str] = Counter()
        for worker in self.client.scheduler_info(n_workers=-1)["workers"].values():
            slots[worker["host"]] += worker["nthreads"]
        return dict(slots)

    @contextmanager
    def running(self, tasks: Sequence[Task], started: Started) -> Iterator[Iterator[Outcome]]:
        """Train ``tasks``; see :class:`hcoatnet.study.runner.Runner`."""
        try:
            self._check_workers()
            by_name = {task.cell.cell: task for task in tasks}
            self.client.subscribe_topic(self.token, lambda event: started(by_name[event[1]["cell"]]))
            here = str(Path.cwd())
            futures = {
                self.client.submit(
                    _train_on_worker, self.token, name, plain_settings(task.config), here, self.slots,
                    key=f"{self.token}-{name}", pure=False,
                ): name
                for name, task in by_name.items()
            }  # fmt: skip
            try:
                yield (
                    _outcome(future, futures[future])
                    for future in self.dask.as_completed(futures, loop=self.client.loop)
                )
            finally:
                if not all(future.done() for future in futures):
                    self.client.cancel(list(futures))
                    self.client.run(_stop_on_worker, self.token)
        finally:
            self.client.close()

    def _check_workers(self) -> None:
        plan = self.directory.plan_file.resolve()
        for worker, (version, sees_plan) in self._answers(str(plan)).items():
            if version != __version__:
                raise ConfigError(
                    f"The worker {worker} has hcoatnet {version}, this is {__version__}. Install the same on both."
                )
            if not sees_plan:
                raise ConfigError(
                    f"The worker {worker} does not see {plan}. The cells of a study read and write the same files: "
                    "put study and photos on a file system that all workers share under the same path."
                )

    def _answers(self, plan: str) -> Mapping[str, tuple[str, bool]]:
        """Of each worker: its version of this package, and whether it sees the plan."""
        try:
            answers: Mapping[str, tuple[str, bool]] = self.client.run(_inspect, plan)
        except ImportError as error:
            raise ConfigError(f"hcoatnet cannot be imported on the cluster's workers: {error}.") from error
        return answers


def _outcome(future: Any, name: str) -> Outcome:
    if future.status == "finished":
        outcome: Outcome = future.result()
        return outcome
    reason = str(future.exception() if future.status == "error" else future.status).strip()
    return Outcome(name, "failed", 0.0, reason.splitlines()[0] if reason else "lost by the cluster")


def _train_on_worker(
    token: str, name: str, settings: Mapping[str, Any], folder: str, slots: Mapping[str, int]
) -> Outcome:
    import joblib
    from distributed import get_worker

    worker: Any = get_worker()
    worker.log_event(token, {"cell": name})
    at_a_time = slots.get(urlsplit(worker.address).hostname or "", worker.state.nthreads)
    threads = max(1, int(joblib.cpu_count()) // at_a_time)
    return run_cell(name, settings, Path(folder), threads, _LIFELINES.setdefault(token, Lifelines()))


async def _stop_on_worker(token: str) -> None:
    await asyncio.to_thread(_LIFELINES.setdefault(token, Lifelines()).stop)


def _inspect(plan: str) -> tuple[str, bool]:
    return __version__, Path(plan).exists()
