"""Addresses that play a talk from a time: Media Fragments, or a template of the index."""

import re
from typing import Any
from urllib.parse import quote, urlsplit

from services.errors import InvalidInput

DEFAULT = "{url}#t={start}"
MAX_URL = 2000  # characters
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\x9f\\\"<>^`{}|]")
_PLACE = re.compile(r"\{(\w*)\}")
_PLACES = frozenset({"url", "id", "start"})
# What a relative address may begin with: anything but a scheme.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def checked_url(value: Any) -> str:
    """The address of a recording: of http or https, or relative. Raises InvalidInput (`bad_url`)."""
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MAX_URL or _UNPRINTABLE.search(value):
        raise InvalidInput(
            "bad_url", f"`url` must be an address of {MAX_URL:,} characters at most, escaped as a URL is."
        )
    if not _usable(value):
        raise InvalidInput("bad_url", "`url` must be an address of http or https, or a relative one.")
    return value


def checked_template(template: str) -> str:
    """The template itself. Raises ValueError for one that gives no usable address."""
    places = _PLACE.findall(template)
    if unknown := set(places) - _PLACES:
        raise ValueError(f"`link` has the unknown place {{{sorted(unknown)[0][:40]}}}: there are url, id and start")
    if _UNPRINTABLE.search(_PLACE.sub("", template)):
        raise ValueError("`link` must be an address, escaped as a URL is, with {url}, {id} and {start} in it")
    if not {"url", "id"} & set(places) or "start" not in places or places.count("url") > 1:
        raise ValueError("`link` must name the talk by {url}, once, or {id}, and its {start}")
    if not _usable(_PLACE.sub("x", template)):  # (what is put in may be a scheme, or what one executes)
        raise ValueError("`link` must be an address of http or https, or a relative one")
    return template


def link(template: str | None, url: str, document_id: str, start: float | None) -> str | None:
    """The address that plays a talk from `start` seconds, None when its parts are not known.

    `{url}` at the beginning is put in as it is, anything further on escaped. A time that is not known is 0. A fragment
    that the recording's address has makes way for the time. Whole seconds, rounded down: every player takes them.
    """
    template = template or DEFAULT
    if "{url}" in template and not url:
        return None
    whole = url
    if template.startswith("{url}") and "#" in template:
        whole = url.partition("#")[0]
    values = {"id": quote(document_id, safe=""), "start": str(int(start or 0))}

    def put(match: re.Match[str]) -> str:
        if match[1] != "url":
            return values[match[1]]
        return whole if match.start() == 0 else quote(url, safe="")

    return _PLACE.sub(put, template)


def _usable(address: str) -> bool:
    """Whether it is of http or https, or relative; `javascript:` and the like are executed where they are clicked."""
    if _SCHEME.match(address) is None:
        return True
    try:
        parts = urlsplit(address)
    except ValueError:  # a bracket that is no address
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)
