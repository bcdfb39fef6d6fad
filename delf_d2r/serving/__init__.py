"""The web page and JSON API of a search engine, and the page for drawing boxes on the photos of a folder."""

from delf_d2r.errors import UserError

try:
  import fastapi
  import python_multipart
  import uvicorn
except ModuleNotFoundError as error:
  raise UserError(f"the server needs {error.name}, which is missing: pip install 'delf_d2r[serve]'") from None

del fastapi, python_multipart, uvicorn
