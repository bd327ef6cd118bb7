"""Measurements, and the scripted provider that they and the tests run against."""
