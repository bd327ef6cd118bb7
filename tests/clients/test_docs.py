"""docs/clients.md is run: every block of code as it is written, and its tables against what the SDKs do."""

import asyncio
import itertools
import re
import subprocess
from typing import NamedTuple

import pytest
import pytest_asyncio

from bench.provider import DEFAULT_TEXT, Behaviour
from gateway.refusals import Code
from tests.clients import plain, sdks
from tests.clients.sdks import SDKS, Sdk
from tests.clients.sides import DIALECTS, Site
from tests.stack import Customer

TEXT = (sdks.ROOT / "docs/clients.md").read_text()
CODES = {code.word for code in Code}
LANGUAGES = {"python": "python", "js": "node", "sh": "shell"}
MODELS = {"OpenAI": "gpt-4.1", "Anthropic": "claude-sonnet-4-5", "Gemini": "gemini-2.5-flash", "xAI": "grok-4"}
FAMILIES = {"OpenAI": "openai", "Anthropic": "anthropic", "Gemini": "gemini", "xAI": "openai"}
_CONSTRUCTOR = re.compile(r"(OpenAI|Anthropic|Client|GoogleGenAI)\(.*\)")


class Block(NamedTuple):
    section: str
    language: str
    code: str


def blocks() -> list[Block]:
    """Every fenced block, with the heading that it is under."""
    found, section = [], ""
    for heading, language, code in re.findall(r"^## ([^\n]+)$|^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL):
        section = heading or section
        if language:
            found.append(Block(section, LANGUAGES[language], code))
    return found


def rows(title: str) -> list[list[str]]:
    """The cells of the table whose first heading is `title`."""
    table = TEXT[TEXT.index(f"\n| {title} |") :].strip().split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


SETTINGS = next(block for block in blocks() if not block.section)
CODE = [block for block in blocks() if block.section]


class Place(NamedTuple):
    """Somebody who may use a model of each dialect."""

    site: Site
    customer: Customer
    names: dict[str, str]

    def filled(self, code: str) -> str:
        """The code with an address, a key and models in the places of those that stand for them."""
        code = code.replace("https://weir.example", self.site.stack.gateway).replace("weir_...", self.customer.key)
        for section, name in MODELS.items():
            code = code.replace(name, self.names[section])
        return code


@pytest_asyncio.fixture(loop_scope="session")
async def place(site: Site) -> Place:
    site.behind.reset()
    names = {section: await site.model(section.lower()) for section in MODELS}
    return Place(site, await site.stack.customer(), names)


def drives(block: Block, sdk: Sdk) -> bool:
    return (FAMILIES.get(block.section), block.language) == (sdk.family, sdk.language)


def test_every_sdk_has_its_block_and_every_dialect_its_curl() -> None:
    assert {(block.section, block.language) for block in CODE} == {
        (section, language) for section in MODELS for language in LANGUAGES.values()
    }
    assert all(any(drives(block, sdk) for block in CODE) for sdk in SDKS)


@pytest.mark.parametrize("sdk", SDKS, ids=str)
async def test_two_lines_or_none(place: Place, sdk: Sdk) -> None:
    """The blocks as they are; and without the two lines, the environment having the base URL and the key."""
    driver = place.site.drivers[sdk]
    mine = [block for block in CODE if drives(block, sdk)]
    for block in mine:
        assert (await driver.run(place.filled(block.code))).strip() == DEFAULT_TEXT
    settings = dict(re.findall(r"(\w+)=(\S+)", place.filled(SETTINGS.code)))
    bare = "({})" if sdk.language == "node" else "()"
    code = _CONSTRUCTOR.sub(lambda found: found[1] + bare, place.filled(mine[0].code), count=1)
    assert place.site.stack.gateway not in code
    assert (await driver.run(code, settings)).strip() == DEFAULT_TEXT
    asked = [seen.model for seen in place.site.behind.seen]
    assert asked == [place.names[block.section] for block in (*mine, mine[0])]


@pytest.mark.parametrize("block", [each for each in CODE if each.language == "shell"], ids=lambda block: block.section)
async def test_curl(place: Place, block: Block) -> None:
    command = ["sh", "-c", place.filled(block.code)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30, check=True)
    assert DEFAULT_TEXT in done.stdout
    [seen] = place.site.behind.seen
    assert seen.model == place.names[block.section]


async def test_the_names_of_refusals(site: Site) -> None:
    """What the table and the sentence below it say is what is raised, by some version, and no name is left out."""
    raised: dict[tuple[int, str], set[str]] = {}
    for status, sdk in itertools.product((int(row[0]) for row in rows("status")), SDKS):
        site.direct.queue(Behaviour(status=status))
        place = {"base_url": site.direct.url + DIALECTS[sdk.family].provider, "key": "sk-direct"}
        told = await site.drivers[sdk].ask(plain.job(sdk, model="m") | place)
        raised.setdefault((status, sdk.family), set()).add(told["error"])
    for row in rows("status"):
        status = int(row[0])
        assert set(re.findall(r"`(\w+)`", row[2])) == raised[status, "openai"]
        assert set(re.findall(r"`(\w+)`", row[3])) == raised[status, "anthropic"]
        assert raised[status, "gemini"] == {"ClientError" if status < 500 else "ServerError", "ApiError"}


def test_the_versions_and_codes_are_all_named() -> None:
    versions = " ".join(" ".join(row) for row in rows("SDK"))
    assert all(sdk.version in versions for sdk in SDKS)
    for _, codes, *_ in rows("status"):
        assert all(code in CODES for code in re.findall(r"`(\w+)`", codes))
