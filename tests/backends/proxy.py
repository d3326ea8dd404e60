"""A TCP proxy before a server: it falls silent, or loses an answer, when told."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Lock, Thread


class Proxy:
    """Passes on what clients and the server say to each other; thread-safe."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._lock = Lock()
        self._threads: list[Thread] = []
        self._sockets: list[socket.socket] = []
        self._forgotten: list[socket.socket] = []
        self._unanswered: list[socket.socket] = []
        self._passes = Event()
        self._passes.set()
        self._loses_answer = False
        self._loses_to: bytes | None = None
        self._start(self._take)

    @property
    def port(self) -> int:
        """Where it is on the loopback interface."""
        return int(self._listening.getsockname()[1])

    def fall_silent(self) -> None:
        """Pass on nothing more, either way, while every connection stays open."""
        self._passes.clear()

    def speak(self) -> None:
        """Pass on what has come meanwhile, and all that follows."""
        self._passes.set()

    def forget(self) -> None:
        """Pass on nothing more of the connections that there are, as firewalls do.

        Those that are made later are as whole as any.
        """
        with self._lock:
            self._forgotten += self._sockets

    def lose_answer(self) -> None:
        """Let the server hear what comes next, and cut the client off from its answer.

        Connections that are made later are as whole as any.
        """
        self._loses_answer = True

    @contextmanager
    def losing_answers(self, to: bytes) -> Iterator[None]:
        """Let the server hear all, and cut who says this off from the answer."""
        self._loses_to = to
        try:
            yield
        finally:
            self._loses_to = None
            self.cut()

    @property
    def is_connected(self) -> bool:
        """Whether a connection goes through it."""
        with self._lock:
            return any(one.fileno() >= 0 for one in self._sockets)

    def cut(self) -> None:
        """End every connection, without a word to anybody; new ones are whole."""
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for one in sockets:
            _end(one)

    def close(self) -> None:
        """End every connection."""
        self._passes.set()
        _end(self._listening)
        self.cut()
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join()

    # ------------------------------------------------------------ the threads

    def _start(self, target: object, *given: object) -> None:
        thread = Thread(target=target, args=given, daemon=True)  # type: ignore[arg-type]
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _take(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listening.accept()
                with self._lock:
                    self._sockets.append(client)
                self._start(self._join, client)

    def _join(self, client: socket.socket) -> None:
        self._passes.wait()
        try:
            server = socket.create_connection(self._server)
        except OSError:
            _end(client)
            return
        with self._lock:
            self._sockets.append(server)
        self._start(self._pass_on, server, client, True)
        self._pass_on(client, server, False)

    def _pass_on(
        self, source: socket.socket, target: socket.socket, are_answers: bool
    ) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                self._passes.wait()
                if source in self._forgotten:
                    continue
                if are_answers and self._loses_answer:
                    self._loses_answer = False
                    break
                if are_answers and source in self._unanswered:
                    break
                word = self._loses_to
                if not are_answers and word is not None and word in data:
                    self._unanswered.append(target)
                target.sendall(data)
        _end(source)
        _end(target)


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)  # wakes who waits for it, unlike close alone
    one.close()


@contextmanager
def before(host: str, port: int) -> Iterator[Proxy]:
    """Run a proxy before this server."""
    proxy = Proxy((host, port))
    try:
        yield proxy
    finally:
        proxy.close()
