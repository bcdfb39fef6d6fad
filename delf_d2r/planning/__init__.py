"""What a run of a given size will take, from rates measured on this machine."""
