"""Reads `.pbtxt` files and overrides into validated, resolved messages.

config/values.py defines resolved configs and compares them.
"""

import pathlib
import re
import warnings
from collections.abc import Sequence

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from delf_d2r.config import text as config_text
from delf_d2r.config.rules import experiment as experiment_rules
from delf_d2r.config.values import MessageT, resolve
from delf_d2r.errors import ConfigError
from delf_d2r.protos import experiment_pb2

# The stages' messages by their field in ExperimentConfig, in the order of the data flow.
STAGE_FIELDS = {
  field.name: field.message_type
  for field in experiment_pb2.ExperimentConfig.DESCRIPTOR.fields
  if field.type == FieldDescriptor.TYPE_MESSAGE
}
_PACKAGED_CONFIGS = (
  pathlib.Path(__file__).parents[1] / 'configs',  # installed
  pathlib.Path(__file__).parents[2] / 'configs',  # checkout
)


def load(
  path: str | pathlib.Path, stages: Sequence[str] = (), *, overrides: Sequence[str] = ()
) -> experiment_pb2.ExperimentConfig:
  """Reads a config file, applies overrides, validates and resolves it.

  Args:
    path: a `.pbtxt` file with an ExperimentConfig or, if exactly one stage is requested, with the message of
      that stage. A path like `configs/experiments/X.pbtxt` that does not exist is looked up among the configs
      of the package.
    stages: fields of ExperimentConfig that the caller uses, for example ['extraction']. Absent ones are
      filled with defaults.
    overrides: pieces of text format that are merged over the file in this order, such as
      'aggregation.alpha: 2' or 'aggregation { alpha: 2 }'.

  Returns:
    The config with every default filled in.

  Raises:
    ConfigError: the file is missing, has an unknown field or a value of the wrong type, belongs to another
      stage, or violates a rule of config/rules. The message names the file, the line and the fix.
  """
  path = find(path)
  try:
    text = path.read_text(encoding='utf-8-sig')
  except (OSError, UnicodeDecodeError) as error:
    raise ConfigError(f'{path}: cannot be read as UTF-8 text ({error})') from None
  return _finish(_parse(text, path, stages), stages, overrides, path, text)


def load_or_default(
  path: str | pathlib.Path | None, stages: Sequence[str], *, overrides: Sequence[str] = ()
) -> experiment_pb2.ExperimentConfig:
  """Reads a config like `load`; without a path, applies the overrides to the defaults."""
  if path:
    return load(path, stages, overrides=overrides)
  return _finish(experiment_pb2.ExperimentConfig(), stages, overrides, pathlib.Path('(defaults)'), '')


def find(path: str | pathlib.Path) -> pathlib.Path:
  """Returns the path of a config file, or of the packaged one of that name; ConfigError if neither exists."""
  path = pathlib.Path(path)
  try:
    if path.exists() and not path.is_dir():  # It may be a pipe: --config_path=<(...).
      return path
  except OSError as error:
    raise ConfigError(f'{path}: cannot be read ({error.strerror})') from None
  parts = path.parts[path.parts.index('configs') + 1 :] if 'configs' in path.parts else path.parts
  known = []
  for folder in _PACKAGED_CONFIGS:
    candidate = folder.joinpath(*parts)
    if not path.is_absolute() and '..' not in parts and candidate.is_file():
      return candidate
    known += [f'configs/{file.relative_to(folder).as_posix()}' for file in folder.rglob('*.pbtxt')]
  raise ConfigError(f'{path}: no such config. The package has {", ".join(sorted(set(known)))}')


def _finish(
  config: experiment_pb2.ExperimentConfig,
  stages: Sequence[str],
  overrides: Sequence[str],
  path: pathlib.Path,
  text: str,
) -> experiment_pb2.ExperimentConfig:
  for override in overrides:
    _merge_override(config, override)
  for stage in stages:
    getattr(config, stage).SetInParent()
  _validate(config, path, text, overrides)
  return resolve(config)


def default(*stages: str) -> experiment_pb2.ExperimentConfig:
  """Returns the resolved defaults of the given stages."""
  config = experiment_pb2.ExperimentConfig()
  for stage in stages:
    getattr(config, stage).SetInParent()
  return resolve(config)


def _parse(text: str, path: pathlib.Path, stages: Sequence[str]) -> experiment_pb2.ExperimentConfig:
  config = experiment_pb2.ExperimentConfig()
  # The message of a single stage would silently leave the other stages of a longer run at their defaults.
  stages = stages if len(stages) == 1 else ()
  try:
    return _read(text, config)
  except text_format.ParseError as experiment_error:
    own = [stage for stage in stages if _parses_as(text, stage)]
    if own:
      config = experiment_pb2.ExperimentConfig()
      _read(text, getattr(config, own[0]))
      return config
    others = [STAGE_FIELDS[stage].name for stage in STAGE_FIELDS if _parses_as(text, stage)]
    if others:
      wanted = ' or '.join(['ExperimentConfig', *(STAGE_FIELDS[stage].name for stage in stages)])
      raise ConfigError(
        f'{path}: this is a config of another stage ({" or ".join(others)}), wanted {wanted}.'
        ' Give the config of this stage or one of configs/experiments'
      ) from None
    raise ConfigError(f'{path}:{_explain(_closest_error(text, stages, experiment_error))}') from None


def _read(text: str, message: MessageT) -> MessageT:
  """Parses text format into a message; an unknown escape is an error instead of a warning."""
  with warnings.catch_warnings():
    warnings.simplefilter('error', DeprecationWarning)
    try:
      return text_format.Parse(text, message)
    except DeprecationWarning as warning:
      raise text_format.ParseError(f'{warning}; write a backslash as \\\\') from None


def _parses_as(text: str, stage: str) -> bool:
  try:
    _read(text, getattr(experiment_pb2.ExperimentConfig(), stage))
  except text_format.ParseError:
    return False
  return True


def _closest_error(text: str, stages: Sequence[str], error: text_format.ParseError) -> text_format.ParseError:
  """Returns the error of the parse that got furthest: of the message that the author most likely meant."""
  errors = [error]
  for stage in stages:
    try:
      _read(text, getattr(experiment_pb2.ExperimentConfig(), stage))
    except text_format.ParseError as stage_error:
      errors.append(stage_error)
  return max(errors, key=lambda e: (e.GetLine() or 0, e.GetColumn() or 0))


def _explain(error: text_format.ParseError) -> str:
  """Returns `line:column: problem`; lists the known names if a field or an enum value is unknown."""
  what = re.sub(r'^\d+:\d+ : ', '', str(error))
  unknown = re.search(r'Message type "delf_d2r\.(\w+)" has no field named "(\w+)"', what)
  if unknown:
    what = f'{unknown[1]} has no field "{unknown[2]}". Its fields: {", ".join(_field_names(unknown[1]))}'
  value = re.search(r'Enum type "([\w.]+)" has no value named (\S+?)\.$', what)
  if value:
    names = experiment_pb2.DESCRIPTOR.pool.FindEnumTypeByName(value[1]).values_by_name
    what = f'{value[1].rsplit(".", 1)[-1]} has no value {value[2]}. Its values: {", ".join(names)}'
  return f'{error.GetLine()}:{error.GetColumn()}: {what}'


def _field_names(message_name: str) -> list[str]:
  pool = experiment_pb2.DESCRIPTOR.pool
  return [field.name for field in pool.FindMessageTypeByName(f'delf_d2r.{message_name}').fields]


def _merge_override(config: experiment_pb2.ExperimentConfig, override: str) -> None:
  """Merges `a.b.c: value` or plain text format; a repeated field is replaced, not appended to."""
  change = experiment_pb2.ExperimentConfig()
  try:
    text_format.Parse(config_text.expand_override(override), change)
  except text_format.ParseError as error:
    raise ConfigError(
      f"--override {override!r}: {_explain(error)}. Write it like 'aggregation.alpha: 2'"
    ) from None
  _clear_repeated(config, change)
  config.MergeFrom(change)


def _clear_repeated(config: Message, change: Message) -> None:
  for field, value in change.ListFields():
    if field.is_repeated:
      config.ClearField(field.name)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
      _clear_repeated(getattr(config, field.name), value)


def _validate(
  config: experiment_pb2.ExperimentConfig, path: pathlib.Path, text: str, overrides: Sequence[str]
) -> None:
  problems = list(experiment_rules.problems(config))
  if problems:
    lines = [
      f'{config_text.locate_field(problem.field, path, text, overrides)}: {problem.text}'
      for problem in problems
    ]
    raise ConfigError('\n'.join(lines))
