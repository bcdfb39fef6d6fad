"""What stands in the folder of a run, held against what a run there would make: said before any stage runs.

Stages refuse one by one what another config or other photos made (artefact_writer.py). Where many runs follow
each other, that comes late.
"""

import pathlib
from collections.abc import Collection, Iterator

from delf_d2r.data.artefacts.artefact import MANIFEST, Input, Plan, read_manifest
from delf_d2r.data.artefacts.artefact_writer import PARTIAL_MANIFEST
from delf_d2r.experiments.second_search import DISTRACTORS, JOINED
from delf_d2r.protos import experiment_pb2, manifest_pb2


def differences(
  config: experiment_pb2.ExperimentConfig,
  inputs: Collection[Input],
  output: pathlib.Path,
  *,
  distractors: Input | None = None,
  given: Collection[str] = (),
) -> list[str]:
  """Why stages would refuse what stands in the folder of a run, finished or not; nothing if they would not.

  Of what an artefact was made from, only what comes from outside the run is compared.

  Args:
    config: of the run, resolved, with all stages.
    inputs: its photos, queries and ground truth, as stages call them.
    output: its folder, which need not exist.
    distractors: photos that are searched, too; without them their artefacts are not looked at.
    given: kinds of artefacts that the run is given (SharedArtefacts.given), so that its own are not touched.

  Raises:
    ArtefactError: a manifest is damaged or of another format version.
  """
  inputs_of = {'': inputs}
  if distractors:
    inputs_of |= {JOINED: inputs, DISTRACTORS: [distractors]}
  found: dict[str, None] = {}
  for folder, outside in inputs_of.items():
    for place in sorted((output / folder).glob('*/')):
      if _kind(folder, place.name) in given:
        continue
      for name in (MANIFEST, PARTIAL_MANIFEST):
        if (place / name).is_file():
          found |= dict.fromkeys(_differences(config, outside, read_manifest(place / name)))
          break
  return list(found)


def _kind(folder: str, name: str) -> str:
  """What SharedArtefacts calls the artefact of that name in a folder of the run."""
  if folder == JOINED:
    return f'joined_{name}'
  return f'distractor_{name}' if folder == DISTRACTORS else name


def _differences(
  config: experiment_pb2.ExperimentConfig, outside: Collection[Input], manifest: manifest_pb2.Manifest
) -> Iterator[str]:
  planned = experiment_pb2.ExperimentConfig()
  for field, _ in manifest.config.ListFields():
    if field.name == 'name':
      continue
    if not config.HasField(field.name):
      return  # No stage of this run makes it.
    getattr(planned, field.name).CopyFrom(getattr(config, field.name))
  now = {item.role: item for item in outside}
  inputs = tuple(
    now.get(item.role) or Input(item.role, item.fingerprint, pathlib.Path(item.path))
    for item in manifest.inputs
  )
  yield from Plan(manifest.kind, planned, inputs).differences(manifest)
