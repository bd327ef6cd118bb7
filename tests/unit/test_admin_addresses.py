"""Where an upstream may lie."""

import pytest

from admin_api.addresses import base_url

PUBLIC = [
    "https://api.openai.com/v1",
    "https://api.openai.com:8443",
    "https://8.8.8.8/v1",
    "https://[2606:4700::1111]/",
    "https://my_resource.openai.azure.com/openai/deployments/x",
]
PRIVATE = [
    "http://api.openai.com/v1",
    "https://localhost/v1",
    "https://localhost./v1",
    "https://api.localhost",
    "https://vault.internal",
    "https://printer.local",
    "https://mongo",
    "https://127.0.0.1",
    "https://127.0.0.1.",
    "https://127.1",
    "https://0x7f.0.0.1",
    "https://0177.0.0.1",
    "https://2130706433",
    "https://0",
    "https://10.1.2.3",
    "https://172.16.0.1",
    "https://192.168.1.1",
    "https://100.64.0.1",
    "https://169.254.169.254/latest/meta-data",
    "https://224.0.0.1",
    "https://[::1]",
    "https://[::]",
    "https://[::ffff:127.0.0.1]",
    "https://[::ffff:a9fe:a9fe]",
    "https://[64:ff9b::169.254.169.254]",
    "https://[2002:7f00:1::]",
    "https://[fe80::1%25eth0]",
    "https://[fd00:ec2::254]",
]
NEVER = [
    "",
    "api.openai.com",
    "ftp://api.openai.com",
    "file:///etc/passwd",
    "https://",
    "https:///v1",
    "https://user:pass@api.openai.com",
    "https://@api.openai.com",
    "https://api.openai.com/v1?key=x",
    "https://api.openai.com/v1?",
    "https://api.openai.com/v1#x",
    "https://api.openai.com:99999",
    "https://api.openai.com:x",
    "https://api.openai.com\\@evil.example",
    "https://api.openai.com /v1",
    "https://api.openai.com/\r\nx: y",
    "https://①②⑦.0.0.1",
    "https://a..example.com",
    "https://-a.example.com",
    "https://%31%32%37.0.0.1",
    "https://[::1",
    "https://example.com/" + "a" * 500,
]


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses(text: str) -> None:
    assert base_url(text, private=False) == text.rstrip("/")


@pytest.mark.parametrize("text", PRIVATE)
def test_private_addresses_need_the_switch(text: str) -> None:
    with pytest.raises(ValueError, match="WEIR_ALLOW_PRIVATE_UPSTREAMS=on"):
        base_url(text, private=False)
    assert base_url(text, private=True) == text.rstrip("/")


@pytest.mark.parametrize("text", NEVER)
@pytest.mark.parametrize("private", [False, True])
def test_no_addresses(text: str, *, private: bool) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        base_url(text, private=private)
    assert not text or text not in str(refused.value)


def test_a_trailing_slash_goes() -> None:
    assert base_url("https://api.openai.com/v1//", private=False) == "https://api.openai.com/v1"
