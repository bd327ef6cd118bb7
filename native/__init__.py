"""Compiles the request path with mypyc: the same source, checked by the same types, as machine code."""
