//! Chat templates made by a grammar from the bytes: rendered text within its limits, or an error.
#![no_main]

use std::fmt::Write as _;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::{Corpus, fuzz_target};
use simplemix_data::{ChatTemplate, Message, TemplateLimits};

/// Deepest nesting of what the grammar makes.
const DEPTH: usize = 12;

const NAMES: &[&str] = &["messages", "m", "x", "ns", "loop", "bos_token", "add_generation_prompt", "tools", "f"];
const FIELDS: &[&str] =
    &["role", "content", "index0", "first", "last", "length", "x", "previtem", "cycle", "__class__"];
const TEXTS: &[&str] = &["''", "'a'", "'<|im_start|>'", "'é\\n'", "'%s%5.2f'", "'{}{:>9}'", "' '", "'aaaaaaaa'"];
const NUMBERS: &[&str] = &["0", "1", "-1", "2.5", "10", "65536", "9223372036854775807", "1e308", "true", "none"];
const BINARY: &[&str] =
    &["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", ">=", "and", "or", "in", "not in", "is", "is not"];
const TESTS: &[&str] = &["defined", "string", "mapping", "iterable", "none", "number", "odd", "sequence", "boolean"];
const FILTERS: &[&str] = &[
    "length",
    "trim",
    "tojson",
    "tojson(indent=2)",
    "join",
    "join(x)",
    "first",
    "last",
    "list",
    "map('upper')",
    "map(attribute='role')",
    "selectattr('role', 'equalto', 'user')",
    "rejectattr('x')",
    "sort",
    "unique",
    "batch(3)",
    "slice(3)",
    "groupby('role')",
    "items",
    "dictsort",
    "replace('a', 'aaaa')",
    "replace('', 'b')",
    "string",
    "int",
    "float",
    "abs",
    "round(2)",
    "sum",
    "min",
    "max",
    "reverse",
    "default(x)",
    "upper",
    "capitalize",
    "title",
    "center(80)",
    "indent(4)",
    "truncate(5)",
    "wordwrap(3)",
    "format(x)",
    "escape",
    "safe",
    "xmlattr",
    "urlencode",
    "pprint",
    "random",
];
const METHODS: &[&str] = &[
    "strip()",
    "lstrip('a')",
    "split()",
    "split('a', 1)",
    "rsplit(' ')",
    "replace('a', 'bb')",
    "startswith('a')",
    "endswith(('a', 'b'))",
    "upper()",
    "title()",
    "splitlines()",
    "join(messages)",
    "format(1, x=2)",
    "get('role')",
    "items()",
    "keys()",
    "values()",
    "append(x)",
    "zfill(40)",
    "ljust(99)",
    "find('a')",
    "count('')",
    "partition('a')",
    "isdigit()",
    "strftime('%Y')",
    "pop()",
    "update(x=1)",
    "encode()",
    "removeprefix('a')",
];

struct Grammar<'a, 'b> {
    bytes: &'a mut Unstructured<'b>,
    out: String,
}

impl Grammar<'_, '_> {
    fn pick(&mut self, words: &[&str]) -> Result<()> {
        let word = *self.bytes.choose(words)?;
        self.out.push_str(word);
        Ok(())
    }

    fn body(&mut self, depth: usize) -> Result<()> {
        for _ in 0..self.bytes.int_in_range(0..=3)? {
            self.statement(depth)?;
        }
        Ok(())
    }

    fn statement(&mut self, depth: usize) -> Result<()> {
        let kinds = if depth == 0 { 2 } else { 9 };
        match self.bytes.int_in_range(0..=kinds)? {
            0 => self.pick(&["text ", "\n", "<|end|>", "é", "{# c #}", "  "]),
            1 | 2 => self.tag("{{ ", depth, " }}"),
            3 => {
                self.tag("{% if ", depth, " %}")?;
                self.body(depth - 1)?;
                if self.bytes.arbitrary()? {
                    self.tag("{% elif ", depth, " %}")?;
                    self.body(depth - 1)?;
                }
                self.out.push_str("{% else %}");
                self.body(depth - 1)?;
                self.out.push_str("{% endif %}");
                Ok(())
            }
            4 => {
                self.out.push_str("{%- for m in ");
                self.expression(depth - 1)?;
                self.pick(&["", " if m", " if m.role == 'user'", " recursive"])?;
                self.out.push_str(" -%}");
                self.body(depth - 1)?;
                self.pick(&["", "{% break %}", "{% continue %}", "{{ loop(m) }}"])?;
                self.out.push_str("{% endfor %}");
                Ok(())
            }
            5 => {
                self.pick(&["{% set x = ", "{% set m = ", "{% set ns = namespace(x=1, a=", "{% set ns.x = "])?;
                let closes = self.out.ends_with("a=");
                self.expression(depth - 1)?;
                self.out.push_str(if closes { ") %}" } else { " %}" });
                Ok(())
            }
            6 => self.block("{% set x %}", depth, "{% endset %}"),
            7 => self.block("{% macro f(x, m=1) %}", depth, "{% endmacro %}{{ f(messages) }}"),
            8 => self.block("{% generation %}", depth, "{% endgeneration %}"),
            _ => self.block("{% call f(x) %}", depth, "{% endcall %}"),
        }
    }

    fn block(&mut self, start: &str, depth: usize, end: &str) -> Result<()> {
        self.out.push_str(start);
        self.body(depth - 1)?;
        self.out.push_str(end);
        Ok(())
    }

    fn tag(&mut self, start: &str, depth: usize, end: &str) -> Result<()> {
        self.out.push_str(start);
        self.expression(depth)?;
        self.out.push_str(end);
        Ok(())
    }

    fn expression(&mut self, depth: usize) -> Result<()> {
        let kinds = if depth == 0 { 2 } else { 14 };
        let next = depth.saturating_sub(1);
        match self.bytes.int_in_range(0..=kinds)? {
            0 => self.pick(NAMES),
            1 => self.pick(TEXTS),
            2 => self.pick(NUMBERS),
            3 | 4 => {
                self.expression(next)?;
                self.out.push('|');
                self.pick(FILTERS)
            }
            5 => {
                self.expression(next)?;
                self.out.push('.');
                self.pick(METHODS)
            }
            6 => {
                self.expression(next)?;
                self.out.push('.');
                self.pick(FIELDS)
            }
            7 => {
                self.tag("(", next, " ")?;
                self.pick(BINARY)?;
                self.tag(" ", next, ")")
            }
            8 => self.tag("not ", next, ""),
            9 => {
                self.tag("(", next, " is ")?;
                self.pick(TESTS)?;
                self.out.push(')');
                Ok(())
            }
            10 => {
                self.tag("[", next, ", ")?;
                self.tag("", next, "]")
            }
            11 => {
                self.tag("{'a': ", next, ", 'role': ")?;
                self.tag("", next, "}")
            }
            12 => {
                self.expression(next)?;
                self.tag("[", next, "")?;
                self.pick(&["]", ":]", "::-1]", ":2]"])
            }
            13 => {
                self.tag("(", next, " if ")?;
                self.tag("", next, " else ")?;
                self.tag("", next, ")")
            }
            _ => {
                self.pick(&[
                    "range(",
                    "dict(a=",
                    "f(",
                    "raise_exception(",
                    "strftime_now(",
                    "namespace(x=",
                    "cycler(",
                ])?;
                self.tag("", next, ")")
            }
        }
    }
}

/// The template that the bytes stand for. Where they end early, it does.
fn template(bytes: &[u8]) -> String {
    let mut grammar = Grammar { bytes: &mut Unstructured::new(bytes), out: String::new() };
    while !grammar.bytes.is_empty() && grammar.out.len() < 1 << 16 {
        if grammar.statement(DEPTH).is_err() {
            break;
        }
    }
    grammar.out
}

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let text = template(bytes);
    let turns = [Message::new("system", "s"), Message::user("u é"), Message::assistant("a\n")];
    let Ok(template) = ChatTemplate::from_str(&text) else { return Corpus::Keep };
    let limits = TemplateLimits { fuel: 20_000, output_bytes: 1 << 16 };
    if let Err(error) = template.with_limits(limits).render(&turns, true) {
        // Errors are printed too.
        let mut shown = String::new();
        write!(shown, "{error}").unwrap();
    }
    Corpus::Keep
});
