//! The Jinja environment of `transformers`, built on `minijinja`.

use std::io::{self, Write};

use chrono::{Datelike, Local, NaiveDate, NaiveDateTime};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Rest, ValueOrKwargs};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value};

use super::budget;
use super::python_json::{Layout, to_python_json};
use super::values::{Range, bind, refuse};
use super::{filters, methods, namespaces, operators, python_text, tests};

/// Builds an environment without templates.
pub(super) fn environment(fuel: u64) -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("only white-space rules differ from the default syntax"));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(methods::call);
    environment.set_formatter(python_text::write_output);
    environment.set_fuel(Some(fuel));
    operators::add_to(&mut environment);
    filters::add_to(&mut environment);
    tests::add_to(&mut environment);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("namespace", namespaces::namespace);
    environment.add_function("range", |args: Rest<Value>| Range::function(&args));
    for name in ["lipsum", "cycler", "joiner"] {
        environment.add_function(name, move |_: Rest<Value>| -> Result<Value, Error> {
            Err(refuse(format!("`{name}` is not known here")))
        });
    }
    environment.add_filter("tojson", tojson);
    set_clock(&mut environment, || Local::now().naive_local());
    environment
}

/// Defines `strftime_now`, which is `datetime.now().strftime(format)`, with this clock.
pub(super) fn set_clock(
    environment: &mut Environment<'static>,
    now: impl Fn() -> NaiveDateTime + Send + Sync + 'static,
) {
    environment.add_function("strftime_now", move |format: String| strftime(now(), &format));
}

/// Year, month and day of today, in local time.
pub(crate) fn today() -> (i32, u32, u32) {
    let today = Local::now();
    (today.year(), today.month(), today.day())
}

pub(super) fn noon(year: i32, month: u32, day: u32) -> Option<NaiveDateTime> {
    NaiveDate::from_ymd_opt(year, month, day)?.and_hms_opt(12, 0, 0)
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// `datetime.now().strftime(format)` of a clock without time zone.
fn strftime(now: NaiveDateTime, format: &str) -> Result<String, Error> {
    use std::fmt::Write;
    let mut text = String::new();
    // chrono reports an unknown conversion only while writing.
    write!(text, "{}", now.format(&conversions(format)?))
        .map_err(|_| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: bad format {format:?}")))?;
    Ok(text)
}

/// Conversions that Python and `chrono` have in common, beside those that [`conversions`] translates.
const CONVERSIONS: &str = "aAbBcCdDeFgGhHIjklmMnpPrRtTuUVwWxXyY%";

/// Python's conversions in those of `chrono`: microseconds for `%f`, and nothing for the time zone, which there is not.
fn conversions(format: &str) -> Result<String, Error> {
    let unknown = || refuse(format!("strftime_now: bad format {format:?}"));
    let mut translated = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        translated.push_str(&rest[..at]);
        let flag = rest[at + 1..].chars().next().filter(|c| "-_0".contains(*c));
        let place = at + 1 + usize::from(flag.is_some());
        let conversion = rest[place..].chars().next().ok_or_else(unknown)?;
        match conversion {
            'f' if flag.is_none() => translated.push_str("%6f"),
            'z' | 'Z' if flag.is_none() => {}
            c if CONVERSIONS.contains(c) => translated.push_str(&rest[at..=place]),
            _ => return Err(unknown()),
        }
        rest = &rest[place + conversion.len_utf8()..];
    }
    Ok(translated + rest)
}

/// Largest indent of `tojson`; without a limit, a template could ask for any amount of memory.
const MAX_INDENT: usize = 64;

/// `json.dumps(value, ensure_ascii=False, ...)`; Jinja's own filter would escape HTML.
fn tojson(state: &State<'_, '_>, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let args = args.into_values();
    let names = ["x", "ensure_ascii", "indent", "separators", "sort_keys"];
    let [value, ensure_ascii, indent, separators, sort_keys] = bind(&args, names)?;
    let indent = indent.filter(|indent| !indent.is_none()).map(usize::try_from).transpose()?;
    if indent.is_some_and(|indent| indent > MAX_INDENT) {
        return Err(refuse(format!("tojson: indent is over {MAX_INDENT}")));
    }
    let separators = match separators.filter(|separators| !separators.is_none()) {
        Some(separators) => {
            let pair: Vec<String> = separators.try_iter()?.map(|text| text.to_string()).collect();
            Some(<[String; 2]>::try_from(pair).map_err(|_| refuse("tojson: expected two separators"))?)
        }
        None => None,
    };
    let is_set = |flag: Option<Value>| flag.is_some_and(|flag| flag.is_true());
    let layout = Layout { indent, separators, ensure_ascii: is_set(ensure_ascii), sort_keys: is_set(sort_keys) };
    let value = value.unwrap_or_default();
    budget::weigh(state, &value)?;
    budget::made(state, to_python_json(&value, &layout)?.into())
}

/// Output that fails when it exceeds its limit.
pub(super) struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
    exceeded: bool,
}

impl Bounded {
    pub(super) fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit, exceeded: false }
    }

    pub(super) fn exceeded(&self) -> bool {
        self.exceeded
    }

    pub(super) fn into_text(self) -> String {
        // All bytes come from whole Rust strings.
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.limit {
            self.exceeded = true;
            return Err(io::Error::other("output limit reached"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
