#!/usr/bin/env python3
"""A group of trainers before one limbeckd: what is computed of what they ask, whether each gets what it would get alone, and how
long short requests wait beside greedy clients. Needs nothing but Python.

usage: group.py BUILD [--seconds N] [--model FILE] [--batch TOKENS]
Without a model a llama of 7 million random weights is made. Clients are addresses 127.0.0.2 and on; some speak vLLM's dialect and
SGLang's. Everything that was answered, in whichever dialect, is asked again of a second daemon that keeps nothing, one sequence at a
time and natively, and compared bit by bit. Ends with status 1 when an answer differs, a body was computed twice, or p99 of short
requests beside nine greedy clients is above three batches.
"""
import argparse
import hashlib
import http.client
import json
import multiprocessing
import pathlib
import random
import socket
import struct
import subprocess
import tempfile
import threading
import time

SHORT = 24          # tokens of a short request
LONG = (64, 512)    # of a greedy client's sequences
PLAIN = ('logits.topk_ids', 'logits.topk_values', 'logsumexp')
UNLIKE = (({}, PLAIN), ({'temperature': 2.0}, ('logprobs.topk_values', 'logprobs.rest')), ({'top_k': 50}, ('logits.topk_values',)),
          ({}, ('logprobs.actual',)), ({}, ('ranks.actual', 'logprobs.next')), ({'sample_count': 20, 'seed': 3}, ('samples.ids', 'samples.counts')),
          ({}, ('logits.at_ids',)), ({}, ('hidden_states.final',)), ({}, ('hidden_states.1',)), ({}, ('logits',)))
LISTED = 20         # likeliest ids that are asked by the other dialects
LISTS = ({'top_k': LISTED}, ('logits.topk_ids', 'logprobs.topk_values', 'logprobs.actual'))  # the same natively
FACADES = ('/v1/completions', '/generate')
BATCHES = 'limbeckd_batch_duration_seconds_count'
failures = []


def check(truth, what):
    if not truth:
        failures.append(what)
        print('FAILED:', what)


class Daemon:
    def __init__(self, build, folder, name, model, *options):
        self.log = open(folder / f'{name}.log', 'w')
        port = folder / f'{name}.port'
        self.process = subprocess.Popen([build / 'server/limbeckd', '--listen', '127.0.0.1:0', '--port-file', port, *options, f'm={model}'],
                                        stderr=self.log)
        while not port.exists():
            if self.process.poll() is not None:
                raise SystemExit((folder / f'{name}.log').read_text())
            time.sleep(0.02)
        self.port = int(port.read_text())

    def stop(self):
        self.process.terminate()
        check(self.process.wait(60) == 0, 'the daemon ends well')

    def metrics(self):
        connection = http.client.HTTPConnection('127.0.0.1', self.port)
        connection.request('GET', '/metrics')
        values = {}
        for line in connection.getresponse().read().decode().splitlines():
            if not line.startswith('#'):
                name, value = line.rsplit(' ', 1)
                name = name.split('{')[0]
                values[name] = values.get(name, 0) + float(value)
        connection.close()
        return values


def question(ids, parameters, outputs):
    """The body of sequences of ids, padded, and the length of its JSON."""
    width = max(map(len, ids))
    inputs = [('input_ids', [len(ids), width], b''.join(struct.pack(f'<{width}i', *s, *[0] * (width - len(s))) for s in ids))]
    inputs.append(('lengths', [len(ids)], struct.pack(f'<{len(ids)}i', *map(len, ids))))
    if 'logits.at_ids' in outputs:
        scores = [(i * 7 + j) % 97 for i in range(width) for j in range(3)]
        inputs.append(('score_ids', [len(ids), width, 3], struct.pack(f'<{3 * width}i', *scores) * len(ids)))
    head = json.dumps({'inputs': [{'name': n, 'shape': s, 'datatype': 'INT32', 'parameters': {'binary_data_size': len(b)}} for n, s, b in inputs],
                       'outputs': [{'name': o, 'parameters': {'binary_data': True}} for o in outputs], 'parameters': parameters}).encode()
    return head + b''.join(b for _, _, b in inputs), len(head)


class Client:
    """A trainer with an address of its own and one connection."""

    def __init__(self, daemon, number):
        self.connection = http.client.HTTPConnection('127.0.0.1', daemon.port, source_address=(f'127.0.0.{number}', 0), timeout=300)
        self.daemon = daemon
        self.number = number

    def post(self, path, body, headers):
        """The answer and its body; None: to come again."""
        self.connection.request('POST', path, body, headers)
        answer = self.connection.getresponse()
        data = answer.read()
        if answer.status == 503:
            check(answer.getheader('Retry-After') is not None, '503 says when to come again')
            return None
        if answer.status != 200:
            raise RuntimeError(f'{answer.status}: {data[:300]}')
        return answer, data

    def ask(self, ids, parameters=None, outputs=PLAIN):
        """A digest of each sequence's rows of all outputs (of LISTS without the last); None: to come again."""
        body, json_len = question(ids, parameters or {}, outputs)
        got = self.post('/v2/models/m/infer', body, {'Inference-Header-Content-Length': str(json_len)})
        if got is None:
            return None
        answer, data = got
        at = int(answer.getheader('Inference-Header-Content-Length'))
        without = outputs == LISTS[1]
        digests = [hashlib.sha256() for _ in ids]
        for output in json.loads(data[:at])['outputs']:
            size = output['parameters']['binary_data_size']
            row = size // (output['shape'][0] * output['shape'][1])
            for b, sequence in enumerate(ids):
                begin = at + b * output['shape'][1] * row
                digests[b].update(data[begin:begin + (len(sequence) - without) * row])
            at += size
        return [d.hexdigest() for d in digests]

    def ask_lists(self, path, ids):
        """What ask gives of LISTS, by another dialect."""
        body = {'model': 'm', 'prompt': ids, 'max_tokens': 0, 'prompt_logprobs': LISTED} if path == FACADES[0] else {
            'input_ids': ids, 'sampling_params': {'max_new_tokens': 0, 'temperature': 0}, 'return_logprob': True, 'logprob_start_len': 0,
            'top_logprobs_num': LISTED}
        got = self.post(path, json.dumps(body), {'Content-Type': 'application/json'})
        if got is None:
            return None
        answers = json.loads(got[1])
        if path == FACADES[0]:
            return [vllm_digest(s, choice['prompt_logprobs']) for s, choice in zip(ids, answers['choices'])]
        return [sglang_digest(answer['meta_info']) for answer in answers]

    def ask_until(self, *question):
        return until_answered(lambda: self.ask(*question))


def until_answered(ask):
    while (digests := ask()) is None:
        time.sleep(0.05)
    return digests


def digest_of(ids, logprobs, own):
    """Of rows of the likeliest ids and their log-probabilities, and of the tokens' own, as LISTS has them."""
    digest = hashlib.sha256()
    for numbers, code in ((ids, 'i'), (logprobs, 'f'), (own, 'f')):
        digest.update(struct.pack(f'<{len(numbers)}{code}', *numbers))
    return digest.hexdigest()


def vllm_digest(sequence, entries):
    likeliest = [list(entry.items())[:LISTED] for entry in entries[1:]]
    return digest_of([int(i) for row in likeliest for i, _ in row], [e['logprob'] for row in likeliest for _, e in row],
                     [entry[str(i)]['logprob'] for i, entry in zip(sequence[1:], entries[1:])])


def sglang_digest(info):
    likeliest = [triple for row in info['input_top_logprobs'][1:] for triple in row]
    return digest_of([i for _, i, _ in likeliest], [l for l, _, _ in likeliest], [l for l, _, _ in info['input_token_logprobs'][1:]])


def texts(rng, n, shortest, longest, vocab):
    return [[rng.randrange(vocab) for _ in range(rng.randint(shortest, longest))] for _ in range(n)]


class Answers:
    """What was answered, to be asked again alone."""

    def __init__(self):
        self.all = {}

    def add(self, ids, parameters, outputs, digests):
        for sequence, digest in zip(ids, digests):
            self.add_one((tuple(sequence), json.dumps(parameters), outputs), digest)

    def add_one(self, key, digest):
        check(self.all.setdefault(key, digest) == digest, 'equal questions have equal answers')

    def check_alone(self, alone):
        client = Client(alone, 2)
        for (sequence, parameters, outputs), digest in self.all.items():
            same = client.ask_until([list(sequence)], json.loads(parameters), outputs) == [digest]
            check(same, f'an answer of {len(sequence)} tokens ({", ".join(outputs)}) is what it is alone')
        print(f'{len(self.all)} unlike sequences and questions asked again alone, bit by bit')
        self.all.clear()


def together(answers, jobs):
    """Runs each job as a process, since threads of one Python wait for each other; a job gets an Answers of its own, which are added
    to answers. Returns what the jobs return."""
    context = multiprocessing.get_context('fork')

    def run(job, pipe):
        own = Answers()
        result = job(own)
        pipe.send((own.all, result, failures))

    pipes = []
    for job in jobs:
        here, there = context.Pipe(False)
        process = context.Process(target=run, args=(job, there))
        process.start()
        there.close()
        pipes.append((process, here))
    results = []
    for process, pipe in pipes:
        own, result, failed = pipe.recv()
        process.join()
        failures.extend(failed)
        for key, digest in own.items():
            answers.add_one(key, digest)
        results.append(result)
    return results


def percentiles(times):
    times = sorted(times)
    return times[len(times) // 2], times[min(len(times) - 1, int(len(times) * 0.99))]


def ten_trainers(daemon, answers, rng, vocab, unlike):
    pool = texts(rng, 40, 32, 200, vocab)
    for number in range(10 if unlike else 0):  # each has asked once, so that it is known which inner states are wanted
        Client(daemon, 2 + number).ask(texts(rng, 1, 4, 4, vocab), *UNLIKE[number])
    before, trainers = daemon.metrics(), 10 + (len(FACADES) if unlike else 0)

    def train(number, answers):
        client, path = Client(daemon, 2 + number), FACADES[number - 10] if number >= 10 else None
        parameters, outputs = LISTS if path else UNLIKE[number] if unlike else UNLIKE[0]
        for at in range(0, len(pool), 4):
            ids = pool[at:at + 4]
            digests = until_answered(lambda: client.ask_lists(path, ids)) if path else client.ask_until(ids, parameters, outputs)
            answers.add(ids, parameters, outputs, digests)

    together(answers, [lambda own, n=n: train(n, own) for n in range(trainers)])
    after = daemon.metrics()
    count = {k: after[f'limbeckd_{k}_total'] - before.get(f'limbeckd_{k}_total', 0)
             for k in ('asked_tokens', 'tokens', 'joined_tokens', 'known_tokens')}
    different = sum(map(len, pool))
    ratio = count['tokens'] / different
    print(f'{trainers} trainers, {"unlike outputs of the same texts, two by other dialects" if unlike else "same questions"}: asked {count["asked_tokens"]:.0f} tokens, '
          f'different {different}, computed {count["tokens"]:.0f} ({ratio:.2f}), joined {count["joined_tokens"]:.0f}, known {count["known_tokens"]:.0f}')
    check(ratio == 1, 'nothing is computed twice')
    check(count['asked_tokens'] == trainers * different == count['tokens'] + count['joined_tokens'] + count['known_tokens'], 'all is counted')


def hostile(daemon, number, rng, until):
    """Lies about lengths, asks nonsense, hangs up in the middle of a question and of an answer."""
    turns = 0
    while time.monotonic() < until:
        s = socket.create_connection(('127.0.0.1', daemon.port), source_address=(f'127.0.0.{number}', 0))
        s.settimeout(2)
        body, json_len = question(texts(rng, 4, 100, 300, 97), {}, ('logits',))
        if turns % 4 == 1:  # the input `lengths` lies as well
            body = body[:-16] + rng.randbytes(16)
        lie = [len(body), len(body) + 1000, len(body) - 7, 1 << 40, len(body)][turns % 5]
        head = json_len + [0, 0, 0, 0, 1000000][turns % 5]
        s.sendall(f'POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {lie}\r\nInference-Header-Content-Length: {head}\r\n\r\n'.encode())
        try:
            s.sendall(body[:rng.randrange(len(body))] if turns % 3 == 0 else body)
            if turns % 2 == 0:
                s.recv(100)
        except OSError:
            pass
        s.close()
        turns += 1
    return turns


def crowd(daemon, answers, rng, vocab, seconds, n_greedy, n_mixed, n_hostile):
    """Seconds of greedy clients with deep queues, clients of mixed lengths, hostile ones, and a client with short requests."""
    until = time.monotonic() + seconds
    before = daemon.metrics()
    pool = texts(rng, 60, 4, 300, vocab)  # of those with mixed lengths: they often ask what others asked

    def greedy(number, answers):  # four connections: a deep queue
        served = []

        def ask(seed):
            client, own, n = Client(daemon, number), random.Random(seed), 0
            while time.monotonic() < until:
                ids = texts(own, 8, *LONG, vocab)
                digests = client.ask(ids)
                if digests is None:
                    time.sleep(0.05)
                    continue
                n += sum(map(len, ids))
                answers.add(ids, {}, PLAIN, digests)
            served.append(n)

        threads = [threading.Thread(target=ask, args=(n_greedy * 1000 + number * 10 + c,)) for c in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(served)

    def mixed(number, path, answers):
        """What each request took, and tokens that were answered; path: of another dialect."""
        client, own, times, tokens = Client(daemon, number), random.Random(number), [], 0
        while time.monotonic() < until:
            ids, begun = own.sample(pool, own.randint(1, 6)), time.monotonic()
            parameters, outputs = LISTS if path else own.choice(UNLIKE)
            digests = until_answered(lambda: client.ask_lists(path, ids)) if path else client.ask_until(ids, parameters, outputs)
            times.append(time.monotonic() - begun)
            tokens += sum(map(len, ids))
            answers.add(ids, parameters, outputs, digests)
        return path or '/v2', times, tokens

    def shorts(answers):
        client, own, times = Client(daemon, 2), random.Random(2), []
        while time.monotonic() < until:
            ids = texts(own, 1, SHORT, SHORT, vocab)
            batches, begun = daemon.metrics()[BATCHES], time.monotonic()
            digests = client.ask_until(ids)
            seconds = time.monotonic() - begun
            times.append((seconds, daemon.metrics()[BATCHES] - batches))
            answers.add(ids, {}, PLAIN, digests)
            time.sleep(0.01 * own.random())
        return times

    jobs = [shorts]
    jobs += [lambda own, n=n: greedy(3 + n, own) for n in range(n_greedy)]
    # One in three of them by each of the other dialects.
    jobs += [lambda own, n=n: mixed(20 + n, ('', *FACADES)[n % 3], own) for n in range(n_mixed)]
    jobs += [lambda own, n=n: hostile(daemon, 50 + n, random.Random(n), until) for n in range(n_hostile)]
    results = together(answers, jobs)
    short, shares, turns = results[0], results[1:1 + n_greedy], results[1 + n_greedy + n_mixed:]
    after = daemon.metrics()
    batches = after[BATCHES] - before[BATCHES]
    batch = (after['limbeckd_batch_duration_seconds_sum'] - before['limbeckd_batch_duration_seconds_sum']) / batches
    p50, p99 = percentiles([seconds for seconds, _ in short])
    passed50, passed99 = percentiles([passed for _, passed in short])
    print(f'{n_greedy} greedy, {n_mixed} mixed, {n_hostile} hostile ({sum(turns)} attacks), {seconds} s: {batches:.0f} batches of {1000 * batch:.0f} ms; '
          f'{len(short)} short requests, p50 {1000 * p50:.0f} ms, p99 {1000 * p99:.0f} ms; batches ended meanwhile, its own too: '
          f'p50 {passed50:.0f}, p99 {passed99:.0f}; {after["process_resident_memory_bytes"] / 2**20:.0f} MiB resident, '
          f'{after["limbeckd_known_bytes"] / 2**20:.0f} of them states')
    several = results[1 + n_greedy:1 + n_greedy + n_mixed]
    for path in dict.fromkeys(path for path, _, _ in several):
        p50, p99 = percentiles([t for is_path, times, _ in several if is_path == path for t in times])
        print(f'  mixed by {path}: {sum(len(times) for is_path, times, _ in several if is_path == path)} requests, p50 {1000 * p50:.0f} ms, '
              f'p99 {1000 * p99:.0f} ms; tokens of each {", ".join(str(tokens) for is_path, _, tokens in several if is_path == path)}')
    if n_greedy == 1:
        print(f'  tokens of the greedy {shares[0]}')
    if n_greedy > 1:
        print(f'tokens of the greedy: {min(shares)} to {max(shares)}')
    return passed99


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('build', type=pathlib.Path)
    parser.add_argument('--seconds', type=float, default=10)
    parser.add_argument('--model', type=pathlib.Path)
    parser.add_argument('--batch', default='4096', help='--max-batch-tokens of the daemon')
    parser.add_argument('--vocab', type=int, default=8192, help='ids below this are asked')
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder, model = pathlib.Path(folder), asked.model
        if not model:
            model = folder / 'model.gguf'
            subprocess.run([asked.build / 'tests/bench/make_gguf', model, 'Q8_0', '256', '768', '6', '8', '4', '8192'], check=True)
        daemon = Daemon(asked.build, folder, 'group', model, '--max-batch-tokens', asked.batch)
        alone = Daemon(asked.build, folder, 'alone', model, '--state-cache-mib', '0')
        answers, rng = Answers(), random.Random(1)
        ten_trainers(daemon, answers, rng, asked.vocab, False)
        ten_trainers(daemon, answers, rng, asked.vocab, True)
        answers.check_alone(alone)
        crowd(daemon, answers, rng, asked.vocab, asked.seconds, 1, 12, 2)
        answers.check_alone(alone)
        waited = crowd(daemon, answers, rng, asked.vocab, asked.seconds, 9, 0, 0)
        check(waited <= 3, f'p99 of a short request beside nine greedy clients is {waited:.0f} batches, at most 3')
        answers.check_alone(alone)
        alone.stop()
        daemon.stop()
    print('FAILED' if failures else 'all is as it should be')
    raise SystemExit(bool(failures))


if __name__ == '__main__':
    main()
