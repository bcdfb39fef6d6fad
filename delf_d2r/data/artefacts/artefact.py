"""Artefact directories: their contents, their origin, and when they may be used.

A directory with `manifest.pbtxt` is finished, since the manifest is written last. `Artefact.open` opens such
a directory; artefact_writer.py makes one.
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterator, Mapping

from google.protobuf import text_format

from delf_d2r import config as configs
from delf_d2r.data import files
from delf_d2r.data.artefacts import tfrecord
from delf_d2r.errors import ArtefactError
from delf_d2r.protos import aggregation_pb2, experiment_pb2, manifest_pb2

FORMAT_VERSION = 1
MANIFEST = 'manifest.pbtxt'
# The config of a run, in the folder that its artefacts lie in.
RUN_CONFIG = 'config.pbtxt'

# Fields that say how descriptors are compared, not how they are made. Changing them makes no artefact of
# these kinds stale.
COMPARISON_FIELDS = (
  'alpha',
  'tau',
  'normalize',
  'use_idf',
  'query_num_assignments',
  'query_assignment',
  'compat',
)
_COMPARISON_FREE_KINDS = ('descriptors', 'index')


@dataclasses.dataclass(frozen=True)
class Input:
  """Something that an artefact is made from.

  Attributes:
    role: what it is to the artefact; each role occurs once.
    fingerprint: of its contents. It is empty where the input is a part of another one and is listed for its
      place alone.
    path: where it is.
    supersedes: earlier fingerprints of an artefact that lacked photos only because they could not be read.
  """

  role: str
  fingerprint: str
  path: pathlib.Path
  supersedes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Plan:
  """The kind, config and inputs of an artefact, which are known before any work is done.

  Attributes:
    kind: boxes, features, codebook, descriptors, index, rankings, metrics or report.
    config: the resolved configs of all stages that lead to it.
    inputs: what it is made from.
  """

  kind: str
  config: experiment_pb2.ExperimentConfig
  inputs: tuple[Input, ...]

  @property
  def fingerprint(self) -> str:
    """Two plans have the same fingerprint exactly if kind, layout, config and inputs are the same."""
    parts = [self.kind, str(FORMAT_VERSION), configs.to_text(self._decisive_config())]
    parts += [f'{item.role}={item.fingerprint}' for item in self.inputs if item.fingerprint]
    return hashlib.sha256('\n'.join(parts).encode()).hexdigest()[:16]

  def _decisive_config(self) -> experiment_pb2.ExperimentConfig:
    config = experiment_pb2.ExperimentConfig()
    config.CopyFrom(self.config)
    config.ClearField('name')
    if self.kind in _COMPARISON_FREE_KINDS and config.HasField('aggregation'):
      aggregation = config.aggregation
      for field in COMPARISON_FIELDS:
        # A VLAD is normalised when it is made.
        if field != 'normalize' or aggregation.kernel != aggregation_pb2.AggregationConfig.VLAD:
          aggregation.ClearField(field)
    if self.kind == 'descriptors' and config.HasField('aggregation'):
      config.aggregation.ClearField('value_type')  # It is the index that stores values in this way.
    return config

  def to_manifest(self, place: pathlib.Path = pathlib.Path()) -> manifest_pb2.Manifest:
    """Returns the manifest of this plan in the directory `place`, without the results of the work."""
    manifest = manifest_pb2.Manifest(
      kind=self.kind, format_version=FORMAT_VERSION, fingerprint=self.fingerprint, config=self.config
    )
    for item in self.inputs:
      manifest.inputs.add(
        role=item.role, fingerprint=item.fingerprint, path=_utf8(_recorded(item.path, place))
      )
    return manifest

  def differences(self, manifest: manifest_pb2.Manifest) -> list[str]:
    """Returns why an artefact with `manifest` is not the one planned: a line for each difference."""
    if manifest.kind != self.kind:
      return [f'it is an artefact of kind {manifest.kind}, not {self.kind}']
    if manifest.fingerprint == self.fingerprint:
      return []
    old = Plan(manifest.kind, manifest.config, ())._decisive_config()
    found = [
      f'{field} is {was} there, {now} here'
      for field, was, now in configs.differences(old, self._decisive_config())
    ]
    before = {item.role: item for item in manifest.inputs if item.fingerprint}
    for item in filter(lambda item: item.fingerprint, self.inputs):
      old_item = before.get(item.role)
      if old_item is None or old_item.fingerprint != item.fingerprint:
        was = f'{old_item.fingerprint} ({old_item.path})' if old_item else 'none'
        found.append(f'input {item.role} is {was} there, {item.fingerprint} ({item.path}) here')
    for role in before.keys() - {item.role for item in self.inputs}:
      found.append(f'input {role} is {before[role].fingerprint} there, none here')
    return found or [f'its fingerprint is {manifest.fingerprint} there, {self.fingerprint} here']


def _recorded(path: pathlib.Path, place: pathlib.Path) -> pathlib.Path:
  """Returns the path of an input as it is written to the manifest in `place`.

  The path of an input beside the artefact is relative to it, so that a run can be moved as a whole, and used
  from another working folder.
  """
  place, path = (pathlib.Path(os.path.abspath(each)) for each in (place, path))
  return pathlib.Path(os.path.relpath(path, place)) if path.is_relative_to(place.parent) else path


def _utf8(path: pathlib.Path) -> str:
  # The bytes of a folder's name need not be UTF-8; those of a protocol buffer must.
  return os.fsencode(path).decode('utf-8', 'backslashreplace')


def with_comparison(
  config: experiment_pb2.ExperimentConfig, aggregation: aggregation_pb2.AggregationConfig | None
) -> experiment_pb2.ExperimentConfig:
  """Returns a copy of `config` with those comparison fields that are set in `aggregation`."""
  merged = experiment_pb2.ExperimentConfig()
  merged.CopyFrom(config)
  for field in COMPARISON_FIELDS:
    if aggregation is not None and aggregation.HasField(field):
      setattr(merged.aggregation, field, getattr(aggregation, field))
  return merged


@dataclasses.dataclass(frozen=True)
class Artefact:
  """A finished artefact directory.

  Attributes:
    path: the directory.
    manifest: its manifest.
    named: the path beside which inputs are found, if that is not `path`; see `resolved`.
  """

  path: pathlib.Path
  manifest: manifest_pb2.Manifest
  named: pathlib.Path | None = None

  @classmethod
  def open(cls, path: str | pathlib.Path, kind: str) -> 'Artefact':
    """Opens a finished artefact of the given kind.

    Raises:
      ArtefactError: there is none, it is unfinished, of another kind or version, or a shard has been
        truncated since.
    """
    path = pathlib.Path(path)
    manifest = read_manifest(path / MANIFEST)
    if manifest.kind != kind:
      raise ArtefactError(
        f'{path}: holds {manifest.kind}, but {kind} are needed here; is it the directory of another stage?'
      )
    for shard in manifest.shards:
      file = files.safe_join(path, shard.file)
      size = file.stat().st_size if file.is_file() else -1
      if size != shard.bytes:
        found = 'it is missing' if size < 0 else f'it has {size}'
        raise ArtefactError(
          f'{file}: the manifest says {shard.bytes} bytes, {found}. Delete {path} and run its stage again'
        )
    return cls(path, manifest)

  def resolved(self) -> 'Artefact':
    """Returns the artefact by its real path.

    Neither another working folder nor a link that is turned to another directory leads away from it. Inputs
    beside it are those beside the link, if the directory itself was named by one.
    """
    named = self.path.absolute()
    return Artefact(self.path.resolve(), self.manifest, named=named.parent.resolve() / named.name)

  @property
  def config(self) -> experiment_pb2.ExperimentConfig:
    """The resolved configs of all stages that led to this artefact."""
    return self.manifest.config

  @property
  def counts(self) -> Mapping[str, int]:
    """The numbers of things in the artefact, by name."""
    return {count.name: count.value for count in self.manifest.counts}

  @property
  def inputs(self) -> tuple[Input, ...]:
    """All inputs, as they were when the artefact was made."""
    return tuple(
      Input(item.role, item.fingerprint, self._place_of(pathlib.Path(item.path)))
      for item in self.manifest.inputs
    )

  def input(self, role: str) -> Input | None:
    """Returns the input of that role as it was when the artefact was made, or None if there is none."""
    return next((item for item in self.inputs if item.role == role), None)

  def require_input(self, role: str) -> Input:
    """Returns the input of that role; raises ArtefactError if there is none."""
    found = self.input(role)
    if found is None:
      raise ArtefactError(
        f'{self.path}: the manifest names no input {role}, but {[item.role for item in self.inputs]}. Make'
        ' the artefact again by its stage'
      )
    return found

  def open_input(self, role: str, kind: str, *, remedy: str) -> 'Artefact':
    """Opens the input of that role, which must be the very one that this artefact was made from.

    Args:
      role: of the input.
      kind: the kind of artefact that it is.
      remedy: the end of the message if it is another one: what to do again.

    Raises:
      ArtefactError: there is no such input, it is gone, or it is another one.
    """
    expected = self.require_input(role)
    found = Artefact.open(expected.path, kind)
    if found.manifest.fingerprint != expected.fingerprint:
      raise ArtefactError(
        f'{found.path} is {found.manifest.fingerprint}, but {self.path} was made from {expected.fingerprint}.'
        f' {remedy}'
      )
    return found

  def _place_of(self, recorded: pathlib.Path) -> pathlib.Path:
    """Returns where an input of the manifest is: the inverse of `_recorded`."""
    place = pathlib.Path(os.path.normpath((self.named or self.path) / recorded))
    # In manifests of 2026-11-24 and before, paths are relative to the folder that the command ran in.
    return recorded if recorded.exists() and not place.exists() else place

  def as_input(self, role: str) -> Input:
    """Returns this artefact as the input of another."""
    return Input(role, self.manifest.fingerprint, self.path, tuple(self.manifest.supersedes))

  def records(self) -> Iterator[bytes]:
    """Yields the records of all shards in order."""
    for shard in self.manifest.shards:
      yield from tfrecord.read_file(self.path / shard.file)


def read_manifest(path: pathlib.Path, *, any_version: bool = False) -> manifest_pb2.Manifest:
  """Reads a manifest.

  Args:
    path: the file.
    any_version: accept a manifest of another format version.

  Raises:
    ArtefactError: it is missing, damaged or of another version.
  """
  if not path.is_file():
    raise ArtefactError(
      f'{path.parent}: no finished artefact there ({path.name} is missing). Run the stage that makes it, or'
      ' finish it by running the same command again'
    )
  try:
    text = path.read_text(encoding='utf-8')
    manifest = text_format.Parse(text, manifest_pb2.Manifest())
  except OSError as error:
    raise ArtefactError(
      f'{path}: cannot be read ({error.strerror}). Mend its permissions or its disk'
    ) from None
  except (UnicodeDecodeError, text_format.ParseError) as error:
    raise ArtefactError(
      f'{path}: damaged or not a manifest ({error}). Delete {path.parent} and run its stage again'
    ) from None
  if not text.strip():
    raise ArtefactError(
      f'{path}: empty, as a full disk or a copy cut short leaves it. Delete {path.parent} and run its stage'
      ' again'
    )
  if not any_version and manifest.format_version != FORMAT_VERSION:
    raise ArtefactError(
      f'{path}: format version {manifest.format_version}, this library ({FORMAT_VERSION}) reads only its'
      ' own. Make the artefact again with --redo, or use the library that made it'
      f' ({manifest.library_version or "unknown"})'
    )
  return manifest
