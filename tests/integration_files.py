"""What two runs are compared by."""


def contents(directory):
  """Every file of a run by name; what tells of time left out."""
  found = {}
  for file in sorted(directory.rglob('*')):
    if file.is_file() and file.name != 'timing.json' and 'report' not in file.parts:
      data = file.read_bytes()
      if file.name == 'manifest.pbtxt':
        lines = data.decode().splitlines()
        # Paths of inputs and sizes of timing.json differ between two runs of one config.
        data = '\n'.join(
          line for line in lines if not line.strip().startswith(('seconds:', 'path:', 'bytes:'))
        )
      found[str(file.relative_to(directory))] = data
  return found
