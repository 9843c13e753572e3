"""Whom a TLS connection trusts, and what to say of a certificate that is not trusted."""

from __future__ import annotations

import ssl
from pathlib import Path

from jupyter_agent.errors import InvalidInput

OTHER_NAME = (62, 64)
EXPIRED, NOT_YET_VALID = 10, 9
SELF_SIGNED = 18
"""What OpenSSL calls its reasons (``X509_V_ERR_...``)."""


def trust(ca_file: Path | None) -> ssl.SSLContext:
    """A context that verifies names and certificates by the system's CAs (or ``SSL_CERT_FILE``) and ``ca_file``.

    Reads files: it runs in a thread. Raises `InvalidInput` when ``ca_file`` cannot be used.
    """
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except ssl.SSLError as error:
            raise InvalidInput(
                f"The CA file {ca_file} holds no certificates in PEM form: see c.Agent.ca_file."
            ) from error
        except OSError as error:
            raise InvalidInput(
                f"The CA file {ca_file} cannot be read ({error.strerror}): see c.Agent.ca_file."
            ) from error
    return context


def root_certificates(context: ssl.SSLContext) -> bytes | None:
    """The CAs of a context as PEM text; ``None`` when it lists none: the system may look them up one by one."""
    listed = context.get_ca_certs(binary_form=True)
    return "".join(ssl.DER_cert_to_PEM_cert(certificate) for certificate in listed).encode() or None


def distrust(url: str, error: ssl.SSLCertVerificationError) -> str:
    """Why a server's certificate is not trusted and what to do, in a sentence."""
    code = error.verify_code
    if code in OTHER_NAME:
        return (
            f"The certificate of {url} was made for another host name: use that name in the address, "
            "or have the server get a certificate for this one."
        )
    if code == EXPIRED:
        return f"The certificate of {url} has expired: have it renewed on the server, or set this machine's clock."
    if code == NOT_YET_VALID:
        return f"The certificate of {url} is not valid yet: set this machine's clock, or the server's."
    what = "is self-signed" if code == SELF_SIGNED else f"is not trusted ({error.verify_message})"
    return (
        f"The certificate of {url} {what}: name the file of its CA (or of itself) "
        "in c.Agent.ca_file or in SSL_CERT_FILE if you trust it."
    )
