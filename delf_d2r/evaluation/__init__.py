"""How good are rankings: average precision, the Revisited protocol, metrics files, significance."""
