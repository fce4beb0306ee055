"""The processes that train one model together: one for each device, started by torchrun.

Where there is one process only, everything here does what it would do without it.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from hcoatnet.data.loading import Share
from hcoatnet.errors import ConfigError, TrainingError

Result = TypeVar("Result")
ENDED_ELSEWHERE = 2
"""Exit code of a process that ends because of another one's error, which that one has told."""


class Team:
    """The processes of a training, as one of them sees it.

    Args:
        accelerator: Knows the process's number and how many there are.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.share = Share(accelerator.process_index, accelerator.num_processes)
        self.device: torch.device = accelerator.device

    @property
    def alone(self) -> bool:
        """Whether there is one process only."""
        return self.share.size == 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that speaks and writes files."""
        return self.share.rank == 0

    @property
    def place(self) -> tuple[int, ...]:
        """What tells this process's random draws from those of the leading one, which draws as one process would."""
        return () if self.leads else (self.share.rank,)

    def first(self, work: Callable[[], Result]) -> Result:
        """Do something in the leading process only; all get its result, and all end where it fails."""
        if self.alone:
            return work()
        if self.leads:
            try:
                told: list[tuple[bool, Result | None]] = [(True, work())]
            except Exception:
                distributed.broadcast_object_list([(False, None)], device=self.device)
                raise
            distributed.broadcast_object_list(told, device=self.device)
        else:
            told = [(False, None)]
            distributed.broadcast_object_list(told, device=self.device)
        done, result = told[0]
        if not done:
            raise SystemExit(ENDED_ELSEWHERE)
        return result  # type: ignore[return-value]

    def sum(self, values: Tensor) -> Tensor:
        """Sum over all processes, element by element, in place."""
        if not self.alone:
            distributed.all_reduce(values)
        return values

    def all_agree(self, yes: bool) -> bool:
        """Whether ``yes`` holds in every process."""
        return bool(self.sum(torch.tensor(float(yes), device=self.device)) == self.share.size)

    def gather_rows(self, indices: Tensor, rows: Tensor) -> NDArray[np.float32]:
        """Rows of all processes in the order of their indices, each once."""
        parts = [(indices, rows)]
        if not self.alone:
            gathered: list[tuple[Tensor, Tensor]] = [parts[0]] * self.share.size
            distributed.all_gather_object(gathered, parts[0])
            parts = gathered
        place = torch.cat([part for part, _ in parts])
        table = torch.cat([part for _, part in parts])
        if not torch.equal(place.sort().values, torch.arange(len(place))):
            raise TrainingError("The processes have not evaluated every photo exactly once. Please report this.")
        return table[place.argsort()].numpy()

    def spread_buffers(self, model: nn.Module) -> None:
        """Give every process the leading one's buffers, such as the running means of batch norm."""
        if not self.alone:
            for buffer in model.buffers():
                distributed.broadcast(buffer, 0)

    def wait(self) -> None:
        """Wait until every process is here."""
        if not self.alone:
            self.all_agree(True)

    def unsynchronised(self, model: nn.Module) -> AbstractContextManager[None]:
        """Within, gradients add up in this process only: another micro-batch follows."""
        return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Within, the end of another process is an error that says so; afterwards the processes part.

        Raises:
            TrainingError: Another process has ended.
        """
        try:
            yield
        except RuntimeError as error:
            if self.alone or not any(word in str(error) for word in ("onnection", "NCCL", "gloo", "closed by peer")):
                raise
            raise TrainingError(
                "Another process of this training has ended; its own message says why. Mend the cause and continue "
                "with --resume."
            ) from error
        if not self.alone:
            distributed.destroy_process_group()


def require_one_process(what: str, accelerator: Accelerator) -> None:
    """Refuse several processes for work that has no use for them.

    Raises:
        ConfigError: There are several.
    """
    if accelerator.num_processes > 1:
        raise ConfigError(f"{what} works in one process. Start it without torchrun.")
