#!/usr/bin/env python3
"""The clients that people use against limbeckd's /v1 and /generate, as they are: TRL's, lm-evaluation-harness's, openai's; and the
requests of Axolotl, slime and miles.

usage: clients.py BUILD [MODEL.gguf]     (needs requirements.txt and clients.txt beside this file)
Without a model a small llama with random weights and a byte-level tokenizer is made. What the clients read is held against
transformers on the same weights: log-probabilities to 1e-4 a token (the whole of a text: 1e-4 for each of its tokens).
"""
import asyncio
import base64
import io
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy
import openai
import requests
import torch
import transformers

import encoders

GOLDEN = str(pathlib.Path(__file__).resolve().parent.parent / 'golden')
sys.path.insert(0, GOLDEN)
import make_vllm  # noqa: E402
sys.path.remove(GOLDEN)  # TRL would take its folder vllm for the package of that name

TOLERANCE = 1e-4
TEXTS = ['a small bright bird that sings at night', 'The capital of France is Paris.', 'x' * 40, 'two\nlines, "quoted" \\ and é']

checks = 0


def check(truth, what):
    global checks
    checks += 1
    if not truth:
        sys.exit(f'FAILED: {what}')


def make_model(folder):
    """A llama of 2 layers over 300 byte-level tokens, with an end and a beginning of texts."""
    make_vllm.make_tokenizer(folder)
    torch.manual_seed(5)
    config = transformers.LlamaConfig(vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                                      num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.3, bos_token_id=0,
                                      eos_token_id=1)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def open_reference(path):
    path = pathlib.Path(path)
    where = {'gguf_file': path.name} if path.suffix == '.gguf' else {}
    base = path.parent if where else path
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, **where).eval()
    return model, transformers.AutoTokenizer.from_pretrained(base, **where)


class Daemon:
    def __init__(self, limbeckd, model):
        self.folder = tempfile.TemporaryDirectory(prefix='limbeck-clients-')
        port = pathlib.Path(self.folder.name) / 'port'
        self.log = pathlib.Path(self.folder.name) / 'log'
        with open(self.log, 'w') as log:  # the daemon has it too
            self.process = subprocess.Popen([limbeckd, f'teacher={model}', '--listen=127.0.0.1:0', f'--port-file={port}'],
                                            stdout=subprocess.DEVNULL, stderr=log)
        while not port.exists() or not port.read_text().strip():
            if self.process.poll() is not None:
                sys.exit(f'limbeckd ended: {self.log.read_text()}')
            time.sleep(0.01)
        self.url = f'http://127.0.0.1:{port.read_text().strip()}'

    def stop(self):
        self.process.terminate()
        return self.process.wait(30)


class Reference:
    """Log-probabilities of transformers: row t of a sequence is about its token t + 1."""

    def __init__(self, model):
        self.model = model
        self.kept = {}

    def rows(self, ids, temperature=1.0):
        if tuple(ids) not in self.kept:
            with torch.inference_mode():
                self.kept[tuple(ids)] = self.model(input_ids=torch.tensor([ids])).logits[0].double()
        return (self.kept[tuple(ids)] / temperature).log_softmax(-1).numpy()


# ---- the clients ----

def with_openai(url, reference, tokenizer):
    client = openai.OpenAI(base_url=url + '/v1', api_key='none', max_retries=0)
    check([m.id for m in client.models.list()] == ['teacher'], 'openai: the model is listed')
    check(client.models.retrieve('teacher').id == 'teacher', 'openai: one model')
    ids = tokenizer(TEXTS[0])['input_ids']
    answer = client.completions.create(model='teacher', prompt=TEXTS[0], echo=True, logprobs=3, max_tokens=1, temperature=0, seed=1)
    choice, rows = answer.choices[0], reference.rows(ids)
    logprobs = choice.logprobs
    check(answer.usage.prompt_tokens == len(ids) and answer.usage.completion_tokens == 1, 'openai: usage')
    check(len(logprobs.token_logprobs) == len(ids) + 1 and logprobs.token_logprobs[0] is None, 'openai: one entry a token, and one')
    check(max(abs(logprobs.token_logprobs[t + 1] - rows[t][ids[t + 1]]) for t in range(len(ids) - 1)) < TOLERANCE,
          'openai: token_logprobs')
    check(abs(logprobs.token_logprobs[-1] - rows[-1].max()) < TOLERANCE, 'openai: the likeliest token comes next')
    # Of ids with the same text (parts of characters) one is left.
    check(all(1 <= len(top) <= 4 for top in logprobs.top_logprobs[1:]), 'openai: top_logprobs')
    check(max(abs(max(top.values()) - row.max()) for top, row in zip(logprobs.top_logprobs[1:], rows)) < TOLERANCE,
          'openai: the likeliest is in top_logprobs')
    check(choice.text.startswith(TEXTS[0]), 'openai: the text begins with the prompt')
    text = ''.join(logprobs.tokens)
    check(all(text[at:].startswith(token) for at, token in zip(logprobs.text_offset, logprobs.tokens)), 'openai: text_offset')
    drawn = [client.completions.create(model='teacher', prompt=TEXTS[0], max_tokens=1, temperature=1.5, seed=s // 2).choices[0].text
             for s in range(8)]
    check(drawn[::2] == drawn[1::2], 'openai: the same seed draws the same token')
    with_written(client, reference, tokenizer)
    for body, what in (({'max_tokens': 5000}, 'max_tokens'), ({'max_tokens': 1, 'n': 2}, 'n'),
                       ({'max_tokens': 1, 'logit_bias': {'5': 1}}, 'logit_bias')):
        try:
            client.completions.create(model='teacher', prompt='a', **body)
            check(False, f'openai: {what} is refused')
        except openai.BadRequestError as error:
            check(error.body['param'] == what and what in error.body['message'], f'openai: {what} is refused by name')
    try:
        client.completions.create(model='nobody', prompt='a', max_tokens=1)
        check(False, 'openai: an unknown model is refused')
    except openai.NotFoundError as error:
        check('nobody' in error.body['message'], 'openai: an unknown model is 404')


def with_written(client, reference, tokenizer):
    """Texts that are gone on with: greedily, drawn by a seed, cut at a stop."""
    ids = tokenizer(TEXTS[1])['input_ids']
    answer = client.completions.create(model='teacher', prompt=TEXTS[1], max_tokens=24, temperature=0, logprobs=1,
                                       extra_body={'return_token_ids': True, 'ignore_eos': True})
    choice, rows = answer.choices[0], None
    written = choice.token_ids
    rows = reference.rows(ids + written)[len(ids) - 1:]
    check(len(written) == 24 and answer.usage.completion_tokens == 24 and choice.finish_reason == 'length', 'openai: 24 tokens')
    check(all(abs(row.max() - row[token]) < TOLERANCE for row, token in zip(rows, written)), 'openai: the likeliest token each time')
    check(max(abs(rows[t][token] - choice.logprobs.token_logprobs[t]) for t, token in enumerate(written)) < TOLERANCE,
          'openai: their log-probabilities')
    texts = [client.completions.create(model='teacher', prompt=TEXTS[1], max_tokens=24, temperature=1, top_p=0.9, seed=s // 2).choices[0].text
             for s in range(4)]
    check(texts[0] == texts[1] and texts[2] == texts[3] and texts[0] != texts[2], 'openai: a seed decides the text')
    ascii_text = ''.join(c for c in choice.text if c.isprintable() and ord(c) < 128)
    stop = next(c for c in ascii_text if choice.text.index(c) > 0)
    cut = client.completions.create(model='teacher', prompt=TEXTS[1], max_tokens=24, temperature=0, stop=[stop], extra_body={'ignore_eos': True})
    check(cut.choices[0].text == choice.text[:choice.text.index(stop)] and cut.choices[0].finish_reason == 'stop', 'openai: a stop cuts')


def joined(events):
    """What a stream says of each choice: text, token ids, lists of logprobs, the end."""
    choices = {}
    for event in events:
        for choice in event.choices:
            one = choices.setdefault(choice.index, {'text': '', 'ids': [], 'tokens': [], 'logprobs': [], 'offsets': [], 'top': [], 'end': None})
            check(one['end'] is None, 'stream: the end comes last')
            one['text'] += choice.text
            one['ids'] += choice.token_ids
            one['end'] = choice.finish_reason
            one['tokens'] += choice.logprobs.tokens
            one['logprobs'] += choice.logprobs.token_logprobs
            one['offsets'] += choice.logprobs.text_offset
            one['top'] += choice.logprobs.top_logprobs
    return choices


def with_streams(url, reference, tokenizer):
    """Texts told while they are written are, joined, the answer that comes at once: openai's two clients, curl, requests."""
    asks = {'model': 'teacher', 'prompt': TEXTS, 'max_tokens': 24, 'temperature': 2, 'seed': 3, 'logprobs': 2,
            'extra_body': {'return_token_ids': True, 'ignore_eos': True}}
    client = openai.OpenAI(base_url=url + '/v1', api_key='none', max_retries=0)
    options = {'stream': True, 'stream_options': {'include_usage': True}}

    async def apart():
        async with openai.AsyncOpenAI(base_url=url + '/v1', api_key='none', max_retries=0) as other:
            several = await asyncio.gather(*(other.completions.create(**asks, **options) for _ in range(3)))
            return [[event async for event in stream] for stream in several]

    for echo in (False, True):
        asks['echo'] = echo
        whole = client.completions.create(**asks)
        for events in ([*client.completions.create(**asks, **options)], *asyncio.run(apart())):
            check(len(events) > len(TEXTS) and events[-1].usage == whole.usage and not events[-1].choices, 'stream: usage comes last')
            got = joined(events)
            for choice in whole.choices:
                one = got[choice.index]
                check(one['text'] == choice.text and one['ids'] == choice.token_ids and one['end'] == choice.finish_reason, 'stream: the text')
                check(one['tokens'] == choice.logprobs.tokens and one['offsets'] == choice.logprobs.text_offset, 'stream: its tokens')
                check(one['logprobs'] == choice.logprobs.token_logprobs and one['top'] == choice.logprobs.top_logprobs, 'stream: logprobs')
    with client.completions.create(model='teacher', prompt=TEXTS[0], max_tokens=400, stream=True, extra_body={'ignore_eos': True}) as stream:
        next(iter(stream))  # and leaves
    try:
        client.completions.create(model='teacher', prompt='a', stream=True, extra_body={'prompt_logprobs': 1})
        check(False, 'stream: prompt_logprobs are refused')
    except openai.BadRequestError as error:
        check(error.body['param'] == 'prompt_logprobs', 'stream: prompt_logprobs are refused by name')
    body = {'prompt': TEXTS[3], 'max_tokens': 12, 'temperature': 0}
    whole = requests.post(url + '/v1/completions', json=body, timeout=60).json()['choices'][0]['text']
    for version in ('--http1.0', '--http1.1'):
        out = subprocess.run(['curl', '-sSN', version, url + '/v1/completions', '-d', json.dumps({**body, 'stream': True})],
                             check=True, stdout=subprocess.PIPE, timeout=60).stdout.decode()
        lines = out.split('\n\n')
        check(lines[-2:] == ['data: [DONE]', ''] and all(line.startswith('data: ') for line in lines[:-1]), f'curl {version}: events')
        check(''.join(json.loads(line[6:])['choices'][0]['text'] for line in lines[:-2]) == whole, f'curl {version}: the text')
    body = {'text': TEXTS[:2], 'sampling_params': {'max_new_tokens': 9, 'temperature': 0, 'ignore_eos': True}, 'return_logprob': True}
    whole, last = requests.post(url + '/generate', json=body, timeout=60).json(), {}
    with requests.post(url + '/generate', json={**body, 'stream': True}, stream=True, timeout=60) as answer:
        for line in answer.iter_lines():
            if line and line != b'data: [DONE]':
                event = json.loads(line[6:])
                check(event['text'].startswith(last.get(event['index'], event)['text']), 'sglang, stream: each says all so far')
                last[event['index']] = event
    for i, one in enumerate(whole):
        for key in ('text', 'output_ids'):
            check(last[i][key] == one[key], f'sglang, stream: {key}')
        for key in ('finish_reason', 'output_token_logprobs', 'completion_tokens'):
            check(last[i]['meta_info'][key] == one['meta_info'][key], f'sglang, stream: {key}')


def with_trl(url, reference, tokenizer):
    from trl.generation import vllm_client
    vllm_client.is_vllm_available = lambda: True  # its server's package is not needed to ask
    client = vllm_client.VLLMClient(base_url=url, connection_timeout=10)
    check(client.model == 'teacher', 'trl: finds the model')
    sequences = [tokenizer(text)['input_ids'] for text in TEXTS]
    for temperature, k in ((1.0, 1), (2.0, 100)):
        got = client.get_sequence_logprobs(sequences, [2, 1, 3, 1], top_logprobs=k, temperature=temperature, chunk_size=2)
        for b, (ids, begin) in enumerate(zip(sequences, (2, 1, 3, 1))):
            rows = reference.rows(ids, temperature)
            check(len(got['logprobs'][b]) == len(ids) - begin, 'trl: one entry for each token of the completion')
            for i, t in enumerate(range(begin - 1, len(ids) - 1)):
                best = numpy.argsort(-rows[t], kind='stable')[:k]
                check(numpy.abs(rows[t][best] - numpy.array(got['logprobs'][b][i])).max() < TOLERANCE, 'trl: logprobs')
                check(numpy.abs(rows[t][got['logprob_token_ids'][b][i]] - rows[t][best]).max() < TOLERANCE, 'trl: ids')
                check(abs(got['actual_logprobs'][b][i][0] - rows[t][ids[t + 1]]) < TOLERANCE, 'trl: actual_logprobs')


def with_axolotl(url, reference, tokenizer):
    """The request of its online teacher, and what it reads of the answer: the first K in the order of the object."""
    sequences, k, temperature = [tokenizer(text)['input_ids'] for text in TEXTS], 8, 1.5
    answer = requests.post(url + '/v1/completions', headers={'Accept-Encoding': 'deflate, gzip, br, zstd'}, timeout=60, json={
        'prompt': sequences, 'echo': True, 'logprobs': True, 'prompt_logprobs': k, 'top_logprobs': k, 'max_new_tokens': 0,
        'skip_special_tokens': False, 'temperature': temperature, 'sampling_params': {'max_tokens': 0}})
    answer.raise_for_status()
    for ids, choice in zip(sequences, answer.json()['choices']):
        rows, entries = reference.rows(ids, temperature), choice['prompt_logprobs']
        check(len(entries) == len(ids) and entries[0] is None, 'axolotl: one entry for each token')
        for t, entry in enumerate(entries[1:]):
            listed = list(entry.items())
            best = numpy.sort(rows[t])[::-1][:k]
            check(numpy.abs(best - [e['logprob'] for _, e in listed[:k]]).max() < TOLERANCE, 'axolotl: the K likeliest come first')
            check(abs(entry[str(ids[t + 1])]['logprob'] - rows[t][ids[t + 1]]) < TOLERANCE, 'axolotl: the token itself')
            check(k <= len(listed) <= k + 1, 'axolotl: K entries, or one more')
            rank = entry[str(ids[t + 1])]['rank']
            check(abs(rank - 1 - int((rows[t] > rows[t][ids[t + 1]]).sum())) <= 1, 'axolotl: rank')


def with_lm_eval(url, reference, tokenizer):
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI
    model = LocalCompletionsAPI(base_url=url + '/v1/completions', model='teacher', batch_size=3, num_concurrent=1)
    check(model.tokenizer_backend == 'remote', 'lm-eval: takes the tokenizer from the daemon')
    pairs = [(text[:8], text[8:]) for text in TEXTS] + [(TEXTS[0], ' and'), (TEXTS[1], ' Paris')]
    pairs += [(text, tokenizer.decode([int(reference.rows(tokenizer(text, add_special_tokens=False)['input_ids'])[-1].argmax())]))
              for text in TEXTS]
    got = model.loglikelihood([Instance('loglikelihood', {}, pair, i) for i, pair in enumerate(pairs)])
    greedy = 0
    for (context, continuation), (total, is_greedy) in zip(pairs, got):
        head = tokenizer(context.rstrip(), add_special_tokens=False)['input_ids']  # lm-eval moves spaces to the continuation
        ids = tokenizer(context + continuation, add_special_tokens=False)['input_ids']
        ids = head + ids[len(head):]  # as it asks, also where the context alone is cut otherwise
        rows = reference.rows(ids)
        want = sum(rows[t][ids[t + 1]] for t in range(len(head) - 1, len(ids) - 1))
        likeliest = all(rows[t].argmax() == ids[t + 1] for t in range(len(head) - 1, len(ids) - 1))
        check(abs(total - want) < TOLERANCE * (len(ids) - len(head)), f'lm-eval: log-likelihood {total} of {want}')
        check(is_greedy == likeliest, 'lm-eval: greedy')
        greedy += likeliest
    check(greedy > 0, 'lm-eval: some continuations are greedy')
    rolling = model.loglikelihood_rolling([Instance('loglikelihood_rolling', {}, (text,), i) for i, text in enumerate(TEXTS)])
    check(all(math.isfinite(float(r)) for r in rolling), 'lm-eval: rolling log-likelihoods')
    wanted = [Instance('generate_until', {}, (text, {'until': ['\n\n'], 'max_gen_toks': 12, 'temperature': 0}), i)
              for i, text in enumerate(TEXTS)]
    for text, written in zip(TEXTS, model.generate_until(wanted)):
        ids = tokenizer(text, add_special_tokens=False)['input_ids']
        for _ in range(12):
            ids.append(int(reference.rows(ids)[-1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
        check(tokenizer.decode(ids, skip_special_tokens=True).endswith(written), f'lm-eval: generate_until {written!r}')


def with_pooling(url, reference, tokenizer):
    """A client of vLLM's token_embed: states that the model's own head turns into the distributions above."""
    sequences = [tokenizer(text)['input_ids'] for text in TEXTS]
    answer = requests.post(url + '/pooling', json={
        'model': 'teacher', 'input': sequences, 'task': 'token_embed', 'use_activation': False, 'add_special_tokens': False,
        'encoding_format': 'bytes', 'embed_dtype': 'float32', 'endianness': 'little'})
    answer.raise_for_status()
    for ids, item in zip(sequences, json.loads(answer.headers['metadata'])['data']):
        rows = numpy.frombuffer(answer.content[item['start']:item['end']], dtype='<f4').reshape(item['shape'])
        with torch.inference_mode():
            got = reference.model.lm_head(torch.from_numpy(rows.copy())).double().log_softmax(-1).numpy()
        check(numpy.abs(got - reference.rows(ids)).max() < TOLERANCE, 'pooling: states and head give the distributions')


def with_gather(url, reference, tokenizer):
    """The student's own ids at each position of an answer, as prime-rl and vime ask vLLM for them."""
    for text, start in zip(TEXTS, (0, 1, 5, 2)):
        ids, rng = tokenizer(text)['input_ids'], numpy.random.default_rng(start)
        size = reference.rows(ids).shape[1]
        wanted = [rng.choice(size, 1 + t % 4, replace=False).tolist() for t in range(start, len(ids) - 1)]
        answer = requests.post(url + '/inference/v1/generate', json={'model': 'teacher', 'token_ids': ids, 'sampling_params': {
            'max_tokens': 1, 'temperature': 1, 'prompt_logprob_start': start, 'prompt_logprob_token_ids': wanted}})
        answer.raise_for_status()
        scores = numpy.load(io.BytesIO(base64.b64decode(answer.json()['prompt_token_id_logprobs'])))
        check(scores.dtype == numpy.float32 and scores.shape == (len(wanted), max(map(len, wanted))), 'gather: a .npy of rows')
        for i, row in enumerate(wanted):
            check(numpy.abs(scores[i][:len(row)] - reference.rows(ids)[start + i][row]).max() < TOLERANCE, 'gather: chosen ids')
            check(numpy.isneginf(scores[i][len(row):]).all(), 'gather: minus infinity for none')


def with_sglang(url, reference, tokenizer):
    """slime's and miles' requests of a teacher, Axolotl's (the first K of each list), and lm-evaluation-harness's client."""
    sequences, k = [tokenizer(text)['input_ids'] for text in TEXTS], 8

    def generate(**body):
        answer = requests.post(url + '/generate', json=body, timeout=60)
        answer.raise_for_status()
        return answer.json()

    for ids in sequences:
        rows, chosen = reference.rows(ids), [3, 150, 7]
        meta = generate(input_ids=ids, sampling_params={'temperature': 0, 'max_new_tokens': 0, 'skip_special_tokens': False},
                        return_logprob=True, logprob_start_len=0, top_logprobs_num=k, token_ids_logprob=chosen)['meta_info']
        own = meta['input_token_logprobs']
        check([entry[1] for entry in own] == ids and own[0][0] is None, 'slime: one entry for each token')
        check(max(abs(own[t + 1][0] - rows[t][ids[t + 1]]) for t in range(len(ids) - 1)) < TOLERANCE, 'slime: the token itself')
        for t, (top, at) in enumerate(zip(meta['input_top_logprobs'][1:], meta['input_token_ids_logprobs'][1:])):
            check(numpy.abs(numpy.sort(rows[t])[::-1][:k] - [entry[0] for entry in top]).max() < TOLERANCE, 'slime: the likeliest')
            check([entry[1] for entry in at] == chosen, 'slime: the chosen ids')
            check(numpy.abs(rows[t][chosen] - [entry[0] for entry in at]).max() < TOLERANCE, 'slime: chosen ids')
        rng, start = numpy.random.default_rng(len(ids)), len(ids) // 2
        wanted = [[] for _ in range(start)] + [rng.choice(rows.shape[1], 4, replace=False).tolist() for _ in ids[start:]]
        at = generate(input_ids=ids, sampling_params={'max_new_tokens': 0, 'temperature': 0}, return_logprob=True, logprob_start_len=0,
                      token_ids_logprob_positions=wanted)['meta_info']['input_token_ids_logprobs']
        for t, (row, entries) in enumerate(zip(wanted, at)):
            check((entries is None) == (not row or t == 0), 'miles: nothing where nothing is wanted')
            check(not row or numpy.abs(rows[t - 1][row] - [entry[0] for entry in entries]).max() < TOLERANCE, 'miles: ids of a position')
    answers = generate(input_ids=sequences, return_logprob=True, top_logprobs_num=k, logprob_start_len=0, return_text_in_logprobs=True,
                       sampling_params={'max_new_tokens': 0, 'temperature': 1.0, 'skip_special_tokens': False})
    for ids, answer in zip(sequences, answers):
        rows, listed = reference.rows(ids), answer['meta_info']['input_top_logprobs']
        check(len(listed) == len(ids) and listed[0] is None, 'axolotl, sglang: one entry for each token')
        for t, top in enumerate(listed[1:]):
            check(numpy.abs(numpy.sort(rows[t])[::-1][:k] - [e[0] for e in top]).max() < TOLERANCE, 'axolotl, sglang: the likeliest')
            check([e[2] for e in top] == [tokenizer.decode([e[1]]) for e in top], 'axolotl, sglang: texts')
    flat = generate(input_ids=sequences[0], return_logprob=True, top_logprobs_num=k, logprob_start_len=0, sampling_params={'max_new_tokens': 0},
                    return_flat_raw_top_logprobs=True, return_flat_raw_top_logprobs_b64=True)['meta_info']
    values = numpy.frombuffer(base64.b64decode(flat['input_top_logprobs_val_flat_b64']), flat['input_top_logprobs_val_flat_b64_dtype'])
    want = numpy.sort(reference.rows(sequences[0])[:-1])[:, ::-1][:, :k]
    check(numpy.abs(values.reshape(flat['input_top_logprobs_shape']) - want).max() < TOLERANCE, 'sglang: flat arrays')
    from lm_eval.api.instance import Instance
    from lm_eval.models.sglang_generate_API import SGLANGGENERATEAPI
    model = SGLANGGENERATEAPI(base_url=url + '/generate', model='teacher', batch_size=2, tokenizer_backend='huggingface', tokenizer=tokenizer.name_or_path)
    for text, (total, _) in zip(TEXTS, model.loglikelihood([Instance('loglikelihood', {}, (t[:8], t[8:]), i) for i, t in enumerate(TEXTS)])):
        head = tokenizer(text[:8].rstrip(), add_special_tokens=False)['input_ids']
        ids = tokenizer(text, add_special_tokens=False)['input_ids']
        ids = head + ids[len(head):]
        rows = reference.rows(ids)
        want = sum(rows[t][ids[t + 1]] for t in range(len(head) - 1, len(ids) - 1))
        check(abs(total - want) < TOLERANCE * len(ids), f'lm-eval, sglang: log-likelihood {total} of {want}')
    answer = generate(input_ids=sequences[1], return_logprob=True, sampling_params={'max_new_tokens': 9, 'temperature': 0, 'ignore_eos': True})
    rows, written = reference.rows(sequences[1] + answer['output_ids'])[len(sequences[1]) - 1:], answer['output_ids']
    check(len(written) == 9 and answer['meta_info']['completion_tokens'] == 9, 'sglang: 9 tokens')
    check(all(row.max() - row[t] < TOLERANCE for row, t in zip(rows, written)), 'sglang: the likeliest token each time')
    check(max(abs(rows[t][i] - logprob) for t, (logprob, i, _) in enumerate(answer['meta_info']['output_token_logprobs'])) < TOLERANCE,
          'sglang: their log-probabilities')


def with_embeddings(url, model):
    client = openai.OpenAI(base_url=url + '/v1', api_key='none', max_retries=0)
    ids = [[11, 48, 85], [25, 62]]
    answer = client.embeddings.create(model='teacher', input=ids)  # base64, which the client asks for by itself
    for one, item in zip(ids, answer.data):
        with torch.inference_mode():
            states = model(input_ids=torch.tensor([one])).last_hidden_state[0]
        want = torch.nn.functional.normalize(states.mean(0, keepdim=True))[0].numpy()
        check(numpy.abs(want - numpy.array(item.embedding, dtype=numpy.float32)).max() < TOLERANCE, 'openai: embeddings')


def with_tokenizer(url, reference, tokenizer):
    """As vLLM's users call it."""
    for text in TEXTS + ['<s>' if '<s>' in tokenizer.get_vocab() else tokenizer.eos_token]:
        for special in (True, False):
            answer = requests.post(url + '/tokenize', json={'prompt': text, 'add_special_tokens': special, 'return_token_strs': True}).json()
            ids = tokenizer(text, add_special_tokens=special)['input_ids']
            check(answer['tokens'] == ids and answer['count'] == len(ids), 'tokenize')
            check(answer['token_strs'] == tokenizer.convert_ids_to_tokens(ids), 'token_strs')
        back = requests.post(url + '/detokenize', json={'tokens': ids}).json()['prompt']
        check(back == tokenizer.decode(ids), 'detokenize')
    messages = [{'role': 'user', 'content': TEXTS[0]}, {'role': 'assistant', 'content': 'yes'}, {'role': 'user', 'content': 'why?'}]
    for generate in (True, False):
        answer = requests.post(url + '/v1/tokenize', json={'messages': messages, 'add_generation_prompt': generate}).json()
        want = tokenizer.apply_chat_template(messages, add_generation_prompt=generate, tokenize=True, return_dict=False)
        check(answer['tokens'] == want, 'messages')
    info = requests.get(url + '/tokenizer_info').json()
    check(info['eos_token'] == tokenizer.eos_token and info['chat_template'] == tokenizer.chat_template, 'tokenizer_info')


def main():
    build = pathlib.Path(sys.argv[1])
    os.environ.setdefault('HF_HUB_OFFLINE', '1')
    with tempfile.TemporaryDirectory(prefix='limbeck-clients-model-') as folder:
        path = sys.argv[2] if len(sys.argv) > 2 else make_model(folder)
        model, tokenizer = open_reference(path)
        reference, daemon = Reference(model), Daemon(build / 'server' / 'limbeckd', path)
        try:
            for client in (with_tokenizer, with_openai, with_streams, with_trl, with_axolotl, with_lm_eval, with_pooling, with_gather, with_sglang):
                before = checks
                client(daemon.url, reference, tokenizer)
                print(f'{client.__name__[5:]}: {checks - before} checks', flush=True)
        finally:
            ended = daemon.stop()
        check(ended == 0, 'limbeckd ends with 0')
        encoder = pathlib.Path(folder) / 'encoder'
        encoder.mkdir()
        model = encoders.make_encoder(encoders.ENCODERS['bert'], encoder)
        daemon = Daemon(build / 'server' / 'limbeckd', encoder)
        try:
            with_embeddings(daemon.url, model)
        finally:
            ended = daemon.stop()
        check(ended == 0, 'limbeckd ends with 0')
    print(f'{checks} passed, 0 failed')


if __name__ == '__main__':
    main()
