"""Writes tests/golden/oip: requests built by NVIDIA's tritonclient, and their digests computed here, independently of
the C code. Also seeds the fuzz corpora: with the same files, with our answers (oip/*.response, written by test_golden_oip),
and with forms that tritonclient does not use.

usage: make_oip.py          (needs tritonclient[http] and numpy)

A file holds 4 bytes little-endian, the value of Inference-Header-Content-Length plus 1 (0: the header is absent), and
then the body. digests.txt holds a name and a digest a line, for the fingerprint "golden".
"""
import hashlib
import json
import pathlib
import struct

import numpy as np
import tritonclient.http as http
from tritonclient.http._utils import _get_inference_request

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / 'oip'
CORPUS = HERE.parent / 'fuzz' / 'corpus'
FINGERPRINT = 'golden'
SIZES = {'BOOL': '?', 'INT8': 'b', 'INT16': 'h', 'INT32': 'i', 'INT64': 'q', 'UINT8': 'B', 'UINT16': 'H', 'UINT32': 'I',
         'UINT64': 'Q', 'FP32': 'f', 'FP64': 'd'}


def text(s):
    return struct.pack('<I', len(s.encode())) + s.encode()


def flat(data):
    return [v for item in data for v in flat(item)] if isinstance(data, list) else [data]


def canonical(fingerprint, request, tail):
    """PROTOCOL.md, "Digest", from the JSON object and the bytes behind it."""
    p = request.get('parameters', {})
    out = text('limbeck-request-1') + text(fingerprint)
    out += struct.pack('<QdQQ', p.get('top_k', 64), p.get('temperature', 1.0), p.get('sample_count', 0), p.get('seed', 0))
    inputs = []
    for i in request['inputs']:
        size = i.get('parameters', {}).get('binary_data_size')
        if size is None:
            values = flat(i['data'])
            raw = struct.pack(f'<{len(values)}{SIZES[i["datatype"]]}', *values)
        else:
            raw, tail = tail[:size], tail[size:]
        datatype = i['datatype']
        if datatype == 'INT64':
            values = np.frombuffer(raw, '<i8')
            if (values == values.astype('<i4')).all():
                datatype, raw = 'INT32', values.astype('<i4').tobytes()
        shape = i['shape']
        inputs.append((i['name'].encode(), text(i['name']) + text(datatype) + struct.pack('<I', len(shape)) +
                       struct.pack(f'<{len(shape)}Q', *shape) + raw))
    assert not tail
    out += struct.pack('<I', len(inputs)) + b''.join(part for _, part in sorted(inputs))
    outputs = []
    for o in request.get('outputs', []):
        own = 'INT32' if o['name'] in ('logits.topk_ids', 'samples.ids', 'samples.counts') else 'FP32'
        outputs.append((o['name'].encode(), text(o['name']) + text(o.get('parameters', {}).get('dtype', own))))
    out += struct.pack('<I', len(outputs)) + b''.join(part for _, part in sorted(outputs))
    if 'sample_temperature' in p:
        out += text('sample_temperature') + struct.pack('<d', p['sample_temperature'])
    if 'vocab_map' in p:
        out += text('vocab_map') + text(p['vocab_map'])
    return out


def digest(fingerprint, body, json_len):
    n = len(body) if json_len is None else json_len
    return hashlib.sha256(canonical(fingerprint, json.loads(body[:n]), body[n:])).hexdigest()


def make_input(name, values, datatype, binary):
    values = np.asarray(values)
    i = http.InferInput(name, list(values.shape), datatype)
    return i.set_data_from_numpy(values, binary_data=binary)


def make_output(name, binary, dtype=None):
    o = http.InferRequestedOutput(name, binary_data=binary)
    if dtype:
        o._parameters['dtype'] = dtype  # the client has no call for own parameters of an output
    return o


def body(inputs, outputs=None, request_id='', priority=0, timeout=None, parameters=None):
    return _get_inference_request(inputs=inputs, request_id=request_id, outputs=outputs, sequence_id=0,
                                  sequence_start=False, sequence_end=False, priority=priority, timeout=timeout,
                                  custom_parameters=parameters)


IDS = np.arange(10).reshape(2, 5) * 1000 + 7
FEATURES = (np.arange(6, dtype=np.float32).reshape(2, 3) - 2.5) / 7
TOPK = ['logits.topk_ids', 'logits.topk_values', 'logsumexp']


def cases():
    for name, dtype in (('int32', np.int32), ('int64', np.int64)):
        for form in ('binary', 'json'):
            binary = form == 'binary'
            yield f'ids_{name}_{form}', body(
                [make_input('input_ids', IDS.astype(dtype), name.upper(), binary),
                 make_input('lengths', np.array([5, 3], np.int32), 'INT32', binary)],
                [make_output(o, binary) for o in (TOPK if binary else TOPK[::-1])], request_id='7' if binary else '',
                priority=1, timeout=5000000 if binary else None, parameters={'top_k': 8, 'temperature': 2.0})
    for form in ('binary', 'json'):
        yield f'features_{form}', body([make_input('features', FEATURES, 'FP32', form == 'binary')],
                                       [make_output('logits', form == 'binary')], request_id='f')
    yield 'defaults', body([make_input('input_ids', IDS.astype(np.int32), 'INT32', True)])
    yield 'dtypes', body([make_input('input_ids', IDS.astype(np.int32), 'INT32', True)],
                         [make_output('hidden_states.3', True, 'FP16'), make_output('logits.topk_ids', True, 'UINT16'),
                          make_output('logsumexp', False)])
    yield 'mixed', body([make_input('start', np.array([2, 0], np.int32), 'INT32', False),
                         make_input('input_ids', IDS.astype(np.int64), 'INT64', True),
                         make_input('lengths', np.array([5, 3], np.int32), 'INT32', True)],
                        [make_output('logits', True), make_output('logprobs.actual', False)],
                        parameters={'temperature': 0.5, 'seed': 9})


SEEDS = {
    'fuzz_oip_request/nested': {
        'id': 'n\u00e9', 'parameters': {'top_k': 3, 'own': 'x', 'binary_data_output': False, 'sample_count': 2, 'timeout': 1},
        'inputs': [{'name': 'a', 'shape': [2, 1, 2], 'datatype': 'FP64', 'data': [[[1, -0.0]], [[1e300, 5e-324]]]},
                   {'name': 'b', 'shape': [3], 'datatype': 'BOOL', 'data': [True, False, 1]},
                   {'name': 'c', 'shape': [2, 0], 'datatype': 'UINT8', 'data': [[], []]},
                   {'name': 'd', 'shape': [], 'datatype': 'INT64', 'data': [-9223372036854775808]}]},
    'fuzz_oip_request/kept': {
        'parameters': {'top_k': 3, 'vocab_map': '0123456789abcdef' * 4},
        'inputs': [{'name': 'input_ids', 'shape': [1, 2], 'datatype': 'INT32', 'data': [[1, 2]]}],
        'outputs': [{'name': 'logprobs.outside'}, {'name': 'logits'}]},
    'fuzz_oip_response/other_server': {
        'model_name': 'm', 'id': None, 'parameters': {'triton_enable': True, 'temperature': 0.7}, 'cost': [1, {}],
        'outputs': [{'name': 'a', 'shape': [2, 2], 'datatype': 'FP32', 'data': [[1, 2.5], [3e38, -4]], 'parameters': {}},
                    {'name': 'b', 'shape': [2], 'datatype': 'UINT64', 'data': [0, 9223372036854775807]},
                    {'name': 'c', 'shape': [4], 'datatype': 'INT8', 'data': [-128, 127, 0, 1]},
                    {'name': 'd', 'shape': [1, 2], 'datatype': 'INT16', 'data': [[-32768, 32767]]}]},
}


def main():
    OUT.mkdir(exist_ok=True)
    for name, value in SEEDS.items():
        (CORPUS / name).parent.mkdir(parents=True, exist_ok=True)
        (CORPUS / name).write_bytes(struct.pack('<I', 0) + json.dumps(value).encode())
    for file in sorted(OUT.glob('*.response')):
        (CORPUS / 'fuzz_oip_response' / file.stem).write_bytes(file.read_bytes())
    digests = []
    for name, (bytes_, json_len) in cases():
        data = struct.pack('<I', 0 if json_len is None else json_len + 1) + bytes_
        (OUT / f'{name}.request').write_bytes(data)
        (CORPUS / 'fuzz_oip_request' / name).write_bytes(data)
        digests.append(f'{name} {digest(FINGERPRINT, bytes_, json_len)}\n')
    (OUT / 'digests.txt').write_text(''.join(digests))
    unit = {'parameters': {'top_k': 16, 'temperature': 2.0},
            'inputs': [{'name': 'input_ids', 'datatype': 'INT32', 'shape': [2, 3], 'data': [1, 2, 3, 4, 5, 6]},
                       {'name': 'lengths', 'datatype': 'INT32', 'shape': [2], 'data': [3, 2]}],
            'outputs': [{'name': 'logits.topk_ids'}, {'name': 'logits.topk_values'},
                        {'name': 'hidden_states.2', 'parameters': {'dtype': 'FP16'}}]}
    print('tests/unit/test_proto_digest.c:', hashlib.sha256(canonical('f00d', unit, b'')).hexdigest())


if __name__ == '__main__':
    main()
