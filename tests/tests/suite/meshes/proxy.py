"""Stands in for the proxy of a service mesh: sends each connection that is redirected to it where it was going, and prints
where that is: OUTBOUND-PORT INBOUND-PORT. IPv4 only."""

import socket, socketserver, struct, sys, threading

# linux/netfilter_ipv4.h
SO_ORIGINAL_DST = 80


def destination(connection):
    port, address = struct.unpack("!2xH4s8x", connection.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16))
    return socket.inet_ntoa(address), port


def copy(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


class Forward(socketserver.BaseRequestHandler):
    def handle(self):
        address, port = destination(self.request)
        print(f"{self.server.direction} {address}:{port}", flush=True)
        # The rules send to this program what it sends to the pod's own address.
        host = "127.0.0.1" if self.server.direction == "inbound" else address
        with socket.create_connection((host, port), timeout=30) as other:
            other.settimeout(None)
            back = threading.Thread(target=copy, args=(other, self.request))
            back.start()
            copy(self.request, other)
            back.join()


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, direction, port):
        self.direction = direction
        super().__init__(("0.0.0.0", int(port)), Forward)


outbound, inbound = Server("outbound", sys.argv[1]), Server("inbound", sys.argv[2])
threading.Thread(target=outbound.serve_forever).start()
inbound.serve_forever()
