"""The address of Redis as its clients take it: with user, password and TLS files within."""

from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from services.tls import TlsFiles


def full_address(url: str, user: str | None, password: str | None, tls: TlsFiles) -> str:
    """`url` with what is given beside it; what the address says itself stays.

    redis-py, kombu and Celery read all of it from there, so each of them has the same. Of a rediss:// address the
    certificate is checked unless `tls` or the address says otherwise (kombu alone would not).
    """
    parts = urlsplit(url)
    netloc = parts.netloc
    if password:
        netloc = f"{quote(user or '', safe='')}:{quote(password, safe='')}@{netloc}"
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme == "rediss":
        checked = "required" if tls.verify else "none"
        ours = {"ssl_cert_reqs": checked, "ssl_ca_certs": tls.ca, "ssl_certfile": tls.cert, "ssl_keyfile": tls.key}
        if not tls.verify:
            ours["ssl_check_hostname"] = "false"
        query = {name: str(value) for name, value in ours.items() if value} | query
    return parts._replace(netloc=netloc, query=urlencode(query)).geturl()
