//! Rewrites the expressions of a template where an operator of Python means something else in `minijinja`, or nothing: `a ~ b`
//! becomes `__concat(a, b)`, and so on (see [`super::operators`]).
//!
//! The grammar is Jinja2's. An expression that it does not cover stays as it is, for `minijinja` to read or refuse. Lines stay
//! where they are, so that errors name the right one.

use super::methods::is_method;

/// Rewrites a template. `{% generation %}` tags, which mark the text of the assistant for loss masks, become scopes.
pub(super) fn rewritten(template: &str) -> String {
    // Jinja2 reads all line ends as this one.
    let template = template.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(template.len() + template.len() / 8);
    let mut rest = template.as_str();
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = match rest.as_bytes().get(1) {
            Some(b'#') => copy(rest, rest.find("#}").map(|end| end + 2), &mut out),
            Some(b'{') => expression_tag(rest, &mut out),
            Some(b'%') => statement_tag(rest, &mut out),
            _ => copy(rest, Some(1), &mut out),
        };
        rest = &rest[taken..];
    }
    out.push_str(rest);
    out
}

/// Copies up to `end`, or everything.
fn copy(text: &str, end: Option<usize>, out: &mut String) -> usize {
    let end = end.unwrap_or(text.len());
    out.push_str(&text[..end]);
    end
}

/// The inside of a tag that begins at the start of `text` and ends with `close`, without the marks of white space.
struct Tag<'a> {
    open: &'a str,
    body: &'a str,
    close: &'a str,
    length: usize,
}

impl<'a> Tag<'a> {
    fn find(text: &'a str, close: &str) -> Option<Self> {
        let open = if text[2..].starts_with(['-', '+']) { 3 } else { 2 };
        let length = end_of_tag(text, open, close)?;
        let mark = text[..length - 2].ends_with(['-', '+']) && length - 3 >= open;
        let end = length - 2 - usize::from(mark);
        Some(Self { open: &text[..open], body: &text[open..end], close: &text[end..length], length })
    }
}

/// Place after the closing mark, texts inside the tag respected.
fn end_of_tag(text: &str, start: usize, close: &str) -> Option<usize> {
    let mut at = start;
    while at < text.len() {
        if text[at..].starts_with(close) {
            return Some(at + close.len());
        }
        at += match text[at..].chars().next()? {
            quote @ ('"' | '\'') => string_length(&text[at..], quote)?,
            c => c.len_utf8(),
        };
    }
    None
}

/// Length of a text literal with its quotes.
fn string_length(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Replaces a tag that must not reach `minijinja` as it is, since it could leave the template's bounds.
const REFUSED: &str = "raise_exception('an expression that is too long, nested too deeply, or not known here')";

fn expression_tag(text: &str, out: &mut String) -> usize {
    let Some(tag) = Tag::find(text, "}}") else { return copy(text, None, out) };
    let found = match Parser::of(tag.body) {
        Some(mut parser) => parser.whole().or_else(|| parser.is_too_deep.then(|| REFUSED.to_owned())),
        None => Some(REFUSED.to_owned()),
    };
    put(&tag, found, out);
    tag.length
}

fn statement_tag(text: &str, out: &mut String) -> usize {
    let Some(tag) = Tag::find(text, "%}") else { return copy(text, None, out) };
    if tag.body.trim() == "raw" {
        return raw_block(text, &tag, out).unwrap_or_else(|| copy(text, None, out));
    }
    let found = match Parser::of(tag.body) {
        Some(mut parser) => parser.statement().or_else(|| parser.is_refused().then(|| format!("do {REFUSED}"))),
        None => Some(format!("do {REFUSED}")),
    };
    put(&tag, found, out);
    tag.length
}

/// Writes a raw block as a text, since `minijinja` would leave out the line end after its tag. Returns what it took.
fn raw_block(text: &str, tag: &Tag<'_>, out: &mut String) -> Option<usize> {
    let end = end_of_raw(text, tag.length)?;
    let closing = Tag::find(&text[end..], "%}")?;
    let mut content = &text[tag.length..end];
    if tag.close.starts_with('-') {
        content = content.trim_start();
    }
    if closing.open.ends_with('-') {
        content = content.trim_end();
    }
    let quoted = content.replace('\\', "\\\\").replace('"', "\\\"");
    // The scope keeps the white-space rules before and after the block.
    out.push_str(&format!("{} with %}}{{{{ \"{quoted}\" }}}}{{% endwith {}", tag.open, closing.close));
    Some(end + closing.length)
}

/// Place of the tag that ends a raw block.
fn end_of_raw(text: &str, start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        at += text[at..].find("{%")?;
        let word = text[at + 2..].trim_start_matches(['-', '+']).trim_start();
        if word.starts_with("endraw") {
            return Some(at);
        }
        at += 2;
    }
}

/// Writes a tag with a new body, which gets as many line ends as the old one had.
fn put(tag: &Tag<'_>, body: Option<String>, out: &mut String) {
    out.push_str(tag.open);
    match body {
        Some(body) => {
            let lines = |text: &str| text.matches('\n').count();
            out.push(' ');
            out.push_str(&body);
            out.push(' ');
            out.extend(std::iter::repeat_n('\n', lines(tag.body).saturating_sub(lines(&body))));
        }
        None => out.push_str(tag.body),
    }
    out.push_str(tag.close);
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Token<'a> {
    Name(&'a str),
    /// A number or a text, with its quotes.
    Literal(&'a str),
    Mark(&'a str),
}

/// Marks of two characters.
const MARKS: [&str; 6] = ["==", "!=", "<=", ">=", "//", "**"];

fn tokens(body: &str) -> Option<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut rest = body.trim_start();
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '"' | '\'' => string_length(rest, c)?,
            c if c.is_ascii_digit() => number_length(rest),
            c if c == '_' || c.is_alphabetic() => {
                rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len())
            }
            _ => MARKS.iter().find(|mark| rest.starts_with(**mark)).map_or(c.len_utf8(), |mark| mark.len()),
        };
        let text = &rest[..length];
        tokens.push(match c {
            '"' | '\'' => Token::Literal(text),
            c if c.is_ascii_digit() => Token::Literal(text),
            c if c == '_' || c.is_alphabetic() => Token::Name(text),
            _ => Token::Mark(text),
        });
        rest = rest[length..].trim_start();
    }
    Some(tokens)
}

fn number_length(text: &str) -> usize {
    let digits = |text: &str| text.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(text.len());
    let mut length = digits(text);
    // A fraction, but not the attribute of a number.
    if text[length..].starts_with('.') && text[length + 1..].starts_with(|c: char| c.is_ascii_digit()) {
        length += 1 + digits(&text[length + 1..]);
    }
    if text[..length].ends_with(['e', 'E'])
        && !text.starts_with("0x")
        && text[length..].starts_with(['+', '-'])
        && text[length + 1..].starts_with(|c: char| c.is_ascii_digit())
    {
        length += 1 + digits(&text[length + 1..]);
    }
    length
}

/// Largest nesting of expressions.
const MAX_DEPTH: usize = 100;
/// Tokens of a tag above which it is refused; the work grows with their square.
const MAX_TOKENS: usize = 4000;

/// Recursive descent over the tokens of one tag; every function returns the rewritten text of what it read.
struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    depth: usize,
    /// Parts of the tuple that was read last.
    tuple_length: usize,
    /// Colons and commas of the subscript that was read last.
    subscript_marks: usize,
    /// Whether reading ended at [`MAX_DEPTH`].
    is_too_deep: bool,
}

impl<'a> Parser<'a> {
    fn of(body: &'a str) -> Option<Self> {
        let tokens = tokens(body)?;
        (tokens.len() <= MAX_TOKENS).then_some(Self {
            tokens,
            at: 0,
            depth: 0,
            tuple_length: 0,
            subscript_marks: 0,
            is_too_deep: false,
        })
    }

    /// Reads something that may hold itself, unless it is nested too deeply.
    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Option<String>) -> Option<String> {
        self.depth += 1;
        self.is_too_deep |= self.depth > MAX_DEPTH;
        let text = if self.is_too_deep { None } else { read(self) };
        self.depth -= 1;
        text
    }

    /// Whether the statement is not to stay as it is: what `set` keeps is always weighed.
    fn is_refused(&self) -> bool {
        self.is_too_deep || self.tokens.first() == Some(&Token::Name("set")) && self.tokens.contains(&Token::Mark("="))
    }

    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).copied()
    }

    fn is_name(&self, name: &str) -> bool {
        self.peek() == Some(Token::Name(name))
    }

    fn is_mark(&self, mark: &str) -> bool {
        self.peek() == Some(Token::Mark(mark))
    }

    fn take_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.at += usize::from(found);
        found
    }

    fn take_mark(&mut self, mark: &str) -> bool {
        let found = self.is_mark(mark);
        self.at += usize::from(found);
        found
    }

    fn name(&mut self) -> Option<&'a str> {
        let Some(Token::Name(name)) = self.peek() else { return None };
        self.at += 1;
        Some(name)
    }

    /// The expression that is the whole tag.
    fn whole(&mut self) -> Option<String> {
        let text = self.tuple(true)?;
        (self.at == self.tokens.len()).then_some(text)
    }

    /// A statement with expressions inside.
    fn statement(&mut self) -> Option<String> {
        let keyword = self.name()?;
        let text = match keyword {
            "generation" => "with".to_owned(),
            "endgeneration" => "endwith".to_owned(),
            "if" | "elif" => format!("{keyword} {}", self.tuple(true)?),
            "do" => format!("do {}", self.tuple(true)?),
            "set" => {
                let target = self.up_to(Token::Mark("="))?;
                let value = self.tuple(true)?;
                match self.tuple_length {
                    1 => format!("set {target} = __kept({value})"),
                    _ => format!("set {target} = __kept(({value}))"),
                }
            }
            "for" => self.for_loop()?,
            "macro" => self.macro_head()?,
            "include" | "extends" | "import" | "from" | "autoescape" => {
                self.at = self.tokens.len();
                format!("do raise_exception('`{keyword}` is not known here')")
            }
            "with" => format!("with {}", self.assignments()?),
            _ => return None,
        };
        (self.at == self.tokens.len()).then_some(text)
    }

    /// Tokens before `end`, which is taken too.
    fn up_to(&mut self, end: Token<'_>) -> Option<String> {
        let length = self.tokens[self.at..].iter().position(|token| *token == end)?;
        let words: Vec<&str> = self.tokens[self.at..self.at + length].iter().map(|token| token_text(*token)).collect();
        self.at += length + 1;
        Some(words.join(" ").replace(" . ", "."))
    }

    fn for_loop(&mut self) -> Option<String> {
        let target = self.up_to(Token::Name("in"))?;
        let over = self.tuple(false)?;
        let is_one = self.tuple_length == 1;
        let mut text =
            if is_one { format!("for {target} in __iter({over})") } else { format!("for {target} in {over}") };
        if self.take_name("if") {
            text += &format!(" if {}", self.conditional()?);
        }
        if self.take_name("recursive") {
            text += " recursive";
        }
        Some(text)
    }

    /// Name and parameters of a macro. In Jinja2, a default sees the parameters before it; here, it must not use them.
    fn macro_head(&mut self) -> Option<String> {
        let name = self.name()?;
        if !self.take_mark("(") {
            return None;
        }
        let mut parts: Vec<String> = Vec::new();
        let mut names = Vec::new();
        while !self.take_mark(")") {
            let parameter = self.name()?;
            let default = if self.take_mark("=") {
                let start = self.at;
                let text = self.conditional()?;
                let uses = |name: &&str| self.tokens[start..self.at].contains(&Token::Name(name));
                match names.iter().any(uses) {
                    true => "=raise_exception('a default that uses another parameter')".to_owned(),
                    false => format!("={text}"),
                }
            } else {
                String::new()
            };
            parts.push(format!("{parameter}{default}"));
            names.push(parameter);
            if !self.take_mark(",") && !self.is_mark(")") {
                return None;
            }
        }
        Some(format!("macro {name}({})", parts.join(", ")))
    }

    fn assignments(&mut self) -> Option<String> {
        let mut parts = Vec::new();
        while let Some(name) = self.name() {
            if !self.take_mark("=") {
                return None;
            }
            parts.push(format!("{name} = {}", self.conditional()?));
            if !self.take_mark(",") {
                break;
            }
        }
        Some(parts.join(", "))
    }

    /// One expression, or several with commas between them.
    fn tuple(&mut self, conditional: bool) -> Option<String> {
        let item = |parser: &mut Self| if conditional { parser.conditional() } else { parser.or() };
        let mut parts = vec![item(self)?];
        let mut ends_in_comma = false;
        while self.take_mark(",") {
            ends_in_comma = self.peek().is_none();
            if ends_in_comma {
                break;
            }
            parts.push(item(self)?);
        }
        self.tuple_length = parts.len() + usize::from(ends_in_comma);
        Some(parts.join(", ") + if ends_in_comma { "," } else { "" })
    }

    fn conditional(&mut self) -> Option<String> {
        self.nested(Self::conditional_inside)
    }

    fn conditional_inside(&mut self) -> Option<String> {
        let mut text = self.or()?;
        while self.take_name("if") {
            let condition = self.or()?;
            text = match self.take_name("else") {
                true => format!("{text} if {condition} else {}", self.conditional()?),
                false => format!("{text} if {condition}"),
            };
        }
        Some(text)
    }

    fn or(&mut self) -> Option<String> {
        let mut text = self.and()?;
        while self.take_name("or") {
            text = format!("{text} or {}", self.and()?);
        }
        Some(text)
    }

    fn and(&mut self) -> Option<String> {
        let mut text = self.not()?;
        while self.take_name("and") {
            text = format!("{text} and {}", self.not()?);
        }
        Some(text)
    }

    fn not(&mut self) -> Option<String> {
        if self.take_name("not") {
            return Some(format!("not {}", self.nested(Self::not)?));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Option<String> {
        let first = self.sum()?;
        let mut links = Vec::new();
        loop {
            let operator = match self.peek() {
                Some(Token::Mark(mark @ ("==" | "!=" | "<" | "<=" | ">" | ">="))) => mark,
                Some(Token::Name("in")) => "in",
                Some(Token::Name("not")) if self.tokens.get(self.at + 1) == Some(&Token::Name("in")) => {
                    self.at += 1;
                    "not in"
                }
                _ => break,
            };
            self.at += 1;
            links.push((operator, self.sum()?));
        }
        Some(match links.as_slice() {
            [] => first,
            links => {
                let links: Vec<String> =
                    links.iter().map(|(operator, value)| format!(", '{operator}', {value}")).collect();
                format!("__compare({first}{})", links.concat())
            }
        })
    }

    fn sum(&mut self) -> Option<String> {
        let mut text = self.concatenation()?;
        loop {
            text = match self.peek() {
                Some(Token::Mark("+")) => {
                    let mut parts = vec![text];
                    while self.take_mark("+") {
                        parts.push(self.concatenation()?);
                    }
                    format!("__add({})", parts.join(", "))
                }
                Some(Token::Mark("-")) => {
                    self.at += 1;
                    format!("{text} - {}", self.concatenation()?)
                }
                _ => return Some(text),
            };
        }
    }

    fn concatenation(&mut self) -> Option<String> {
        let mut parts = vec![self.product()?];
        while self.take_mark("~") {
            parts.push(self.product()?);
        }
        match parts.len() {
            1 => parts.pop(),
            _ => Some(format!("__concat({})", parts.join(", "))),
        }
    }

    fn product(&mut self) -> Option<String> {
        let mut text = self.power()?;
        loop {
            text = match self.peek() {
                Some(Token::Mark("%")) => {
                    self.at += 1;
                    format!("__mod({text}, {})", self.power()?)
                }
                Some(Token::Mark("*")) => {
                    self.at += 1;
                    format!("__mul({text}, {})", self.power()?)
                }
                Some(Token::Mark(mark @ ("/" | "//"))) => {
                    self.at += 1;
                    format!("{text} {mark} {}", self.power()?)
                }
                _ => return Some(text),
            };
        }
    }

    fn power(&mut self) -> Option<String> {
        let mut text = self.unary(true)?;
        while self.take_mark("**") {
            let start = self.at;
            let exponent = self.unary(true)?;
            let is_constant = self.tokens[start..self.at].iter().all(|token| !matches!(token, Token::Name(_)));
            text = match text.strip_prefix('-') {
                // Jinja2 writes a negative number into Python code, where the sign binds less than the power.
                Some(number) if !is_constant && number.starts_with(|c: char| c.is_ascii_digit()) => {
                    format!("(-__pow({number}, {exponent}))")
                }
                _ => format!("__pow({text}, {exponent})"),
            };
        }
        Some(text)
    }

    fn unary(&mut self, with_filters: bool) -> Option<String> {
        let text = match self.peek()? {
            Token::Mark(sign @ ("-" | "+")) => {
                self.at += 1;
                format!("{sign}{}", self.nested(|parser| parser.unary(false))?)
            }
            _ => self.postfix()?,
        };
        if with_filters { self.filters(text) } else { Some(text) }
    }

    fn postfix(&mut self) -> Option<String> {
        let first = self.primary()?;
        self.postfix_of(first)
    }

    fn postfix_of(&mut self, mut text: String) -> Option<String> {
        loop {
            text = match self.peek() {
                Some(Token::Mark(".")) => {
                    self.at += 1;
                    let name = match self.peek()? {
                        Token::Name(name) | Token::Literal(name) => name,
                        Token::Mark(_) => return None,
                    };
                    self.at += 1;
                    match is_method(name) && !self.is_mark("(") {
                        true => format!("__attr({text}, '{name}')"),
                        false => format!("{text}.{name}"),
                    }
                }
                Some(Token::Mark("[")) => {
                    self.at += 1;
                    let start = self.at;
                    let inside = self.subscript()?;
                    // A single index, no slice.
                    let is_index = self.subscript_marks == 0 && self.at > start + 1;
                    match is_index {
                        true => format!("__item({text}, {inside})"),
                        false => format!("__sliced({text})[{inside}]"),
                    }
                }
                Some(Token::Mark("(")) => {
                    self.at += 1;
                    format!("{text}({})", self.arguments()?)
                }
                _ => return Some(text),
            };
        }
    }

    /// Inside of square brackets after a value; takes the closing one.
    fn subscript(&mut self) -> Option<String> {
        let (mut text, mut marks) = (String::new(), 0);
        loop {
            match self.peek()? {
                Token::Mark("]") => {
                    self.at += 1;
                    self.subscript_marks = marks;
                    return Some(text);
                }
                Token::Mark(mark @ (":" | ",")) => {
                    self.at += 1;
                    marks += 1;
                    text.push_str(mark);
                }
                _ => text.push_str(&self.conditional()?),
            }
        }
    }

    /// Arguments of a call; takes the closing parenthesis.
    fn arguments(&mut self) -> Option<String> {
        let mut parts = Vec::new();
        while !self.take_mark(")") {
            let is_keyword = self.tokens.get(self.at + 1) == Some(&Token::Mark("="));
            parts.push(match self.peek()? {
                Token::Name(name) if is_keyword => {
                    self.at += 2;
                    format!("{name}={}", self.conditional()?)
                }
                Token::Mark(stars @ ("*" | "**")) => {
                    self.at += 1;
                    format!("{stars}{}", self.conditional()?)
                }
                _ => self.conditional()?,
            });
            if !self.take_mark(",") && !self.is_mark(")") {
                return None;
            }
        }
        Some(parts.join(", "))
    }

    fn filters(&mut self, mut text: String) -> Option<String> {
        loop {
            text = match self.peek() {
                Some(Token::Mark("|")) => {
                    self.at += 1;
                    let name = self.name()?;
                    match self.take_mark("(") {
                        true => format!("{text} | {name}({})", self.arguments()?),
                        false => format!("{text} | {name}"),
                    }
                }
                Some(Token::Name("is")) => {
                    self.at += 1;
                    self.test(&text)?
                }
                Some(Token::Mark("(")) => {
                    self.at += 1;
                    format!("{text}({})", self.arguments()?)
                }
                _ => return Some(text),
            };
        }
    }

    fn test(&mut self, of: &str) -> Option<String> {
        let not = if self.take_name("not") { "not " } else { "" };
        let name = self.name()?;
        let argument = match self.peek() {
            Some(Token::Mark("(")) => {
                self.at += 1;
                format!("({})", self.arguments()?)
            }
            Some(Token::Name("else" | "or" | "and" | "if" | "in" | "is" | "not" | "recursive")) | None => String::new(),
            Some(Token::Name(_) | Token::Literal(_) | Token::Mark("[" | "{")) => format!("({})", self.postfix()?),
            Some(Token::Mark(_)) => String::new(),
        };
        Some(format!("{of} is {not}{name}{argument}"))
    }

    fn primary(&mut self) -> Option<String> {
        let token = self.peek()?;
        self.at += 1;
        match token {
            Token::Name(name) => Some(name.to_owned()),
            Token::Literal(text) if text.starts_with(['"', '\'']) => {
                let mut text = literal(text)?;
                // Neighbouring texts are one.
                while let Some(Token::Literal(more)) = self.peek() {
                    if !more.starts_with(['"', '\'']) {
                        return None;
                    }
                    text = format!("{text} {}", literal(more)?);
                    self.at += 1;
                }
                Some(text)
            }
            Token::Literal(number) => Some(number.to_owned()),
            Token::Mark("(") => Some(format!("({})", self.listed(")", false)?)),
            Token::Mark("[") => Some(format!("[{}]", self.listed("]", false)?)),
            Token::Mark("{") => Some(format!("{{{}}}", self.listed("}", true)?)),
            Token::Mark(_) => None,
        }
    }

    /// Items up to the closing bracket, which is taken; those of a dictionary are keys and values.
    fn listed(&mut self, close: &str, with_keys: bool) -> Option<String> {
        let mut text = String::new();
        while !self.take_mark(close) {
            text.push_str(&self.conditional()?);
            if with_keys {
                if !self.take_mark(":") {
                    return None;
                }
                text.push_str(": ");
                text.push_str(&self.conditional()?);
            }
            match self.take_mark(",") {
                true => text.push_str(", "),
                false if self.is_mark(close) => {}
                false => return None,
            }
        }
        Some(text)
    }
}

/// A text literal, with those escapes of Python decoded that `minijinja` does not have.
fn literal(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = &rest[at + 1..];
        let c = escape.chars().next()?;
        let octal = escape.find(|c: char| !('0'..='7').contains(&c)).unwrap_or(escape.len()).min(3);
        let (decoded, length) = match c {
            'a' => ('\u{7}', 1),
            'b' => ('\u{8}', 1),
            'f' => ('\u{c}', 1),
            'v' => ('\u{b}', 1),
            // A name of a character.
            'N' => return None,
            '\n' => {
                rest = &escape[1..];
                continue;
            }
            '0'..='7' => (char::from_u32(u32::from_str_radix(&escape[..octal], 8).ok()?)?, octal),
            c => {
                out.push('\\');
                out.push(c);
                rest = &escape[c.len_utf8()..];
                continue;
            }
        };
        out.push(decoded);
        rest = &escape[length..];
    }
    Some(out + rest)
}

fn token_text<'a>(token: Token<'a>) -> &'a str {
    match token {
        Token::Name(text) | Token::Literal(text) | Token::Mark(text) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_become_calls_in_their_order() {
        for (template, expected) in [
            ("{{ a ~ b / c ~ d * e }}", "{{ __concat(a, b / c, __mul(d, e)) }}"),
            ("{{- a + b ~ c -}}", "{{- __add(a, __concat(b, c)) -}}"),
            ("{{ a % b % c }}", "{{ __mod(__mod(a, b), c) }}"),
            ("{{ -a ** b | abs }}", "{{ __pow(-a, b | abs) }}"),
            ("{{ 1 < x <= 3 and not y in z }}", "{{ __compare(1, '<', x, '<=', 3) and not __compare(y, 'in', z) }}"),
            ("{{ d.items }}{{ d.items() }}", "{{ __attr(d, 'items') }}{{ d.items() }}"),
            ("{{ x[a ~ b:][1:2, 3] }}", "{{ __sliced(__sliced(x)[__concat(a, b):])[1:2,3] }}"),
            ("{{ '%}' ~ {'a': (1,)}['a'] }}", "{{ __concat('%}', __item({'a': (1, )}, 'a')) }}"),
            (
                "{% for a, b in x if a not in y recursive %}",
                "{% for a , b in __iter(x) if __compare(a, 'not in', y) recursive %}",
            ),
            ("{% set ns.x = a ~ 'b' %}", "{% set ns.x = __kept(__concat(a, 'b')) %}"),
            ("{% if x is divisibleby 3 or x is not eq(2) %}", "{% if x is divisibleby(3) or x is not eq(2) %}"),
            ("{% macro f(a, b=c ~ d) %}", "{% macro f(a, b=__concat(c, d)) %}"),
            ("{% generation -%}a{%- endgeneration %}", "{% with -%}a{%- endwith %}"),
            // A tag that is no expression, or no known one, stays as it is.
            ("{# {{ a ~ b }} #}{ {{", "{# {{ a ~ b }} #}{ {{"),
            ("{%- raw -%} {{ \"\\ {% endraw %}", "{%- with %}{{ \"{{ \\\"\\\\ \" }}{% endwith %}"),
            ("{{ a ~ }}{% set x %}{% unknown a ~ b %}", "{{ a ~ }}{% set x %}{% unknown a ~ b %}"),
        ] {
            let spaced = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(spaced(&rewritten(template)), spaced(expected), "{template}");
        }
    }

    #[test]
    fn lines_stay_where_they_are() {
        assert_eq!(rewritten("{{ a\n  ~ b }}\n{{ c }}").matches('\n').count(), 2);
    }
}
