"""codec.url: URLs brought into the form that is sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.codec.url import check_tiers, check_urls, normalise_url
from bittern.core.errors import ConfigError, DecodeError


@pytest.mark.parametrize(
    ("given_url", "sent"),
    [
        ("http://h/x.torrent", "http://h/x.torrent"),
        (" HTTPS://H.Example:443/A?b#frag ", "https://h.example:443/A?b"),
        ("http://h", "http://h"),
        ("http://h/a b\u00e9?x=\u00fc z", "http://h/a%20b%C3%A9?x=%C3%BC%20z"),
        ("http://h/a%2Fb?k=%41", "http://h/a%2Fb?k=%41"),
        ("http://b\u00fccher.example/", "http://xn--bcher-kva.example/"),
        ("http://[2001:DB8::1]:7000/", "http://[2001:db8::1]:7000/"),
        ("https://u:p\u00e9@h/", "https://u:p%C3%A9@h/"),
        ("http://h/a\r\nHost: evil", "http://h/aHost:%20evil"),
        ('http://h/"<>\\^`{|}', "http://h/%22%3C%3E%5C%5E%60%7B%7C%7D"),
    ],
)
def test_urls_are_normalised(given_url: str, sent: str) -> None:
    assert normalise_url(given_url) == sent
    assert normalise_url(sent) == sent


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "scheme ''"),
        ("/x", "scheme ''"),
        ("udp://h/", "scheme 'udp'"),
        ("file:///etc/passwd", "scheme 'file'"),
        ("gopher://h/", "scheme 'gopher'"),
        ("http:///x", "host"),
        ("http://h|h/", "host"),
        ("http://a b/", "host"),
        ("http://h:port/", "malformed"),
        ("http://h:99999/", "malformed"),
        ("http://h:0/", "port 0"),
        ("http://[::1/", "malformed"),
        ("http://h/\udc80", "malformed"),
        ("http://" + "a" * 64 + ".example/", "malformed"),
        ("http://h/" + "a" * 4096, "too long"),
    ],
)
def test_unusable_urls_are_refused(url: str, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        normalise_url(url)


@given(st.text(max_size=100), st.sampled_from(["", "http://", "https://u@", "http://["]))
def test_any_url_is_normalised_or_refused(text: str, start: str) -> None:
    try:
        url = normalise_url(start + text)
    except DecodeError:
        return
    assert url.isascii()
    assert not set(url) & set(' \r\n\t"<>')
    assert normalise_url(url) == url


URL = "http://tracker.example/announce"


@pytest.mark.parametrize("urls", [(), [], (URL,), [URL, "udp://h:1"]])
def test_settings_of_urls(urls: object) -> None:
    check_urls("web_seeds", urls)
    check_tiers("trackers", (urls, [URL]))
    check_tiers("trackers", [])


@pytest.mark.parametrize("urls", [URL, None, 5, (URL, "tracker.example"), (5,), {URL: 1}])
def test_what_is_no_setting_of_urls_is_named(urls: object) -> None:
    with pytest.raises(ConfigError, match="web_seeds must be a tuple of URLs"):
        check_urls("web_seeds", urls)
    for tiers in (urls, ((URL,), urls)):
        with pytest.raises(ConfigError, match="trackers must be tiers"):
            check_tiers("trackers", tiers)
