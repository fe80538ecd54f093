"""Every way in which something between a trainer and its teacher may lie.

Each lie is told about one answer: to infer, to GET /v2/models/M (info), to .../head or to .../tokenizer. found says what
must become of it: True, it is found and asked again; False, it changes nothing that counts, and the bits stay; 'ends', the
bits stay or the run ends in words; None, it cannot be found (PROTOCOL.md 6.2 says why), and is trained on.
"""
import hashlib
import json
import math
import struct

from lying_proxy import NotHere


class Kind:
    def __init__(self, name, of, tell, found, lane, refuses, only):
        self.name, self.of, self.tell, self.found, self.lane, self.refuses, self.only = (
            name, of, tell, found, lane, refuses, only)


kinds = []


def lie(name, of='infer', found=True, lane=None, refuses=False, only=None):
    """lane: the targets that it needs; refuses: a status by which a server says that it never will, so that both
    replicas saying it of one sequence end the run, rightly; only: the schedules in which it can be told."""
    def add(tell):
        kinds.append(Kind(name, of, tell, found, lane, refuses, only))
        return tell
    return add


def each(of, names, make, **more):
    """A lie for each name, made by make(name's value)."""
    for name, value in names:
        lie(name, of, **more)(make(value))


def flip(data, at, bit=0):
    if not data:
        raise NotHere()
    changed = bytearray(data)
    changed[int(at * (len(changed) - 1))] ^= 1 << bit
    return bytes(changed)


# ---- bits of answers ----

tensors = {'final_hidden': ['hidden_states.final', 'hidden_states.1'],
           'topk': ['logits.topk_ids', 'logits.topk_values', 'logprobs.rest', 'attentions.1'],
           'logits': ['logits']}


def find(answer, name):
    told, data = answer.apart()
    for i, output in enumerate(told['outputs']):
        if output['name'] == name:
            return told, data, i
    raise NotHere()


def of_tensor(name, change, new_digest):
    """change(tensor's JSON, its bytes) -> bytes, or None when the JSON alone was changed."""
    def tell(answer, liar):
        told, data, i = find(answer, name)
        changed = change(told['outputs'][i], data[i])
        data[i] = data[i] if changed is None else changed
        if changed is not None and not new_digest:
            n = answer.json_bytes()
            answer.body = answer.body[:n] + b''.join(bytes(d) for d in data)
        else:
            answer.together(told, data, new_digest)
    return tell


def zero(output, data):
    if not any(data):
        raise NotHere()
    return bytes(len(data))


def swap_sequences(output, data):
    b = output['shape'][0]
    if b < 2:
        raise NotHere()
    size = len(data) // b
    swapped = data[size:2 * size] + data[:size] + data[2 * size:]
    if swapped == data:
        raise NotHere()
    return swapped


def all_swapped(new_digest):
    def tell(answer, liar):
        told, data = answer.apart()
        for i, output in enumerate(told['outputs'][:-1]):
            data[i] = swap_sequences(output, data[i])
        answer.together(told, data, new_digest)
    return tell


for lane, names in tensors.items():
    for name in names:
        lie('a bit of ' + name, lane=lane)(of_tensor(name, lambda o, d: flip(d, 0.4), False))
        lie(name + ' zeroed', lane=lane)(of_tensor(name, zero, False))
        lie('two sequences of ' + name + ' swapped', lane=lane)(of_tensor(name, swap_sequences, False))

# Who can make digests can make wrong ones.
lie('a bit of hidden_states.final, digest made anew', lane='final_hidden', found=None)(
    of_tensor('hidden_states.final', lambda o, d: flip(d, 0.4, 6), True))
lie('hidden_states.final zeroed, digest made anew', lane='final_hidden', found=None)(
    of_tensor('hidden_states.final', zero, True))
lie('two sequences swapped, digest made anew', found=None)(all_swapped(True))
lie('two sequences swapped')(all_swapped(False))


@lie('a bit of the JSON')
def _(answer, liar):
    n = answer.json_bytes()
    answer.body = flip(answer.body[:n].rstrip(), (liar.told % 7) / 7, 1) + b' ' * (n - len(answer.body[:n].rstrip())) + answer.body[n:]


@lie('a bit of the spaces behind the JSON')
def _(answer, liar):
    n = answer.json_bytes()
    if answer.body[n - 1:n] != b' ':
        raise NotHere()
    answer.body = answer.body[:n - 1] + b'\t' + answer.body[n:]


@lie('a bit of the digest')
def _(answer, liar):
    answer.body = answer.body[:-32] + flip(answer.body[-32:], 0.5)


@lie('the last bit')
def _(answer, liar):
    answer.body = flip(answer.body, 1)


each('infer', [('cut by a byte', lambda b: b[:-1]), ('cut to a half', lambda b: b[:len(b) // 2]),
               ('cut by its digest', lambda b: b[:-32]), ('cut to 16 bytes', lambda b: b[:16]),
               ('a byte behind', lambda b: b + b'\0'), ('eight zeros behind', lambda b: b + bytes(8)),
               ('spaces behind', lambda b: b + b'   '), ('itself behind', lambda b: b + b),
               ('a byte in front', lambda b: b'{' + b), ('all bytes the other way round', lambda b: b[::-1])],
     lambda change: lambda answer, liar: setattr(answer, 'body', change(answer.body)))


# ---- answers of other questions ----

meet = ('first', 'often')  # two requests at the same time


@lie('answers of two requests swapped', only=meet)
def _(answer, liar):
    answer.body, answer.headers = liar.swap(answer)


@lie('bodies of two requests swapped', only=meet)
def _(answer, liar):
    answer.body = liar.swap(answer)[0]


@lie('an older answer to another question')
def _(answer, liar):
    answer.body, answer.headers = liar.an_older(answer, False)


@lie("an older answer's body under this one's headers")
def _(answer, liar):
    answer.body = liar.an_older(answer, True)[0]


@lie("an older answer's header above this body")
def _(answer, liar):
    answer.headers = liar.an_older(answer, True)[1]


@lie('an older answer, digest made anew', found=None)
def _(answer, liar):
    answer.body = liar.an_older(answer, True)[0]
    answer.digest_again()


# ---- lengths and headers ----

@lie('Content-Length 8 too large, then closed')
def _(answer, liar):
    answer.length, answer.close = len(answer.body) + 8, True


@lie('Content-Length 8 too large, then silence')
def _(answer, liar):
    answer.length = len(answer.body) + 8
    return answer.steps() + [('hang',)]


@lie('Content-Length 8 too small')
def _(answer, liar):
    answer.length = len(answer.body) - 8


each('infer', [('Content-Length ' + v, v) for v in ('0', '-5', 'many', '99999999999999999999999')],
     lambda v: lambda answer, liar: (setattr(answer, 'length', v), setattr(answer, 'close', True)) and None)


@lie('two Content-Length that differ')
def _(answer, liar):
    answer.length = '%d\r\nContent-Length: %d' % (len(answer.body), len(answer.body) // 2)
    answer.close = True


each('infer', [('Inference-Header-Content-Length ' + n, v) for n, v in
               (('8 more', lambda n: n + 8), ('8 less', lambda n: n - 8), ('0', lambda n: 0), ('-1', lambda n: -1),
                ('2^63', lambda n: 2**63), ('the whole body', lambda n: 2**31 - 1), ('in words', lambda n: 'some'))],
     lambda v: lambda answer, liar: answer.set('Inference-Header-Content-Length', str(v(answer.json_bytes()))))
each('infer', [('no ' + h, h) for h in ('Inference-Header-Content-Length', 'Limbeck-Request-Digest')],
     lambda h: lambda answer, liar: answer.drop(h))
each('infer', [('no ' + h, h) for h in ('Content-Type', 'Vary', 'Cache-Control')],
     lambda h: lambda answer, liar: answer.drop(h), found=False)


@lie('no headers at all')
def _(answer, liar):
    answer.headers, answer.length, answer.close = [], 'none', True


@lie('no Content-Length, then closed', found=False)
def _(answer, liar):
    answer.length, answer.close = 'none', True


@lie('cut, no Content-Length, then closed')
def _(answer, liar):
    answer.body, answer.length, answer.close = answer.body[:-1], 'none', True


each('infer', [('digest header ' + n, v) for n, v in
               (('of another request', 'sha-256=' + 'ab' * 32), ('empty', ''), ('of another kind', 'md5=' + 'ab' * 16),
                ('too short', 'sha-256=abcd'), ('of x', 'sha-256=' + 'x' * 64))],
     lambda v: lambda answer, liar: answer.set('Limbeck-Request-Digest', v))


@lie('digest header twice, differing')
def _(answer, liar):
    answer.headers.append(['Limbeck-Request-Digest', 'sha-256=' + 'cd' * 32])


@lie('Content-Encoding: gzip without', found=False)
def _(answer, liar):
    answer.set('Content-Encoding', 'gzip')


@lie('chunked, rightly', found=False)
def _(answer, liar):
    answer.length = 'none'
    answer.set('Transfer-Encoding', 'chunked')
    half = len(answer.body) // 2
    return [('send', answer.head())] + [('send', b'%x\r\n' % len(p) + p + b'\r\n')
                                       for p in (answer.body[:half], answer.body[half:])] + [('send', b'0\r\n\r\n')]


@lie('chunked, with a wrong size')
def _(answer, liar):
    answer.length = 'none'
    answer.set('Transfer-Encoding', 'chunked')
    return [('send', answer.head() + b'%x\r\n' % (len(answer.body) - 3) + answer.body + b'\r\n0\r\n\r\n'), ('close',)]


@lie('chunked, without an end')
def _(answer, liar):
    answer.length = 'none'
    answer.set('Transfer-Encoding', 'chunked')
    return [('send', answer.head() + b'%x\r\n' % len(answer.body) + answer.body + b'\r\n'), ('close',)]


# ---- what the JSON says, digest made anew ----

def says(change):
    def tell(answer, liar):
        told, data = answer.apart()
        changed = change(told)
        answer.together(changed if changed is not None else told, data)
    return tell


def put(object_, **values):
    object_.update(values)


each('infer', [('another ' + n, c) for n, c in
               (('model_version', lambda t: put(t, model_version='ab' * 32)),
                ('compute', lambda t: put(t['parameters'], compute='ab' * 32)))] +
     [('no ' + n, c) for n, c in
      (('model_version', lambda t: t.pop('model_version') and None), ('outputs', lambda t: t.pop('outputs') and None),
       ('compute', lambda t: t['parameters'].pop('compute') and None),
       ('parameters', lambda t: t.pop('parameters') and None))] +
     [('model_version a number', lambda t: put(t, model_version=7)),
      ('an output missing', lambda t: t['outputs'].pop(0) and None),
      ('an output twice', lambda t: t['outputs'].append(t['outputs'][0])),
      ('an output under another name', lambda t: put(t['outputs'][0], name='logits.other')),
      ('an output without a name', lambda t: t['outputs'][0].pop('name') and None),
      ('a size that is negative', lambda t: put(t['outputs'][0]['parameters'], binary_data_size=-4)),
      ('a size that is 2^62', lambda t: put(t['outputs'][0]['parameters'], binary_data_size=2**62)),
      ('a shape with a sequence less', lambda t: t['outputs'][0]['shape'].__setitem__(0, t['outputs'][0]['shape'][0] - 1)),
      ('a shape with a sequence more', lambda t: t['outputs'][0]['shape'].__setitem__(0, t['outputs'][0]['shape'][0] + 1)),
      ('a shape turned round', lambda t: t['outputs'][0]['shape'].reverse()),
      ('a shape of one dimension', lambda t: put(t['outputs'][0], shape=[math.prod(t['outputs'][0]['shape'])])),
      ('a negative shape', lambda t: t['outputs'][0]['shape'].__setitem__(0, -1)),
      ('a shape that overflows', lambda t: put(t['outputs'][0], shape=[2**32, 2**32, 2**32])),
      ('a shape of text', lambda t: put(t['outputs'][0], shape='2x3')),
      ('an unknown datatype', lambda t: put(t['outputs'][0], datatype='FP8')),
      ('a datatype of the same width', lambda t: put(t['outputs'][0], datatype='INT16')),
      ('BF16 for FP16', lambda t: put(t['outputs'][1 if len(t['outputs']) > 2 else 0], datatype='BF16')),
      ('JSON that is a list', lambda t: json.dumps([t]).encode()),
      ('JSON of 100,000 brackets', lambda t: b'[' * 100000),
      ('JSON that is not UTF-8', lambda t: json.dumps(t).encode()[:-1] + b',"x":"\xff\xfe"}'),
      ('JSON with a key twice', lambda t: json.dumps(t).encode()[:-1] + b',"outputs":[]}'),
      ('JSON with zero bytes', lambda t: json.dumps(t).encode().replace(b'"outputs"', b'"out\0puts"'))],
     says)
lie('the temperature is another', lane='topk')(says(lambda t: put(t['parameters'], temperature=1.5)))
lie('two tensors under each other\'s names', lane='topk')(
    says(lambda t: (put(t['outputs'][1], name=t['outputs'][2]['name']), put(t['outputs'][2], name='logits.topk_values'))
         and None))
each('infer', [('another model_name', lambda t: put(t, model_name='other')), ('an id', lambda t: put(t, id='77')),
               ('a member that nobody knows', lambda t: put(t, extra={'a': [1]}))], says, found=False)


# ---- values, digest made anew ----

def cells(output):
    return {'FP16': 'e', 'FP32': 'f', 'UINT16': 'H', 'INT32': 'i'}[output['datatype']]


def row(change):
    """change(list of the first row's numbers) -> list."""
    def of(output, data):
        c = cells(output)
        width = output['shape'][-1] if len(output['shape']) > 2 else 1
        size = struct.calcsize(c) * width
        numbers = list(struct.unpack('<%d%s' % (width, c), bytes(data[:size])))
        return struct.pack('<%d%s' % (width, c), *change(numbers)) + bytes(data[size:])
    return of


for lane, names in tensors.items():
    for name in names:
        if name != 'logits.topk_ids':
            for what, value in (('NaN', math.nan), ('infinity', math.inf), ('-infinity', -math.inf)):
                lie('%s in %s' % (what, name), lane=lane)(
                    of_tensor(name, row(lambda v, value=value: [value] + v[1:]), True))
lie('a rest that is likelier than all', lane='topk')(of_tensor('logprobs.rest', row(lambda v: [0.5]), True))
lie('a rest that leaves nothing', lane='topk')(of_tensor('logprobs.rest', row(lambda v: [-0.0]), True))
lie('rests zeroed', lane='topk')(of_tensor('logprobs.rest', zero, True))
lie('an id twice', lane='topk')(of_tensor('logits.topk_ids', row(lambda v: [v[1]] + v[1:]), True))
lie('an id out of range', lane='topk')(of_tensor('logits.topk_ids', row(lambda v: [60000] + v[1:]), True))
lie('an id that is negative (65535)', lane='topk')(of_tensor('logits.topk_ids', row(lambda v: [65535] + v[1:]), True))
lie('values that rise', lane='topk')(of_tensor('logits.topk_values', row(lambda v: v[::-1]), True))
lie('a value above all others (log-probability above 0)', lane='topk')(
    of_tensor('logits.topk_values', row(lambda v: [v[0] + 60.0] + v[1:]), True))
lie('a probability of -1', lane='topk')(of_tensor('attentions.1', row(lambda v: [-1.0] + v[1:]), True))
lie('a probability of 2', lane='topk')(of_tensor('attentions.1', row(lambda v: [2.0] + v[1:]), True))
lie('probabilities that sum to 2', lane='topk')(of_tensor('attentions.1', row(lambda v: [1.0, 1.0] + v[2:]), True))

# ---- other answers altogether ----

error = b'{"error": "not today"}'


def replies(status, body=error, headers=(), close=False):
    def tell(answer, liar):
        answer.status, answer.reason = status, 'As it is'
        answer.headers, answer.close = [list(h) for h in headers], close
        answer.body = answer.body if body is None else body
    return tell


def framing(of, lane=None):
    """Lies about how any answer comes; of: what is asked."""
    for status in (400, 401, 403, 405, 409, 413, 415, 422, 501):
        lie('%d' % status, of, lane=lane, refuses=True)(replies(status))
    lie('404', of, lane=lane, refuses=of != 'infer')(replies(404))
    for status in (408, 429, 500, 502, 503, 504, 599):
        lie('%d' % status, of, lane=lane)(replies(status))
    for status in (301, 302, 307):
        lie('%d to itself' % status, of, lane=lane, refuses=True)(
            lambda answer, liar, status=status: replies(status, b'', [('Location', answer.request.path)])(answer, liar))
    for status in (400, 429, 503):
        lie('%d, Retry-After: a billion seconds' % status, of, lane=lane, refuses=True)(
            replies(status, headers=[('Retry-After', '1000000000')]))
    for value in ('0', '-7', 'soon', 'Thu, 01 Jan 1970 00:00:00 GMT', '99999999999999999999999'):
        # The last overflows; it may be read as for ever, so that only one replica may say it.
        lie('503, Retry-After: ' + value, of, lane=lane, refuses=len(value) == 23)(replies(503, headers=[('Retry-After', value)]))
    lie('204', of, lane=lane)(replies(204, b''))
    lie('304', of, lane=lane, refuses=True)(replies(304, b''))
    for status in (203, 206, 299):
        lie('%d with the right body' % status, of, lane=lane)(replies(status, None))
    lie('an empty 200', of, lane=lane)(replies(200, b''))
    lie('HTML', of, lane=lane)(replies(200, b'<html><body>Please log in</body></html>', [('Content-Type', 'text/html')]))
    lie('an error as 200', of, lane=lane)(replies(200, error))
    lie('another JSON', of, lane=lane)(replies(200, b'{"id": 1, "choices": []}'))

    @lie('an endless body', of, lane=lane)
    def _(answer, liar):
        answer.length = 'none'
        yield from ([('send', answer.head())])
        while True:
            yield ('send', b'x' * 262144)

    @lie('endless headers', of, lane=lane)
    def _(answer, liar):
        yield ('send', b'HTTP/1.1 200 OK\r\n')
        while True:
            yield ('send', b'X-More: ' + b'y' * 8000 + b'\r\n')

    @lie('a header of 1 MB', of, lane=lane)
    def _(answer, liar):
        answer.set('X-Long', 'y' * 1000000)

    @lie('a byte a second', of, lane=lane)
    def _(answer, liar):
        for byte in answer.head() + answer.body:
            yield ('send', bytes([byte]))
            yield ('sleep', 1)

    @lie('a body of a byte a second', of, lane=lane)
    def _(answer, liar):
        yield ('send', answer.head())
        for byte in answer.body:
            yield ('send', bytes([byte]))
            yield ('sleep', 1)

    for end in ('close', 'reset', 'hang'):
        lie('%s before the headers' % end, of, lane=lane)(lambda a, l, end=end: [(end,)])
        lie('%s in the status line' % end, of, lane=lane)(lambda a, l, end=end: [('send', b'HTTP/1.1 2'), (end,)])
        lie('%s in the headers' % end, of, lane=lane)(lambda a, l, end=end: [('send', a.head()[:-20]), (end,)])
        lie('%s after the headers' % end, of, lane=lane)(lambda a, l, end=end: [('send', a.head()), (end,)])
        lie('%s in the body' % end, of, lane=lane)(
            lambda a, l, end=end: [('send', a.head() + a.body[:len(a.body) // 2]), (end,)])
    # What was received whole is right, whatever becomes of the connection then.
    for end in ('close', 'hang'):
        lie('%s after the body' % end, of, lane=lane, found=False)(lambda a, l, end=end: a.steps() + [(end,)])
    lie('no HTTP', of, lane=lane)(lambda a, l: [('send', b'SSH-2.0-OpenSSH_9.2\r\n'), ('close',)])
    lie('HTTP/9.9', of, lane=lane)(lambda a, l: [('send', b'HTTP/9.9' + a.head()[8:] + a.body), ('close',)])
    lie('zero bytes', of, lane=lane)(lambda a, l: [('send', bytes(5000)), ('close',)])
    lie('a hundred 100 Continue first', of, lane=lane, found=False)(
        lambda a, l: [('send', b'HTTP/1.1 100 Continue\r\n\r\n' * 100)] + a.steps())
    lie('a wrong digest in a 103 first', of, lane=lane, found=False)(
        lambda a, l: [('send', b'HTTP/1.1 103 Early Hints\r\nLimbeck-Request-Digest: sha-256=' + b'ab' * 32 +
                       b'\r\n\r\n')] + a.steps())


framing('infer')


@lie('a second, older answer behind the first', found=False)
def _(answer, liar):
    first = answer.head() + answer.body
    answer.body, answer.headers = liar.an_older(answer, False)
    return [('send', first + answer.head() + answer.body)]


# ---- what a teacher says of itself ----

def info(new_digest):
    def make(change):
        def tell(answer, liar):
            told = json.loads(answer.body)
            digest = told.pop('digest').encode()
            changed = change(told, told['parameters'])
            if changed is not None:
                answer.body = changed
                return
            text = json.dumps(told, separators=(',', ':')).encode()[:-1]
            digest = hashlib.sha256(text).hexdigest().encode() if new_digest else digest
            answer.body = text + b',"digest":"' + digest + b'"}'
        return tell
    return make


said_of_itself = (
    ('another fingerprint', lambda t, p: put(p, fingerprint='ab' * 32)),
    ('another compute', lambda t, p: put(p, compute='ab' * 32)),
    ('no compute', lambda t, p: p.pop('compute') and None),
    ('another tokenizer_fingerprint', lambda t, p: put(p, tokenizer_fingerprint='ab' * 32)),
    ('a vocabulary larger by one', lambda t, p: put(p, vocab_size=p['vocab_size'] + 1)),
    ('a vocabulary of 2^40', lambda t, p: put(p, vocab_size=2**40)),
    ('states of another width', lambda t, p: put(p, hidden_size=p['hidden_size'] * 2)),
    ('states of 2^40', lambda t, p: put(p, hidden_size=2**40)),
    ('fewer layers', lambda t, p: put(p, num_layers=p['num_layers'] - 1)),
    ('other heads', lambda t, p: put(p, num_heads=p['num_heads'] + 1)),
    ('max_length 4', lambda t, p: put(p, max_length=4)),
    ('no max_length', lambda t, p: p.pop('max_length') and None),
    ('batch_invariant false', lambda t, p: put(p, batch_invariant=False)),
    ('another wire', lambda t, p: put(p, wire=2)),
    ('another name', lambda t, p: put(t, name='other')),
    ('fewer outputs', lambda t, p: put(t, outputs=t['outputs'][:1])),
    ('no outputs', lambda t, p: put(t, outputs=[])),
    ('no parameters', lambda t, p: t.pop('parameters') and None),
    ('a fingerprint of x', lambda t, p: put(p, fingerprint='x' * 64)),
    ('input_size 7', lambda t, p: put(p, input_size=7)),
    ('numbers as text', lambda t, p: put(p, vocab_size='12')))


each('info', [('a bit at %d %% of the metadata' % (at * 100), at) for at in (0, 0.13, 0.31, 0.5, 0.77, 0.9, 1)],
     lambda at: lambda answer, liar: setattr(answer, 'body', flip(answer.body, at, 1)))
each('info', [('metadata: ' + n, c) for n, c in said_of_itself], info(False))
each('info', [('metadata: %s, digest made anew' % n, c) for n, c in said_of_itself], info(True), found='ends')
lie('metadata: 100,000 brackets', 'info')(info(False)(lambda t, p: b'[' * 100000))


@lie('metadata of another model', 'info')
def _(answer, liar):
    answer.body = liar.other_info


framing('info')

# ---- the head ----


def head(change, new_digest):
    """change(safetensors header, data) on the file's two parts."""
    def tell(answer, liar):
        n = struct.unpack('<Q', answer.body[:8])[0]
        told, data = json.loads(answer.body[8:8 + n]), bytearray(answer.body[8 + n:])
        change(told, data)
        text = json.dumps(told, separators=(',', ':')).encode()
        text += b' ' * (-len(text) % 8)
        answer.body = struct.pack('<Q', len(text)) + text + bytes(data)
        if new_digest:
            answer.body = answer.body[:-32] + hashlib.sha256(answer.body[:-32]).digest()
    return tell


def not_finite(told, data):
    first, end = told['lm_head.weight']['data_offsets']
    width = 2 if told['lm_head.weight']['dtype'] == 'F16' else 4
    at = first + (end - first) // 2 // width * width
    data[at:at + width] = struct.pack('<e' if width == 2 else '<f', math.nan)


each('head', [('a bit at %d %% of the head' % (at * 100), at) for at in (0, 0.0005, 0.3, 0.99, 1)],
     lambda at: lambda answer, liar: setattr(answer, 'body', flip(answer.body, at)), lane='final_hidden')
each('head', [('head: ' + n, c) for n, c in
              (('cut by a byte', lambda b: b[:-1]), ('cut to a half', lambda b: b[:len(b) // 2]),
               ('a byte behind', lambda b: b + b'\0'), ('itself behind', lambda b: b + b), ('zeroed', lambda b: bytes(len(b))))],
     lambda change: lambda answer, liar: setattr(answer, 'body', change(answer.body)), lane='final_hidden')
each('head', [('head: ' + n, c) for n, c in
              (('NaN', not_finite),
               ('of another fingerprint', lambda t, d: put(t['__metadata__'], fingerprint='ab' * 32)),
               ('turned round', lambda t, d: t['lm_head.weight']['shape'].reverse()),
               ('a width more', lambda t, d: t['lm_head.weight']['shape'].__setitem__(1, 999)),
               ('no weight', lambda t, d: t.pop('lm_head.weight') and None))],
     lambda change: head(change, True), lane='final_hidden')
lie('head: a bit, digest made anew', 'head', found=None, lane='final_hidden')(
    head(lambda t, d: d.__setitem__(1002, d[1002] ^ 64), True))
framing('head', 'final_hidden')

# ---- the tokenizer, which `limbeck eval` asks for ----

each('tokenizer', [('a bit at %d %% of the tokenizer' % (at * 100), at) for at in (0, 0.11, 0.4, 0.83, 1)],
     lambda at: lambda answer, liar: setattr(answer, 'body', flip(answer.body, at)))
each('tokenizer', [('tokenizer: ' + n, c) for n, c in
                   (('two words changed places', lambda b: b.replace(b'"the"', b'"\0"').replace(b'"ing"', b'"the"')
                     .replace(b'"\0"', b'"ing"')),
                    ('a merge less', lambda b: drop_merge(b)), ('cut to a half', lambda b: b[:len(b) // 2]),
                    ('empty', lambda b: b''), ('HTML', lambda b: b'<html></html>'), ('another JSON', lambda b: b'{}'),
                    ('100,000 brackets', lambda b: b'[' * 100000))],
     lambda change: lambda answer, liar: setattr(answer, 'body', change(answer.body)))
for status in (401, 403, 404, 302):
    lie('%d' % status, 'tokenizer')(replies(status))
for status in (429, 500, 503, 504):
    lie('%d' % status, 'tokenizer', only=('first',))(replies(status))  # `eval` has a minute's patience


def drop_merge(body):
    told = json.loads(body)
    told['model']['merges'].pop()
    return json.dumps(told).encode()
