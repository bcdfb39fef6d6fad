"""SavedModel directories: the model, its config and its model card, or nothing at all."""

import json
import pathlib
from collections.abc import Mapping

import tensorflow as tf
from google.protobuf import text_format
from google.protobuf.message import Message

from delf_d2r.data import temporary_files
from delf_d2r.errors import UserError
from delf_d2r.models.saved_models import log_suppression

CARD_JSON, CARD_MARKDOWN = 'model_card.json', 'model_card.md'


def write(
  output: str | pathlib.Path,
  module: tf.Module,
  *,
  signatures: Mapping,
  config: Message,
  config_name: str,
  card: Mapping,
) -> pathlib.Path:
  """Writes a SavedModel directory, with the config of its network and the model card in it.

  Args:
    output: must not exist; appears only when it is complete.
    module: the module to save.
    signatures: its functions by name.
    config: of the network.
    config_name: file name of the config.
    card: the model card, by heading: values that JSON can hold.

  Raises:
    UserError: the output exists.
  """
  output = pathlib.Path(output)
  require_absent(output)
  output.parent.mkdir(parents=True, exist_ok=True)
  with temporary_files.temporary_folder(output.parent, f'.{output.name}.') as temporary:
    with log_suppression.warnings_only():
      tf.saved_model.save(module, str(temporary), signatures=dict(signatures))
    (temporary / config_name).write_text(text_format.MessageToString(config), encoding='utf-8')
    (temporary / CARD_JSON).write_text(json.dumps(dict(card), indent=1, ensure_ascii=False) + '\n', 'utf-8')
    (temporary / CARD_MARKDOWN).write_text(_markdown(card), encoding='utf-8')
    temporary.chmod(0o755)
    temporary.rename(output)
  return output


def require_absent(output: pathlib.Path) -> None:
  """Raises UserError if the output exists."""
  if output.exists():
    raise UserError(f'{output}: exists already, and models are not overwritten. Choose another --output')


def _markdown(card: Mapping) -> str:
  lines = [f'# {card.get("name", "Model")}']
  for heading, value in card.items():
    if heading == 'name':
      continue
    lines += ['', f'## {heading.replace("_", " ").capitalize()}', '']
    if isinstance(value, Mapping):
      lines += ['| | |', '|---|---|', *(f'| {key} | {item} |' for key, item in value.items())]
    elif isinstance(value, str) and '\n' in value:
      lines += ['```', value.strip(), '```']
    else:
      lines.append(str(value))
  return '\n'.join(lines) + '\n'
