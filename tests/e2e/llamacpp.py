#!/usr/bin/env python3
"""What llama.cpp's server says, from a limbeckd's numbers: one model of one slot.

    llamacpp.py TEACHER_URL PORT_FILE VOCABULARY     (ends with its parent's script)

Answers have its form (tools/server: /v1/models, /props, /tokenize, /completion with a list of texts), and its ways: a list
is told behind each text for what was written alone, entries come with an index, texts of tokens may hold any byte.
"""
import http.server
import json
import os
import sys
import urllib.request

teacher, port_file, vocabulary = sys.argv[1], sys.argv[2], int(sys.argv[3])
CONTEXT = 48


def ask(path, body):
    request = urllib.request.Request(teacher + path, json.dumps(body).encode(), {'Content-Type': 'application/json'})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def told(token, logprob):
    return {'id': token, 'token': '\u0000', 'bytes': [0, 226, 130, 172], 'logprob': logprob}


def completion(question):
    assert question['n_predict'] == 1 and question['id_slot'] == 0 and not question['post_sampling_probs']
    texts, k = question['prompt'], question['n_probs']
    answers = ask('/generate', {'input_ids': texts, 'sampling_params': {'max_new_tokens': 0}, 'return_logprob': True,
                                'top_logprobs_num': k})
    written = question['logit_bias'][0][0]
    out = []
    for i, (text, answer) in enumerate(zip(texts, answers)):
        top = answer['meta_info']['output_top_logprobs'][0]
        first = dict(told(written, -9.0), top_logprobs=[told(token, logprob) for logprob, token, _ in top])
        out.append({'index': i, 'tokens_evaluated': len(text), 'completion_probabilities': [first]})
    return out if len(out) > 1 else out[0]


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True  # the header and the body are two writes: 40 ms an answer otherwise

    def log_message(self, form, *values):
        pass

    def answer(self, code, value):
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header('Content-Type', 'application/json; charset=utf-8')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == '/v1/models':
            meta = {'vocab_type': 2, 'n_vocab': vocabulary, 'n_ctx': CONTEXT, 'n_ctx_train': 64, 'n_embd': 24}
            self.answer(200, {'object': 'list', 'data': [{'id': '/models/m.gguf', 'object': 'model', 'owned_by': 'llamacpp',
                                                          'meta': meta}]})
        elif self.path == '/props':
            self.answer(200, {'build_info': 'b1-test', 'total_slots': 1, 'chat_template': '{{ messages }}'})
        else:
            self.answer(404, {'error': {'code': 404, 'message': 'File Not Found', 'type': 'not_found_error'}})

    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        if self.path == '/completion':
            self.answer(200, completion(question))
        elif self.path == '/tokenize':
            self.answer(200, {'tokens': ask('/tokenize', {'prompt': question['content']})['tokens']})
        else:
            self.answer(404, {'error': {'code': 404, 'message': 'File Not Found', 'type': 'not_found_error'}})


server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Server)
with open(port_file + '.new', 'w') as file:
    file.write(str(server.server_address[1]))
os.rename(port_file + '.new', port_file)
server.serve_forever()
