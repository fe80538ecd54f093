#!/usr/bin/env python3
"""Triton's perf_analyzer against limbeckd, unmodified: one to three requests at a time, sequences by the batch, its counts against the daemon's.

usage: perf_analyzer.py BUILD PERF_ANALYZER
PERF_ANALYZER is the program: tritonclient 2.34.0's wheel for Linux (PyPI) has it in tritonclient-2.34.0.data/data/bin. It wants libb64
(Debian's libb64-0d) and libcudart.so.12 (PyPI's nvidia-cuda-runtime-cu12), which LD_LIBRARY_PATH may name.
"""
import csv
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

TEACHER = pathlib.Path('examples/wordnet/teachers/nouns')
IDS = [i * 7 + 1 for i in range(32)]


def run(program, url, folder, *more):
    """Its table of results, by concurrency."""
    table = folder / 'table.csv'
    command = [program, '-m', 'm', '-u', url, '-i', 'http', '--concurrency-range', '1:3', '--measurement-mode', 'count_windows',
               '--measurement-request-count', '20', '--stability-percentage', '1000', '-f', table, *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        sys.exit(f'FAILED: perf_analyzer ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}')
    with open(table, encoding='utf-8', newline='') as file:
        return {int(row['Concurrency']): row for row in csv.DictReader(file)}


def main():
    build, program = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    with tempfile.TemporaryDirectory(prefix='limbeck-perf-') as name:
        folder = pathlib.Path(name)
        port = folder / 'port'
        with open(folder / 'log', 'w', encoding='utf-8') as log:  # the daemon has it too
            daemon = subprocess.Popen([build / 'server' / 'limbeckd', f'm={TEACHER}', '--listen', '127.0.0.1:0', '--port-file', port],
                                      stderr=log)
        try:
            while not port.exists():
                if daemon.poll() is not None:
                    sys.exit('FAILED: limbeckd does not start')
                time.sleep(0.05)
            url = f'127.0.0.1:{port.read_text().strip()}'
            counted = 0
            for how, n, more in ('one at once', 1, ['--sync']), ('async', 1, ['--async']), ('four sequences', 4, []):
                data = folder / 'data.json'
                data.write_text(json.dumps({'data': [{'input_ids': {'content': IDS * n, 'shape': [n, len(IDS)]}}]}))
                rows = run(program, url, folder, '--input-data', data, '--shape', f'input_ids:{n},{len(IDS)}', *more)
                if set(rows) != {1, 2, 3} or any(float(row['Inferences/Second']) <= 0 for row in rows.values()):
                    sys.exit(f'FAILED: {rows}')
                print(how, {at: float(row['Inferences/Second']) for at, row in sorted(rows.items())}, 'inferences/s')
                with urllib.request.urlopen(f'http://{url}/v2/models/m/stats') as answer:
                    stats = json.load(answer)['model_stats'][0]
                now = stats['inference_stats']['success']['count']
                if now < counted + 3 * 20 or stats['inference_stats']['fail']['count'] != 0:
                    sys.exit(f'FAILED: {stats}')
                counted = now
        finally:
            daemon.terminate()
            ended = daemon.wait(60)
        if ended != 0:
            sys.exit(f'FAILED: limbeckd ends with {ended}')
    print('3 passed, 0 failed')


if __name__ == '__main__':
    main()
