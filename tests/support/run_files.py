"""Contents of run directories, for comparing runs."""

import json

import numpy as np

from delf_d2r.data.artefacts import ranking_files
from delf_d2r.data.artefacts.read_photos import ReadPhoto


def contents(directory):
  """Returns the files of a run by name, without paths, times and seconds."""
  found = {}
  for file in sorted(directory.rglob('*')):
    if file.is_file() and file.name != 'timing.json' and 'report' not in file.parts:
      data = file.read_bytes()
      if file.name == 'manifest.pbtxt':
        lines = data.decode().splitlines()
        # Paths of inputs, size and checksum of timing.json differ between two runs of one config.
        data = '\n'.join(
          line for line in lines if not line.strip().startswith(('seconds:', 'path:', 'bytes:', 'crc32c:'))
        )
      elif '.progress' in file.parts:
        # The ledger of a shard. When a photo was modified says nothing about its contents.
        data = json.loads(data)
        data['photos'] = [ReadPhoto.from_json(values) for values in data.get('photos', ())]
        data['photos'] = [
          (photo.name, photo.use, photo.state and photo.state.digest) for photo in data['photos']
        ]
      found[str(file.relative_to(directory))] = data
  return found


def score_table(rankings):
  """Returns the scores of an artefact of rankings by image id: float32 [Q, M]."""
  stored = ranking_files.load(rankings.path)
  found = np.zeros((len(stored.rankings), len(stored.image_names)), np.float32)
  for row, ranking in zip(found, stored.rankings, strict=True):
    row[ranking.image_ids] = ranking.scores
  return found
