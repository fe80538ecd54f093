#!/usr/bin/env python3
"""Triton's own client against limbeckd: statistics, the repository, a model that is replaced while it is asked.

usage: triton_client.py BUILD     (needs requirements.txt beside this file)
The teachers of examples/wordnet are the two versions.
"""
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

import numpy
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

TOKEN = {'Authorization': 'Bearer admin-token-1'}
IDS = (numpy.arange(3 * 24, dtype=numpy.int32).reshape(3, 24) * 37 + 11) % 1000
CLIENTS, TURNS = 4, 6

checks = 0


def check(truth, what):
    global checks
    checks += 1
    if not truth:
        sys.exit(f'FAILED: {what}')


def refused(call, *words):
    """The call fails with an error that has all of the words."""
    try:
        call()
    except InferenceServerException as error:
        check(all(word in str(error) for word in words), f'{words} in "{error}"')
    else:
        check(False, f'an error with {words}')


def ask(client, name):
    given = http.InferInput('input_ids', IDS.shape, 'INT32')
    given.set_data_from_numpy(IDS)
    answer = client.infer(name, [given], outputs=[http.InferRequestedOutput('logsumexp')])
    return answer.get_response()['model_version'], answer.as_numpy('logsumexp').tobytes()


def statistics(client):
    for _ in range(4):
        ask(client, 'a')
    refused(lambda: client.infer('a', [], outputs=[http.InferRequestedOutput('logsumexp')]), 'input_ids')
    one = client.get_inference_statistics('a')['model_stats']
    check(len(one) == 1 and one[0]['name'] == 'a', 'the statistics of one model')
    stats, times = one[0], one[0]['inference_stats']
    check(client.get_inference_statistics('a', stats['fingerprint'])['model_stats'] == one, 'and by its version')
    check({m['name'] for m in client.get_inference_statistics()['model_stats']} == {'a', 'b', 'm'}, 'and of all')
    check(times['success']['count'] == times['queue']['count'] == times['compute_infer']['count'] == 4, 'requests')
    check(times['fail']['count'] == 0, 'failures')
    check(times['success']['ns'] >= times['queue']['ns'] + times['compute_infer']['ns'] > 0, 'times')
    check(stats['inference_count'] == 4 * len(IDS), 'sequences')
    check(times['cache_miss']['count'] == len(IDS) and times['cache_hit']['count'] == 3 * len(IDS), 'sequences that were known')
    computed = sum(b['batch_size'] * b['compute_infer']['count'] for b in stats['batch_stats'])
    batches = sum(b['compute_infer']['count'] for b in stats['batch_stats'])
    check(0 < computed <= stats['inference_count'], 'sequences in batches')  # those known already are in none
    check(batches == stats['execution_count'], 'batches')
    check(abs(stats['last_inference'] / 1000 - time.time()) < 60, 'the time of the last one')
    refused(lambda: client.get_inference_statistics('nobody'), 'nobody')


def point_at(current, target):
    beside = current.with_suffix('.new')
    beside.symlink_to(target.resolve())
    os.replace(beside, current)


def replace(url, client, current, teachers):
    """Clients ask while the model is replaced; each answer is one version's, and none fails."""
    known = {version: answer for version, answer in (ask(client, 'a'), ask(client, 'b'))}
    check(len(known) == 2, 'two versions')
    stop, seen, wrong = threading.Event(), [], []

    def be_client():
        mine = http.InferenceServerClient(url)
        while not stop.is_set():
            try:
                version, answer = ask(mine, 'm')
                (seen if known.get(version) == answer else wrong).append(version)
            except Exception as error:
                wrong.append(str(error))

    threads = [threading.Thread(target=be_client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for turn in range(TURNS):
        point_at(current, teachers[(turn + 1) % 2])
        client.load_model('m', headers=TOKEN)
        before = len(seen)
        while len(seen) < before + CLIENTS and not wrong:
            time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    check(not wrong, f'no answer fails: {wrong[:1]}')
    check(set(seen) == set(known), 'both versions answered')
    print(f'{len(seen)} answers while a model was replaced {TURNS} times, 0 failed')


def repository(client, current, folder):
    listed = {m['name']: m for m in client.get_model_repository_index()}
    check(set(listed) == {'a', 'b', 'm'} and all(m['state'] == 'READY' for m in listed.values()), 'the index')
    check(listed['m']['version'] == client.get_model_metadata('m')['versions'][0], 'its version')
    refused(lambda: client.load_model('m'), 'admin')
    refused(lambda: client.load_model('m', headers=TOKEN, config='{}'), 'config')
    refused(lambda: client.load_model('m', headers=TOKEN, config='{}', files={'file:1/model.bin': b'x'}), 'parameter')
    refused(lambda: client.load_model('nobody', headers=TOKEN), 'nobody')
    point_at(current, folder)
    refused(lambda: client.load_model('m', headers=TOKEN), str(folder))
    listed = {m['name']: m for m in client.get_model_repository_index()}
    check(listed['m']['state'] == 'READY' and 'served on' in listed['m']['reason'], 'what fails to load harms nothing')
    client.unload_model('m', headers=TOKEN, unload_dependents=True)
    check(not client.is_model_ready('m'), 'unloaded')
    refused(lambda: ask(client, 'm'), 'unloaded')
    check(client.is_model_ready('a') and client.is_server_ready(), 'the others are served')


def main():
    build = pathlib.Path(sys.argv[1])
    teachers = [pathlib.Path('examples/wordnet/teachers') / name for name in ('nouns', 'others')]
    with tempfile.TemporaryDirectory(prefix='limbeck-triton-') as name:
        folder = pathlib.Path(name)
        port, token, current = folder / 'port', folder / 'admin', folder / 'current'
        token.write_text('admin-token-1\n')
        token.chmod(0o600)
        point_at(current, teachers[0])
        daemon = subprocess.Popen([build / 'server' / 'limbeckd', f'a={teachers[0]}', f'b={teachers[1]}', f'm={current}', '--listen',
                                   '127.0.0.1:0', '--port-file', port, '--admin-token-file', token],
                                  stderr=open(folder / 'log', 'w', encoding='utf-8'))
        try:
            while not port.exists():
                check(daemon.poll() is None, 'limbeckd starts')
                time.sleep(0.05)
            url = f'127.0.0.1:{port.read_text().strip()}'
            client = http.InferenceServerClient(url)
            statistics(client)
            replace(url, client, current, teachers)
            repository(client, current, folder)
        finally:
            daemon.terminate()
            ended = daemon.wait(60)
        check(ended == 0, 'limbeckd ends with 0')
    print(f'{checks} passed, 0 failed')


if __name__ == '__main__':
    main()
