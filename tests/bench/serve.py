#!/usr/bin/env python3
"""Tokens a second over HTTP against the engine alone, by every way of asking; and whether limbeckd's memory stays as it is over many
short requests and under answers of full logits. Needs nothing but Python.

usage: serve.py BUILD [--seconds N] [--rounds N] [--clients N] [--model FILE] [--json] ...
In each round each way of asking is measured over HTTP (clients are processes with addresses of their own, whose questions are made
beforehand) and right before or after it by bench_engine, which computes the same outputs of batches as large as the daemon's. The
ratio is taken in each round. No two sequences are equal, so that nothing comes from the state cache, which is counted; the first way
is also asked of a daemon that keeps no states. Without a model a llama of 10 million random weights is made. Ends with status 1 when
a question fails or anything was known before; never for being slow.
"""
import argparse
import contextlib
import http.client
import json
import multiprocessing
import os
import pathlib
import random
import re
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

from group import Daemon, check, failures

MARK = b'@@@@@@,@@@@@@'  # where the two first ids of a sequence come to stand in JSON
SCORED = 32              # ids that are chosen at each position
SHORT = 24               # tokens of a short request
WARM = 0.5               # share of a round's seconds before its window
LEAST_LOGITS = 80 << 20  # bytes of an answer of full logits, at least
MIB = 1 << 20
OIP = 'logits.topk_ids logits.topk_values:FP16 logsumexp'
SGLANG = 'logits.topk_ids logprobs.topk_values logprobs.actual'


# ---- questions ----

class Question:
    """A request that is made once; `renew` turns its sequences into others."""

    def __init__(self, path, body, headers='', places=None):
        head = f'POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {len(body)}\r\n\r\n'.encode()
        self.message = bytearray(head + body)
        self.binary = places is not None
        self.places = [len(head) + p for p in places] if self.binary else [m.start() for m in re.finditer(MARK, self.message)]

    def renew(self, serial, vocab):
        for place in self.places:
            first, second = serial // vocab % vocab, serial % vocab
            if self.binary:
                struct.pack_into('<2i', self.message, place, first, second)
            else:
                self.message[place:place + len(MARK)] = b'%6d,%6d' % (first, second)
            serial += 1
        return serial


def oip(ids, outputs, parameters):
    width = len(ids[0])
    data = b''.join(struct.pack(f'<{width}i', *s) for s in ids)
    inputs = [{'name': 'input_ids', 'shape': [len(ids), width], 'datatype': 'INT32', 'parameters': {'binary_data_size': len(data)}}]
    asked = [{'name': name, 'parameters': {'binary_data': True, **({'dtype': dtype} if dtype else {})}}
             for name, _, dtype in (o.partition(':') for o in outputs)]
    head = json.dumps({'inputs': inputs, 'outputs': asked, 'parameters': parameters}).encode()
    return Question('/v2/models/m/infer', head + data, f'Inference-Header-Content-Length: {len(head)}\r\n',
                    [len(head) + 4 * width * b for b in range(len(ids))])


def in_json(path, ids, body, key):
    """The body, with the sequences under key (one of them: itself)."""
    lists = ['[' + MARK.decode() + ''.join(f',{i}' for i in s[2:]) + ']' for s in ids]
    sequences = lists[0] if key == 'token_ids' else '[' + ','.join(lists) + ']'
    text = json.dumps(body, separators=(',', ':'))
    return Question(path, (text[:-1] + f',"{key}":{sequences}}}').encode(), 'Content-Type: application/json\r\n')


def ask_oip(ids, vocab):
    return oip(ids, OIP.split(), {'top_k': 64})


def ask_completions(ids, vocab):
    return in_json('/v1/completions', ids, {'model': 'm', 'max_tokens': 0, 'prompt_logprobs': 20}, 'prompt')


def ask_gather(ids, vocab):
    rng = random.Random(1)
    wanted = [[rng.randrange(vocab) for _ in range(SCORED)] for _ in ids[0][1:]]
    return in_json('/inference/v1/generate', ids, {'model': 'm', 'sampling_params': {'max_tokens': 0, 'prompt_logprob_token_ids': wanted}},
                   'token_ids')


def ask_pooling(ids, vocab):
    return in_json('/pooling', ids, {'model': 'm', 'task': 'token_embed', 'use_activation': False, 'encoding_format': 'bytes',
                                     'embed_dtype': 'float32', 'endianness': 'little'}, 'input')


def ask_sglang(ids, vocab, **more):
    return in_json('/generate', ids, {'sampling_params': {'max_new_tokens': 0, 'temperature': 0}, 'return_logprob': True,
                                      'logprob_start_len': 0, 'top_logprobs_num': 64, **more}, 'input_ids')


def ask_flat(ids, vocab):
    return ask_sglang(ids, vocab, return_flat_raw_top_logprobs=True, return_flat_raw_top_logprobs_b64=True)


class Way:
    def __init__(self, name, ask, top_k, outputs, scored=0, cached=True, single=False):
        self.name, self.ask, self.cached, self.single = name, ask, cached, single
        self.engine = f'{top_k} {scored} {outputs}'  # what bench_engine computes


WAYS = (
    Way('oip, binary, top-64 FP16', ask_oip, 64, OIP),
    Way('the same, no states kept', ask_oip, 64, OIP, cached=False),
    Way('/v1/completions, prompt_logprobs 20', ask_completions, 20, 'logits.topk_ids logprobs.topk_values logprobs.actual ranks.actual'),
    Way(f'/inference/v1/generate, gather {SCORED}', ask_gather, 1, 'logits.topk_ids logprobs.topk_values logprobs.at_ids', SCORED, single=True),
    Way('/pooling, token_embed, bytes', ask_pooling, 1, 'hidden_states.final'),
    Way('/generate, top_logprobs_num 64', ask_sglang, 64, SGLANG),
    Way('the same, flat, base64', ask_flat, 64, SGLANG),
)


# ---- clients ----

class Connection:
    def __init__(self, port, number):
        self.socket = socket.create_connection(('127.0.0.1', port), source_address=(f'127.0.0.{2 + number}', 0), timeout=600)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray(MIB)

    def send(self, question):
        self.socket.sendall(question.message)

    def receive(self):
        """Reads an answer, which must be a good one; the bytes of its body."""
        have = 0
        while (end := self.buffer.find(b'\r\n\r\n', 0, have)) < 0:
            n = self.socket.recv_into(memoryview(self.buffer)[have:])
            if n == 0:
                raise RuntimeError('the daemon hung up')
            have += n
        head = self.buffer[:end].decode('latin-1')
        size = int(re.search(r'(?i)\ncontent-length: *(\d+)', head)[1])
        if not head.startswith('HTTP/1.1 200 '):
            raise RuntimeError(f'{head.splitlines()[0]}: {bytes(self.buffer[end + 4:have])[:400]}')
        left = size - (have - end - 4)
        while left > 0:
            n = self.socket.recv_into(self.buffer, min(left, len(self.buffer)))
            if n == 0:
                raise RuntimeError('the daemon hung up in an answer')
            left -= n
        return size


def client(way, port, number, run, shape, vocab, go_on):
    """Asks until go_on(questions asked) is false. Returns [begun, ended] of each turn, bytes of answers, its own processor seconds."""
    seqs, length = shape
    rng = random.Random(f'{run} {number}')
    ids = [[rng.randrange(vocab) for _ in range(length)] for _ in range(seqs)]
    # As many sequences are on their way at once, whether or not a request can hold them all.
    questions = [way.ask([s], vocab) for s in ids] if way.single else [way.ask(ids, vocab)]
    connections = [Connection(port, number) for _ in questions]
    serial, turns, size = rng.randrange(vocab * vocab), [], 0
    processor = time.process_time()
    while go_on(len(turns) * len(questions)):
        begun = time.monotonic()
        for connection, question in zip(connections, questions):
            serial = question.renew(serial, vocab)
            connection.send(question)
        size += sum(connection.receive() for connection in connections)
        turns.append((begun, time.monotonic()))
    return turns, size, time.process_time() - processor


def processes(jobs, meanwhile=None):
    """What the jobs return, each run as a process: threads of one Python wait for each other. meanwhile() is called here."""
    context = multiprocessing.get_context('fork')
    started = []
    for job in jobs:
        here, there = context.Pipe(False)
        process = context.Process(target=lambda job=job, there=there: there.send(job()))
        process.start()
        there.close()
        started.append((process, here))
    if meanwhile:
        meanwhile()
    results = []
    for process, here in started:
        try:
            results.append(here.recv())
        except EOFError:  # it has told why
            results.append(None)
        process.join()
    if None in results:
        raise SystemExit('FAILED: a client ended')
    return results


# ---- tokens a second ----

class Engine:
    def __init__(self, build, model, seqs, length):
        self.process = subprocess.Popen([build / 'tests/bench/bench_engine', model, str(seqs), str(length)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def round(self, way, seconds):
        self.process.stdin.write(f'{seconds} {way.engine}\n')
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit('FAILED: bench_engine ended')
        got = json.loads(line)
        return {'tokens_per_second': got['tokens'] / got['seconds'], 'us_per_token': 1e6 * got['processor_seconds'] / got['tokens']}

    def stop(self):
        self.process.stdin.close()
        check(self.process.wait(60) == 0, 'bench_engine ends well')


def thread_seconds(daemon):
    """Processor seconds of each of its threads."""
    tasks = pathlib.Path(f'/proc/{daemon.process.pid}/task').iterdir()
    return {task.name: int((task / 'schedstat').read_text().split()[0]) / 1e9 for task in tasks}


def aside(before, after):
    """Processor seconds of all threads but those that compute: as many as there are processors, who take most."""
    spent = sorted(after[name] - before.get(name, 0) for name in after)
    return sum(spent[:-len(os.sched_getaffinity(0))])


COUNTS = ('limbeckd_tokens_total', 'limbeckd_known_tokens_total', 'limbeckd_joined_tokens_total', 'limbeckd_batch_tokens_sum',
          'limbeckd_batch_tokens_count', 'limbeckd_batch_duration_seconds_sum')


def over_http(way, daemon, run, asked, shape, vocab):
    """Clients ask all the time; what counts is a window after they have begun and before they end."""
    seqs, length = shape
    before, processor = daemon.metrics(), []
    begin = time.monotonic() + WARM * asked.seconds
    end = begin + asked.seconds

    def look():
        for at in (begin, end):
            time.sleep(max(0, at - time.monotonic()))
            processor.append((time.monotonic(), daemon.metrics()['process_cpu_seconds_total'], thread_seconds(daemon)))

    jobs = [lambda n=n: client(way, daemon.port, n, run, shape, vocab, lambda _: time.monotonic() < end) for n in range(asked.clients)]
    results = processes(jobs, look)
    after = daemon.metrics()
    turns = [turn for own, _, _ in results for turn in own]
    tokens = len(turns) * seqs * length
    wall = max(e for _, e in turns) - min(b for b, _ in turns)
    # A turn counts for as much of it as lies within the window.
    inside = sum((min(e, end) - max(b, begin)) / (e - b) for b, e in turns if e > begin and b < end)
    rate = inside * seqs * length / asked.seconds
    (t0, p0, threads0), (t1, p1, threads1) = processor
    count = {name: after.get(name, 0) - before.get(name, 0) for name in COUNTS}
    check(count['limbeckd_tokens_total'] == tokens, f'{way.name}: each token is computed, once')
    check(count['limbeckd_known_tokens_total'] == count['limbeckd_joined_tokens_total'] == 0, f'{way.name}: nothing was known')
    return {'tokens_per_second': rate, 'us_per_token': 1e6 * (p1 - p0) / (t1 - t0) / rate,
            'aside_us_per_token': 1e6 * aside(threads0, threads1) / (t1 - t0) / rate,
            'clients_us_per_token': 1e6 * sum(cpu for _, _, cpu in results) / tokens,
            'clients_processors': sum(cpu for _, _, cpu in results) / wall, 'computing': count['limbeckd_batch_duration_seconds_sum'] / wall,
            'batch_tokens': count['limbeckd_batch_tokens_sum'] / count['limbeckd_batch_tokens_count'],
            'answer_bytes_per_token': sum(size for _, size, _ in results) / tokens}


def throughput(asked, ways, daemons, engine, vocab):
    shape = (asked.sequences, asked.length)
    rounds = {way: [] for way in ways}
    for r in range(-1, asked.rounds):  # the first is not counted
        for at, way in enumerate(ways):
            run, daemon = (r + 1) * len(ways) + at, daemons[way.cached]
            measures = {'http': lambda: over_http(way, daemon, run, asked, shape, vocab), 'engine': lambda: engine.round(way, asked.seconds)}
            got = {what: measures[what]() for what in (measures if r % 2 else reversed(measures))}
            if r >= 0:
                rounds[way].append(got)
    table = []
    for way in ways:
        ratios = [r['http']['tokens_per_second'] / r['engine']['tokens_per_second'] for r in rounds[way]]
        row = {'way': way.name, 'ratio': statistics.median(ratios), 'ratio_least': min(ratios), 'ratio_most': max(ratios)}
        for what in ('engine', 'http'):
            row[what] = {key: statistics.median(r[what][key] for r in rounds[way]) for key in rounds[way][0][what]}
        table.append(row)
    return table


# ---- memory ----

def resident(daemon, key='VmRSS'):
    status = pathlib.Path(f'/proc/{daemon.process.pid}/status').read_text()
    return int(re.search(rf'{key}:\s*(\d+) kB', status)[1]) / 1024


def forget_peak(daemon):
    pathlib.Path(f'/proc/{daemon.process.pid}/clear_refs').write_text('5')


def watched(daemon, jobs):
    forget_peak(daemon)
    results = processes(jobs)
    metrics = daemon.metrics()
    return results, {'after_mib': resident(daemon), 'most_mib': resident(daemon, 'VmHWM'), 'states_mib': metrics['limbeckd_known_bytes'] / MIB}


def short_requests(asked, ways, daemon, vocab, run):
    """Ten parts of them; each client asks in one way, one sequence at a time."""
    each = max(1, asked.requests // 10 // asked.clients)
    parts = []
    for part in range(10):
        jobs = [lambda n=n: client(ways[n % len(ways)], daemon.port, n, run + part, (1, SHORT), vocab, lambda done: done < each)
                for n in range(asked.clients)]
        parts.append(watched(daemon, jobs)[1])
    return {'requests': 10 * each * asked.clients, 'tokens_each': SHORT, 'parts': parts}


def full_logits(asked, daemon, vocab, run):
    """Two clients at once; the memory of the daemon before, and after each pair."""
    row = 4 * vocab * asked.length
    seqs = -(-LEAST_LOGITS // row)
    way = Way('logits', lambda ids, v: oip(ids, ('logits',), {}), 1, 'logits')
    before, parts, size, begun = resident(daemon), [], 0, time.monotonic()
    for pair in range(asked.logits):
        jobs = [lambda n=n: client(way, daemon.port, n, run + pair, (seqs, asked.length), vocab, lambda done: done < 1) for n in range(2)]
        results, part = watched(daemon, jobs)
        parts.append(part)
        for _, got, _ in results:
            check(got > seqs * row, 'an answer holds all logits')
            size += got
    return {'requests': 2 * asked.logits, 'mib_each': seqs * row / MIB, 'before_mib': before, 'parts': parts,
            'mib_per_second': size / MIB / (time.monotonic() - begun)}


# ---- the whole ----

def parameters(daemon):
    """Of the model's metadata."""
    connection = http.client.HTTPConnection('127.0.0.1', daemon.port)
    connection.request('GET', '/v2/models/m')
    got = json.loads(connection.getresponse().read())['parameters']
    connection.close()
    return got


def show(result):
    print(result['machine'])
    print(f'{"":38} {"engine":>9} {"HTTP":>9} {"ratio":>7} {"of rounds":>15} {"us/token: engine daemon aside clients":>38} {"computing":>9} '
          f'{"batch":>6} {"clients":>8} {"answer":>8}')
    for row in result['throughput']:
        engine, asked = row['engine'], row['http']
        print(f'{row["way"]:38} {engine["tokens_per_second"]:9.0f} {asked["tokens_per_second"]:9.0f} {100 * row["ratio"]:6.1f}% '
              f'{100 * row["ratio_least"]:6.1f}-{100 * row["ratio_most"]:6.1f}% {engine["us_per_token"]:17.1f} {asked["us_per_token"]:6.1f} {asked["aside_us_per_token"]:5.1f} '
              f'{asked["clients_us_per_token"]:7.1f} {100 * asked["computing"]:8.1f}% {asked["batch_tokens"]:6.0f} {asked["clients_processors"]:8.2f} '
              f'{asked["answer_bytes_per_token"]:8.0f}')
    print('Tokens a second, medians of rounds; processor time of a token, aside: of all threads but those that compute; share of the time in which the daemon computes; tokens of its '
          'batches; processors that the clients take; bytes of answer a token')
    for name, memory in result['memory'].items():
        parts = memory['parts']
        what = f'{memory["requests"]} requests of {memory["tokens_each"]} tokens' if 'tokens_each' in memory else (
            f'{memory["requests"]} answers of {memory["mib_each"]:.0f} MiB of logits, {memory["mib_per_second"]:.0f} MiB/s, {memory["before_mib"]:.1f} MiB before')
        print(f'{name}: {what}: MiB resident after the first part {parts[0]["after_mib"]:.1f}, the middle one {parts[len(parts) // 2]["after_mib"]:.1f}, '
              f'the last {parts[-1]["after_mib"]:.1f} (of them states {parts[0]["states_mib"]:.1f}, {parts[len(parts) // 2]["states_mib"]:.1f}, '
              f'{parts[-1]["states_mib"]:.1f}); most ever {max(p["most_mib"] for p in parts):.1f}')


def measure(asked, ways, folder, model):
    batch, daemons, engine = ['--max-batch-tokens', str(asked.batch)], {}, None
    try:
        daemons[True] = Daemon(asked.build, folder, 'kept', model, *batch)
        daemons[False] = Daemon(asked.build, folder, 'plain', model, *batch, '--state-cache-mib', '0')
        engine = Engine(asked.build, model, max(1, asked.batch // asked.length), asked.length)
        facts = parameters(daemons[True])
        vocab, memory, run = facts['vocab_size'], {}, 1000000
        table = throughput(asked, ways, daemons, engine, vocab) if asked.rounds > 0 else []
        for kept, daemon in daemons.items():
            name = 'states kept' if kept else 'no states kept'
            if asked.requests > 0:
                memory[f'short, {name}'] = short_requests(asked, [w for w in ways if w.cached], daemon, vocab, run)
            if asked.logits > 0:
                memory[f'full logits, {name}'] = full_logits(asked, daemon, vocab, run + 1000)
        for ended in (engine, *daemons.values()):
            ended.stop()
    finally:
        for left in (engine, *daemons.values()):
            if left and left.process.poll() is None:
                left.process.kill()
    machine = (f'{len(os.sched_getaffinity(0))} processors; {facts["kernels"]}; {facts["num_parameters"]} parameters, {facts["head_dtype"]}; '
               f'{asked.clients} clients, {asked.sequences} x {asked.length} tokens each; {asked.rounds} rounds of {asked.seconds:g} s')
    return {'machine': machine, 'throughput': table, 'memory': memory}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('build', type=pathlib.Path)
    parser.add_argument('--seconds', type=float, default=10, help='of one measurement')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--clients', type=int, default=8)
    parser.add_argument('--sequences', type=int, default=8, help='of one request')
    parser.add_argument('--length', type=int, default=128, help='tokens of a sequence')
    parser.add_argument('--batch', type=int, default=4096, help='--max-batch-tokens of the daemon, and tokens of a batch of the engine alone')
    parser.add_argument('--model', type=pathlib.Path)
    parser.add_argument('--shape', default='256,704,8,8,8,8192', help='of the model that is made: C,F,LAYERS,HEADS,KV_HEADS,V')
    parser.add_argument('--dtype', default='Q8_0', help='of its weights')
    parser.add_argument('--ways', default='', help='numbers of the ways of asking, from 0, with commas (default: all)')
    parser.add_argument('--requests', type=int, default=10000, help='short ones, for the memory; 0: none')
    parser.add_argument('--logits', type=int, default=10, help='pairs of requests for full logits; 0: none')
    parser.add_argument('--json', action='store_true')
    asked = parser.parse_args()
    ways = [WAYS[int(n)] for n in asked.ways.split(',')] if asked.ways else list(WAYS)
    with tempfile.TemporaryDirectory() as folder:
        folder, model = pathlib.Path(folder), asked.model
        if not model:
            model = folder / 'model.gguf'
            subprocess.run([asked.build / 'tests/bench/make_gguf', model, asked.dtype, *asked.shape.split(',')], check=True)
        with contextlib.redirect_stdout(sys.stderr if asked.json else sys.stdout):
            result = measure(asked, ways, folder, model)
    result['failures'] = failures
    if asked.json:
        print(json.dumps(result, indent=1))
    else:
        show(result)
    raise SystemExit(bool(failures))


if __name__ == '__main__':
    main()
