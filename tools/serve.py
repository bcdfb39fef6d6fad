"""Serves a web page and a JSON API that search an index.

  d2r serve --index=OUT
  d2r serve --index=OUT --port=8000 --annotations=boxes.csv
  d2r serve --index=SPLIT/front --shards=http://127.0.0.1:8801,http://127.0.0.1:8802

Drop a photo on the page or pick an indexed one, draw a box on it, and see what shows the same, ranked, and
why: the share of every visual word in the score, drawn on both photos. --index is the directory that
build_index or run_experiment made. /openapi.json describes the API. With --annotations the page /annotate
draws boxes on the indexed photos (see `d2r annotate`). Other machines are let in by --host alone.
With --shards the postings are on other servers (see `d2r split_index` and `d2r serve_shard`); an answer says
which of them are missing in it.
"""

from absl import flags

from delf_d2r import command_line, common_flags
from delf_d2r.data.photos.image_list import ImageList
from delf_d2r.data.photos.photo_folders import PhotoFolders
from delf_d2r.engine import SearchEngine
from delf_d2r.errors import UserError
from delf_d2r.runtime import progress

flags.DEFINE_string('index', None, 'Directory of build_index or of run_experiment.', required=True)
common_flags.define_moved_photos()
flags.DEFINE_string(
  'annotations', None, 'CSV file for boxes drawn on the indexed photos; none: no such page.'
)
flags.DEFINE_string('host', '127.0.0.1', 'Address to bind to. 0.0.0.0 lets other machines in.')
flags.DEFINE_integer('port', 8765, 'Port; 0 takes a free one.', lower_bound=0, upper_bound=65535)
flags.DEFINE_float('max_upload_mb', 20, 'Largest upload, in megabytes.', lower_bound=0.001)
flags.DEFINE_integer('max_megapixels', 100, 'Largest uploaded photo.', lower_bound=1)
flags.DEFINE_string(
  'shards',
  None,
  'Addresses of the shards of a split index, http://host:port,..., in any order; or a file with one a line,'
  ' which may change while the server runs.',
)
flags.DEFINE_float(
  'shard_seconds', 5, 'How long a search waits for shards.', lower_bound=0.01, upper_bound=600
)
common_flags.define_warm()
FLAGS = flags.FLAGS


def main(_):
  # Here, so that --help needs nothing of it.
  from delf_d2r.serving import server
  from delf_d2r.serving.annotations import Annotations
  from delf_d2r.serving.app import create_app
  from delf_d2r.serving.options import Options

  engine = SearchEngine.load(FLAGS.index, index=_shards() if FLAGS.shards else None)
  if FLAGS.warm:
    engine.preload(progress.callback('index into memory'))
  engine.prepare()
  photos = PhotoFolders.of(FLAGS.images) if FLAGS.images else engine.photos
  annotations = None
  if FLAGS.annotations:
    if not photos.folders:
      raise UserError('--annotations needs the indexed photos: give their folder, --images')
    annotations = Annotations(ImageList.from_folder(photos.folders[0]), FLAGS.annotations)
  options = Options(
    max_upload_bytes=round(1e6 * FLAGS.max_upload_mb),
    max_megapixels=FLAGS.max_megapixels,
    allowed_hosts=server.allowed_hosts(FLAGS.host),
  )
  app = create_app(engine, options, photos=photos, annotations=annotations)
  server.run(app, host=FLAGS.host, port=FLAGS.port)


def _shards():
  from delf_d2r.sharding.addresses import Addresses
  from delf_d2r.sharding.sharded_index import ShardedIndex

  return ShardedIndex(FLAGS.index, Addresses(FLAGS.shards), timeout=FLAGS.shard_seconds)


if __name__ == '__main__':
  command_line.run(main)
