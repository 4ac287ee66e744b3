//! Jinja2's filters of numbers.

use minijinja::{Error, State, Value};

use super::operators::{integer, number};
use super::text_methods::is_space;
use super::values::{Kind, bind, kind, refuse};

pub(super) fn abs(_: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let [value] = bind(args, ["x"])?;
    let value = value.unwrap_or_default();
    match (integer(&value), number(&value)) {
        (Some(value), _) => Ok(whole(value.checked_abs().ok_or_else(too_large)?)),
        (None, Some(value)) => Ok(value.abs().into()),
        _ => Err(refuse("abs: expected a number")),
    }
}

fn too_large() -> Error {
    refuse("an integer of more than 128 bits")
}

fn whole(value: i128) -> Value {
    i64::try_from(value).map_or_else(|_| Value::from(value), Value::from)
}

/// `float(text)` of Python, which takes underscores between digits.
fn parsed_float(text: &str) -> Option<f64> {
    let text = text.trim_matches(is_space);
    let is_plain = text.chars().all(|c| c.is_ascii_digit() || "+-._eE".contains(c));
    let lower = text.trim_start_matches(['+', '-']).to_ascii_lowercase();
    if !is_plain && !["nan", "inf", "infinity"].contains(&lower.as_str()) {
        return None;
    }
    without_underscores(text)?.parse().ok()
}

/// Text without underscores, each of which must stand between two digits.
fn without_underscores(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split('_').collect();
    let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let fine = parts.windows(2).all(|pair| digit(pair[0].chars().last()) && digit(pair[1].chars().next()));
    fine.then(|| parts.concat())
}

/// Texts in digits of other scripts, which Python reads.
fn check_digits(text: &str) -> Result<(), Error> {
    match text.chars().any(|c| !c.is_ascii() && c.is_numeric()) {
        true => Err(refuse("a number in digits other than 0 to 9")),
        false => Ok(()),
    }
}

pub(super) fn float(_: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let [value, default] = bind(args, ["value", "default"])?;
    let value = value.unwrap_or_default();
    let found = match (value.as_str(), kind(&value)) {
        (Some(text), _) => {
            check_digits(text)?;
            parsed_float(text)
        }
        (None, Kind::Undefined) => return Err(refuse("float: the value is undefined")),
        _ => number(&value),
    };
    Ok(found.map_or_else(|| default.unwrap_or_else(|| 0.0.into()), Value::from))
}

pub(super) fn int(_: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let [value, default, base] = bind(args, ["value", "default", "base"])?;
    let value = value.unwrap_or_default();
    let base = base.map_or(Ok(10), u32::try_from)?;
    let found = match (value.as_str(), kind(&value)) {
        (Some(text), _) => {
            check_digits(text)?;
            match parsed_int(text.trim_matches(is_space), base)? {
                Some(found) => Some(found),
                None => parsed_float(text).filter(|number| number.is_finite()).map(truncated).transpose()?,
            }
        }
        (None, Kind::Undefined) => return Err(refuse("int: the value is undefined")),
        (None, Kind::Float) => match number(&value) {
            Some(number) if number.is_infinite() => return Err(refuse("int: an infinite number")),
            Some(number) if number.is_nan() => None,
            number => number.map(truncated).transpose()?,
        },
        _ => integer(&value),
    };
    Ok(found.map_or_else(|| default.unwrap_or_else(|| 0.into()), whole))
}

fn truncated(number: f64) -> Result<i128, Error> {
    if number.abs() < 1e38 { Ok(number.trunc() as i128) } else { Err(too_large()) }
}

fn parsed_int(text: &str, base: u32) -> Result<Option<i128>, Error> {
    if !(2..=36).contains(&base) {
        return Err(refuse("int: expected a base from 2 to 36"));
    }
    let (sign, digits) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (if text.starts_with('-') { -1 } else { 1 }, rest),
        None => (1, text),
    };
    let prefix = match base {
        2 => "0b",
        8 => "0o",
        16 => "0x",
        _ => "",
    };
    let has_prefix = !prefix.is_empty() && digits.len() > 2 && digits.to_ascii_lowercase().starts_with(prefix);
    let digits = if has_prefix { digits[2..].strip_prefix('_').unwrap_or(&digits[2..]) } else { digits };
    let Some(digits) = without_underscores(digits) else { return Ok(None) };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return Ok(None);
    }
    i128::from_str_radix(&digits, base).map(|value| Some(sign * value)).map_err(|_| too_large())
}

pub(super) fn round(_: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let [value, precision, method] = bind(args, ["value", "precision", "method"])?;
    let value = value.unwrap_or_default();
    let precision = precision.map_or(Ok(0), |precision| super::text_methods::integer(&precision))?;
    let Some(precision) = i32::try_from(precision).ok().filter(|digits| (-300..=300).contains(digits)) else {
        return Err(refuse("round: a precision out of range"));
    };
    let Some(number) = number(&value) else { return Err(refuse("round: expected a number")) };
    let scaled = |of: fn(f64) -> f64| {
        let factor = 10f64.powi(precision);
        Value::from(of(number * factor) / factor)
    };
    match (method.as_ref().map_or(Some("common"), |method| method.as_str()), integer(&value)) {
        (Some("common"), Some(value)) => rounded_int(value, precision),
        (Some("common"), None) if !number.is_finite() || precision > 22 => Ok(number.into()),
        // Rust writes exact decimals and rounds ties to even, as Python does.
        (Some("common"), None) if precision >= 0 => {
            let text = format!("{number:.0$}", precision as usize);
            Ok(text.parse::<f64>().map_err(|_| refuse("round: expected a number"))?.into())
        }
        (Some("common"), None) => {
            let factor = 10f64.powi(-precision);
            Ok(((number / factor).round_ties_even() * factor).into())
        }
        (Some("ceil"), _) => Ok(scaled(f64::ceil)),
        (Some("floor"), _) => Ok(scaled(f64::floor)),
        _ => Err(refuse("round: expected the method `common`, `ceil` or `floor`")),
    }
}

fn rounded_int(value: i128, precision: i32) -> Result<Value, Error> {
    if precision >= 0 {
        return Ok(whole(value));
    }
    let Some(factor) = 10i128.checked_pow(precision.unsigned_abs()) else { return Ok(0.into()) };
    let (quotient, rest) = (value.div_euclid(factor), value.rem_euclid(factor));
    let up = rest * 2 > factor || rest * 2 == factor && quotient % 2 != 0;
    Ok(whole((quotient + i128::from(up)) * factor))
}

pub(super) fn file_size(_: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    let [value, binary] = bind(args, ["value", "binary"])?;
    let value = value.unwrap_or_default();
    let bytes = match value.as_str() {
        Some(text) => parsed_float(text),
        None => number(&value),
    };
    let bytes = bytes.filter(|bytes| bytes.is_finite()).ok_or_else(|| refuse("filesizeformat: expected a number"))?;
    let binary = binary.is_some_and(|binary| binary.is_true());
    let base = if binary { 1024f64 } else { 1000f64 };
    if bytes == 1.0 {
        return Ok("1 Byte".into());
    }
    if bytes < base {
        return Ok(format!("{} Bytes", bytes.trunc() as i64).into());
    }
    let names: [&str; 8] = match binary {
        true => ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"],
        false => ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"],
    };
    let place = (0..names.len()).find(|place| bytes < base.powi(*place as i32 + 2)).unwrap_or(names.len() - 1);
    Ok(format!("{:.1} {}", base * bytes / base.powi(place as i32 + 2), names[place]).into())
}
