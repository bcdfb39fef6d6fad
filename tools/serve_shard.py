"""Serves one shard of a split index.

  d2r serve_shard --index=SPLIT/shard-00000-of-00004 --port=8801

--index is one of the directories that split_index made. `d2r serve --shards=` sends every query to all shards
and merges their rankings. To replace a shard, start another server of the same directory, or of a copy of it,
at the same address, or put its address into the file of --shards; then stop the old server. Other machines
are let in only by --host; there are no passwords, so use a private network.
"""

from absl import flags

from delf_d2r import command_line, common_flags

flags.DEFINE_string('index', None, 'Directory of a shard.', required=True)
common_flags.define_address(8801)
common_flags.define_warm()
FLAGS = flags.FLAGS


def main(_):
  # Imported late, so that --help does not need the libraries of the server.
  from delf_d2r.serving import server

  server.serve_shard(
    FLAGS.index, host=FLAGS.host, port=FLAGS.port, allowed_hosts=FLAGS.allowed_hosts, preload=FLAGS.warm
  )


if __name__ == '__main__':
  command_line.run(main)
