"""A provider of every dialect that does what it is told: for tests, demo and loads."""

from bench.provider.answers.reply import prompt_tokens
from bench.provider.client import ProviderControl
from bench.provider.provider import ScriptedProvider
from bench.provider.record import Bill, Seen, Stats
from bench.provider.script import DEFAULT_TEXT, Behaviour

__all__ = [
    "DEFAULT_TEXT",
    "Behaviour",
    "Bill",
    "ProviderControl",
    "ScriptedProvider",
    "Seen",
    "Stats",
    "prompt_tokens",
]
