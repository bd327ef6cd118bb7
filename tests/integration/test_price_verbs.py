"""`weir prices` and `weir model add --book` against the admin API as a process: import, compare, take, apply."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration import test_admin_process
from tests.integration.admin import TOKEN, UPSTREAM

admin_url = test_admin_process.admin_url


class Weir:
    """The command, with a data directory that knows where the admin API is."""

    def __init__(self, folder: Path, url: str) -> None:
        (folder / "admin.url").write_text(url + "\n")
        (folder / "admin.token").write_text(TOKEN + "\n")
        self._environ = {"WEIR_DATA_DIR": str(folder)}

    def __call__(self, *words: str, status: int = 0, stdin: str = "") -> Any:
        return test_admin_process.run(*words, environ=self._environ, status=status, stdin=stdin)

    def answer(self, *words: str) -> Any:
        return json.loads(self(*words, "--json").stdout)


@pytest.fixture
def weir(tmp_path: Path, admin_url: str) -> Weir:
    made = Weir(tmp_path, admin_url)
    upstream = ("upstream", "add", "openai", "--provider", "openai", "--base-url", UPSTREAM["base_url"])
    made(*upstream, stdin=UPSTREAM["credential"] + "\n")
    return made


MINE = ("model", "add", "mine", "--upstream", "openai=gpt-4.1", "--max-output-tokens", "9")


def test_import_diff_show_and_a_model_by_the_book(weir: Weir) -> None:
    planned = weir("prices", "import", "--provider", "openai", "--dry-run")
    assert "nothing was written" in planned.stderr
    assert weir.answer("prices", "diff", "--provider", "openai")[0]["written"] is False
    assert "no model of exactly this name" in weir("prices", "show", "gpt-4.1", status=1).stderr
    done = weir("prices", "import")
    assert [line.split(":")[0] for line in done.stderr.splitlines() if "version" in line] == [
        *("openai", "anthropic", "gemini", "xai"),
    ]
    assert weir("prices", "diff").stdout == "nothing differs\n"
    shown = weir("prices", "show", "gpt-4.1").stdout
    (usual,) = (line for line in shown.splitlines() if line.startswith("usual"))
    assert usual.split() == ["usual", "$2.00", "$8.00", "$0.50", "$10.00"]
    assert "storage_searches_kcount $2.5" in shown
    assert "above 272,000 tokens of input" in weir("prices", "show", "gpt-6-sol").stdout
    assert "USD per million" in weir(*MINE, "--book").stdout
    made = weir.answer(*MINE, "--book", "--markup", "2")
    assert (made["price"]["input_per_million_usd"], made["rates_picos"]["input"]) == ("2.00", 4 * 10**6)
    other = ("model", "add", "x", "--upstream", "openai=gpt-4.1-NOT", "--max-output-tokens", "9")
    assert "the price book has no entry of exactly" in weir(*other, "--book", status=1).stderr
    assert "give either --book" in weir(*MINE, "--book", "--input", "1", status=2).stderr
    assert "give either --book" in weir(*MINE, status=2).stderr


def test_one_model_by_its_exact_name(weir: Weir) -> None:
    for name in ("gpt-4.1-NOT-REAL", "claude-sonnet-4-5-NOT-REAL"):
        refused = weir("prices", "import", "--model", name, status=1).stderr
        assert "no model of exactly this name (it has " in refused
    assert weir.answer("prices", "diff", "--model", "gpt-4.1")[0]["items"][0]["change"] == "new"
    assert "1 models from genai-prices" in weir("prices", "import", "--model", "gpt-4.1").stderr
    assert len(weir.answer("prices", "import", "--model", "gpt-4o", "--markup", "1.5")) == 1
    shown = {name: weir.answer("prices", "show", name)[0]["markup"] for name in ("gpt-4.1", "gpt-4o")}
    assert shown == {"gpt-4.1": "1.00", "gpt-4o": "1.50"}
    weir("prices", "import", "--model", "gpt-4o")
    assert weir.answer("prices", "show", "gpt-4o")[0]["markup"] == "1.50"


def test_a_new_price_is_shown_before_it_takes_effect(weir: Weir) -> None:
    weir("prices", "import", "--model", "gpt-4.1")
    weir(*MINE, "--book")
    compared = weir("prices", "diff", "--model", "gpt-4.1", "--markup", "1.25").stdout.splitlines()
    assert compared[0].split() == ["provider", "model", "change", "rate", "old", "new", "served", "as"]
    assert [line.split() for line in compared[1:]] == [
        ["openai", "gpt-4.1", "changed", "markup", "1.00", "1.25", "mine"]
    ]
    imported = weir("prices", "import", "--model", "gpt-4.1", "--markup", "1.25")
    assert "mine cost what they did" in imported.stderr
    planned = weir("prices", "apply", "--dry-run").stdout
    assert ["mine", "input", "$2.00", "$2.50"] in [line.split() for line in planned.splitlines()]
    assert weir("prices", "apply").stdout == planned
    assert weir("prices", "apply").stdout == "no price changes\n"
