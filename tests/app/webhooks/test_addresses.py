"""A webhook goes to public addresses only, however the URL or a name hides another one."""

from ipaddress import ip_address

import pytest

from app.webhooks.addresses import AddressRefused, AddressRules, is_public, resolve_name

STRICT = AddressRules()
# Python's own `is_global` says True for the first nine.
NOT_PUBLIC = (
    "224.0.0.1",
    "ff02::1",
    "192.0.0.8",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "::127.0.0.1",
    "::ffff:0:127.0.0.1",
    "3fff::1",
    "5f00::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:10.0.0.1",
    "::ffff:0:10.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:0a00:0001::1",
    "2001:0:7f00:1::f7f7:f7f7",  # Teredo: its server is 127.0.0.1, its client 8.8.8.8
    "2001:0:4136:e378:8000:63bf:80ff:fffe",  # Teredo: its client is 127.0.0.1
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "127.8.8.8",
    "169.254.169.254",
    "172.31.255.255",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "100::1",
    "2001:2::1",
    "2001:20::1",
    "2001:db8::1",
    "2620:4f:8000::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%1",
    "2606:4700::1%1",
    "fec0::1",
)
PUBLIC = ("8.8.8.8", "1.1.1.1", "172.15.0.1", "2606:4700:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8")


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert not is_public(ip_address(address))
    with pytest.raises(AddressRefused):
        STRICT.addresses(STRICT.target("https://hooks.example/"), lambda *_: ["8.8.8.8", address])


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_taken(address: str) -> None:
    assert is_public(ip_address(address))
    assert STRICT.addresses(STRICT.target("https://hooks.example/"), lambda *_: [address]) == [address]


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "0177.0.0.1", "localhost", "localhost."])
def test_a_spelling_of_this_machine_is_refused_by_what_it_resolves_to(host: str) -> None:
    with pytest.raises((AddressRefused, OSError)):
        STRICT.addresses(STRICT.target(f"https://{host}/"), resolve_name)


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "https://[::ffff:10.0.0.1]/", "https://169.254.169.254/latest"])
def test_a_private_address_in_the_url_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(AddressRefused, match="not public"):
        STRICT.target(url)


@pytest.mark.parametrize(
    "url",
    [
        *("", "hooks.example", "ftp://hooks.example/", "file:///etc/passwd", "https://", "https:///path"),
        *("https://user@hooks.example/", "https://a:b@hooks.example/", "https://hooks.example\\@evil.example/"),
        *("https://hooks.example/#part", "https://hooks.example/ path", "https://hooks.example/\r\nX: y"),
        *("https://hooks.example:0/", "https://hooks.example:99999/", "https://hooks.example:/", "https://ho oks/"),
        *("https://šljiva.example/", "https://hooks..example/", "https://hooks.example/\n", "https://[fe80::1%25x]/"),
        "https://hooks.example/" + "a" * 2000,
    ],
)
def test_a_url_of_another_form_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused, match="must be like"):
        STRICT.target(url)


def test_http_and_other_ports_need_the_operators_leave() -> None:
    with pytest.raises(AddressRefused, match="https"):
        STRICT.target("http://hooks.example/")
    with pytest.raises(AddressRefused, match="Port 5432"):
        STRICT.target("https://hooks.example:5432/")
    lenient = AddressRules.of(["10.0.0.0/8"], allow_http=True)
    assert lenient.target("http://hooks.example/").authority == "hooks.example"
    inside = lenient.target("http://hooks.example:5432/a?b=c")
    assert (inside.authority, inside.path) == ("hooks.example:5432", "/a?b=c")
    assert lenient.addresses(inside, lambda *_: ["10.9.9.9"]) == ["10.9.9.9"]
    with pytest.raises(AddressRefused, match="Port 5432"):
        lenient.addresses(inside, lambda *_: ["8.8.8.8"])


@pytest.mark.parametrize(
    ("address", "is_allowed"),
    [
        ("10.0.0.1", True),
        ("::ffff:10.0.0.1", True),
        ("64:ff9b::a00:1", True),
        ("fd00::1", True),
        ("192.168.0.1", False),
    ],
)
def test_allowed_networks_open_nothing_else(address: str, *, is_allowed: bool) -> None:
    rules = AddressRules.of(["10.0.0.0/8", "fd00::/16"], allow_http=False)
    assert rules.is_allowed(ip_address(address)) is is_allowed


def test_a_name_without_an_address_is_refused() -> None:
    with pytest.raises(AddressRefused, match="no address"):
        STRICT.addresses(STRICT.target("https://hooks.example/"), lambda *_: [])
