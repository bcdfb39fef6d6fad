"""Serves one shard of a split index to the fronts that ask it.

  d2r serve_shard --index=SPLIT/shard-00000-of-00004 --port=8801

--index is one of the directories that split_index made. `d2r serve --shards=` asks all shards and merges
what they answer. To replace a shard, start another server of the same directory, or of a copy of it, at the
same address, or name its address in the file of --shards; then stop the old one. Other machines are let in by
--host alone; there are no passwords, so leave it on a network of your own.
"""

from absl import flags

from delf_d2r import command_line, common_flags
from delf_d2r.runtime import progress

flags.DEFINE_string('index', None, 'Directory of a shard.', required=True)
flags.DEFINE_string('host', '127.0.0.1', 'Address to bind to. 0.0.0.0 lets other machines in.')
flags.DEFINE_integer('port', 8801, 'Port; 0 takes a free one.', lower_bound=0, upper_bound=65535)
common_flags.define_warm()
FLAGS = flags.FLAGS


def main(_):
  # Here, so that --help needs nothing of it.
  from delf_d2r.serving import server
  from delf_d2r.serving.options import Options
  from delf_d2r.serving.shard_app import create_shard_app
  from delf_d2r.sharding.messages import MAX_REQUEST_BYTES
  from delf_d2r.sharding.shard import Shard

  shard = Shard(FLAGS.index)
  if FLAGS.warm:
    shard.index.preload(progress.callback('shard into memory'))
  options = Options(max_upload_bytes=MAX_REQUEST_BYTES, allowed_hosts=server.allowed_hosts(FLAGS.host))
  server.run(create_shard_app(shard, options), host=FLAGS.host, port=FLAGS.port)


if __name__ == '__main__':
  command_line.run(main)
