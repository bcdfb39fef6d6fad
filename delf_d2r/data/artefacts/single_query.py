"""How a process that answers a single photo computes: on small indexes without numba."""

import pathlib

from delf_d2r import config as configs
from delf_d2r.data.artefacts import index_files
from delf_d2r.data.artefacts.artefact import RUN_CONFIG
from delf_d2r.errors import UserError
from delf_d2r.kernels import compiled

# NumPy takes 0.04 s for each GB of an index without region masks, which numba would do in a tenth of it. The
# import of numba and of its machine code takes 0.7 s.
_SMALL_BYTES = 2 << 30


def use_numpy_where_cheaper(index: str | pathlib.Path, *, verify: bool | None) -> None:
  """Selects the NumPy path in this process if one search of the index costs less without numba.

  It must be called before the modules of the search are imported. Answers are the same.

  Args:
    index: the directory of a run or of an index; what is wrong with it is found out later.
    verify: whether the results will be verified, for which numba pays; None if the run says so.
  """
  place = pathlib.Path(index)
  if not _verifies(place, verify) and _posting_bytes(place) <= _SMALL_BYTES:
    compiled.use_numpy()


def _verifies(place: pathlib.Path, verify: bool | None) -> bool:
  run = place / RUN_CONFIG
  if verify is not None or not run.is_file():
    return bool(verify)
  try:
    return configs.load(run).HasField('verification')
  except UserError:
    return True


def _posting_bytes(place: pathlib.Path) -> int:
  """Returns the bytes of the inverted indexes in a directory: of an index, or of a run with one or two."""
  files = (
    file
    for folder in ('', 'index', 'other/index')
    for file in (place / folder / index_files.INVERTED).glob('*')
  )
  return sum(file.stat().st_size for file in files)
