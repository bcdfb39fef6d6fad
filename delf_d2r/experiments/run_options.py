"""Options of a run that do not change its results."""

import dataclasses
from typing import Any

from delf_d2r.index.builder import DEFAULT_MEMORY_BUDGET
from delf_d2r.runtime import worker_pool


@dataclasses.dataclass(frozen=True)
class Options:
  """How to run, without effect on the results.

  Attributes:
    workers: number of processes; None: one for each core.
    strict: whether to stop at the first photo that cannot be decoded.
    redo: whether to replace artefacts of another config.
    cluster: workers to use instead of processes, in all stages from detect_boxes to build_index except
      train_codebook.
    sorting_bytes: memory for sorting the index, in bytes, of all processes of this machine together.
  """

  workers: int | None = None
  strict: bool = False
  redo: bool = False
  cluster: worker_pool.Pool | None = None
  sorting_bytes: int = DEFAULT_MEMORY_BUDGET

  @property
  def extracting(self) -> dict[str, Any]:
    """The options of stages that work image by image."""
    return {'workers': self.cluster or self.workers, 'strict': self.strict, 'redo': self.redo}

  @property
  def building(self) -> dict[str, Any]:
    """The options of build_index."""
    workers = self.cluster or self.workers
    return {'workers': workers, 'memory_budget': self.sorting_bytes, 'redo': self.redo}
