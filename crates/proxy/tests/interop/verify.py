"""Ends with 0 if a TLS connection to ADDRESS is trusted under CA for NAME: verify.py ADDRESS CA NAME."""

import socket
import ssl
import sys

address, ca, name = sys.argv[1:]
host, port = address.rsplit(":", 1)
context = ssl.create_default_context(cafile=ca)
context.verify_flags |= ssl.VERIFY_X509_STRICT
with socket.create_connection((host, int(port))) as raw, context.wrap_socket(raw, server_hostname=name) as tls:
    sys.exit(tls.recv(6) != b"hello\n")
