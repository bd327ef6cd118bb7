"""The dialects: a request's facts in, the bytes of an answer out."""
