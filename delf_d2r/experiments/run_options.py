"""How a run goes about its work, whatever it computes."""

import dataclasses
from typing import Any

from delf_d2r.stages import parallel


@dataclasses.dataclass(frozen=True)
class Options:
  """How to run, without effect on the results.

  Attributes:
    workers: processes; None: one for each core.
    strict: stop at the first photo that cannot be decoded.
    redo: replace artefacts of another config.
    cluster: workers to use instead of processes, in all stages from detect_boxes to build_index but training.
  """

  workers: int | None = None
  strict: bool = False
  redo: bool = False
  cluster: parallel.Pool | None = None

  @property
  def extracting(self) -> dict[str, Any]:
    """The options of stages that work image by image."""
    return {**self.building, 'strict': self.strict}

  @property
  def building(self) -> dict[str, Any]:
    """The options of build_index."""
    return {'workers': self.cluster or self.workers, 'redo': self.redo}
