"""http and https through ssrfguard's client, which connects to the very address that it checked."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as LookupTimeout
from contextlib import contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import ip_network
from pathlib import Path
from ssl import SSLContext
from typing import Any

import httpcore
import httpx
from ssrfguard import DEFAULT_DENIED, AddressTable, Block, Policy, Reach, SSRFGuardError
from ssrfguard.httpx import Client, SafeBackend, SafeTransport

from pipeline.media.errors import FetchDeferred, FetchRejected
from pipeline.media.fetch_settings import FetchSettings
from pipeline.media.hosts import Hosts, Visit
from pipeline.media.transfer import Body, Transfer
from schemas.deadletter import RejectCode

_HEADERS = {"accept": "image/*, */*;q=0.5", "accept-encoding": "identity", "user-agent": "mediasieve"}
_MAX_CONNECTION_ATTEMPTS = 2
_LOOKUP_THREADS = 16
_POOL_TIMEOUT_S = 0.25
_MAX_RETRY_AFTER_S = 3600
_REFUSED_STATUS = {401: "unauthorised", 403: "forbidden", 451: "unavailable for legal reasons"}
_TRANSIENT_STATUS = {408, 425, 429}
# Azure's WireServer hands out instance secrets from a public address, so no registry of special ranges has it.
_WIRE_SERVER = Block(ip_network("168.63.129.16/32"), "Azure WireServer", "not an RFC", Reach.DENIED)
_DENIED = AddressTable((*DEFAULT_DENIED.blocks, _WIRE_SERVER))


class HttpSource:
    """GET without credentials, cookies, proxies or content coding. Thread-safe."""

    def __init__(self, settings: FetchSettings, hosts: Hosts) -> None:
        self._settings = settings
        self._hosts = hosts
        self._policy = Policy(
            denied_networks=_DENIED,
            allowed_networks=settings.allowed_networks,
            allowed_ports=settings.allowed_ports,
            allowed_hosts=settings.allowed_hosts,
            max_redirects=settings.max_redirects,
            max_connection_attempts=_MAX_CONNECTION_ATTEMPTS,
        )
        self._transport = _DeadlineTransport(self._policy, settings.ca_file)
        self._client = Client(
            transport=self._transport,
            headers=_HEADERS,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            follow_redirects=False,
            trust_env=False,
            timeout=httpx.Timeout(
                connect=settings.connect_timeout_s,
                read=settings.read_timeout_s,
                write=settings.read_timeout_s,
                pool=_POOL_TIMEOUT_S,
            ),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, uri: str, attempt: int, transfer: Transfer) -> Body:
        """The body at the end of at most `max_redirects` redirects, each checked and counted on its own host.

        Redirects are followed here and not by the client, which would read their bodies without a cap.

        Raises:
            FetchRejected: the URI, a redirect or the status rules it out.
            FetchDeferred: no usable answer now.
            MediaError: MEDIA_TOO_LARGE.
        """
        with _refusals():
            request = self._client.build_request("GET", uri)
        for _ in range(self._settings.max_redirects + 1):
            with _refusals():
                target = self._policy.check_url(str(request.url))
            transfer.host = f"{target.host.rstrip('.')}:{target.port}"
            with self._hosts.visit(transfer.host, attempt) as visit:
                reply = self._exchange(request, transfer, visit)
            if isinstance(reply, Body):
                return reply
            request = reply
        raise FetchRejected(RejectCode.URI_REFUSED, f"more than {self._settings.max_redirects} redirects")

    def _exchange(self, request: httpx.Request, transfer: Transfer, visit: Visit) -> Body | httpx.Request:
        with _refusals(), _transport_faults(transfer), self._transport.deadline(transfer.deadline_s):
            response = self._client.send(request, stream=True)
            try:
                visit.answered = True
                if response.next_request is not None:
                    return response.next_request
                _check_status(response, transfer.host)
                return _read(response, transfer)
            finally:
                response.close()


def _check_status(response: httpx.Response, host: str) -> None:
    status = response.status_code
    if status in (200, 203):
        return
    if status in (404, 410):
        raise FetchRejected(RejectCode.SOURCE_GONE, f"{host} answered {status}")
    if status in _TRANSIENT_STATUS or status >= 500:
        raise FetchDeferred(f"answered {status}", host, _retry_after_s(response))
    if status in (204, 205):
        raise FetchRejected(RejectCode.MEDIA_EMPTY, f"{host} answered {status}, without a body")
    why = _REFUSED_STATUS.get(status, "not an answer to a plain GET")
    raise FetchRejected(RejectCode.SOURCE_FORBIDDEN, f"{host} answered {status}: {why}")


def _retry_after_s(response: httpx.Response) -> float:
    value = response.headers.get("retry-after", "")
    seconds = int(value) if value.isascii() and value.isdigit() and len(value) < 9 else 0
    return float(min(seconds, _MAX_RETRY_AFTER_S))


def _read(response: httpx.Response, transfer: Transfer) -> Body:
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise FetchRejected(
            RejectCode.URI_REFUSED,
            f"{transfer.host} sent Content-Encoding {coding[:32]!r}, though identity alone was accepted",
        )
    length = response.headers.get("content-length", "")
    transfer.begin_body(int(length) if length.isascii() and length.isdigit() else None)
    for chunk in response.iter_raw():
        transfer.add(chunk)
    content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return Body(transfer.data(), content_type or None)


@contextmanager
def _refusals() -> Iterator[None]:
    """A refused URI becomes URI_REFUSED. The detail leaves the URI out: its query may hold a signature."""
    try:
        yield
    except SSRFGuardError as error:
        reason = getattr(error, "reason", type(error).__name__)
        raise FetchRejected(RejectCode.URI_REFUSED, f"refused: {reason}") from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise FetchRejected(RejectCode.URI_REFUSED, f"not a URL to fetch: {error}") from error


@contextmanager
def _transport_faults(transfer: Transfer) -> Iterator[None]:
    try:
        yield
    except httpx.UnsupportedProtocol:
        raise
    except httpx.TimeoutException as error:
        raise FetchDeferred(f"timed out: {type(error).__name__}", transfer.host) from error
    except httpx.RequestError as error:
        raise FetchDeferred(f"{type(error).__name__}: {error}", transfer.host) from error


class _Deadline(threading.local):
    at_s: float = float("inf")

    def left_s(self, timeout_s: float | None) -> float:
        left_s = self.at_s - time.monotonic()
        return left_s if timeout_s is None else min(left_s, timeout_s)


class _DeadlineTransport(SafeTransport):
    """A `SafeTransport` all of whose reads, writes and look-ups end at the calling thread's deadline.

    httpx's timeouts start anew with every read, so an origin that sends a header byte at a time would never
    meet one.
    """

    def __init__(self, policy: Policy, ca_file: Path | None) -> None:
        context = httpx.create_ssl_context(trust_env=False)
        if ca_file is not None:
            context.load_verify_locations(ca_file)
        super().__init__(policy=policy, verify=context, trust_env=False)
        self._deadline = _Deadline()
        self._lookups = ThreadPoolExecutor(_LOOKUP_THREADS, thread_name_prefix="lookup")
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            max_connections=100,
            max_keepalive_connections=20,
            keepalive_expiry=5.0,
            network_backend=_DeadlineBackend(policy, self._lookup, self._deadline),
        )

    @contextmanager
    def deadline(self, at_s: float) -> Iterator[None]:
        """Bound what this thread does inside by `at_s` on `time.monotonic`."""
        self._deadline.at_s = at_s
        try:
            yield
        finally:
            self._deadline.at_s = float("inf")

    def close(self) -> None:
        super().close()
        self._lookups.shutdown(wait=False, cancel_futures=True)

    # ssrfguard calls a resolver as it would socket.getaddrinfo, by position.
    def _lookup(  # noqa: PLR0917
        self, host: str, port: int, family: int, kind: int, proto: int, flags: int
    ) -> Any:
        if flags & socket.AI_NUMERICHOST:
            return socket.getaddrinfo(host, port, family, kind, proto, flags)
        # getaddrinfo takes no timeout: a name server that stalls holds a look-up thread, not the caller.
        future = self._lookups.submit(socket.getaddrinfo, host, port, family, kind, proto, flags)
        try:
            return future.result(timeout=max(0.0, self._deadline.left_s(None)))
        except LookupTimeout as error:
            future.cancel()
            raise socket.gaierror(socket.EAI_AGAIN, "the look-up took too long") from error


class _DeadlineBackend(SafeBackend):
    def __init__(self, policy: Policy, resolver: Any, deadline: _Deadline) -> None:
        super().__init__(policy=policy, resolver=resolver)
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        left_s = self._deadline.left_s(None) / _MAX_CONNECTION_ATTEMPTS
        if left_s <= 0.0:
            raise httpcore.ConnectTimeout("no time left to connect")
        timeout_s = left_s if timeout is None else min(left_s, timeout)
        stream = super().connect_tcp(host, port, timeout_s, local_address, socket_options)
        return _DeadlineStream(stream, self._deadline)


class _DeadlineStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left_s = self._deadline.left_s(timeout)
        if left_s <= 0.0:
            raise httpcore.ReadTimeout("the fetch took too long in all")
        return self._stream.read(max_bytes, left_s)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        left_s = self._deadline.left_s(timeout)
        if left_s <= 0.0:
            raise httpcore.WriteTimeout("the fetch took too long in all")
        self._stream.write(buffer, left_s)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left_s = self._deadline.left_s(timeout)
        if left_s <= 0.0:
            raise httpcore.ConnectTimeout("no time left for TLS")
        return _DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, left_s), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
