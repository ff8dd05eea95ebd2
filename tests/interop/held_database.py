"""A proxy before PostgreSQL that can hold back what the database says to one worker: while it does, the worker's statements run and
its answers wait, so that what is asked next queues up behind them, for as long as a test wants. And what it passes on has its rows
turned round: SQL promises no order where none was asked for."""
import contextlib
import socket
import struct
import threading

CONNECT_TIMEOUT_S = 10
PROTOCOL_3 = 196608
READ_BYTES = 65536
WORKER = "userd worker-"  # how workers name their connections for calls
DATA_ROW = b"D"


class RowTurner:
    """Takes PostgreSQL's messages apart: the rows of each result come out last one first."""

    def __init__(self):
        self.rest = b""
        self.rows = []

    def feed(self, data):
        """What may be passed on by now: whole messages. Rows wait for the end of their result."""
        self.rest += data
        done = []
        while len(self.rest) >= 5 and len(self.rest) > (length := int.from_bytes(self.rest[1:5], "big")):
            message, self.rest = self.rest[:length + 1], self.rest[length + 1:]
            if message[:1] == DATA_ROW:
                self.rows.append(message)
                continue
            done += [*reversed(self.rows), message]
            self.rows = []
        return b"".join(done)


class HeldDatabase:
    """Listens on `port`. close() ends it."""

    def __init__(self, host, port):
        self.target = (host, port)
        self.gates = {}  # application name -> set while answers may pass
        self.held = {}  # application name -> bytes that wait
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.sockets = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _gate(self, application):
        with self.lock:
            if application not in self.gates:
                self.gates[application] = threading.Event()
                self.gates[application].set()
                self.held[application] = 0
            return self.gates[application]

    @contextlib.contextmanager
    def hold(self, *slots):
        """Nothing that the database says reaches the workers in these slots before the end of the block."""
        names = [f"{WORKER}{slot}" for slot in slots]
        for name in names:
            self._gate(name).clear()
        try:
            yield
        finally:
            for name in names:
                self._gate(name).set()

    def is_holding(self, slot):
        """Whether an answer to this worker waits: its statement has run."""
        with self.lock:
            return self.held.get(f"{WORKER}{slot}", 0) > 0

    def close(self):
        """Connections end with it."""
        for one in [self.listener, *self.sockets]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with contextlib.suppress(OSError):
            server = socket.create_connection(self.target, CONNECT_TIMEOUT_S)
            server.settimeout(None)
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sockets += [client, server]
            application = self._forward_start(client, server)
            threading.Thread(target=self._forward_answers, args=(server, client, application), daemon=True).start()
            while data := client.recv(READ_BYTES):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    @staticmethod
    def _forward_start(client, server):
        """Requests for encryption are refused by the server here; then comes the start-up message, which holds the name."""
        while True:
            data = client.recv(READ_BYTES)
            server.sendall(data)
            if len(data) < 8 or struct.unpack("!I", data[4:8])[0] == PROTOCOL_3:
                words = data[8:].split(b"\0")
                values = dict(zip(words[::2], words[1::2]))
                return values.get(b"application_name", b"").decode()
            client.sendall(server.recv(1))

    def _forward_answers(self, server, client, application):
        gate = self._gate(application)
        turner = RowTurner() if application.startswith(WORKER) else None
        with contextlib.suppress(OSError):
            while data := server.recv(READ_BYTES):
                data = turner.feed(data) if turner else data
                with self.lock:
                    self.held[application] += len(data)
                gate.wait()
                client.sendall(data)
                with self.lock:
                    self.held[application] -= len(data)
            client.shutdown(socket.SHUT_WR)
