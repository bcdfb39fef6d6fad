"""Serves a web page and a JSON API that search an index.

  d2r serve --index=OUT
  d2r serve --index=OUT --port=8000 --annotations=boxes.csv
  d2r serve --index=SPLIT/front --shards=http://127.0.0.1:8801,http://127.0.0.1:8802

Drop a photo on the page or pick an indexed one, draw a box on it, and see the photos that show the same
object, ranked, with the share of every visual word in the score drawn on both photos. /openapi.json describes
the API. With --annotations the page /annotate draws boxes on the indexed photos (see `d2r annotate`). Other
machines are let in only by --host. With --shards the postings are on other servers (see `d2r split_index` and
`d2r serve_shard`); an answer names the shards that are missing in it.
"""

from absl import flags

from delf_d2r import command_line, common_flags

flags.DEFINE_string('index', None, 'Directory that build_index or run_experiment made.', required=True)
common_flags.define_moved_photos()
flags.DEFINE_string(
  'annotations', None, 'CSV file for boxes drawn on the indexed photos; without it there is no such page.'
)
common_flags.define_address(8765)
flags.DEFINE_float('max_upload_mb', 20, 'Maximum size of an upload in megabytes.', lower_bound=0.001)
flags.DEFINE_integer('max_megapixels', 100, 'Maximum size of an uploaded photo in megapixels.', lower_bound=1)
flags.DEFINE_string(
  'shards',
  None,
  'Addresses of the shards of a split index, http://host:port,..., in any order; or a file with one address a'
  ' line, which may change while the server runs.',
)
flags.DEFINE_float(
  'shard_seconds', 5, 'How many seconds a search waits for the shards.', lower_bound=0.01, upper_bound=600
)
common_flags.define_warm()
FLAGS = flags.FLAGS


def main(_):
  # Imported late, so that --help does not need the libraries of the server.
  from delf_d2r.serving import server

  server.serve_index(
    FLAGS.index,
    host=FLAGS.host,
    port=FLAGS.port,
    allowed_hosts=FLAGS.allowed_hosts,
    photos=FLAGS.images,
    annotations=FLAGS.annotations,
    shards=FLAGS.shards,
    shard_seconds=FLAGS.shard_seconds,
    preload=FLAGS.warm,
    max_upload_bytes=round(1e6 * FLAGS.max_upload_mb),
    max_megapixels=FLAGS.max_megapixels,
  )


if __name__ == '__main__':
  command_line.run(main)
