"""Files of other programs. The readers execute nothing in a file and limit the memory that they allocate."""
