"""The registry of extractors: each describes itself in a record, found by its value of the enum.

An extractor is one module of this package that ends in a constant `RECORD`. Adding one takes that file, a
value of `ExtractionConfig.Extractor` and its fields in protos/extraction.proto. Everything else asks the
record: `region_extractor.build` makes the extractor, its rules check the configs, artefacts are compared by
the fields that it names, verification and doctor go by its kind of descriptors. A record that leaves out a
field is an error when it is made, and an incomplete set of records is one when the registry is first used.

Layers: configs are checked far below the extractors, which need networks and artefacts; yet the rules of an
extractor belong into its file. So the dependency is inverted. This module holds the interface, is below
`config` in the layers of tests/test_layers.py and imports no extractor. When a record is first asked for, it
imports the modules of its own package and collects their records; there is no list of them. Importing an
extractor must therefore cost little: TensorFlow and the like are imported when an extractor is built.
`d2r --help` and `import delf_d2r.config` import no extractor.
"""

import contextlib
import dataclasses
import enum
import functools
import importlib
import pathlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from google.protobuf.descriptor import FieldDescriptor

from delf_d2r.errors import Problem
from delf_d2r.protos.extraction_pb2 import ExtractionConfig
from delf_d2r.structures import LocalFeatures

# Models that come with the package.
PACKAGED_MODELS = pathlib.Path(__file__).parents[1] / 'models'
# The network of local features that comes with the package.
DEFAULT_MODEL = PACKAGED_MODELS / 'default'
# The same for other runtimes than TensorFlow (models/converted/).
DEFAULT_NETWORK = PACKAGED_MODELS / 'default_network' / 'network.onnx'

# Fields of ExtractionConfig that are messages and belong to no extractor in particular.
_COMMON_FIELDS: tuple[str, ...] = ()


class LocalExtractor(Protocol):
  """The interface of an extractor.

  Attributes:
    dimensions: D of its descriptors.
  """

  dimensions: int

  def __call__(self, image: np.ndarray) -> LocalFeatures:
    """Returns the features of uint8 [H, W, 3], locations in its pixels, most attention first."""


@runtime_checkable
class PyramidExtractor(LocalExtractor, Protocol):
  """An extractor that describes the cells of feature maps at several scales.

  Attributes:
    stride: pixels between neighbouring cells at scale 1; the `scales` of features are 1 / scale.
    min_cells_across_box: a box takes no features from scales at which its shorter side spans fewer cells.
    note: what a user should know about images that were left without features; '' if nothing.
  """

  stride: float
  min_cells_across_box: int
  note: str

  def batch(self, images: list[np.ndarray]) -> list[LocalFeatures]:
    """Returns the features of images of one shape."""

  def all_features(self, image: np.ndarray) -> LocalFeatures:
    """Returns every cell of every scale, most attention first."""

  def best(self, features: LocalFeatures) -> LocalFeatures:
    """Returns the part of `all_features`, or of a region's share of them, that is worth keeping."""


class DescriptorKind(enum.Enum):
  """How the descriptors of an extractor are searched with and verified."""

  # Of places: aggregated over visual words, and matched with each other in verification.
  LOCAL = 'local'
  # Of the whole image, or of parts that add up to it: VLAD of one word at the origin. Not verified.
  GLOBAL = 'global'
  # The number of a channel in the place of a descriptor: not searched with, and verified by SAME_CHANNEL.
  CHANNEL = 'channel'


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtractorRecord:
  """An extractor as the rest of the package sees it. No field has a default, so that none is forgotten.

  Attributes:
    extractor: the value of ExtractionConfig.Extractor.
    build: makes the extractor; imports what only that needs. Raises UserError where a model or a package is
      missing or does not fit.
    model_files: the files and directories that the features depend on, by their role, which is the name of an
      input in the manifest; {} where there are none.
    problems: yields the problems of a config of this extractor, their fields relative to ExtractionConfig.
    own_fields: the message fields of ExtractionConfig that have an effect with this extractor. Extractors may
      share them.
    decisive_fields: those fields, or parts of them such as 'delf.pca', that decide the meaning of
      descriptors: two artefacts can be compared only if they agree in these.
    free_fields: the other parts of own fields, in which the two may differ.
    descriptors: how they are searched with and verified.
    unit_origins: from D to float32 [K, D]: every descriptor is at distance 1 from one of these points. The
      origin for unit vectors; K = 0 where descriptors have no certain length.
    uses_network: whether extraction runs a network, which may run on a GPU.
    has_feature_maps: whether `build` returns a PyramidExtractor, for region_features: SHARED_FEATURE_MAP.

  Raises:
    ValueError: a field is not one of ExtractionConfig, or part of an own field is named twice or not at all.
  """

  extractor: ExtractionConfig.Extractor
  build: Callable[[ExtractionConfig], LocalExtractor]
  model_files: Callable[[ExtractionConfig], Mapping[str, pathlib.Path]]
  problems: Callable[[ExtractionConfig], Iterable[Problem]]
  own_fields: tuple[str, ...]
  decisive_fields: tuple[str, ...]
  free_fields: tuple[str, ...]
  descriptors: DescriptorKind
  unit_origins: Callable[[int], np.ndarray]
  uses_network: bool
  has_feature_maps: bool

  def __post_init__(self):
    own = [leaf for field in self.own_fields for leaf in _parts(field)]
    named = [leaf for field in (*self.decisive_fields, *self.free_fields) for leaf in _parts(field)]
    if sorted(own) != sorted(named):
      missing, foreign = sorted(set(own) - set(named)), sorted(set(named) - set(own))
      twice = sorted({leaf for leaf in named if named.count(leaf) > 1})
      raise ValueError(
        f'record of extractor {self.name}: every part of its own_fields must be in decisive_fields or in'
        f' free_fields; in neither: {missing}, twice: {twice}, of other fields: {foreign}'
      )

  @property
  def name(self) -> str:
    """The name of the enum value."""
    return ExtractionConfig.Extractor.Name(self.extractor)


def record(extractor: ExtractionConfig.Extractor) -> ExtractorRecord:
  """Returns the record of an extractor.

  Raises:
    ValueError: there is none, or the registry is incomplete (see `records`).
  """
  known = {item.extractor: item for item in records()}
  if extractor not in known:
    raise ValueError(f'extractor {extractor} has no implementation')
  return known[extractor]


def records() -> tuple[ExtractorRecord, ...]:
  """Returns the records of all extractors, in the order of the enum.

  Raises:
    ValueError: an extractor has no record or two, or a message of ExtractionConfig belongs to none.
  """
  return _replaced or _discovered()


@contextlib.contextmanager
def replaced(substitute: ExtractorRecord) -> Iterator[None]:
  """Replaces the record of an extractor within a `with` block, in this process; for tests."""
  global _replaced
  before, others = _replaced, [item for item in records() if item.extractor != substitute.extractor]
  _replaced = _checked([*others, substitute])
  try:
    yield
  finally:
    _replaced = before


def model_files(config: ExtractionConfig) -> dict[str, pathlib.Path]:
  """Returns the files and directories that the features of a config depend on, by their role."""
  return dict(record(config.extractor).model_files(config))


def is_shipped_model(config: ExtractionConfig) -> bool:
  """Returns whether the network of a config is the one that comes with the package (DEFAULT_MODEL)."""
  return model_files(config).get('model') == DEFAULT_MODEL


def unit_vectors(dimensions: int) -> np.ndarray:
  """Returns the origin, float32 [1, D]: `unit_origins` of descriptors of unit length."""
  return np.zeros((1, dimensions), np.float32)


_replaced: tuple[ExtractorRecord, ...] = ()


@functools.cache
def _discovered() -> tuple[ExtractorRecord, ...]:
  package = importlib.import_module(__package__)
  names = (found.name for found in pkgutil.iter_modules(package.__path__, f'{__package__}.'))
  modules = map(importlib.import_module, names)
  return _checked([module.RECORD for module in modules if hasattr(module, 'RECORD')])


def _checked(found: Iterable[ExtractorRecord]) -> tuple[ExtractorRecord, ...]:
  """Returns the records in the order of the enum; ValueError unless they cover it and ExtractionConfig."""
  ordered = tuple(sorted(found, key=lambda item: item.extractor))
  if [item.extractor for item in ordered] != sorted(ExtractionConfig.Extractor.values()):
    raise ValueError(
      f'there are records of {[item.name for item in ordered]}, but the extractors are'
      f' {ExtractionConfig.Extractor.keys()}: give each exactly one RECORD in a module of delf_d2r/extractors'
    )
  claimed = {field for item in ordered for field in item.own_fields}
  unclaimed = {
    field.name for field in ExtractionConfig.DESCRIPTOR.fields if field.type == FieldDescriptor.TYPE_MESSAGE
  }.difference(claimed, _COMMON_FIELDS)
  if unclaimed:
    raise ValueError(
      f'ExtractionConfig.{", .".join(sorted(unclaimed))} belongs to no extractor: name it in the'
      ' own_fields of a record'
    )
  return ordered


def _parts(path: str) -> list[str]:
  """Returns the paths of the fields one message below ExtractionConfig that a dotted path covers."""
  name, _, part = path.partition('.')
  field = ExtractionConfig.DESCRIPTOR.fields_by_name.get(name)
  if field is None or field.type != FieldDescriptor.TYPE_MESSAGE:
    raise ValueError(f'ExtractionConfig has no message field {name!r}')
  inner = [item.name for item in field.message_type.fields]
  if part and part not in inner:
    raise ValueError(f'ExtractionConfig.{name} has no field {part!r}')
  return [f'{name}.{item}' for item in inner if not part or item == part]
