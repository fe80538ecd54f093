#!/usr/bin/env python3
"""A limbeckd as it was before it kept vocabulary maps: what its metadata say of them goes, and none is taken.

    no_maps.py TEACHER_URL PORT_FILE     (ends with its parent's script)
"""
import hashlib
import http.client
import http.server
import os
import re
import sys
import urllib.parse

upstream = urllib.parse.urlsplit(sys.argv[1]).netloc
port_file = sys.argv[2]


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True

    def log_message(self, form, *values):
        pass

    def forward(self):
        body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
        behind = http.client.HTTPConnection(upstream, timeout=60)
        headers = {n: v for n, v in self.headers.items() if n.lower() not in ('host', 'connection', 'content-length')}
        behind.request(self.command, self.path, body or None, headers)
        answer = behind.getresponse()
        data, status = answer.read(), answer.status
        behind.close()
        if b'"max_vocab_maps"' in data:
            data = re.sub(rb',"max_vocab_maps":\d+', b'', data)
            text = data[:data.rindex(b',"digest":"')]
            data = text + b',"digest":"' + hashlib.sha256(text).hexdigest().encode() + b'"}'
        self.send_response(status)
        for name, value in answer.getheaders():
            if name.lower() not in ('content-length', 'connection', 'transfer-encoding', 'date', 'server'):
                self.send_header(name, value)
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = forward


server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Server)
with open(port_file + '.new', 'w') as file:
    file.write(str(server.server_address[1]))
os.rename(port_file + '.new', port_file)
server.serve_forever()
