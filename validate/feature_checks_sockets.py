"""Feature checks of sockets and ancillary data."""

import _socket
import contextlib
import os
import select
import struct

from feature_check import PATIENCE, buffer, call, ctypes, require

CONTROL_HEADER = struct.Struct("Nii")  # of an ancillary item: its length with the header, level, type
MESSAGE = "PIPNPNi0P"  # struct msghdr: name, iovec, control, each with its length; flags
SOL_SOCKET, SCM_RIGHTS, SCM_CREDENTIALS, MSG_CTRUNC = 1, 1, 2, 8


def aligned(size):
    """Round up to the alignment of ancillary items."""
    return -(-size // 8) * 8


def message(content, control):
    """Make a struct msghdr from two buffers; return it, its address, and the objects that it refers to."""
    vector, vector_address = buffer(16)
    vector.raw = struct.pack("PN", ctypes.addressof(content), ctypes.sizeof(content))
    header, address = buffer(struct.calcsize(MESSAGE))
    place, size = (ctypes.addressof(control), ctypes.sizeof(control)) if control else (0, 0)
    header.raw = struct.pack(MESSAGE, 0, 0, vector_address.value, 1, place, size, 0)
    return header, address, (content, control, vector)


def send(descriptor, data, *items):
    """Send a message with ancillary items, each (level, type, bytes)."""
    packed = b""
    for level, kind, content in items:
        item = CONTROL_HEADER.pack(CONTROL_HEADER.size + len(content), level, kind) + content
        packed += item.ljust(aligned(len(item)), b"\0")
    content = ctypes.create_string_buffer(data, len(data))
    keep = message(content, ctypes.create_string_buffer(packed, len(packed)) if packed else None)
    call("sendmsg", descriptor, keep[1], 0, result="c_ssize_t")


def receive(descriptor, room):
    """Receive a message with this size of ancillary data: its bytes, the items, and whether they were truncated."""
    require(select.select([descriptor], [], [], PATIENCE / 2)[0], "a message does not arrive")
    content, control = ctypes.create_string_buffer(64), ctypes.create_string_buffer(max(room, 1))
    header, address, _kept = message(content, control)
    struct.pack_into("N", header, 40, room)
    size = call("recvmsg", descriptor, address, 0, result="c_ssize_t")
    *_, used, flags = struct.unpack(MESSAGE, header.raw)
    require(used <= room, f"{used} bytes of ancillary data are told of where there is room for {room}")
    items, at = [], 0
    while at + CONTROL_HEADER.size <= used:
        length, level, kind = CONTROL_HEADER.unpack_from(control.raw, at)
        require(CONTROL_HEADER.size <= length, f"an ancillary item is said to be {length} bytes long, header included")
        require(at + length <= room, f"an ancillary item is said to end at byte {at + length} of {room}")
        items.append((level, kind, control.raw[at + CONTROL_HEADER.size : at + length]))
        at += aligned(length)
    return content.raw[:size], items, bool(flags & MSG_CTRUNC)


def unix_pair():
    """Make two connected Unix sockets' descriptors."""
    return tuple(each.detach() for each in _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM, 0))


def descriptors(items):
    """Return the descriptors in ancillary items."""
    packed = b"".join(data for level, kind, data in items if (level, kind) == (SOL_SOCKET, SCM_RIGHTS))
    return struct.unpack(f"{len(packed) // 4}i", packed[: len(packed) // 4 * 4])


def ancillary_data():
    """A message can carry descriptors and credentials at the same time.

    Needed by: test_socket (RecvmsgSCMRightsStreamTest, RecvmsgIntoSCMRightsStreamTest), multiprocessing.reduction.
    """
    sender, receiver = unix_pair()
    call("setsockopt", receiver, SOL_SOCKET, 16, ctypes.byref(ctypes.c_int(1)), 4)  # SO_PASSCRED
    given = os.pipe()
    credentials = struct.pack("3i", os.getpid(), os.getuid(), os.getgid())
    send(
        sender, b"data", (SOL_SOCKET, SCM_RIGHTS, struct.pack("2i", *given)), (SOL_SOCKET, SCM_CREDENTIALS, credentials)
    )
    data, items, cut = receive(receiver, 256)
    require(data == b"data" and not cut, f"what arrives is {data!r}, cut off: {cut}")
    pairs = zip(descriptors(items), given, strict=False)
    same = [os.path.samestat(os.fstat(got), os.fstat(sent)) for got, sent in pairs]
    require(same == [True, True], f"of two descriptors {len(same)} arrive, {sum(same)} of them as they were")
    require((SOL_SOCKET, SCM_CREDENTIALS, credentials) in items, "the credentials do not arrive as they were")
    return "two descriptors and the sender's credentials arrive"


def ancillary_data_truncation():
    """If a message's descriptors do not fit, as many as fit arrive, with a flag.

    Needed by: test_socket (testCmsgTrunc… of RecvmsgSCMRightsStreamTest and RecvmsgIntoSCMRightsStreamTest).
    """
    header = CONTROL_HEADER.size
    for room in (1, header - 1, header, header + 1, header + 4, header + 7):
        sender, receiver = unix_pair()
        send(sender, b"data", (SOL_SOCKET, SCM_RIGHTS, struct.pack("2i", *os.pipe())))
        before = len(os.listdir("/proc/self/fd"))
        data, items, cut = receive(receiver, room)
        found, fit = descriptors(items), max(0, room - header) // 4
        opened = len(os.listdir("/proc/self/fd")) - before
        require(data == b"data", f"with room for {room} bytes the data arrives as {data!r}")
        require(cut, f"with room for {room} bytes it is not told that something is cut off")
        require(len(found) == fit, f"with room for {room} bytes {len(found)} of two descriptors arrive, and {fit} fit")
        require(opened == fit, f"with room for {room} bytes {opened} descriptors are opened, and {fit} told of")
    return "as many descriptors arrive as fit, and it is told that others do not"


def udp6_pair():
    """Make an IPv6 socket, and one connected to it."""
    receiver = _socket.socket(_socket.AF_INET6, _socket.SOCK_DGRAM)
    receiver.bind(("::1", 0))
    sender = _socket.socket(_socket.AF_INET6, _socket.SOCK_DGRAM)
    sender.connect(receiver.getsockname())
    return sender, receiver


IPV6, HOP_LIMIT, TRAFFIC_CLASS = 41, 52, 67


def ancillary_data_ipv6():
    """A message over IPv6 carries its hop limit and traffic class; if they do not fit, a flag is set.

    Needed by: test_socket (RecvmsgRFC3542AncillaryUDP6Test, RecvmsgIntoRFC3542AncillaryUDP6Test, those of UDPLITE6).
    """
    sender, receiver = udp6_pair()
    for option in (51, 66):  # IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS
        receiver.setsockopt(IPV6, option, 1)
    header, space = CONTROL_HEADER.size, aligned(CONTROL_HEADER.size + 4)
    for room in (256, space + header + 4, space + header + 2, space + header, space + 1, header + 2, header - 1):
        send(
            sender.fileno(),
            b"data",
            (IPV6, HOP_LIMIT, struct.pack("i", 7)),
            (IPV6, TRAFFIC_CLASS, struct.pack("i", 16)),
        )
        data, items, cut = receive(receiver.fileno(), room)
        sizes = [4, 4]  # bytes of the two items that fit
        if room < space + header + 4:
            sizes = [4, room - space - header] if room >= space + header else [4]
        if room < space:
            sizes = [room - header] if room >= header else []
        require(data == b"data", f"with room for {room} bytes the data arrives as {data!r}")
        require(cut == (room < space + header + 4), f"with room for {room} bytes it is told that it is cut off: {cut}")
        found = [len(content) for _, _, content in items]
        require(found == sizes, f"with room for {room} bytes items of {found} bytes arrive, not of {sizes}")
        for level, kind, content in items:
            whole = struct.unpack("i", content)[0] if len(content) == 4 else None
            expected = {HOP_LIMIT: 7, TRAFFIC_CLASS: 16}.get(kind)
            require(level == IPV6 and whole in (expected, None), f"item {kind} is {whole}, not {expected}")
    return "hop limit and traffic class arrive, as far as there is room"


def exchange(family, address):
    """Send data through TCP and UDP sockets of this machine. Raises Unsupported if it does not arrive."""
    with _socket_of(family, _socket.SOCK_STREAM) as server, _socket_of(family, _socket.SOCK_STREAM) as client:
        server.bind((address, 0))
        server.listen()
        client.connect(server.getsockname())
        descriptor, _ = server._accept()
        client.send(b"over TCP")
        received = os.read(descriptor, 100)
        os.close(descriptor)
    require(received == b"over TCP", f"TCP brings {received!r}")
    with _socket_of(family, _socket.SOCK_DGRAM) as server, _socket_of(family, _socket.SOCK_DGRAM) as client:
        server.bind((address, 0))
        client.sendto(b"over UDP", server.getsockname())
        require(select.select([server.fileno()], [], [], PATIENCE / 2)[0], "UDP brings nothing")
        require(server.recv(100) == b"over UDP", "UDP brings something else")


def _socket_of(family, kind):
    return contextlib.closing(_socket.socket(family, kind))


def loopback():
    """TCP and UDP work within the machine.

    Needed by: test_socket, test_asyncio, test_ssl, test_httpservers, test_multiprocessing_… and many others.
    """
    exchange(_socket.AF_INET, "127.0.0.1")
    return "TCP and UDP work on 127.0.0.1"


def ipv6_loopback():
    """TCP and UDP work within the machine over IPv6.

    Needed by: test_socket, test_asyncio, test_ftplib and others, which skip the part without it.
    """
    exchange(_socket.AF_INET6, "::1")
    return "TCP and UDP work on ::1"


def localhost():
    """The name `localhost` resolves to this machine.

    Needed by: test_socket, test_asyncio, test_smtplib and others that use the name.
    """
    found = sorted({entry[4][0] for entry in _socket.getaddrinfo("localhost", None)})
    require("127.0.0.1" in found, f"it is {', '.join(found)}")
    return f"it is {', '.join(found)}"


SOL_ALG, ALG_SET_KEY, ALG_SET_IV, ALG_SET_OP = 279, 1, 2, 3


def algorithm(kind, name, key=b""):
    """Open a socket of the kernel's crypto API."""
    listener = call("socket", 38, _socket.SOCK_SEQPACKET, 0)
    address = ctypes.create_string_buffer(struct.pack("H14sII64s", 38, kind, 0, 0, name))
    call("bind", listener, address, 88)
    if key:
        call("setsockopt", listener, SOL_ALG, ALG_SET_KEY, key, len(key))
    return call("accept", listener, None, None)


def af_alg():
    """The kernel's crypto API works through sockets: a hash, and a cipher with parameters in ancillary data.

    Needed by: test_socket.LinuxKernelCryptoAPI, which skips itself without any of it.
    """
    descriptor = algorithm(b"hash", b"sha256")
    os.write(descriptor, b"abc")
    digest = os.read(descriptor, 32).hex()
    require(digest.startswith("ba7816bf8f01cfea"), f"the SHA-256 of abc begins with {digest[:16]}")
    # the first test vector of https://www.rfc-editor.org/rfc/rfc3602#section-4
    key, vector = bytes.fromhex("06a9214036b8a15b512e03d534120006"), bytes.fromhex("3dafba429d9eb430b422da802c9fac41")
    descriptor = algorithm(b"skcipher", b"cbc(aes)", key)
    settings = (SOL_ALG, ALG_SET_OP, struct.pack("I", 1)), (SOL_ALG, ALG_SET_IV, struct.pack("I", 16) + vector)
    send(descriptor, b"Single block msg", *settings)
    encrypted = os.read(descriptor, 16).hex()
    require(encrypted == "e353779c1079aeb82708942dbe77181a", f"AES-CBC gives {encrypted}, which is wrong")
    return "SHA-256 and AES-CBC give what they should"


def af_can():
    """There are sockets of the CAN bus, and their filters can be set.

    Needed by: test_socket.BasicCANTest, which skips itself without them.
    """
    descriptor = call("socket", 29, _socket.SOCK_RAW, 1)
    chosen = struct.pack("II", 0x200, 0x700)
    call("setsockopt", descriptor, 101, 1, chosen, len(chosen))
    found, size = ctypes.create_string_buffer(8), ctypes.c_uint(8)
    call("getsockopt", descriptor, 101, 1, found, ctypes.byref(size))
    require(found.raw == chosen, "the filter that was set is not the one that is told")
    return "a filter can be set"


FEATURE_CHECKS = (
    ancillary_data,
    ancillary_data_truncation,
    ancillary_data_ipv6,
    loopback,
    ipv6_loopback,
    localhost,
    af_alg,
    af_can,
)
