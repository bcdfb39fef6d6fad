"""The command line: what a user sees of help, errors and interrupts."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from delf_d2r import command_line

D2R = [sys.executable, '-c', 'from delf_d2r.command_line import main; main()']

SCRIPT = textwrap.dedent('''
  """Does what the test wants.

  More about it.
  """

  import sys

  from absl import flags, logging

  from delf_d2r import command_line, common_flags
  from delf_d2r.errors import ImageError

  common_flags.define_workers()
  flags.DEFINE_string('raise', '', 'What happens.')

  def main(_):
    what = flags.FLAGS['raise'].value
    if what == 'user':
      raise ImageError('gr\\u00fc\\u00dfe.jpg: broken. Repair it')
    if what == 'interrupt':
      raise KeyboardInterrupt
    if what == 'bug':
      raise ZeroDivisionError
    if what == 'pipe':
      raise BrokenPipeError(32, 'Broken pipe')
    if what == 'full':
      raise OSError(28, 'No space left on device', 'index.npy')
    if what == 'names':
      print('gr\\u00fc\\u00dfe \\u6771 \\U0001f600 a\\udcff.jpg')
      print('gr\\u00fc\\u00dfe a\\udcff.jpg', file=sys.stderr)
      logging.info('%s', 'gr\\u00fc\\u00dfe a\\udcff.jpg')
      return
    if what == 'sound':
      print('answer')
      sys.exit(0)
    if what == 'exit':
      print('answer')
      sys.exit(3)
    for line in range(flags.FLAGS.workers or 1):
      print('line', line)

  if __name__ == '__main__':
    command_line.run(main)
''').lstrip()


@pytest.fixture
def run(tmp_path):
  script = tmp_path / 'do_it.py'
  script.write_text(SCRIPT, encoding='utf-8')

  def run_script(*arguments):
    return subprocess.run(
      [sys.executable, script, *arguments], capture_output=True, text=True, encoding='utf-8', check=False
    )

  return run_script


def test_success(run):
  process = run()
  assert (process.returncode, process.stdout, process.stderr) == (0, 'line 0\n', '')


@pytest.mark.parametrize('flag', ['--help', '-h', '--helpshort'])
def test_help_is_docstring_and_own_flags(run, flag):
  process = run('--raise=bug', flag)
  assert process.returncode == 0
  assert process.stdout.startswith('Does what the test wants.\n\nMore about it.\n\nFlags of do_it:')
  assert '--workers' in process.stdout
  assert '--strict (default: off; --nostrict for off)' in process.stdout
  assert '--logtostderr' not in process.stdout


def test_error_of_the_user_has_no_traceback(run):
  process = run('--raise=user')
  assert process.returncode == 1
  assert process.stderr == 'error: gr\u00fc\u00dfe.jpg: broken. Repair it\n'


def test_error_of_ours_has_one(run):
  process = run('--raise=bug')
  assert process.returncode == 1
  assert 'ZeroDivisionError' in process.stderr
  assert 'Traceback' in process.stderr


def test_interrupt_says_how_to_go_on(run):
  process = run('--raise=interrupt')
  assert process.returncode == 130
  assert process.stderr == 'stopped; run the same command again to continue\n'


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['photo.jpg'], "error: unexpected argument 'photo.jpg'; flags are written --name=value"),
    (['--no_such_flag=1'], 'no_such_flag'),
    (['--workers=0'], 'workers'),
    (['--workers=many'], 'workers'),
  ],
)
def test_wrong_arguments(run, arguments, message):
  process = run(*arguments)
  assert process.returncode == 1
  assert message in process.stderr
  assert 'Traceback' not in process.stderr


@pytest.mark.parametrize('lines', [1, 200_000])
def test_reader_that_leaves_is_no_error(tmp_path, lines):
  script = tmp_path / 'do_it.py'
  script.write_text(SCRIPT, encoding='utf-8')
  process = subprocess.Popen(
    [sys.executable, script, f'--workers={lines}'], stdout=subprocess.PIPE, stderr=subprocess.PIPE
  )
  process.stdout.close()
  with process:
    assert process.stderr.read() == b''
    assert process.wait() == 0


def shell(tmp_path, command, **environment):
  """Runs a shell command, in which $DO is a command of the package."""
  script = tmp_path / 'do_it.py'
  script.write_text(SCRIPT, encoding='utf-8')
  do = f'{sys.executable} {script}'
  return subprocess.run(
    ['bash', '-c', command], capture_output=True, check=False, env={**os.environ, 'DO': do, **environment}
  )


FULL = b'error: cannot write to standard output: No space left on device\n'


@pytest.mark.parametrize('arguments', ['', '--workers=200000', '--raise=sound', '--help', '--helpfull'])
def test_a_full_disk_under_the_output_is_an_error_in_words(tmp_path, arguments):
  process = shell(tmp_path, f'$DO {arguments} > /dev/full')
  assert process.returncode == 1
  assert process.stderr.endswith(FULL)
  assert b'Traceback' not in process.stderr


@pytest.mark.slow
@pytest.mark.parametrize('command', ['--version', '--help', 'plan --help'])
def test_a_full_disk_under_d2r_itself(command):
  code = 'from delf_d2r.command_line import main; main()'
  process = subprocess.run(
    ['bash', '-c', f"{sys.executable} -c '{code}' {command} > /dev/full"], capture_output=True, check=False
  )
  assert process.returncode == 1
  assert process.stderr == FULL


def test_a_closed_output_is_none(tmp_path):
  opens = 'import os; print(os.open(os.devnull, os.O_RDONLY), file=sys.stderr)'
  for closed in ('>&-', '<&- >&-', '2>&-', '<&- >&- 2>&-'):
    process = shell(tmp_path, f'$DO {closed}')
    assert process.returncode == 0
    assert process.stderr == b''
  process = shell(tmp_path, '$DO --raise=user 2>&-')
  assert (process.returncode, process.stdout) == (1, b'')
  (tmp_path / 'open_it.py').write_text(SCRIPT.replace('def main(_):\n', f'def main(_):\n  {opens}\n'))
  process = shell(tmp_path, f'{sys.executable} {tmp_path}/open_it.py >&- <&-')
  assert process.stderr == b'3\n'


def test_a_full_disk_under_the_log_stops_nothing(tmp_path):
  process = shell(tmp_path, '$DO --raise=names 2> /dev/full')
  assert process.returncode == 0
  assert process.stdout.startswith('gr\u00fc\u00dfe'.encode())


@pytest.mark.parametrize(('what', 'says'), [('pipe', b'BrokenPipeError'), ('full', b'index.npy')])
def test_errors_of_other_files_are_not_those_of_the_output(tmp_path, what, says):
  process = shell(tmp_path, f'$DO --raise={what} | head -c 0; exit ${{PIPESTATUS[0]}}')
  assert process.returncode == 1
  assert says in process.stderr
  assert b'standard output' not in process.stderr


def test_the_exit_code_of_an_answer_is_kept_when_the_reader_leaves(tmp_path):
  process = shell(tmp_path, '$DO --raise=exit | true; exit ${PIPESTATUS[0]}')
  assert process.returncode == 3
  assert process.stderr == b''


@pytest.mark.parametrize(
  ('encoding', 'shown'),
  [
    ('utf-8', 'gr\u00fc\u00dfe \u6771 \U0001f600 a\\udcff.jpg'),
    ('latin-1', 'gr\u00fc\u00dfe \\u6771 \\ud83d\\ude00 a\\udcff.jpg'),
    ('ascii', 'gr\\u00fc\\u00dfe \\u6771 \\ud83d\\ude00 a\\udcff.jpg'),
  ],
)
def test_names_that_a_terminal_cannot_show(tmp_path, encoding, shown):
  process = shell(tmp_path, '$DO --raise=names', PYTHONIOENCODING=encoding)
  assert process.returncode == 0
  assert process.stdout.decode(encoding) == shown + '\n'
  assert json.loads(f'"{shown}"') == 'gr\u00fc\u00dfe \u6771 \U0001f600 a\udcff.jpg'
  assert process.stderr.count(b'a\\udcff.jpg') == 2
  assert b'Traceback' not in process.stderr


@pytest.mark.slow
@pytest.mark.parametrize('arguments', [['--help'], ['plan', '--help']])
def test_reader_of_help_that_leaves_is_no_error(arguments):
  process = subprocess.Popen([*D2R, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  process.stdout.close()
  with process:
    assert process.stderr.read() == b''
    assert process.wait() == 0


@pytest.mark.parametrize(
  ('typed', 'hint'),
  [
    ('serach_index', 'Did you mean search_index?'),
    ('search-index', 'Did you mean search_index?'),
    ('Serve', 'Did you mean serve?'),
    ('xyz', f'There are: {", ".join(command_line.COMMANDS)}'),
  ],
)
def test_unknown_command(typed, hint):
  process = subprocess.run([*D2R, typed], capture_output=True, text=True, encoding='utf-8', check=False)
  assert process.returncode == 2
  assert process.stderr == f'error: no command {typed!r}. {hint}\n'
