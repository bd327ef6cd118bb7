"""Accounts, API keys, credits, prices and upstreams, for operators."""
