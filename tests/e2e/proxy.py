#!/usr/bin/env python3
"""A limbeckd that says something else of itself; the rest passes through.

    proxy.py TEACHER_URL PORT_FILE no_maps          as it was before it kept vocabulary maps: its metadata don't speak of them
    proxy.py TEACHER_URL PORT_FILE called NAME PATH as a vLLM that was given a path: its model NAME is called PATH, and by that alone;
                                   [MOST]           of ids it lists at most that many, as it says when it is asked for more

Each ends with its parent's script.
"""
import hashlib
import http.client
import http.server
import json
import os
import re
import sys
import urllib.parse

upstream = urllib.parse.urlsplit(sys.argv[1]).netloc
port_file, how = sys.argv[2:4]


def asked(body):
    """The body to be sent on; None: no such model."""
    if how != 'called' or b'"model"' not in body:
        return body
    name, path = (json.dumps(text).encode() for text in sys.argv[4:6])
    found = re.search(rb'"model": ?' + re.escape(path), body)
    return body[:found.start()] + b'"model":' + name + body[found.end():] if found else None


def answered(data):
    if how == 'called':
        if len(sys.argv) > 6:
            data = data.replace(b'16384', sys.argv[6].encode())
        return data.replace(b'"id":' + json.dumps(sys.argv[4]).encode(), b'"id":' + json.dumps(sys.argv[5]).encode())
    if b'"max_vocab_maps"' in data:
        text = re.sub(rb',"max_vocab_maps":\d+', b'', data)
        text = text[:text.rindex(b',"digest":"')]
        return text + b',"digest":"' + hashlib.sha256(text).hexdigest().encode() + b'"}'
    return data


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True

    def log_message(self, form, *values):
        pass

    def forward(self):
        body = asked(self.rfile.read(int(self.headers.get('Content-Length', 0))))
        if body is None:
            self.send_error(404, 'no such model')
            return
        print(self.command, self.path, flush=True)
        behind = http.client.HTTPConnection(upstream, timeout=60)
        headers = {n: v for n, v in self.headers.items() if n.lower() not in ('host', 'connection', 'content-length')}
        behind.request(self.command, self.path, body or None, headers)
        answer = behind.getresponse()
        data, status = answered(answer.read()), answer.status
        behind.close()
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
