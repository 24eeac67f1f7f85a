"""Serves one TLS handshake on loopback and verifies it as strictly as Python can.

usage: strict_tls.py CA_PEM CHAIN_PEM KEY_PEM HOST...
Prints one line per HOST: `HOST ok` or `HOST refused: reason`.
"""

import socket
import ssl
import sys
import threading

ca, chain, key, *hosts = sys.argv[1:]
serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
serving.load_cert_chain(chain, key)


def serve(connection):
    try:
        with serving.wrap_socket(connection, server_side=True) as tls:
            tls.recv(1)
    except (ssl.SSLError, OSError):
        pass


for host in hosts:
    client = ssl.create_default_context(cafile=ca)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    assert client.check_hostname and client.verify_mode == ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname(), timeout=10) as raw:
            connection, _ = listener.accept()
            thread = threading.Thread(target=serve, args=(connection,))
            thread.start()
            try:
                with client.wrap_socket(raw, server_hostname=host) as tls:
                    tls.send(b"x")
                print(host, "ok")
            except ssl.SSLCertVerificationError as refusal:
                print(host, "refused:", refusal.verify_message)
            thread.join(10)
