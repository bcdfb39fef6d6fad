"""Aggregation by several processes, and of what an earlier run left."""

import numpy as np
from support import stored_features
from support.run_files import contents

from delf_d2r import config as configs
from delf_d2r.stages import aggregate_features, train_codebook


def test_bytes_do_not_depend_on_who_works(tmp_path):
  config = configs.load_or_default(
    None,
    ['codebook', 'aggregation'],
    overrides=['codebook { num_words: 8 iterations: 2 } aggregation { images_per_shard: 16 }'],
  )
  images = [
    stored_features.image(f'{number:02d}.jpg', np.zeros((5, 2)), stored_features.vectors(5, number))
    for number in range(40)
  ]
  features = stored_features.write_features(tmp_path / 'features', images)
  codebook = train_codebook.run(config, features, tmp_path / 'codebook')
  for name, workers in (('one', 1), ('two', 2)):
    made = aggregate_features.run(config, features, codebook, tmp_path / name, workers=workers)
  assert made.counts['images'] == 40
  assert contents(tmp_path / 'two') == contents(tmp_path / 'one')
