"""Renders generated template constructs with transformers' Jinja environment, as golden values for simplemix-data.

Run with: transformers==5.24.0, jinja2==3.1.6.

    python data_template_constructs.py OUT.json

Every case is a template and its text, or null where Jinja refuses it or writes something that differs from run to run, such as
the address of an object.
"""

import itertools
import json
import pathlib
import re
import sys

import jinja2
import transformers
from transformers.utils.chat_template_utils import _compile_jinja_template, _plain_template_data

assert transformers.__version__ == "5.24.0" and jinja2.__version__ == "3.1.6"

CONTEXT = {
    "messages": [
        {"role": "system", "content": "Be brief.\n"},
        {"role": "user", "content": "  Wie geht's?\r\nSo-so, é☃ <b>&amp;\n"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\n\"Gut\" 7", "tool_calls": [{"name": "f", "arguments": {"x": 1, "y": [1.5, None, True]}}]},
    ],
    "tools": None,
    "documents": None,
    "add_generation_prompt": True,
    "eos_token": "</s>",
    "s": "Hello big-World_3 it's ǆ ß ﬁn é",
    "t": "a,b,,c",
    "w": "  \t x y\u00a0 \n\x1c\u3000",
    "e": "",
    "n": 7,
    "z": 0,
    "m": -3,
    "x": 2.5,
    "big": 1e16,
    "tiny": 0.00001,
    "l": [3, 1, 2],
    "k": ["b", "A", "a", "B"],
    "o": [],
    "d": {"b": 1, "a": "x", "items": [1, 2], "n": None},
    "r": [{"g": "u", "v": 2}, {"g": "v", "v": 1}, {"g": "u", "v": 3}],
    "mix": [1, "a", None, True, 2.0, [1], {"k": "v"}],
    "yes": True,
    "no": False,
    "nil": None,
}

# Receivers of methods, and argument lists by method.
TEXTS = ["s", "t", "w", "e", "messages[1].content", "messages[2].content", "'aXbXc'", "'12'", "'Ⅷ²٣'", "'ABC'", "'a\\tb\\n'"]
TEXT_METHODS = {
    "capitalize": [""], "casefold": [""], "lower": [""], "upper": [""], "title": [""], "swapcase": [""],
    "strip": ["", "' \\n'", "'<>b/'", "none"], "lstrip": ["", "'\\n'", "'aH<'"], "rstrip": ["", "'\\n'", "'c7é3'"],
    "split": ["", "','", "'\\n'", "' ', 1", "'X', -1", "none, 1", "sep=','", "',', maxsplit=1", "''"],
    "rsplit": ["", "','", "'\\n', 1", "none, 1", "sep='X', maxsplit=1"],
    "splitlines": ["", "true", "keepends=true"],
    "partition": ["','", "'</think>'", "''"], "rpartition": ["','", "'X'"],
    "removeprefix": ["'<think>'", "'a'"], "removesuffix": ["'\\n'", "'c'"],
    "replace": ["'a', 'Z'", "'X', ''", "'', '-'", "'a', 'b', 1", "'a', 'b', -1", "'a', 'b', count=1", "'a'"],
    "find": ["'X'", "'b', 2", "'b', 0, 2", "'☃'", "''"], "rfind": ["'X'", "'b', 2"], "index": ["'b'"], "rindex": ["'b'"],
    "count": ["'a'", "''", "'b', 1", "'X', 0, 2"],
    "startswith": ["'a'", "('x', 'H')", "'b', 2", "['a']", "1", "'a', 0, 1"], "endswith": ["'c'", "('x', '\\n')", "'b', 0, 3"],
    "center": ["12", "12, '*'", "3"], "ljust": ["12", "12, '.'"], "rjust": ["12", "12, '0'"], "zfill": ["8", "2"],
    "expandtabs": ["", "4"], "join": ["['x', 'y']", "k", "'xyz'", "[1, 2]", "[]"], "encode": [""],
    "isdigit": [""], "isnumeric": [""], "isdecimal": [""], "isalpha": [""], "isalnum": [""], "isspace": [""], "islower": [""],
    "isupper": [""], "istitle": [""], "isidentifier": [""], "isprintable": [""], "isascii": [""],
    "format": ["", "1, b=2"], "nosuch": [""], "__len__": [""],
}
LISTS = ["l", "k", "o", "mix", "messages", "(1, 2)", "[[1], [2]]"]
LIST_METHODS = {
    "count": ["1", "'a'"], "index": ["1", "'a'", "2, 1", "'zz'"], "copy": [""], "append": ["1"], "extend": ["[1]"], "pop": [""],
    "insert": ["0, 1"], "remove": ["1"], "reverse": [""], "sort": [""], "clear": [""], "nosuch": [""],
}
DICTS = ["d", "messages[0]", "{}", "{'a': 1, 2: 'b'}"]
DICT_METHODS = {
    "get": ["'a'", "'zz'", "'zz', 5", "'n', 5", ""], "items": [""], "keys": [""], "values": [""], "copy": [""],
    "update": ["{'q': 1}"], "pop": ["'a'"], "setdefault": ["'a', 1"], "clear": [""], "fromkeys": ["['a']"], "nosuch": [""],
}
NUMBER_METHODS = {"bit_length": [""], "is_integer": [""], "conjugate": [""], "nosuch": [""]}

VALUES = ["s", "w", "e", "n", "m", "x", "big", "l", "k", "o", "d", "mix", "yes", "nil", "nope", "messages[1].content", "'<a> & \\'b\\''", "(1, 'a')", "r"]
FILTERS = {
    "abs": [""], "attr": ["('role')"], "batch": ["(2)", "(2, 'f')"], "capitalize": [""], "center": ["(12)", ""], "count": [""],
    "d": ["('D')"], "default": ["('D')", "('D', true)", "(boolean=true)"], "dictsort": ["", "(true)", "(by='value')", "(reverse=true)"],
    "e": [""], "escape": [""], "filesizeformat": ["", "(true)"], "first": [""], "float": ["", "(1.5)"], "forceescape": [""],
    "format": ["(1)"], "groupby": ["('g')"], "indent": ["", "(2)", "(2, true)", "(2, blank=true)", "('> ')", "(width=1, first=true)"],
    "int": ["", "(9)", "(9, 16)"], "items": [""], "join": ["", "(', ')", "('-', attribute='v')"], "last": [""], "length": [""],
    "list": [""], "lower": [""], "map": ["('upper')", "(attribute='v')", "('string')", "('default', 'q')"], "max": ["", "(attribute='v')"],
    "min": ["", "(case_sensitive=true)"], "pprint": [""], "reject": ["", "('string')"], "rejectattr": ["('v', 'eq', 2)"],
    "replace": ["('a', 'b')", "('a', 'b', 1)"], "reverse": [""], "round": ["", "(1)", "(0, 'floor')", "(method='ceil')", "(-1)"], "safe": [""],
    "select": ["", "('number')"], "selectattr": ["('v')", "('g', 'equalto', 'u')"], "slice": ["(2)", "(2, 'f')"],
    "sort": ["", "(true)", "(case_sensitive=true)", "(attribute='v')"], "string": [""], "striptags": [""],
    "sum": ["", "(attribute='v')", "(start=1)"], "title": [""],
    "tojson": ["", "(indent=2)", "(ensure_ascii=true)", "(sort_keys=true)", "(separators=(',', ':'))", "(true)"], "trim": ["", "('H <')"],
    "truncate": ["(8)", "(8, true)", "(8, false, '~')", "(12, leeway=0)"], "unique": ["", "(true)", "(attribute='g')"], "upper": [""],
    "urlencode": [""], "wordcount": [""], "wordwrap": ["(8)", "(8, false)", "(5, wrapstring='|')"], "xmlattr": [""], "nosuch": [""],
}
TESTS = [
    "boolean", "callable", "defined", "divisibleby 2", "divisibleby(0)", "eq 7", "equalto('')", "escaped", "even", "odd", "false", "true",
    "filter", "test", "float", "ge 3", "gt(2)", "le 3", "lt 3", "greaterthan 3", "lessthan 3", "ne 7", "in [1, 7, '']", "integer", "iterable",
    "lower", "upper", "mapping", "none", "number", "sameas none", "sameas(7)", "sequence", "string", "undefined", "nosuch", "== 7", "!= 7",
]
OPERANDS = ["n", "z", "m", "x", "big", "yes", "nil", "nope", "s", "'a'", "'7'", "l", "o", "(1, 2)", "d", "2", "-0.5"]
OPERATORS = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", ">=", "in", "not in", "and", "or"]

LITERALS = """1e16|1.5e300|1e-5|0.0001|100000000000000000.0|123456789012345678.0|1_000|0x1f|0b11|0o17|1e3|1.0|-0.0|0.1+0.2|1/3|2/3*3|10**20
2**63|2**64|2**127|2**128|9223372036854775807+1|123456789012345678901234567890|-7//2|-7%3|7%-3|-7.5//2|7.5%-2|2**-1|2**0.5|(-8)**2|-2**2|1e308*10|-1e308*10
'a' 'b'|"q'q"|'q"q'|'\\'\\"'|'\\u00e9\\x41\\n\\t\\\\'|'\\a'|'\\101'|'\\d'|"a\\
b"|'\u2028'|['\u2028', '\\x07', 'é', '😀', "'", '"', '\\'"', '\\n\\t\\r\\\\']|('a',)|()|[()]|((1, 2), [3])|{1: 2, 'a': [1, (2,)]}|{}|[]|[none, true, false]|{true: 1}
[1.0, 1e16, 1e-7, 1e100, -0.0, 123456.789]|{'f': 1e22}|(1e16,)|[big, tiny]|big ~ tiny|[big] ~ ''|'x' ~ 1e16|'x' ~ (1, 2.0) ~ none ~ true ~ nope|1 ~ 2|1.0 ~ ''|none ~ ''|(big,) | string|big | string|tiny | string
True|False|None|TRUE|none is none|true + true|true * 3|not 0|not ''|not nope|1 if yes|1 if no|(1 if no) is defined|1 if no else 2 if no else 3|yes and 'a' or 'b'|nil or 'x'|o or l|e and 1|n and z
1 < 2 < 3|1 < 3 < 2|1 == 1.0|1 == true|'1' == 1|none == false|[1] == [1.0]|(1,) == [1]|{'a': 1} == {'a': 1.0}|'a' < 'b'|'a' < 'B'|[1, 2] < [1, 3]|(1, 2) < (2,)|1 < 'a'|none < 1|[1] < 1|{} < {}|nope == nope|nope == none|nope < 1|1 in [true]|'a' in d|1 in d|'ab' in 'cabd'|1 in 'a'|n in 5|nope in l|l in [[3, 1, 2]]
l[0]|l[-1]|l[5]|l[1:]|l[:-1]|l[::-1]|l[::2]|l[5:]|l[-2:]|l[0:0]|l['a']|l[1.0]|l[true]|l[nil:]|s[0]|s[-1]|s[100]|s[2:5]|s[::-1]|s[::3]|s[-3:]|s[5:2]|s['x']|(1, 2, 3)[1:]|(1,)[0]|d['a']|d['zz']|d.a|d.zz|d.items|d.items is defined|d.keys is defined|d['items']|d.n|d.zz.y|nil.x|nope.x|nope['x']|n.x|s.x|s.upper is defined|s.nosuch is defined|s.x is defined|n.real|x.real|s[1:][0]|messages[0]['role']|messages[0].role|messages[-1].tool_calls[0].arguments.y|messages | length
l[1:] | length|l[1:] | list|l[1:] is sequence|(l | reverse) is iterable|l[1:] + [9]|[9] + l[1:]|(l + [1]) | length|l + o|l * 2|2 * l|o * 3|(1, 2) + (3,)|(1, 2) * 2|'ab' * 3|3 * 'ab'|'ab' * -1|'ab' * 1.5|l - l|s - s|s + 1|1 + s|s + none|nope + 'a'|'a' + nope|nope ~ 'a'|nope * 2|-nope|-n|+n|-s|- -n|-(n)|not not n|n.__class__|s.__class__|d.__class__|s.format|messages.__len__
'%s and %d' % ('x', 3)|'%s' % 'x'|'%s' % n|'%d%%' % 5|'%5.1f|%-5s|%05d' % (x, 'a', 42)|'%(a)s %(b)d' % d|'%s' % (1,)|'%s' % [1, 2]|'%s %s' % 'x'|'%d' % 'x'|'%r' % 'x'|'%x %X %o %e %g %c' % (255, 255, 8, 12345.678, 0.00001, 'c')|'%+d % d' % (3, 4)|'%.3s' % 'abcdef'|'%*d' % (5, 3)|'%i' % 3.9|'%s' % nil|'%s' % yes|'%.2f' % 1e16|'%q' % 1|'%' % ()|'100%' % ()
'%s and %d' | format('x', 3)|'%.2f' | format(3.14159)|'%s' | format(l)|'%s' | format(nil)|'%s' | format(d)|'%5s|%-5s|' | format('a', 'b')|'%(x)s' | format(x=1)|'%s' | format|'%r' | format('a')
'{} {b}'.format(1, b=2)|'{:>5}'.format('a')|'{0!r}'.format('a')|'{0} {0}'.format('a')|'{1} {0}'.format('a', 'b')|'{:.2f}'.format(3.14159)|'{:05d}'.format(42)|'{:,}'.format(1234567)|'{:<5}|'.format('a')|'{:^5}|'.format('a')|'{:*^7}'.format('a')|'{{}}'.format()|'{'.format()|'{}'.format()|'{a.b}'.format(a=1)|'{0[k]}'.format({'k': 'v'})|'{!s}'.format(1)|'{:x}'.format(255)|'{:e}'.format(12345.678)|'{:%}'.format(0.25)|'{:b}'.format(5)|'{:+}'.format(3)|'{:>{w}}'.format('a', w=4)|'{}'.format(l)|'{}'.format(nil)|'{}'.format(big)|'{:d}'.format(1.5)|'{:s}'.format(1)|'{:g}'.format(1e10)|'{}{}'.format('a')
range(3)|range(3) | list|range(1, 10, 3) | list|range(5, 0, -2) | list|range(0)|range(3) | length|range(3)[1]|range(3) | join(',')|2 in range(3)|range(3) is sequence|range(3) is iterable|range('a')|range(1.5)|range(3, 1) | list|range(2) | string|range(2) | tojson|range(2) + [1]|dict(a=1)|dict(a=1, b='x') | items | list|dict([('a', 1)])|dict(d, z=1)|dict(d)|dict()|dict(1)|namespace(a=1).a|namespace(d).b|namespace(a=1)|namespace() is mapping|lipsum is defined|cycler is defined|joiner is defined|cycler('a', 'b').next()|joiner(', ')()|strftime_now is defined|raise_exception is defined|raise_exception('x')|tojson is defined|nosuch()|n()|s()
d.keys()|d.values()|d.items()|d.items() | list|d.keys() | list|d.values() | join(',')|d.keys() | length|d.keys() | first|d.items() | length|d.keys() is sequence|d.keys() is iterable|d.keys() is mapping|d | list|d | first|d | last|d | join(',')|d | length|d | reverse | list|d | items | list|d | dictsort|d | tojson|d | string|d | sort|d | max|d | sum|'b' in d.keys()|1 in d.values()|d.keys()[0]|d.items()[0]|d.keys() | tojson|d.items() | tojson|d.items() ~ ''|d.keys() == ['b', 'a', 'items', 'n']
l | map('string') | join(',')|l | map('string')|k | map('upper') | list|k | map('nosuch')|r | map(attribute='v') | list|r | map(attribute='zz') | list|r | map(attribute='zz', default=0) | list|r | map(attribute='g.x') | list|r | selectattr('v', 'gt', 1) | map(attribute='g') | list|r | selectattr('v', '>', 1) | list | length|r | rejectattr('g', 'in', ['u']) | list|r | selectattr('zz', 'defined') | list|r | groupby('g') | list|r | groupby('g') | map('first') | list|r | groupby('g') | map(attribute='grouper') | list|r | sum(attribute='v')|r | sort(attribute='v') | map(attribute='v') | list|r | sort(attribute='g,v') | map(attribute='v') | list|r | sort(attribute='v', reverse=true) | map(attribute='v') | list|r | unique(attribute='g') | list | length|r | max(attribute='v')|r | join(', ', attribute='g')|mix | select('string') | list|mix | reject('none') | list|mix | select | list|mix | map('string') | list|mix | tojson|mix | string|mix | join('|')|mix | unique | list|mix | sort|mix | batch(3) | list|mix | slice(3) | list|l | batch(2) | map('list') | list|l | select('odd') | list|l | select('>', 1) | list|l | select('divisibleby', 2) | list|l | first|l | random in l|l | select('even') | first|l | map('multiply')|(l | map('string')) ~ ''|(l | select) is sequence|(l | select) | length|l | list is sequence|l | tojson ~ 'x'|l | reverse|l | reverse | list|s | reverse|s | list | first|s | first|s | last|s | sort | join|s | unique | join|s | batch(10) | map('join') | list|s | map('upper') | join|s | max|k | sort | join|k | sort(case_sensitive=true) | join|k | unique | join|k | unique(case_sensitive=true) | join|k | max|k | min|k | dictsort
('<' | e) ~ '>'|('<' | e) + '>'|'>' + ('<' | e)|('<b>' | safe) + '<i>'|'<i>' + ('<b>' | safe)|('<b>' | safe) ~ '<i>'|['<b>' | safe, '<i>'] | join|['<b>' | e, '<i>'] | join('<')|('<b>' | safe) | e|('<b>' | e) | e|'<' | e | length|('<' | e) is string|('<' | e) is escaped|'<' is escaped|('<' | safe) is escaped|('<' | e) | upper|('<' | e) | replace('&', '<')|('<' | e).replace('&', 'x<')|('<b>' | safe) * 2|('<' | e) == '&lt;'|['<' | e]|('<b>' | safe) | trim|('%s' | safe) % '<'|('%s' | safe) | format('<')|('{}' | safe).format('<')|('<' | e).join(['<', '>'])|d | tojson | e|d | tojson | safe|n | e|nil | e|l | e|s | forceescape|('<' | e) | forceescape|('<b>x</b>' | safe).striptags()|('a&amp;' | safe).unescape()|'<' | escape ~ '>'
n | int|'12' | int|' 12 ' | int|'1_0' | int|'x' | int|'x' | int(5)|'0x1f' | int(0, 16)|'1f' | int(0, 16)|'11' | int(base=2)|'1.9' | int|1.9 | int|-1.9 | int|nil | int|true | int|'1e3' | int|'1e3' | float|'nan' | float|'inf' | float|' 1.5 ' | float|'x' | float|nil | float|true | float|n | float|'٣' | int|2.5 | round|3.5 | round|-2.5 | round|2.675 | round(2)|1234.5 | round(-2)|7 | round|7 | round | int|2.1 | round(method='ceil')|2.9 | round(0, 'floor')|2.55 | round(1, 'ceil')|'2.5' | round|yes | round|3 / 2 | round|m | abs|x | abs|'a' | abs|true | abs|12345 | filesizeformat|1 | filesizeformat|1e9 | filesizeformat|2**30 | filesizeformat(true)|n | string | length|1.0 | string|1.5 | tojson|big | tojson|tiny | tojson|1e400 | tojson|nope | tojson|nope | string|nope | length|nope | default('x')|nope | default|nil | default('x')|nil | default('x', true)|nope.y | default('x')|d.zz | d('x')|nope | list|nope | join|nope | upper|nope | first|nope | e|nope | int|nope | float|nope | sum|nope | map('upper') | list|nope | trim|nope | replace('a', 'b')|nope is string|nope is iterable|nope is sequence|nope is mapping|nope is number|nil is iterable|e is iterable|n is iterable
s | indent|messages[1].content | indent(2)|messages[2].content | indent(2, first=true, blank=true)|'a\\n\\nb\\n' | indent(1)|'a\\n\\nb\\n' | indent(1, true, true)|'\\n' | indent|'' | indent(2, true)|'a\\r\\nb' | indent|s | truncate(9)|s | truncate(9, true)|s | truncate(9, true, '')|s | truncate(31)|s | truncate(28)|s | truncate(5, leeway=0)|s | wordwrap(10)|'aaaaaaaaaaaaaa bb' | wordwrap(5)|'aaaaaaaaaaaaaa bb' | wordwrap(5, false)|'a b\\nc d' | wordwrap(3)|'a-b c-d' | wordwrap(3)|'a-b c-d' | wordwrap(3, break_on_hyphens=false)|s | wordcount|w | wordcount|s | title|s | capitalize|"it's o'neil's x-ray 3rd a_b" | title|s | center(50)|'é☃/ &?=' | urlencode|{'a b': 'c&d', 'e': 1} | urlencode|[('a', 'b c')] | urlencode|'<p>a <b>b</b>\\n c</p><!-- x -->&lt;' | striptags|s | upper|s | lower|'ß' | upper|'İ' | lower|'ΑΣ' | lower|w | trim|w | trim | length|'xxaxx' | trim('x')|s | replace('l', '')|s | replace('l', 'L', 1)|s | replace('', '-', 3)|n | replace(7, 8)|s | length|s | pprint|d | pprint|{'class': 'a', 'x': none, 'y': 1} | xmlattr|s | urlize|s | batch(3) | list | length""".replace("|%-5s|%05d", "\u0001%-5s\u0001%05d")


def expressions():
    for receivers, methods in ((TEXTS, TEXT_METHODS), (LISTS, LIST_METHODS), (DICTS, DICT_METHODS), (["n", "x", "(3)"], NUMBER_METHODS)):
        for receiver, (method, arguments) in itertools.product(receivers, methods.items()):
            for argument in arguments:
                yield f"{receiver}.{method}({argument})"
    for value, (name, arguments) in itertools.product(VALUES, FILTERS.items()):
        for argument in arguments:
            yield f"{value} | {name}{argument}"
    for value, name in itertools.product(VALUES, TESTS):
        yield f"{value} is {name}"
    for left, operator, right in itertools.product(OPERANDS, OPERATORS, OPERANDS):
        yield f"{left} {operator} {right}"
    for line in LITERALS.split("\n"):
        for part in re.split(r"(?<! )\|(?! )", line):
            yield part.replace("\u0001", "|")


BLOCKS = [
    "{% set ns = namespace(x=0) %}{% for c in s %}{% set ns.x = ns.x + 1 %}{% endfor %}{{ ns.x }}",
    "{% for c in 'abc' if c != 'b' %}{{ c }}{{ loop.index }}{{ loop.length }}{% else %}none{% endfor %}",
    "{% for c in o %}{{ c }}{% else %}none{% endfor %}", "{% for c in nope %}{{ c }}{% else %}none{% endfor %}", "{% for c in nil %}{{ c }}{% else %}none{% endfor %}",
    "{% for c in n %}{{ c }}{% endfor %}", "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k in d %}{{ k }}{% endfor %}", "{% for k, v in d | items %}{{ k }}{% endfor %}",
    "{% for k, v in d | dictsort %}{{ k }}{% endfor %}", "{% for a, b in [(1, 2), [3, 4]] %}{{ a }}{{ b }}{% endfor %}", "{% for a, b in [(1, 2, 3)] %}{{ a }}{% endfor %}", "{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ c }}{% endfor %}",
    "{% for x in l %}{% if x == 3 %}{% continue %}{% endif %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for m in messages %}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem is defined }}{{ loop.nextitem.role }}{{ loop.cycle('a', 'b') }}{{ loop.changed(m.role) }}{{ loop.depth }}{{ loop.depth0 }};{% endfor %}",
    "{% for x in [1, [2, [3]]] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}{% endif %}{% endfor %}", "{% for x in l %}{% for y in l %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% for c in s %}{{ c if loop.last }}{% endfor %}", "{% for c in t[1:] %}{{ loop.last }}{{ loop.length }}{% endfor %}", "{% for x in l %}{{ loop }}{% endfor %}", "{% for x in l %}{{ loop is mapping }}{{ loop is callable }}{% endfor %}", "{{ nil[1:] }}", "{{ nope[1:] }}", "{{ d.keys()[1:] }}", "{{ n[:1] }}", "{{ d[1:] }}", "{{ range(4)[:2] }}", "{{ (l | select) | last }}", "{% macro f() %}{% endmacro %}{{ f is mapping }}{{ f }}",
    "{% for x in l %}{% set y = x %}{% endfor %}{{ y is defined }}", "{% set y = 1 %}{% for x in l %}{% set y = x %}{% endfor %}{{ y }}", "{% set y = 1 %}{% if yes %}{% set y = 2 %}{% endif %}{{ y }}", "{% for x in l %}{{ x }}{% endfor %}{{ x }}",
    "{% macro f(a, b=2) %}{{ a }}-{{ b }}-{{ varargs }}-{{ kwargs }}{% endmacro %}{{ f(1) }}{{ f(1, b=3) }}", "{% macro f(a, b=2) %}{{ a }}-{{ b }}{% endmacro %}{{ f(1) }}{{ f(1, 3) }}{{ f(b=1, a=2) }}{{ f() }}", "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}", "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, c=2) }}",
    "{% macro f(a) %}{{ a }}{% endmacro %}{{ f('<') }}{{ f('<') | e }}{{ f('x') + '<' }}{{ f(1) is string }}", "{% macro f(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}", "{% macro f() %}{{ n }}{% endmacro %}{% set n = 9 %}{{ f() }}",
    "{% macro g() %}{{ caller() }}!{% endmacro %}{% call g() %}hi{% endcall %}", "{% macro g() %}{{ caller(1) }}!{% endmacro %}{% call(x) g() %}hi{{ x }}{% endcall %}", "{% macro f(x) %}{% if x > 0 %}{{ x }}{{ f(x - 1) }}{% endif %}{% endmacro %}{{ f(3) }}", "{% macro f() %}a\n{% endmacro %}[{{ f() }}]", "{{ f is defined }}{% macro f() %}{% endmacro %}{{ f is defined }}{{ f is callable }}{{ f.name }}",
    "{% filter upper %}abc{{ s }}{% endfilter %}", "{% filter indent(2) %}a\nb{% endfilter %}", "{% set y %}abc{{ n }}{% endset %}{{ y }}{{ y is string }}{{ y | length }}", "{% set y | upper %}abc{% endset %}{{ y }}", "{% set y %}<{% endset %}{{ y + '<' }}{{ y ~ '<' }}{{ y | e }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a, b = (1, 2) %}{{ b }}", "{% set (a, b) = [1, 2] %}{{ a }}", "{% set a = 1, 2 %}{{ a }}", "{% set a = [1] %}{% set _ = a.append(2) %}{{ a }}", "{% do l.append(2) %}x", "{% set d2 = dict(d, q=1) %}{{ d2.q }}{{ d2.b }}", "{% set ns = namespace() %}{% set ns.a = [1] %}{% set ns.a = ns.a + [2] %}{{ ns.a }}", "{% set ns = namespace(a=1) %}{{ ns.zz }}{{ ns.zz is defined }}", "{% set ns = namespace(a=1) %}{% set ns._b = 2 %}{{ ns._b }}", "{% set d.q = 1 %}{{ d.q }}",
    "{% with q = 3 %}{{ q }}{% endwith %}{{ q }}", "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q is defined }}", "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}", "{% raw %}{{ x }}{% endraw %}", "{% raw %}\n {{ x }}\n{% endraw %}\ny", "{#- c -#} x {#- d #} y", "a {%- if yes %} b {%- endif %} c", "a\n  {% if yes %}\n  b\n  {% endif %}\n  c", "a\n  {%+ if yes %}\n  b\n  {% endif +%}\n  c", "{{- ' a ' -}}  b", "a \n{{- 'b' -}}\n c", "a\n{# c #}\nb", "a {# c #} b\n", "x\n", "x\n\n", "\n x", "{{ 'a' }}\n", "{% if yes -%}\n\n  a\n{%- endif %}\n\nb", "  {% set a = 1 %}  \n  {{ a }}", "a{% set a = 1 %}\nb", "a\r\n{% if yes %}\r\nb\r\n{% endif %}\r\n", "{{ 'a\nb' }}", "{{ '{{ x }}' }}", "{{ '%}' }}{% if '%}' %}a{% endif %}",
    "{% if nil %}a{% elif z %}b{% elif l %}c{% else %}d{% endif %}", "{% if nope %}a{% else %}b{% endif %}", "{% if not nope and not e and not o and not d.zz %}a{% endif %}", "{% if messages[0].role == 'system' and messages | length > 1 %}a{% endif %}", "{% if n is odd and n is not even %}a{% endif %}", "{% if s is string and not n is string %}a{% endif %}", "{% if 'a' in d and d['a'] == 'x' %}a{% endif %}", "{% if d.items is defined %}a{% endif %}", "{% if d.items %}a{% endif %}", "{% if x in (1, 2.5) %}a{% endif %}", "{% if (n == 7) != (loop is defined) %}a{% endif %}",
    "{% include 'x' ignore missing %}z", "{% include 'x' %}z", "{% extends 'x' %}", "{% import 'x' as y %}z", "{% from 'x' import y %}z", "{% block b %}x{% endblock %}", "{% block b %}{{ n }}{% endblock %}{{ self.b() }}", "{% generation %}g{% endgeneration %}", "{%- generation -%} g {%- endgeneration -%} x", "a\n  {% generation %}\n  g\n  {% endgeneration %}\n b", "{% for m in messages %}{% generation %}{{ m.role }}{{ loop.index }}{% endgeneration %}{% endfor %}", "{% generation %}{% set q = 1 %}{% endgeneration %}{{ q is defined }}", "{% set q = 1 %}{% generation %}{% set q = 2 %}{{ q }}{% endgeneration %}{{ q }}", "{% autoescape true %}{{ '<' }}{% endautoescape %}", "{% trans %}x{% endtrans %}", "{% nosuch %}", "{{ }}", "{{ 1", "{% if %}", "{% for x in l %}", "{{ 1 + }}", "{{ a b }}", "{{ l[ }}", "{% endif %}",
    "{% for m in messages[::-1] %}{{ m.role }}{{ loop.last }}{% endfor %}", "{% for m in messages[1:] %}{{ loop.index0 }}{{ loop.length }}{{ m.role }}{% endfor %}", "{% for i in range(messages | length - 1, -1, -1) %}{{ i }}{% endfor %}", "{% for m in messages | selectattr('role', 'equalto', 'user') %}{{ m.content | trim }}{{ loop.length }}{% endfor %}", "{% for m in messages | rejectattr('role', 'equalto', 'system') | list %}{{ loop.index }}{% endfor %}", "{% set loop_messages = messages[1:] %}{% for m in loop_messages %}{{ m.role }}{% endfor %}{{ loop_messages | length }}", "{{ messages[2].content.split('</think>')[-1].lstrip('\\n') }}", "{{ messages[2].content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') }}", "{% set content = messages[1].content %}{% if content is string %}{{ content }}{% else %}{% for p in content %}{{ p.text }}{% endfor %}{% endif %}", "{% for tc in messages[2].tool_calls %}{% set tc = tc.function or tc %}{{ tc.name }}{{ tc.arguments | tojson }}{% endfor %}", "{% for k, v in messages[2].tool_calls[0].arguments.items() %}{{ k }}:{{ v | tojson if v is mapping or (v is sequence and v is not string) else v | string }};{% endfor %}", "{% for k, v in messages[2].tool_calls[0].arguments | items %}<{{ k }}>{{ v }}</{{ k }}>{% endfor %}", "{% if tools is not none and tools | length > 0 %}a{% else %}b{% endif %}", "{% if tools %}a{% endif %}{% if not tools is defined %}b{% endif %}", "{{ (messages | map(attribute='role') | list)[-1] }}", "{{ messages | map(attribute='content') | map('trim') | join('|') }}", "{% if (messages | last).role == 'assistant' %}a{% endif %}", "{% set roles = messages | map(attribute='role') %}{{ 'user' in roles }}", "{% set ns = namespace(found=false) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.found = true %}{% endif %}{% endfor %}{{ ns.found }}", "{{ ({'system': 'S', 'user': 'U'})[messages[1].role] }}", "{{ {'a': 1}.get(messages[0].role, 'q') }}", "{{ messages[0] | tojson(indent=4) }}", "{{ messages[0].items() | list }}", "{{ 'a' if messages[0]['content'] else '' }}", "{{ messages[0].content | trim + eos_token }}", "{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}", "{{ bos_token + 'x' }}", "{%- set today = strftime_now('%Y') | length %}{{ today }}", "{{ raise_exception('no ' ~ n) }}", "{% if n > 100 %}{{ raise_exception('x') }}{% endif %}ok",
]


def render(template):
    try:
        text = _compile_jinja_template(template).render(**_plain_template_data(CONTEXT))
    except Exception:  # a refusal, whatever its class
        return None
    return None if re.search(r"0x[0-9a-f]{6,}", text) else text


def main():
    templates = list(dict.fromkeys(["{{ " + expression + " }}" for expression in expressions()] + BLOCKS))
    cases = [[template, render(template)] for template in templates]
    golden = {"context": CONTEXT, "cases": cases}
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    context = json.dumps(CONTEXT, ensure_ascii=False)
    pathlib.Path(sys.argv[1]).write_text(f'{{"context": {context},\n"cases": [\n{lines}\n]}}\n')
    refused = sum(text is None for _, text in golden["cases"])
    print(len(cases), "cases,", refused, "refused", file=sys.stderr)


main()
