"""An index split by image over several servers, whose responses are merged into one ranking."""
