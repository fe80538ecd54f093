"""Reads our answers (oip/*.response, which test_golden_oip compares with what the code writes) with NVIDIA's tritonclient.

usage: check_oip_peer.py          (by hand; needs tritonclient[http] and numpy). Exit 0 only if every check holds.
"""
import pathlib
import struct
import sys

import numpy as np
import tritonclient.http as http

HERE = pathlib.Path(__file__).resolve().parent / 'oip'
EXPECTED = {
    'logits.topk_ids': np.array([[[3, 1, 0], [49151, 7, 2]]], np.int32),
    'logits.topk_values': np.array([[[1.5, 0.1, -0.0], [-3.4028235e38, 1e-45, 16777216]]], np.float32),
    'logsumexp': np.array([[2.25, -1e-6]], np.float32),
    'short_ids': np.array([65535, 0, 9], np.uint16),
    'hidden_states.1': np.array([[[1, -1], [65504, 2**-24]]], np.float16),
}
checks = 0


def check(ok, what):
    global checks
    checks += 1
    if not ok:
        sys.exit(f'FAILED: {what}')


for form in ('binary', 'json', 'mixed'):
    data = (HERE / f'{form}.response').read_bytes()
    header = struct.unpack('<I', data[:4])[0]
    result = http.InferResult.from_response_body(data[4:], header_length=header - 1 if header else None)
    response = result.get_response()
    check(response['model_name'] == 'teacher' and response['model_version'] == '9f3c', f'{form}: model')
    check(response['id'] == 'q"7é', f'{form}: id')
    check(response['parameters'] == {'temperature': 1.0 if form == 'json' else 0.7, 'top_k': 3}, f'{form}: parameters')
    names = [o['name'] for o in response['outputs']]
    check(names == list(EXPECTED)[:len(names)] and len(names) == (4 if form == 'json' else 5), f'{form}: outputs')
    for name in names:
        got, wanted = result.as_numpy(name), EXPECTED[name]
        check(got.dtype == wanted.dtype and got.shape == wanted.shape, f'{form}: {name}: datatype and shape')
        check(got.tobytes() == wanted.tobytes(), f'{form}: {name}: bits')
print(f'{checks} passed, 0 failed')
