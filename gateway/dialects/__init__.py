"""Dialects: what requests ask for and what answers used, per wire format."""
