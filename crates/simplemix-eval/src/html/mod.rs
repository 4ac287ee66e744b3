//! HTML pages that need no network and no scripts, and follow the light or dark colours of the reader's system.
//!
//! | to | use |
//! | --- | --- |
//! | make a page | [`document`] of [`Section`]s, or [`page`] |
//! | show a table without empty columns | [`Table`] |
//! | show a few large figures | [`tiles`] |
//! | show what the reader should know first | [`notices`] |
//! | show responses to a prompt side by side | [`exchange`] |
//! | show a plot | [`figure`] |

mod parts;

use std::fmt::Write;

pub use parts::{Cells, Response, Section, Table, Tile, document, exchange, first_line, list, notices, tiles};

use crate::plain::clean_markup;

/// Makes a page; `title` is text, `body` is the HTML inside `<main>`.
///
/// # Examples
/// ```
/// let page = simplemix_eval::html::page("a < b", "<p>Hello</p>\n");
/// assert!(page.contains("<title>a &lt; b</title>"));
/// ```
pub fn page(title: &str, body: &str) -> String {
    // The body is inserted last, so that braces in it stay as they are.
    let (head, tail) = FRAME.split_once("{body}").expect("the frame has a place for the body");
    format!("{}{body}{tail}", head.replace("{title}", &escape(title)))
}

const FRAME: &str = r##"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; background: Canvas; color: CanvasText; }
body { max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; overflow-wrap: anywhere; }
h1 { margin-bottom: .5rem; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #8886; padding-bottom: .25rem; }
.lead { font-size: 1.125rem; max-width: 60rem; }
.skip { position: absolute; left: -100rem; }
.skip:focus { position: static; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: 0; list-style: none; }
a { color: LinkText; }
code { overflow-wrap: anywhere; }
:focus-visible { outline: 3px solid #0072b2; outline-offset: 2px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(11rem, 100%), 1fr)); gap: .75rem; margin: 1.25rem 0; padding: 0; list-style: none; }
.tiles li { border: 1px solid #8886; border-radius: 8px; padding: .6rem .9rem; }
.tiles span { display: block; font-size: .875rem; }
.tiles strong { display: block; font-size: 1.5rem; line-height: 1.3; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.notices { border-left: 4px solid #b07a00; padding: .1rem 1rem; margin: 1rem 0; background: #b07a0014; overflow-wrap: anywhere; }
.notices h2 { font-size: 1.125rem; border: 0; margin: .5rem 0; }
.notices ul { margin: .5rem 0; padding-left: 1.25rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 1.5rem; }
figure { margin: 0; min-width: 0; }
figure svg { max-width: 100%; height: auto; display: block; }
figcaption { font-size: .875rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: .25rem 1.25rem .25rem 0; text-align: left; font-weight: normal; border-bottom: 1px solid #8884; vertical-align: top; }
thead th { font-weight: bold; vertical-align: bottom; }
thead th.number { text-align: right; }
tbody th { min-width: min(10rem, 30vw); overflow-wrap: anywhere; }
td { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.text { text-align: left; white-space: normal; min-width: min(9rem, 40vw); }
pre { overflow-x: auto; }
.responses { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(18rem, 100%), 1fr)); gap: 1rem; margin-block: 1rem; }
.responses > div { border: 1px solid #8886; border-radius: 6px; padding: .25rem .75rem; overflow-wrap: anywhere; }
.responses h3 { margin: .25rem 0; font-size: 1rem; }
.responses h3 span { font-weight: normal; }
.responses p, .prompt { white-space: pre-wrap; overflow-wrap: anywhere; margin: .25rem 0; }
summary { cursor: pointer; padding-block: .25rem; overflow-wrap: anywhere; }
@media print {
  nav, .skip { display: none; }
  body { max-width: none; margin: 0; }
  details::details-content { content-visibility: visible; height: auto; }
  .scroll, pre { overflow: visible; }
  pre { white-space: pre-wrap; }
  figure, .tiles li, .responses > div, tr { break-inside: avoid; }
}
</style>
</head>
<body>
<a class="skip" href="#main">Skip to content</a>
<main id="main">
{body}</main>
</body>
</html>
"##;

/// Makes a figure of SVG text from this crate, which follows the colours of the page. `label` describes the plot for
/// readers who cannot see it.
pub fn figure(svg: &str, label: &str, caption: &str) -> String {
    let mut html = String::from("<figure>");
    let inner = svg
        .replace("fill=\"#FFFFFF\"", "fill=\"Canvas\"")
        .replace("fill=\"#3C3C3C\"", "fill=\"CanvasText\"")
        .replace("stroke=\"#3C3C3C\"", "stroke=\"CanvasText\"")
        .replace("stroke=\"#E4E4E4\"", "stroke=\"#88888844\"");
    html.push_str(&inner.replacen("<svg ", &format!("<svg role=\"img\" aria-label=\"{}\" ", escape(label)), 1));
    if !caption.is_empty() {
        let _ = write!(html, "<figcaption>{}</figcaption>", escape(caption));
    }
    html.push_str("</figure>\n");
    html
}

/// Escapes text for HTML, also within an attribute. Control characters, which HTML does not have, become U+FFFD.
pub fn escape(text: &str) -> String {
    let text = clean_markup(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\'', "&#39;")
}

/// Formats a number with four decimals, or with a power of ten if it is very small or very large.
///
/// # Examples
/// ```
/// use simplemix_eval::html::number;
/// assert_eq!((number(0.25), number(1e-6), number(0.0)), ("0.2500".into(), "1.000e-6".into(), "0.0000".into()));
/// ```
pub fn number(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-3..1e6).contains(&size) { format!("{value:.3e}") } else { format!("{value:.4}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_escapes_the_title_and_keeps_the_body() {
        let text = page("a<b {body}", "<p>{title}</p>\n");
        assert!(text.contains("<title>a&lt;b ") && text.contains("<p>{title}</p>\n</main>"), "{text}");
    }

    #[test]
    fn text_is_neither_markup_nor_the_end_of_an_attribute() {
        assert_eq!(escape("</script>\"' onload='x\u{1b}"), "&lt;/script&gt;&quot;&#39; onload=&#39;x\u{fffd}");
    }

    #[test]
    fn figures_have_a_label() {
        let html = figure("<svg width=\"1\"><rect fill=\"#FFFFFF\"/></svg>", "a \"label\"", "");
        assert_eq!(
            html,
            "<figure><svg role=\"img\" aria-label=\"a &quot;label&quot;\" width=\"1\"><rect fill=\"Canvas\"/></svg></figure>\n"
        );
    }
}
