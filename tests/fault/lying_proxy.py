"""A proxy between a trainer and limbeckd that can be told to lie: one port for each replica, and a liar that decides
which answer is changed, and how. The lies themselves stand in lies.py.

What a lie does with an answer is a list of steps: ('send', bytes), ('sleep', seconds), ('hang',), ('close',),
('reset',). Without steps the answer is sent as it is left.
"""
import collections
import hashlib
import http.client
import json
import select
import socket
import struct
import threading
import time


class NotHere(Exception):
    """This lie cannot be told about this answer."""


class Request:
    def __init__(self, method, path, headers, body):
        self.method, self.path, self.headers, self.body = method, path, headers, body

    def what(self):
        last = self.path.rstrip('/').rsplit('/', 1)[-1]
        if last in ('infer', 'head', 'tokenizer'):
            return last
        return 'info' if self.path.startswith('/v2/models/') and self.path.count('/') == 3 else 'other'

    def rows(self):
        """The sequences asked about: what shows whether one is asked about again."""
        n = int(self.headers['inference-header-content-length'])
        told, at, data = json.loads(self.body[:n]), n, {}
        for tensor in told['inputs']:
            size = tensor['parameters']['binary_data_size']
            data[tensor['name']] = (tensor['shape'], self.body[at:at + size])
            at += size
        (b, t), ids = data['input_ids']
        lengths = struct.unpack('<%di' % b, data['lengths'][1]) if 'lengths' in data else (t,) * b
        return [(self.path, ids[i * t * 4:(i * t + lengths[i]) * 4]) for i in range(b)]


class Answer:
    def __init__(self, request, status, reason, headers, body):
        self.request, self.status, self.reason, self.body = request, status, reason, body
        self.headers = headers  # [[name, value]]
        self.length = None      # what Content-Length says, when it isn't the body's
        self.close = False

    def header(self, name):
        return next((v for n, v in self.headers if n.lower() == name.lower()), None)

    def drop(self, name):
        self.headers = [h for h in self.headers if h[0].lower() != name.lower()]

    def set(self, name, value):
        self.drop(name)
        self.headers.append([name, value])

    def head(self):
        lines = ['HTTP/1.1 %s %s' % (self.status, self.reason)] + ['%s: %s' % (n, v) for n, v in self.headers]
        if self.length != 'none':
            lines.append('Content-Length: %s' % (len(self.body) if self.length is None else self.length))
        return ('\r\n'.join(lines) + '\r\n\r\n').encode('latin-1')

    def steps(self):
        return [('send', self.head() + self.body)] + ([('close',)] if self.close else [])

    # ---- binary answers ----

    def json_bytes(self):
        return int(self.header('Inference-Header-Content-Length'))

    def apart(self):
        """The JSON, and the tensors' bytes in its order; the last is the digest."""
        n = self.json_bytes()
        told, at, data = json.loads(self.body[:n]), n, []
        for output in told['outputs']:
            size = output['parameters']['binary_data_size']
            data.append(bytearray(self.body[at:at + size]))
            at += size
        return told, data

    def together(self, told, data, new_digest=True):
        text = told if isinstance(told, bytes) else json.dumps(told, separators=(',', ':')).encode()
        text += b' ' * (-len(text) % 8)
        body = text + b''.join(bytes(d) for d in data)
        self.body = body
        self.set('Inference-Header-Content-Length', str(len(text)))
        if new_digest:
            self.digest_again()

    def digest_again(self):
        """As somebody in between can who knows how digests are made."""
        asked = self.header('Limbeck-Request-Digest').split('=')[1].encode()
        rest = self.body[:-32]
        self.body = rest + hashlib.sha256(asked + rest).digest()


class Liar:
    """Decides whose answers are lies. schedule: 'honest', 'first' (the first two answers), 'often' (one in three),
    'one' (all of replica a), 'all' (every replica, for ever), 'each' (every kind once)."""

    def __init__(self):
        self.lock = threading.Condition()
        self.broken = []  # lies that fell over, which looks like a connection that breaks off
        self.be('honest')

    def be(self, schedule, kinds=(), spare=0, also_500=0, one_only=False, mid_run=False):
        """spare: so many honest answers first; also_500: one in so many infer requests to a replica gets a 500, so that
        replicas are asked what they are; one_only: the others are never lied about; mid_run: not at the start."""
        with self.lock:
            self.schedule, self.kinds, self.spare, self.also_500 = schedule, list(kinds), spare, also_500
            self.mid_run = mid_run
            self.one_only = one_only or schedule == 'one'
            self.off = False
            self.told, self.seen = 0, 0
            self.told_kinds, self.rows_lied, self.rows_again = [], set(), set()
            self.older, self.waiting, self.swapped = {}, None, None
            self.asked, self.lied_last = collections.Counter(), set()
            self.lock.notify_all()

    def pick(self, proxy, what):
        """The kinds that may be told now, under the lock."""
        kinds = [k for k in self.kinds if k.of == what]
        if self.schedule == 'honest' or (proxy.name != 'a' and self.one_only) or proxy.name == 'n':
            return []
        if self.schedule == 'each':
            # Between two lies a replica is honest, so that it isn't set aside for longer and longer.
            if proxy.name in self.lied_last or self.asked[proxy.name, what] == 1:
                if what == 'infer':
                    self.lied_last.discard(proxy.name)
                return []
            return [k for k in kinds if not (k.refuses and proxy.name != 'a')][:12]
        if not kinds or (self.mid_run and self.asked[proxy.name, what] == 1):
            return []
        self.seen += 1
        if self.seen <= self.spare:
            return []
        if self.schedule == 'first' and self.told >= 2:
            return []
        if self.schedule == 'often' and (self.seen - self.spare) % (2 if self.mid_run else 3) != 1:
            return []
        return kinds

    def answer(self, proxy, answer):
        """The steps of what is sent instead."""
        request = answer.request
        what = request.what()
        with self.lock:
            self.asked[proxy.name, what] += 1
            rows = request.rows() if what == 'infer' else []
            self.rows_again.update(r for r in rows if r in self.rows_lied)
            kinds = self.pick(proxy, what) if answer.status == 200 else []
            if (self.also_500 and what == 'infer' and proxy.name != 'n' and
                    self.asked[proxy.name, what] % self.also_500 == 1):
                answer.status, answer.body, answer.headers = 500, b'{"error": "now and then"}', []
                return answer.steps()
            honest = (answer.body, [list(h) for h in answer.headers])
            for kind in kinds:
                # Counted before it is told, since a lie may wait for another request.
                self.told += 1
                if self.schedule == 'each':
                    self.kinds.remove(kind)
                try:
                    steps = kind.tell(answer, self)
                except NotHere:
                    self.told -= 1
                    if self.schedule == 'each':
                        self.kinds.append(kind)
                    answer.body, answer.headers = honest[0], honest[1]
                    continue
                except Exception as error:
                    self.broken.append('%s: %r' % (kind.name, error))
                    raise
                self.told_kinds.append(kind.name)
                self.lied_last.add(proxy.name)
                if kind.found is True:
                    self.rows_lied.update(rows)
                self.remember(request, honest)
                return steps if steps is not None else answer.steps()
            self.remember(request, honest)
        return answer.steps()

    def remember(self, request, honest):
        self.older.setdefault((request.what(), request.path), []).append((request.body, honest))

    def an_older(self, answer, same_size):
        """Body and headers of an answer to another question, under the lock."""
        for body, honest in self.older.get((answer.request.what(), answer.request.path), []):
            if body != answer.request.body and (not same_size or len(honest[0]) == len(answer.body)):
                return honest
        raise NotHere()

    def swap(self, answer):
        """What another request is answered with, that one getting this answer, under the lock."""
        mine = (answer.body, answer.headers)
        if self.waiting is not None:
            other, self.waiting, self.swapped = self.waiting, None, mine
            self.lock.notify_all()
            return other
        self.waiting, self.swapped = mine, None
        until = time.monotonic() + 0.4
        while self.swapped is None and time.monotonic() < until:
            self.lock.wait(0.05)
        if self.swapped is None:
            self.waiting = None
            raise NotHere()
        other, self.swapped = self.swapped, None
        return other


class Proxy:
    """One address in front of a daemon. name: 'n' is always honest, 'a' and 'b' are replicas."""

    def __init__(self, name, upstream, liar):
        self.name, self.upstream, self.liar = name, upstream, liar
        self.socket = socket.create_server(('127.0.0.1', 0), backlog=64)
        self.url = 'http://127.0.0.1:%d' % self.socket.getsockname()[1]
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        while True:
            connection, _ = self.socket.accept()
            if self.liar.off:
                connection.close()
            else:
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        behind = http.client.HTTPConnection(*self.upstream, timeout=60)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(30)
            with connection.makefile('rb') as reader:
                while True:
                    request = self.read(reader)
                    if request is None or self.liar.off:
                        break
                    answer = self.ask(behind, request)
                    if not self.perform(connection, self.liar.answer(self, answer)):
                        break
        except (OSError, ValueError, http.client.HTTPException):
            pass
        finally:
            behind.close()
            connection.close()

    @staticmethod
    def read(reader):
        line = reader.readline(65536).decode('latin-1').split()
        if len(line) != 3:
            return None
        headers = {}
        while True:
            header = reader.readline(65536).decode('latin-1')
            if header in ('\r\n', '\n', ''):
                break
            name, value = header.split(':', 1)
            headers[name.strip().lower()] = value.strip()
        return Request(line[0], line[1], headers, reader.read(int(headers.get('content-length', 0))))

    @staticmethod
    def ask(behind, request):
        headers = {n: v for n, v in request.headers.items() if n not in ('host', 'connection', 'content-length')}
        behind.request(request.method, request.path, request.body or None, headers)
        response = behind.getresponse()
        body = response.read()
        kept = [[n, v] for n, v in response.getheaders()
                if n.lower() not in ('content-length', 'connection', 'transfer-encoding', 'date')]
        return Answer(request, response.status, response.reason, kept, body)

    @staticmethod
    def gone(connection, seconds):
        """Waits; whether the other side left."""
        return bool(select.select([connection], [], [], seconds)[0]) and connection.recv(1, socket.MSG_PEEK) == b''

    def perform(self, connection, steps):
        for step in steps:
            if step[0] == 'send':
                connection.sendall(step[1])
            elif step[0] == 'sleep':
                if self.gone(connection, step[1]):
                    return False
            elif step[0] == 'hang':
                until = time.monotonic() + 60
                while time.monotonic() < until and not self.gone(connection, 0.5):
                    pass
                return False
            elif step[0] == 'close':
                return False
            elif step[0] == 'reset':
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
                return False
        return True
