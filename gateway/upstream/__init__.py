"""Upstreams: provider endpoints, and the way to them."""
