"""Makes connect() to one address of IPv4 a connection to another, for the processes of a cgroup (version 2), as load
balancers by eBPF do: CGROUP FROM-IP:PORT TO-IP:PORT. Says `attached`, and holds it until its standard input ends."""

import ctypes, os, socket, struct, sys

BPF, LOAD, ATTACH = 321 if os.uname().machine == "x86_64" else 280, 5, 8
SOCK_ADDR, CONNECT_V4 = 18, 10
USER_IP, USER_PORT = 4, 24


def instruction(code, to=0, by=0, offset=0, value=0):
    return struct.pack("<BBhi", code, to | by << 4, offset, value)


def address(text):
    """As the kernel holds them in `struct bpf_sock_addr`: in network order, read as a number of this machine."""
    ip, port = text.split(":")
    return struct.unpack("<i", socket.inet_aton(ip))[0], struct.unpack("<H", struct.pack(">H", int(port)))[0]


def program(origin, target):
    load, store, differs, put, returns = 0x61, 0x63, 0x56, 0xB4, 0x95
    return b"".join([
        instruction(load, 2, 1, USER_IP), instruction(differs, 2, 0, 6, origin[0]),
        instruction(load, 2, 1, USER_PORT), instruction(differs, 2, 0, 4, origin[1]),
        instruction(put, 2, value=target[0]), instruction(store, 1, 2, USER_IP),
        instruction(put, 2, value=target[1]), instruction(store, 1, 2, USER_PORT),
        instruction(0xB7, value=1), instruction(returns),
    ])


def bpf(command, attributes):
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(BPF, command, attributes, len(attributes))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


cgroup, origin, target = sys.argv[1], address(sys.argv[2]), address(sys.argv[3])
code = program(origin, target)
text, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
loaded = bpf(LOAD, struct.pack("<IIQQIIQII16sII", SOCK_ADDR, len(code) // 8, ctypes.addressof(text),
                               ctypes.addressof(licence), 0, 0, 0, 0, 0, b"translate", 0, CONNECT_V4))
bpf(ATTACH, struct.pack("<IIII", os.open(cgroup, os.O_RDONLY), loaded, CONNECT_V4, 0))
print("attached", flush=True)
sys.stdin.read()
