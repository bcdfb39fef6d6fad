"""Artefacts that experiments on one data set share: made once, used by all whose configs agree."""

from collections.abc import Mapping, Sequence

import delf_d2r.config as configs
from delf_d2r.data.artefacts.artefact import Artefact
from delf_d2r.protos import experiment_pb2

_DESCRIBED = ('regions', 'extraction', 'codebook', 'aggregation')
# For each kind, the parts of a config that must be equal. A codebook sees whole images only.
_DECISIVE = {
  'boxes': ('regions',),
  'features': ('regions', 'extraction'),
  'codebook': ('extraction', 'codebook'),
  'descriptors': _DESCRIBED,
  'index': _DESCRIBED,
  'query_features': ('extraction',),
  'distractor_boxes': ('regions',),
  'distractor_features': ('regions', 'extraction'),
  'distractor_descriptors': _DESCRIBED,
  'joined_index': _DESCRIBED,
}


class SharedArtefacts:
  """Remembers the artefacts of experiments, and gives them to experiments that would make the same ones."""

  def __init__(self, kinds: Sequence[str] = tuple(_DECISIVE)):
    """Takes the kinds of artefacts to share.

    Descriptors must not be among them if experiments are given different codebooks.
    """
    self._kinds = tuple(kinds)
    self._known: dict[str, Artefact] = {}

  def given(self, config: experiment_pb2.ExperimentConfig) -> dict[str, Artefact]:
    """Returns the artefacts that an experiment need not make, by kind."""
    return {kind: self._known[key] for kind, key in self.keys(config).items() if key in self._known}

  def keep(self, config: experiment_pb2.ExperimentConfig, made: Mapping[str, Artefact]) -> None:
    """Remembers the artefacts that an experiment made or was given."""
    self._known |= {key: made[kind] for kind, key in self.keys(config).items() if kind in made}

  def keys(self, config: experiment_pb2.ExperimentConfig) -> dict[str, str]:
    """Returns a key for each kind; two experiments share the artefact of a kind if their keys are equal."""
    return {
      kind: f'{kind} {" ".join(configs.fingerprint(getattr(config, part)) for part in _DECISIVE[kind])}'
      for kind in self._kinds
    }
