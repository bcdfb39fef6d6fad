"""Generated protocol buffers: `python setup.py build_py`, `pip install`, or `make` writes them here."""
