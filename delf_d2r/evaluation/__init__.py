"""The quality of rankings and boxes: average precision, the Revisited protocol, significance, files."""
