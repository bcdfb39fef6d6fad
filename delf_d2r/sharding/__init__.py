"""An index split by image over several servers, and what makes one ranking of their answers."""
