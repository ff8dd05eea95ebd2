"""HTTP/2 frames by hand (RFC 9113, RFC 7541), for clients that no library makes: those that flood, do not read, do not acknowledge."""
import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
INITIAL_WINDOW_SIZE = 4
CANCEL = 8


def frame(kind, flags, stream, payload=b""):
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value, is_indexed=True):
    """A header field with a new name; remembered by the peer's table if `is_indexed`."""
    return bytes([0x40 if is_indexed else 0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def message(payload):
    """A gRPC message."""
    return b"\0" + struct.pack(">I", len(payload)) + payload


def number_field(number, value):
    """A protobuf field with a varint."""
    data = bytearray([number << 3])
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def packed_ids(ids):
    """GetByIdsRequest."""
    data = bytearray()
    for value in ids:
        while value > 0x7F:
            data.append(value & 0x7F | 0x80)
            value >>= 7
        data.append(value)
    length, head = len(data), bytearray(b"\x0a")
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head + data)


class RawClient:
    """A connection that says what it is told. The first call fills the header table, the others only refer to it."""

    def __init__(self, address, path, window=None, connection=None, said=0):
        """`connection`: one that is there already, on which `said` bytes of the preface were sent."""
        host, port = address.rsplit(":", 1)
        self.socket = connection or socket.create_connection((host, int(port)), 10)
        settings = b"" if window is None else struct.pack(">HI", INITIAL_WINDOW_SIZE, window)
        self.socket.sendall(PREFACE[said:] + frame(SETTINGS, 0, 0, settings))
        self.stream = 1
        self.fields = [literal(":path", path), literal(":authority", "x"), literal("content-type", "application/grpc"),
                       literal("te", "trailers")]
        self.has_table = False
        self.has_acknowledged = False

    def headers(self):
        """The header block of a call: POST, http and the four fields above."""
        if self.has_table:
            return b"\x83\x86" + bytes([0x80 | 62 + len(self.fields) - 1 - index for index in range(len(self.fields))])
        self.has_table = True
        return b"\x83\x86" + b"".join(self.fields)

    def next_stream(self):
        """A new stream's number."""
        stream = self.stream
        self.stream += 2
        return stream

    def acknowledge(self):
        """The first time: that the server's settings are known, whatever they are."""
        self.has_acknowledged, is_first = True, not self.has_acknowledged
        return frame(SETTINGS, ACK, 0) if is_first else b""

    def call(self, request):
        """The frames of one whole call."""
        stream = self.next_stream()
        return frame(HEADERS, END_HEADERS, stream, self.headers()) + frame(DATA, END_STREAM, stream, message(request))

    def send(self, data):
        """False when the server has ended the connection."""
        try:
            self.socket.sendall(data)
            return True
        except socket.timeout:
            return True
        except OSError:
            return False

    def frames(self):
        """What arrives: (kind, flags, stream, payload), until the connection ends."""
        buffer = b""
        while True:
            while len(buffer) >= 9 and len(buffer) >= 9 + int.from_bytes(buffer[:3], "big"):
                end = 9 + int.from_bytes(buffer[:3], "big")
                yield buffer[3], buffer[4], int.from_bytes(buffer[5:9], "big"), buffer[9:end]
                buffer = buffer[end:]
            try:
                data = self.socket.recv(65536)
            except OSError:
                return
            if not data:
                return
            buffer += data

    def is_ended(self, timeout_s):
        """Waits for the server to end the connection, without reading what it sends (RST shows without it)."""
        self.socket.settimeout(timeout_s)
        try:
            while self.socket.recv(65536):
                pass
            return True
        except socket.timeout:
            return False
        except OSError:
            return True

    def close(self):
        """Ours."""
        self.socket.close()
