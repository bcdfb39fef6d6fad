"""Files of other programs: readers that run nothing and bound what they allocate."""
