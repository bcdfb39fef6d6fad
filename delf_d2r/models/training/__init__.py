"""What training of both models shares."""
