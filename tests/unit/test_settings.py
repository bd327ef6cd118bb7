"""Settings: every problem at once, each with its variable's name and never with a secret."""

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.settings import Address, SettingsError, load

MASTER = base64.b64encode(bytes(range(32))).decode()
BAD = {
    "WEIR_REDIS_URL": ["http://x", "redis://", "localhost:6379", "redis://[::1", "://"],
    "WEIR_MONGO_URL": ["redis://x", "mongodb://", "mongodb://[x"],
    "WEIR_ADMIN_URL": ["ftp://x", "x"],
    "WEIR_MASTER_KEY": ["x", "c2hvcnQ="],
    "WEIR_MASTER_KEY_PREVIOUS": ["x"],
    "WEIR_UPSTREAM_CA_FILE": ["/no/such/file", "/"],
    "WEIR_GATEWAY_ADDR": ["8080", ":8080", "host:", "host:99999", "host:-1", "host:x"],
    "WEIR_ADMIN_ADDR": ["x"],
    "WEIR_OPS_ADDR": ["x"],
    "WEIR_WORKERS": ["0", "257", "many", "nan", "inf", "1.5"],
    "WEIR_GATEWAYS": ["0", "10001", "1.5"],
    "WEIR_ALLOW_PRIVATE_UPSTREAMS": ["maybe"],
    "WEIR_GRACE_S": ["-1", "3601", "x", "nan"],
    "WEIR_DRAIN_S": ["-0.1", "1e9"],
    "WEIR_REPLICAS": ["-1", "11", "0.5"],
    "WEIR_SPILL_DIR": ["~no-such-user-here/spill"],
    "WEIR_DATA_DIR": ["~no-such-user-here/weir"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_bad_value_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({name: value})
    [line] = caught.value.lines
    assert line.startswith(f"{name} ")
    assert "\n" not in line


def test_all_problems_are_told_together() -> None:
    with pytest.raises(SettingsError) as caught:
        load({name: values[0] for name, values in BAD.items()}, need=("WEIR_ADMIN_TOKEN",))
    assert {line.split(" ")[0] for line in caught.value.lines} == {*BAD, "WEIR_ADMIN_TOKEN"}
    assert len(caught.value.lines) == len(BAD) + 1
    assert str(caught.value) == "\n".join(caught.value.lines)


@pytest.mark.parametrize("name", ["WEIR_REDIS_URL", "WEIR_MONGO_URL", "WEIR_MASTER_KEY", "WEIR_ADMIN_TOKEN"])
@pytest.mark.parametrize("value", [None, "", "  "])
def test_what_is_needed_and_missing_is_told_with_the_remedy(name: str, value: str | None) -> None:
    with pytest.raises(SettingsError) as caught:
        load({} if value is None else {name: value}, need=(name,))
    [line] = caught.value.lines
    assert line.startswith(f"{name} is not set; ")


def test_nothing_given_is_enough() -> None:
    settings = load({})
    assert settings.gateway_addr == Address("127.0.0.1", 8080)
    assert (settings.workers, settings.grace_s, settings.drain_s) == (1, 30, 300)
    assert settings.data_dir == Path(".weir")
    assert settings.master_key is None
    assert not settings.allow_private_upstreams


def test_everything_given() -> None:
    settings = load(
        {
            "WEIR_REDIS_URL": "redis+sentinel://:secret@a:1,b:2/main", "WEIR_MONGO_URL": "mongodb://a:1,b:2/w",
            "WEIR_ADMIN_URL": "https://admin.example/", "WEIR_MASTER_KEY": MASTER, "WEIR_MASTER_KEY_PREVIOUS": MASTER,
            "WEIR_GATEWAY_ADDR": "[::1]:0", "WEIR_WORKERS": " 4 ", "WEIR_ALLOW_PRIVATE_UPSTREAMS": "ON",
            "WEIR_GRACE_S": "0.5",
            "WEIR_ADMIN_TOKEN": "canary", "WEIR_UPSTREAM_CA_FILE": __file__,
        },
        need=("WEIR_REDIS_URL", "WEIR_MASTER_KEY"),
    )  # fmt: skip
    assert settings.admin_url == "https://admin.example"
    assert settings.master_key == settings.master_key_previous == bytes(range(32))
    assert (str(settings.gateway_addr), settings.workers, settings.grace_s) == ("[::1]:0", 4, 0.5)
    assert settings.allow_private_upstreams
    assert "canary" not in repr(settings)
    assert MASTER not in repr(settings)
    assert "x02" not in repr(settings)


@given(st.dictionaries(st.sampled_from(sorted(BAD)), st.text(st.characters(exclude_categories=["Cs"]), max_size=20)))
def test_any_text_gives_settings_or_readable_problems(given: dict[str, str]) -> None:
    try:
        load(given)
    except SettingsError as error:
        assert {line.split(" ")[0] for line in error.lines} <= set(given)  # noqa: PT017
