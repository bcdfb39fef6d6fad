"""Features in an artefact: what is written is read, and counted."""

import numpy as np
from support import stored_features as material

from delf_d2r import config as configs
from delf_d2r.data.artefacts import artefact_writer, feature_files
from delf_d2r.data.artefacts.artefact import Input, Plan


def test_images_are_read_as_they_were_added(tmp_path):
  images = [*material.index_images(), material.image('none.jpg', np.zeros((0, 2)), material.vectors(0, 0))]
  plan = Plan('features', configs.default('extraction'), (Input('images', 'x', tmp_path),))
  with artefact_writer.writing(tmp_path / 'features', plan) as writer:
    for shard in writer.ledger.missing(len(images), 4):
      with writer.ledger.write(shard) as file:
        for item in shard.items:
          feature_files.add(file, images[item])
    made = writer.finish()
  read = list(feature_files.read(made))
  assert [image.name for image in read] == [image.name for image in images]
  for ours, theirs in zip(read, images, strict=True):
    assert np.array_equal(ours.features.descriptors, theirs.features.descriptors)
    assert np.array_equal(ours.region_offsets, theirs.region_offsets)
  assert made.counts == {
    'images': 6,
    'features': sum(len(image.features) for image in images),
    'whole_features': sum(len(image.region(0)) for image in images),
    'regions': 11,
    'without_features': 1,
    'failed': 0,
  }
