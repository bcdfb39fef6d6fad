"""Actions in a browser for tests of the served pages."""

READY = '.stage[data-ready]'


def wait_for_answer(page):
  """Waits until a search has its results on the page."""
  page.wait_for_selector('body:not(.busy) #results .card')


def drag(page, start, stop):
  """Drags over the photo between two positions (y, x), given as shares of its sides."""
  begin_drag(page, start, stop)
  page.mouse.up()


def begin_drag(page, start, stop):
  """Begins to drag, without releasing the button."""
  frame = page.locator('.stage img').bounding_box()
  places = [(frame['x'] + x * frame['width'], frame['y'] + y * frame['height']) for y, x in (start, stop)]
  page.mouse.move(*places[0])
  page.mouse.down()
  page.mouse.move(*places[1], steps=5)


def hold(page, pattern, *, times=None):
  """Keeps requests from the server; returns the list that they come to, for `continue_` or `fulfill`."""
  held = []
  page.route(pattern, lambda route: held.append(route), times=times)
  return held
