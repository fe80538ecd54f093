"""Files changed so that their readers stumble: what each kind of file is made of is found first, so that counts, lengths,
types, offsets, keys and values are hit, not only bytes. Everything is decided by a random.Random: the same seed, the same files.

    mutate(kind, data, others, r) -> bytes     kind: json, gguf, safetensors, jinja, yaml; others: further files to splice with
"""
import functools
import re
import struct

NUMBERS = [0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 1000, 4095, 4096, 32767, 32768, 65535, 65536, 1 << 24,
           (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40, (1 << 61) - 1, 1 << 61, 1 << 62, (1 << 63) - 1, 1 << 63,
           (1 << 64) - 8, (1 << 64) - 1]
FLOATS = [0.0, -0.0, -1.0, 0.5, 1.0, 3e38, 1e-45, float('inf'), float('-inf'), float('nan')]

# ---- what any file suffers ----


def bytes_anywhere(data, r):
    out = bytearray(data)
    for _ in range(r.choice((1, 1, 2, 8))):
        at = r.randrange(len(out))
        out[at] = r.choice((out[at] ^ 1 << r.randrange(8), r.randrange(256), (out[at] + r.choice((1, 255))) % 256))
    return bytes(out)


def number_anywhere(data, r):
    size = r.choice((1, 2, 4, 8))
    at = r.randrange(len(data))
    return data[:at] + (r.choice(NUMBERS) & (1 << 8 * size) - 1).to_bytes(size, 'little')[:len(data) - at] + data[at + size:]


def cut(data, r):
    return data[:r.choice((r.randrange(len(data)), r.randrange(min(len(data), 64)), max(0, len(data) - r.randrange(1, 64))))]


def without_span(data, r):
    at = r.randrange(len(data))
    return data[:at] + data[at + r.choice((1, 2, 4, 8, r.randrange(1, 300))):]


def span_again(data, r):
    at, to = r.randrange(len(data)), r.randrange(len(data) + 1)
    return data[:to] + data[at:at + r.randrange(1, 300)] * r.choice((1, 1, 1, 2, 500)) + data[to:]


def spliced(data, others, r):
    other = r.choice(others) if others else data
    return data[:r.randrange(len(data))] + (other[r.randrange(len(other)):] if other else b'')


ANY = (bytes_anywhere, number_anywhere, cut, without_span, span_again)

# ---- JSON ----

ODD_VALUES = [b'null', b'true', b'false', b'0', b'1', b'-1', b'2', b'-0', b'0.5', b'-0.0', b'1.0', b'1e308', b'-1e308', b'1e-320', b'1e999',
              b'-1e999', b'NaN', b'Infinity', b'-Infinity', b'2147483647', b'2147483648', b'4294967296', b'9007199254740993',
              b'9223372036854775807', b'9223372036854775808', b'18446744073709551616', b'1' * 400, b'0.' + b'1' * 400, b'""', b'[]', b'{}',
              b'"\\u0000"', b'"a\\u0000b"', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\ufffe\\uffff"', b'"\xff\xfe"', b'"\xed\xa0\x80"',
              b'"\\n"', b'"' + b'x' * 5000 + b'"', b'"' + b'(' * 300 + b'"', b'"(a*)*b"', b'"(?<=a+)b"', b'"\\\\p{L}{1,65535}"', b'"../../etc/passwd"',
              b'"."', b'"/"', b'[' * 20 + b']' * 20, b'[' * 5000 + b']' * 5000, b'[' * 5000, b'{"a":' * 5000, b'{"a":' * 40 + b'1' + b'}' * 40,
              b'[' + b'0,' * 5000 + b'0]', b'[-1]', b'[1, "a", null, {}]', b'[[0, 1], [2]]', b'{"": 1}', b'{"type": "Sequence"}',
              b'{"type": 3}', b'{"content": null}', b'{"content": "x"}']
ODD_KEYS = [b'""', b'"a"', b'"\\u0000"', b'"type"', b'"id"', b'"rope_scaling"', b'"attention_scale_new"', b'"' + b'k' * 3000 + b'"', b'"\xff"']
JSON_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+', re.S)


@functools.lru_cache(maxsize=64)
def json_parts(data):
    """Spans of values, of keys (with their values), and of elements (with the comma before or behind), by a stack."""
    values, members, elements, stack, key = [], [], [], [], None
    for m in JSON_TOKEN.finditer(data):
        c = m.group()
        if c in (b'{', b'['):
            stack.append((c, m.start(), key))
            key = None
        elif c in (b'}', b']') and stack:
            kind, start, its_key = stack.pop()
            span = (start, m.end())
            values.append(span)
            (members.append((its_key, span)) if its_key else elements.append(span))
            key = None
        elif c not in (b',', b':'):
            if stack and stack[-1][0] == b'{' and key is None:
                key = m.span()
                continue
            values.append(m.span())
            (members.append((key, m.span())) if key else elements.append(m.span()))
            key = None
    return values, members, elements


def put(data, span, text):
    return data[:span[0]] + text + data[span[1]:]


def json_value(data, r):
    values, _, _ = json_parts(data)
    return put(data, r.choice(values), r.choice(ODD_VALUES)) if values else data


def json_number(data, r):
    """A number near the one that stands there: what is likeliest to pass."""
    values, _, _ = json_parts(data)
    for _ in range(50):
        span = r.choice(values) if values else (0, 0)
        old = data[span[0]:span[1]]
        if re.fullmatch(rb'-?\d{1,18}', old):
            n = int(old)
            return put(data, span, str(r.choice((n + 1, n - 1, -n, 2 * n, n // 2, n + (1 << 32), r.choice(NUMBERS)))).encode())
        if re.fullmatch(rb'-?\d+(\.\d+)?([eE][-+]?\d+)?', old):
            return put(data, span, repr(float(old) * r.choice((0.0, -1.0, 2.0, 1e300, 1e-300))).encode())
    return data


def json_key(data, r):
    _, members, _ = json_parts(data)
    if not members:
        return data
    (key, value), (_, other) = r.choice(members), r.choice(members)
    name, text = data[key[0]:key[1]], data[value[0]:value[1]]
    whole = (key[0], value[1])
    return r.choice((
        lambda: put(data, key, r.choice(ODD_KEYS)),
        lambda: put(data, key, name[:-1] + b'x"'),
        lambda: put(data, whole, name + b': ' + text + b', ' + name + b': ' + r.choice(ODD_VALUES)),  # twice
        lambda: put(data, whole, name + b': ' + text + b', ' + r.choice(ODD_KEYS) + b': ' + r.choice(ODD_VALUES)),
        lambda: put(data, whole, b'"gone": 0'),
        lambda: put(data, value, data[other[0]:other[1]]),  # another one's value
    ))()


def json_element(data, r):
    _, _, elements = json_parts(data)
    if not elements:
        return json_value(data, r)
    a, b = r.choice(elements), r.choice(elements)
    text = data[a[0]:a[1]]
    return r.choice((
        lambda: put(data, a, text + b', ' + text),
        lambda: put(data, a, b', '.join([text] * 300) if len(text) < 3000 else text),
        lambda: put(data, a, data[b[0]:b[1]]),
        lambda: put(data, a, b'"gone"'),
    ))()


JSON_WAYS = (json_value,) * 4 + (json_number,) * 4 + (json_key,) * 4 + (json_element,) * 2


def json_mutant(data, others, r):
    for _ in range(r.choice((1, 1, 1, 2, 4))):
        if not data:
            return data
        data = spliced(data, others, r) if r.randrange(20) == 0 else r.choice(JSON_WAYS + ANY)(data, r)
    return data


# ---- GGUF ----

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


@functools.lru_cache(maxsize=64)
def gguf_parts(data):
    """{what: [(at, bytes)]} of a sound file, and where its data begins."""
    parts, at = {}, 0

    def take(what, size):
        nonlocal at
        parts.setdefault(what, []).append((at, size))
        at += size
        return int.from_bytes(data[at - size:at], 'little')

    def value(kind):
        if kind == 8:
            take('value.text', take('value.length', 8))
        elif kind == 9:
            of, n = take('array.type', 4), take('array.count', 8)
            for _ in range(n):
                value(of)
        else:
            take('value.float' if kind in (6, 12) else 'value.number', SIZES[kind])

    take('magic', 4), take('version', 4)
    n_tensors, n_pairs = take('n_tensors', 8), take('n_keys', 8)
    for _ in range(n_pairs):
        take('key.text', take('key.length', 8))
        value(take('value.type', 4))
    for _ in range(n_tensors):
        take('name.text', take('name.length', 8))
        for _ in range(take('n_dims', 4)):
            take('dim', 8)
        take('type', 4), take('offset', 8)
    parts['sizes'] = [(at, 0)]
    return parts


def field(data, r, what=None):
    parts = gguf_parts(data)
    what = what or r.choice([w for w in parts if w != 'sizes'])
    return what, r.choice(parts[what])


def gguf_field(data, r):
    what, (at, size) = field(data, r)
    if size == 0:
        return data
    old = int.from_bytes(data[at:at + size], 'little')
    if what.endswith('.text'):
        text = bytearray(data[at:at + size])
        text[r.randrange(size)] = r.randrange(256)
        return put(data, (at, at + size), bytes(text))
    if what == 'value.float':
        new = struct.pack('<f' if size == 4 else '<d', r.choice(FLOATS))
    else:
        new = (r.choice((old + 1, old - 1, 2 * old, old // 2, r.choice(NUMBERS), len(data) - at, r.randrange(45)))
               % (1 << 8 * size)).to_bytes(size, 'little')
    return put(data, (at, at + size), new)


def gguf_swap(data, r):
    """Two things of one kind change places: offsets, dimensions, types, names of tensors, keys."""
    kinds = ('offset', 'dim', 'type', 'name.text', 'key.text', 'value.text', 'value.number', 'value.type')
    what, a = field(data, r, r.choice([k for k in kinds if k in gguf_parts(data)]))
    b = r.choice([f for f in gguf_parts(data)[what] if f[1] == a[1]])
    out = bytearray(data)
    out[a[0]:sum(a)], out[b[0]:sum(b)] = data[b[0]:sum(b)], data[a[0]:sum(a)]
    if r.randrange(2):
        out[b[0]:sum(b)] = data[b[0]:sum(b)]  # or one of them stands there twice
    return bytes(out)


def gguf_key(data, r):
    """A key of another name (its length told), or a further one."""
    parts = gguf_parts(data)
    i = r.randrange(len(parts['key.text']))
    (start, _), (at, size) = parts['key.length'][i], parts['key.text'][i]
    name = data[at:at + size]
    new = r.choice((name + b'x', name[:-1], b'', b'k' * 70000, name.replace(b'.', b'..', 1), b'llama.rope.new_scale', b'\x00' + name, name.upper()))
    out = put(data, (start, at + size), struct.pack('<Q', len(new)) + new)
    if r.randrange(2):
        return out
    more = struct.pack('<Q', len(new)) + new + struct.pack('<I', 4) + struct.pack('<I', r.randrange(1 << 32))
    count = parts['n_keys'][0][0]
    return data[:count] + struct.pack('<Q', len(parts['key.text']) + 1) + data[count + 8:start] + more + data[start:]


def gguf_mutant(data, others, r):
    ways = (gguf_field,) * 8 + (gguf_swap,) * 3 + (gguf_key,) * 2
    end = gguf_parts(data)['sizes'][0][0]
    if r.randrange(8) == 0:
        return spliced(data, others, r)
    if r.randrange(4) == 0:  # the header's bytes; those of weights are all good
        head = data[:end]
        return r.choice(ANY)(head, r) + data[end:] if r.randrange(3) else cut(data, r)
    data = r.choice(ways)(data, r)
    return data if r.randrange(3) else bytes_anywhere(data[:end], r) + data[end:]


# ---- safetensors ----


def safetensors_mutant(data, others, r):
    n = int.from_bytes(data[:8], 'little')
    header, rest = data[8:8 + n], data[8 + n:]
    way = r.randrange(10)
    if way < 6:
        header = json_mutant(header, [o[8:8 + int.from_bytes(o[:8], 'little')] for o in others], r)
        told = len(header) if r.randrange(6) else r.choice(NUMBERS)
        return struct.pack('<Q', told % (1 << 64)) + header + rest
    if way == 6:
        return struct.pack('<Q', r.choice(NUMBERS + [n + 1, n - 1, len(data), len(data) - 8])) + header + rest
    if way == 7:
        return spliced(data, others, r)
    return r.choice((cut(data, r), r.choice(ANY)(data[:8 + n], r) + rest, data + b'\0' * r.choice((1, 7, 5000))))


# ---- templates and recipes ----

JINJA = [b'{% for a in range(1000000000) %}x{% endfor %}', b"{{ 'a' * 1000000000 }}", b'{{ [1] * 1000000000 }}', b'{{ 2 ** 100000000 }}', b'{{ 10 ** 400 }}',
         b"{{ 'xy'.replace('', 'z' * 1000000) }}", b'{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}', b"{{ '%1000000000d' % 3 }}", b"{{ 'a' | center(1000000000) }}",
         b"{{ 'a' | indent(1000000000) }}", b'{% set x = "ab" %}{% for i in range(60) %}{% set x = x ~ x %}{{ x }}{% endfor %}',
         b'{% set n = namespace(x="ab") %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}', b'{{ ' + b'(' * 3000, b'{{ ' + b'[' * 3000 + b']' * 3000 + b' }}',
         b'{{ ' + b'not ' * 5000 + b'1 }}', b'{{ ' + b'-' * 5000 + b'1 }}', b'{% if 1 %}' * 3000, b'{{ range(10 ** 18) | list | length }}', b'{{ 1 / 0 }}', b'{{ 1 % 0 }}',
         b'{{ messages[-1000000000000] }}', b'{{ messages[::0] }}', b'{{ messages[0].content[::-1] }}', b'{{ undefined.x.y }}', b'{% raw %}', b'{#', b'{%', b'{{', b'}}', b'%}', b'#}',
         b'{%- endfor -%}', b'{% endif %}', b'{% else %}', b'{% break %}', b'{% continue %}', b'{% generation %}', b"{{ raise_exception('no') }}", b'{{ loop.index }}', b'{{ self }}',
         b'{% include "x" %}', b"{{ ''.__class__.__mro__ }}", b'{{ cycler }}', b'{{ lipsum(9999) }}', b'| tojson(indent=1000000000)', b'| reverse', b'| sort', b'| unique | list', b'.items()', b'\x00',
         b'\xff', b'\xed\xa0\x80', b'"', b"'", b'\\', b'~', b'|', b'is', b'in', b'9' * 400, b'1e999', b'0x1', b'\n', b'\r', b'\xe2\x80\xa8']
YAML = [b'&a [*a]', b'*x', b'&x ', b'<<: *x', b'a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\nc: [*b, *b, *b, *b]\n', b'!!binary aaaa', b'!!int "x"', b'--- ', b'...',
        b'\t', b'? ', b'- ', b': ', b'[' * 3000, b'{a: ' * 3000, b'{' * 40 + b'}' * 40, b'.inf', b'.nan', b'-.inf', b'0x10', b'0o7', b'1_000', b'1e999', b'-1', b'0', b'1' * 400, b'9223372036854775808',
        b'null', b'~', b'true', b'yes', b'""', b'"\\0"', b"'", b'|', b'>', b'#', b'%YAML 9.9\n', b'\x00', b'\xff', b'\xef\xbb\xbf', b'\xed\xa0\x80', b'\r\n', b'x' * 100000, b'"\\ud800"', b'[]', b'{}', b'[1, 2]',
        b'{a: b}', b'learning_rat: 1\n', b'seed: 1\nseed: 2\n', b'url: /etc/passwd\n', b'../../..']
WORD = re.compile(rb'\w+|\s+|[^\w\s]')


@functools.lru_cache(maxsize=64)
def words(data):
    return [m.span() for m in WORD.finditer(data)]


def word_ways(data, r, telling):
    spans = words(data)
    if not spans:
        return r.choice(telling)
    a, b = r.choice(spans), r.choice(spans)
    first, last = min(a, b), max(a, b)
    one, two = data[first[0]:first[1]], data[last[0]:last[1]]
    return r.choice((
        lambda: put(data, a, b''),
        lambda: put(data, a, data[a[0]:a[1]] * r.choice((2, 2, 3, 400))),
        lambda: data[:first[0]] + two + data[first[1]:last[0]] + one + data[last[1]:] if first != last else data,
        lambda: put(data, a, r.choice(telling)),
        lambda: data[:a[0]] + r.choice(telling) + data[a[0]:],
        lambda: data[:a[0]] + r.choice(telling) + data[a[0]:],
        lambda: data[:first[0]] + data[last[0]:],  # from one word to another
        lambda: data[:last[1]] + data[first[0]:last[1]] + data[last[1]:],
    ))()


def text_mutant(data, others, r, telling):
    for _ in range(r.choice((1, 1, 2, 3))):
        way = r.randrange(12)
        data = spliced(data, others, r) if way == 0 and data else r.choice(ANY)(data, r) if way < 3 and data else word_ways(data, r, telling)
    return data


MUTANTS = {'json': json_mutant, 'gguf': gguf_mutant, 'safetensors': safetensors_mutant,
           'jinja': lambda data, others, r: text_mutant(data, others, r, JINJA),
           'yaml': lambda data, others, r: text_mutant(data, others, r, YAML)}


def mutate(kind, data, others, r):
    return MUTANTS[kind](data, others, r)
