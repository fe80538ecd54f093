#!/usr/bin/env python3
"""Limbeck and transformers on the same chat templates: do both write the same text?

usage: chat_templates.py BUILD FILE_OR_FOLDER...   (BUILD: the build folder; needs requirements.txt beside this file)
Templates are *.jinja, tokenizer_config.json (its chat_template) or *.json with a "chat_template" or "template". Each is
rendered with each of the conversations below by apply_chat_template's own function and by Limbeck. One line a template;
exit status 0 only when every text is equal to the byte, generation spans included, and what one refuses the other
refuses.
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile

from transformers.utils import chat_template_utils

WORDS = {'bos_token': '<s>', 'eos_token': '</s>', 'pad_token': '<pad>', 'unk_token': '<unk>'}
SYSTEM = {'role': 'system', 'content': 'You are helpful.\n'}
USER = {'role': 'user', 'content': 'Hi there'}
ASSISTANT = {'role': 'assistant', 'content': 'Hello! What can I do?'}
TOOLS = [{'type': 'function', 'function': {
    'name': 'get_weather', 'description': 'The weather at a place, <now> & "later".',
    'parameters': {'type': 'object', 'required': ['city'], 'properties': {
        'city': {'type': 'string', 'description': 'A city'},
        'unit': {'type': 'string', 'enum': ['celsius', 'fahrenheit'], 'description': 'Unit'},
        'days': {'type': 'integer', 'default': 3}}}}},
         {'type': 'function', 'function': {
             'name': 'add', 'description': 'Adds.', 'parameters': {'type': 'object', 'required': ['a', 'b'], 'properties': {
                 'a': {'type': 'number', 'description': 'One'}, 'b': {'type': 'number', 'description': 'Other'}}}}}]
CALL = {'role': 'assistant', 'content': '', 'tool_calls': [
    {'id': 'call00001', 'type': 'function', 'function': {'name': 'get_weather', 'arguments': {
        'city': 'Zürich', 'days': 2, 'deep': {'x': [1, 2.5, None, True]}}}}]}
ANSWER = {'role': 'tool', 'tool_call_id': 'call00001', 'name': 'get_weather', 'content': '{"temperature": 21}'}
CONVERSATIONS = {
    'one': {'messages': [USER]},
    'prompt': {'messages': [USER], 'add_generation_prompt': True},
    'system': {'messages': [SYSTEM, USER, ASSISTANT]},
    'turns': {'messages': [USER, ASSISTANT, {'role': 'user', 'content': '  And now?  \n'},
                           {'role': 'assistant', 'content': ' Nothing.\n\n'}, USER], 'add_generation_prompt': True},
    'long': {'messages': [SYSTEM] + [USER, ASSISTANT] * 5},
    'unicode': {'messages': [{'role': 'user', 'content': 'Grüße, 你好 🙂 ñ "\'\\ \t <|im_end|> </s>'},
                             {'role': 'assistant', 'content': '\u2028ok\u00a0é'}]},
    'empty': {'messages': [{'role': 'system', 'content': ''}, {'role': 'user', 'content': ''},
                           {'role': 'assistant', 'content': ''}]},
    'tools': {'messages': [SYSTEM, USER], 'tools': TOOLS, 'add_generation_prompt': True},
    'calls': {'messages': [USER, CALL, ANSWER, ASSISTANT], 'tools': TOOLS},
    'call text': {'messages': [SYSTEM, USER, dict(CALL, tool_calls=[dict(CALL['tool_calls'][0], function={
        'name': 'add', 'arguments': '{"a": 1, "b": 2}'})]), ANSWER], 'tools': TOOLS, 'add_generation_prompt': True},
    'parts': {'messages': [{'role': 'user', 'content': [{'type': 'text', 'text': 'Look: '}, {'type': 'text', 'text': 'here'}]},
                           {'role': 'assistant', 'content': [{'type': 'text', 'text': 'Seen.'}]}]},
    'thinking off': {'messages': [SYSTEM, USER], 'enable_thinking': False, 'add_generation_prompt': True},
    'thinking': {'messages': [USER, {'role': 'assistant', 'content': '<think>\nhm\n</think>\n\nYes.'}, USER,
                              dict(ASSISTANT, reasoning_content='because'), USER], 'enable_thinking': True,
                 'add_generation_prompt': True},
    'two users': {'messages': [USER, USER]},
    'system only': {'messages': [SYSTEM], 'add_generation_prompt': True},
    'documents': {'messages': [USER], 'documents': [{'title': 'A', 'text': 'First.'}, {'title': 'B', 'text': 'Second.'}],
                  'add_generation_prompt': True},
}


def theirs(template, case):
    """What apply_chat_template renders: {'text', 'generation'} or {'error'}."""
    case = dict(case)
    generates = re.search(r'\{%-?\s*generation\s*-?%\}', template)
    try:
        texts, spans = chat_template_utils.render_jinja_template(
            [case.pop('messages')], chat_template=template, return_assistant_tokens_mask=bool(generates), **case, **WORDS)
    except Exception as error:  # whatever Python raises, the template refuses
        return {'error': f'{type(error).__name__}: {error}'}
    at = [len(texts[0][:i].encode()) for i in range(len(texts[0]) + 1)] if spans else []
    joined = []
    for start, end in ([at[s], at[e]] for s, e in (spans[0] if spans else [])):
        if joined and joined[-1][1] == start:
            joined[-1][1] = end
        elif end > start:
            joined.append([start, end])
    return {'text': texts[0], 'generation': joined}


def given(case):
    """The data that render_jinja_template hands to the template."""
    data = dict(case)
    data['messages'] = chat_template_utils._alias_reasoning_fields(data['messages'])
    return {'add_generation_prompt': False, 'tools': None, 'documents': None, **data}


def ours(program, template, folder):
    (folder / 'template').write_text(template, newline='')
    (folder / 'cases').write_text(json.dumps([{'data': given(case), 'words': WORDS} for case in CONVERSATIONS.values()]))
    run = subprocess.run([program, folder / 'template', folder / 'cases'], capture_output=True, check=True, timeout=60)
    return json.loads(run.stdout)


def templates(paths):
    for path in paths:
        for file in sorted(path.rglob('*')) if path.is_dir() else [path]:
            if file.suffix == '.jinja':
                yield file.name, file.open(newline='').read()
            elif file.suffix == '.json':
                config = json.loads(file.read_text())
                found = config.get('chat_template', config.get('template')) if isinstance(config, dict) else None
                for one in found if isinstance(found, list) else [{'name': '', 'template': found}]:
                    if isinstance(one['template'], str):
                        yield f'{file.name} {one["name"]}'.strip(), one['template']


def compare(want, got):
    if 'error' in want or 'error' in got:
        return '' if 'error' in want and 'error' in got else f'theirs {want}, ours {got}'
    if want['text'] != got['text']:
        at = next((i for i, (a, b) in enumerate(zip(want['text'], got['text'])) if a != b), -1)
        return f'differs at {at}: theirs ...{want["text"][max(at - 20, 0):at + 40]!r}, ours {got["text"][max(at - 20, 0):at + 40]!r}'
    return '' if want['generation'] == got['generation'] else f'generation {want["generation"]}, ours {got["generation"]}'


def main():
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    program = pathlib.Path(sys.argv[1]) / 'tests/support/render_chat'
    counts = {'equal': 0, 'different': 0, 'refused': 0}
    texts = errors = 0
    with tempfile.TemporaryDirectory() as name:
        for title, template in templates(map(pathlib.Path, sys.argv[2:])):
            results = ours(program, template, pathlib.Path(name))
            wanted = [theirs(template, case) for case in CONVERSATIONS.values()]
            if isinstance(results, dict):
                sort = 'equal' if all('error' in want for want in wanted) else 'refused'
                lines = [results['refused']]
            else:
                lines = [f'  {case}: {line}' for case, want, got in zip(CONVERSATIONS, wanted, results)
                         if (line := compare(want, got))]
                sort = 'different' if lines else 'equal'
                texts += sum('text' in want for want in wanted)
                errors += sum('error' in want for want in wanted)
            counts[sort] += 1
            print(f'{sort}: {title}', *lines, sep='\n')
    print(f'{counts["equal"]} templates equal, {counts["different"]} different, {counts["refused"]} refused; '
          f'{texts} texts, {errors} refusals by the templates themselves')
    return 1 if counts['different'] or counts['refused'] else 0


if __name__ == '__main__':
    sys.exit(main())
