"""Configs made from the text of one of their parts."""

from google.protobuf import text_format

from delf_d2r import config
from delf_d2r.protos import experiment_pb2


def load_part(part: str, text: str, *changes: str) -> experiment_pb2.ExperimentConfig:
  """Returns a resolved config from the text of its part `part`, with changes of that part."""
  parsed = experiment_pb2.ExperimentConfig()
  text_format.Parse(text, getattr(parsed, part))
  for change in changes:
    text_format.Merge(change, getattr(parsed, part))
  return config.resolve(parsed)
