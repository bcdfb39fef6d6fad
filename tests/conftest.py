"""For all tests: compiled modules are kept, and a headless browser for pages that are served or in files."""

import contextlib
import os
import shutil

import pytest

# Tests start hundreds of processes, and each would compile every module of the package again.
os.environ.pop('PYTHONDONTWRITEBYTECODE', None)

DESKTOP = {'width': 1280, 'height': 900}


# Of one file of tests: while playwright runs no other test of this process can have an event loop of its own.
@pytest.fixture(scope='module')
def browser():
  sync_api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
  chromium = shutil.which('chromium')
  if chromium is None:
    pytest.skip('no chromium on this machine (Debian: apt-get install chromium)')
  with sync_api.sync_playwright() as playwright:
    browser = playwright.chromium.launch(
      executable_path=chromium,
      args=[
        '--no-sandbox',
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
      ],
    )
    yield browser
    browser.close()


@pytest.fixture
def open_page(browser):
  """Opens an address in a new window and fails on errors of its scripts."""
  with contextlib.ExitStack() as stack:
    problems = []

    def open_page(address, size=DESKTOP, **options):
      context = browser.new_context(viewport=size, reduced_motion='reduce', **options)
      stack.callback(context.close)
      page = context.new_page()
      page.set_default_timeout(30_000)
      page.on('pageerror', lambda error: problems.append(str(error)))
      page.on(
        'console',
        # A request that the server refuses is reported here too; the page's own words are tested.
        lambda message: (
          problems.append(message.text)
          if message.type == 'error' and 'Failed to load resource' not in message.text
          else None
        ),
      )
      page.goto(address)
      return page

    yield open_page
  assert not problems
