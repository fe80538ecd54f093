#!/usr/bin/env python3
"""Stands in for Triton with TensorRT-LLM's backend, before a limbeckd that makes the logits: tensors by the names,
datatypes and shapes that model tensorrt_llm has (all_models/inflight_batcher_llm of tensorrtllm_backend), binary tensors
both ways, Triton's list of models and its errors. Like it, one sequence is one request, logits of the prompt come only
where return_context_logits asks for them (else a placeholder of four dimensions), and its own parameters are not
known: no fingerprint, no digests. Needs nothing but Python.

usage: triton.py LIMBECKD_URL PORT_FILE [--flat] [--dtype FP32|FP16|BF16] [--json]
--flat: a model without a batch dimension, of other names, INT64 ids and an attention mask. --json: a server of the protocol without
Triton's extension: JSON both ways.
"""
import argparse
import http.client
import http.server
import json
import math
import os
import struct
import urllib.parse

SIZES = {'INT32': (4, 'i'), 'INT64': (8, 'q'), 'BOOL': (1, '?'), 'FP32': (4, 'f'), 'UINT64': (8, 'Q')}
BATCHED = {
    'name': 'tensorrt_llm', 'platform': 'tensorrtllm',
    'inputs': [('input_ids', 'INT32', [-1, -1]), ('input_lengths', 'INT32', [-1, 1]), ('request_output_len', 'INT32', [-1, 1]),
               ('stop_words_list', 'INT32', [-1, 2, -1]), ('temperature', 'FP32', [-1, 1]), ('random_seed', 'UINT64', [-1, 1]),
               ('return_context_logits', 'BOOL', [-1, 1]), ('streaming', 'BOOL', [-1, 1]), ('lora_name', 'BYTES', [-1, 1])],
    'needs': ['input_ids', 'input_lengths', 'request_output_len'],
    'outputs': [('output_ids', 'INT32', [-1, -1, -1]), ('context_logits', None, [-1, -1, -1])]}
FLAT = {
    'name': 'scorer', 'platform': 'python',
    'inputs': [('tokens', 'INT64', [-1]), ('mask', 'BOOL', [-1])], 'needs': ['tokens', 'mask'], 'outputs': [('scores', None, [-1, -1])]}


class Refused(Exception):
    def __init__(self, text, status=400):
        super().__init__(text)
        self.status = status


def read_inputs(headers, body):
    """name -> (datatype, shape, values)"""
    n = int(headers.get('Inference-Header-Content-Length') or len(body))
    told, at, found = json.loads(body[:n]), n, {}
    for tensor in told['inputs']:
        if 'binary_data_size' in tensor.get('parameters', {}):
            size, code = SIZES[tensor['datatype']]
            length = tensor['parameters']['binary_data_size']
            values = list(struct.unpack(f'<{length // size}{code}', body[at:at + length]))
            at += length
        else:
            values = tensor['data']
        if len(values) != math.prod(tensor['shape']):
            raise Refused(f'unexpected total byte size for input {tensor["name"]}')
        found[tensor['name']] = (tensor['datatype'], tensor['shape'], values)
    if at != len(body):
        raise Refused('unexpected additional input data')
    return found, [o['name'] for o in told.get('outputs', [])], told.get('parameters', {})


def check_inputs(spec, found):
    known = {name: (datatype, shape) for name, datatype, shape in spec['inputs']}
    for name, (datatype, shape, _) in found.items():
        if name not in known:
            raise Refused(f'unexpected inference input {name!r} for model {spec["name"]!r}')
        want, dims = known[name]
        if datatype != want or len(shape) != len(dims) or any(d not in (-1, s) for d, s in zip(dims, shape)):
            raise Refused(f'inference input {name!r} is {datatype} {shape}, expecting {want} {dims}')
    for name in spec['needs']:
        if name not in found:
            raise Refused(f'expected input {name!r} for model {spec["name"]!r}, it is missing')


def packed(values, dtype):
    if dtype == 'FP32':
        return struct.pack(f'<{len(values)}f', *values)
    if dtype == 'FP16':
        return struct.pack(f'<{len(values)}e', *values)
    whole = struct.unpack(f'<{len(values)}I', struct.pack(f'<{len(values)}f', *values))  # BF16: to nearest, ties to even
    return struct.pack(f'<{len(values)}H', *((v + 0x7fff + (v >> 16 & 1)) >> 16 for v in whole))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
        pass

    def send(self, status, body, headers=()):
        self.send_response(status)
        for name, value in (('Content-Length', len(body)), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def behind(self, method, path, body=None, headers=()):
        connection = http.client.HTTPConnection(self.server.behind)
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        got = answer.read()
        connection.close()
        if answer.status != 200:
            raise Refused(got.decode(), answer.status)  # of one that is still loading: 503
        return got, answer.headers

    def version(self):
        """Of what stands behind; Triton's own is a small number: so that another model there shows."""
        names = json.loads(self.behind('POST', '/v2/repository/index', '{}')[0])
        return str(int(names[0]['version'][:6], 16))

    def do_GET(self):
        spec = self.server.spec
        if self.path == '/v2':
            self.send(200, json.dumps({'name': 'triton', 'version': '2.62.0', 'extensions': [] if self.server.json else ['binary_tensor_data']}).encode())
        elif self.path == f'/v2/models/{spec["name"]}':
            tensors = {key: [{'name': n, 'datatype': t or self.server.dtype, 'shape': s} for n, t, s in spec[key]] for key in ('inputs', 'outputs')}
            self.send(200, json.dumps({'name': spec['name'], 'versions': [self.version()], 'platform': spec['platform'], **tensors}).encode())
        else:
            self.send(400, json.dumps({'error': f'Request for unknown model: {self.path!r} is not found'}).encode())

    def do_POST(self):
        spec, body = self.server.spec, self.rfile.read(int(self.headers['Content-Length']))
        try:
            if self.path == '/v2/repository/index':
                self.send(200, json.dumps([{'name': spec['name'], 'version': self.version(), 'state': 'READY'}]).encode())
            elif self.path == f'/v2/models/{spec["name"]}/infer':
                self.infer(spec, *read_inputs(self.headers, body))
            else:
                self.send(404, json.dumps({'error': 'Not Found'}).encode())
        except Refused as refused:
            self.send(refused.status, json.dumps({'error': str(refused)}).encode())

    def logits(self, ids):
        head = json.dumps({'inputs': [{'name': 'input_ids', 'datatype': 'INT32', 'shape': [1, len(ids)], 'data': ids}],
                           'outputs': [{'name': 'logits', 'parameters': {'binary_data': True}}]})
        name = json.loads(self.behind('POST', '/v2/repository/index', '{}')[0])[0]['name']
        got, headers = self.behind('POST', f'/v2/models/{urllib.parse.quote(name)}/infer', head)
        n = int(headers['Inference-Header-Content-Length'])
        (output,) = json.loads(got[:n])['outputs']
        return output['shape'][2], list(struct.unpack(f'<{(len(got) - n) // 4}f', got[n:]))

    def infer(self, spec, found, outputs, parameters):
        check_inputs(spec, found)
        if self.server.json and self.headers.get('Inference-Header-Content-Length'):
            raise Refused('binary data is not supported')
        for name in parameters:
            raise Refused(f'parameter {name!r} is not known')
        batched = spec is BATCHED
        ids = found[spec['inputs'][0][0]][2]
        if batched and (found['input_lengths'][2] != [len(ids)] or found['request_output_len'][2][0] < 1):
            raise Refused('input_lengths is not the length of input_ids, or request_output_len is below 1')
        if not batched and found['mask'][2] != [True] * len(ids):
            raise Refused('masked tokens')
        v, values = self.logits(ids)
        shape = [len(ids), v]
        if batched:
            asked = found.get('return_context_logits', (0, 0, [False]))[2] == [True]
            shape, values = ([1, *shape], values) if asked else ([1, 1, 1, 1], [0.0])
        dtype, tensors, data = self.server.dtype, [], b''
        for name, _, _ in spec['outputs']:
            if name not in outputs:
                continue
            if name == 'output_ids':
                tensors.append({'name': name, 'datatype': 'INT32', 'shape': [1, 1, 1], 'data': [0]})
            elif self.server.json:
                tensors.append({'name': name, 'datatype': dtype, 'shape': shape, 'data': values})
            else:
                data = packed(values, dtype)
                tensors.append({'name': name, 'datatype': dtype, 'shape': shape, 'parameters': {'binary_data_size': len(data)}})
        head = json.dumps({'model_name': spec['name'], 'model_version': self.version(), 'parameters': {'sequence_id': 0}, 'outputs': tensors}).encode()
        self.send(200, head + data, [('Inference-Header-Content-Length', len(head))] if data else [])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('url')
    parser.add_argument('port_file')
    parser.add_argument('--flat', action='store_true')
    parser.add_argument('--dtype', default='FP32')
    parser.add_argument('--json', action='store_true')
    told = parser.parse_args()
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.behind, server.dtype, server.json = urllib.parse.urlsplit(told.url).netloc, told.dtype, told.json
    server.spec = FLAT if told.flat else BATCHED
    with open(told.port_file + '.new', 'w') as file:
        file.write(str(server.server_address[1]))
    os.rename(told.port_file + '.new', told.port_file)
    server.serve_forever()


if __name__ == '__main__':
    main()
