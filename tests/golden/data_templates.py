"""Renders chat templates with transformers, as golden values for simplemix-data.

Run with: transformers==5.23.0, jinja2==3.1.6, trl==1.16.0 (whose chat_templates folder has most of the texts).

    python data_templates.py OUT.json NAME...   (names of trl/chat_templates; without names, all of them)

Every case is a conversation, the arguments, and the text, or null where the template refuses the conversation.
The templates at the end are short and written out here.
"""

import datetime
import json
import pathlib
import sys

import transformers
import trl
from transformers.utils import chat_template_utils

assert transformers.__version__ == "5.23.0" and trl.__version__ == "1.16.0"


class Noon(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 5, 12, 0, 0)


chat_template_utils.datetime = Noon

TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}

USER = {"role": "user", "content": "  What is 2 + 2 < 5?\n"}
ANSWER = {"role": "assistant", "content": "It's \"4\" — vier & 四 😀."}
THOUGHT = {"role": "assistant", "content": "<think>\nTwo and two.\n</think>\n\nFour."}
SYSTEM = {"role": "system", "content": "Be brief.\n"}
AGAIN = {"role": "user", "content": "Sure?"}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"type": "function", "id": "call12345", "function": {"name": "add", "arguments": {"b": 2.0, "a": [1, None, True]}}}
    ],
}
RESULT = {"role": "tool", "name": "add", "tool_call_id": "call12345", "content": "4"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds <two> 'numbers' & more.",
            "parameters": {
                "type": "object",
                "properties": {"b": {"type": "number", "description": "é"}, "a": {"type": "integer"}},
                "required": ["b", "a"],
            },
        },
    }
]

CASES = [
    ([USER], {"add_generation_prompt": True}),
    ([USER, ANSWER], {}),
    ([SYSTEM, USER, ANSWER], {}),
    ([SYSTEM, USER, ANSWER, AGAIN], {"add_generation_prompt": True}),
    ([USER, THOUGHT, AGAIN, ANSWER], {}),
    ([USER, AGAIN], {}),
    ([USER, ANSWER], {"enable_thinking": False, "add_generation_prompt": True}),
    ([SYSTEM, USER, CALL, RESULT, ANSWER], {"tools": TOOLS}),
    ([USER, CALL, RESULT], {"tools": TOOLS, "add_generation_prompt": True}),
]

OWN = {
    "chatml": "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "smollm2": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "zephyr": "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
    "tulu3": "{% for message in messages %}{% if message['role'] == 'system' %}{{ '<|system|>\n' + message['content'] + '\n' }}{% elif message['role'] == 'user' %}{{ '<|user|>\n' + message['content'] + '\n' }}{% elif message['role'] == 'assistant' %}{% if not loop.last %}{{ '<|assistant|>\n'  + message['content'] + eos_token + '\n' }}{% else %}{{ '<|assistant|>\n'  + message['content'] + eos_token }}{% endif %}{% endif %}{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}",
    "llama2": "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    "mistral": "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}",
}


def render(template, messages, arguments):
    try:
        texts, _ = chat_template_utils.render_jinja_template([messages], chat_template=template, **arguments, **TOKENS)
        return texts[0]
    except Exception as error:  # a refusal by the template, whatever its class
        print("  refused:", type(error).__name__, str(error)[:100], file=sys.stderr)
        return None


def main():
    out, *names = sys.argv[1:]
    folder = pathlib.Path(trl.__file__).parent / "chat_templates"
    names = names or sorted(path.stem for path in folder.glob("*.jinja"))
    templates = {name: (folder / f"{name}.jinja").read_text() for name in names} | OWN
    golden = {
        "tokens": TOKENS,
        "cases": [{"messages": messages, "arguments": arguments} for messages, arguments in CASES],
        "templates": {},
    }
    for name, template in templates.items():
        print(name, file=sys.stderr)
        texts = [render(template, messages, arguments) for messages, arguments in CASES]
        golden["templates"][name] = {"template": template, "texts": texts}
    pathlib.Path(out).write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")


main()
