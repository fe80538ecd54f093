#!/usr/bin/env python3
"""A server in front of a limbeckd that says something else of its models: retold.py URL PORT-FILE CHANGE

CHANGE is Python about `said`, a model's metadata, whose digest is made anew; everything else goes through as it is."""
import hashlib
import http.server
import json
import os
import sys
import urllib.error
import urllib.request

url, port_file, change = sys.argv[1:]
left_out = ('host', 'connection', 'accept-encoding', 'content-length', 'transfer-encoding')


def headers_of(message):
    return [(k, v) for k, v in message.items() if k.lower() not in left_out]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *of):
        pass

    def do_GET(self):
        n = int(self.headers.get('Content-Length', 0))
        request = urllib.request.Request(url + self.path, self.rfile.read(n) if n else None, dict(headers_of(self.headers)),
                                         method=self.command)
        try:
            answer = urllib.request.urlopen(request)
        except urllib.error.HTTPError as e:
            answer = e
        body = answer.read()
        if b',"digest":"' in body[-80:] and self.command == 'GET':
            said = json.loads(body)
            del said['digest']
            exec(change, {'said': said})
            body = json.dumps(said, separators=(',', ':')).encode()[:-1]
            body += b',"digest":"' + hashlib.sha256(body).hexdigest().encode() + b'"}'
        self.send_response(answer.status)
        for k, v in headers_of(answer.headers):
            self.send_header(k, v)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET


server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
with open(port_file + '.new', 'w') as f:
    f.write(str(server.server_port))
os.rename(port_file + '.new', port_file)
server.serve_forever()
