"""Conversion of single files: tensors, features of one image, metrics."""

import io
import pathlib
from collections.abc import Callable

import numpy as np

from delf_d2r.conversion import foreign_files
from delf_d2r.data.foreign import hloc_files
from delf_d2r.data.legacy import datum, delf_files
from delf_d2r.errors import UserError
from delf_d2r.evaluation import metrics_files


def _tensor_to_npy(path: pathlib.Path) -> bytes:
  array = datum.read(path)
  if not np.isfinite(array).all():
    raise UserError(f'{path}: has numbers that are not finite')
  data = io.BytesIO()
  np.save(data, array, allow_pickle=False)
  return data.getvalue()


def _npy_to_tensor(path: pathlib.Path) -> bytes:
  try:
    array = np.load(path, allow_pickle=False)
    if array.dtype.kind == 'f' and not np.isfinite(array).all():
      raise ValueError('it has numbers that are not finite')
    return datum.encode(array).SerializeToString()
  except Exception as error:  # A damaged header may raise nearly any exception.
    raise UserError(f'{path}: cannot be converted to a .datum file ({error})') from None


def npz(arrays: dict[str, np.ndarray]) -> bytes:
  """Returns the bytes of an `.npz` file; the same arrays give the same bytes."""
  data = io.BytesIO()
  np.savez(data, **arrays)  # type: ignore[arg-type]  # The stub takes ** for its option allow_pickle.
  return data.getvalue()


def _metrics_to_json(path: pathlib.Path) -> bytes:
  try:
    return metrics_files.format_json(metrics_files.read_metrics_txt(path)).encode()
  except UserError:
    raise
  except ValueError as error:
    raise UserError(f'{path}: {error}; is it a metrics.txt?') from None


def _metrics_to_txt(path: pathlib.Path) -> bytes:
  found = metrics_files.read_metrics_json(path)
  # The file of the DELF code has no easy protocol.
  return metrics_files.format_metrics_txt({k: v for k, v in found.items() if k != 'easy'}).encode()


# The conversion from a file of the first extension to one of the second.
CONVERSIONS: dict[tuple[str, str], Callable[[pathlib.Path], bytes]] = {
  ('.datum', '.npy'): _tensor_to_npy,
  ('.npy', '.datum'): _npy_to_tensor,
  ('.delf', '.npz'): lambda path: npz(hloc_files.arrays(delf_files.read(path))),
  ('.npz', '.delf'): lambda path: delf_files.encode(hloc_files.read_npz(path)),
  ('.txt', '.json'): _metrics_to_json,
  ('.json', '.txt'): _metrics_to_txt,
}


def convert(source: pathlib.Path, output: pathlib.Path, *, redo: bool = False) -> None:
  """Converts one file; the extensions of both paths choose the conversion.

  Raises:
    UserError: there is no such conversion, the file is damaged, or `output` has other contents.
  """
  make = CONVERSIONS.get((source.suffix, output.suffix))
  if make is None:
    known = ', '.join(f'{a} to {b}' for a, b in CONVERSIONS)
    raise UserError(
      f'{source}: no conversion from {source.suffix!r} to {output.suffix!r} files; known: {known}'
    )
  foreign_files.put(output, make(source), redo=redo)


def convert_folder(source: pathlib.Path, extension: str, output: pathlib.Path, *, redo: bool = False) -> int:
  """Converts every file of an extension, also in subfolders, which are kept; returns the number of files."""
  target = next(b for a, b in CONVERSIONS if a == extension)
  found = foreign_files.find(source, extension)
  for name, path in found.items():
    convert(path, output / f'{name}{target}', redo=redo)
  return len(found)
