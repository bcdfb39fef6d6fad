"""Pages for people: values in, one self-contained HTML file out."""
