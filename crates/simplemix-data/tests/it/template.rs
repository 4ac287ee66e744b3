//! Chat templates: functions that templates may call, and malicious templates.

use simplemix_data::{ChatTemplate, Error, Message, TemplateLimits};

fn render(template: &str) -> Result<String, Error> {
    ChatTemplate::from_str(template)?.render(&[Message::user("Hi"), Message::assistant("Yo")], true)
}

#[test]
fn white_space_around_blocks_is_trimmed_as_transformers_asks() {
    let text = render("{% if true %}\n  {% if true %}\na\n  {% endif %}\n{% endif %}\n").unwrap();
    assert_eq!(text, "a\n");
}

#[test]
fn generation_blocks_leave_their_text() {
    let text =
        render("{%- for m in messages %}{%- generation %}[{{ m['content'] }}]{%- endgeneration -%}\n{% endfor %}");
    assert_eq!(text.unwrap(), "[Hi][Yo]");
}

#[test]
fn a_tag_without_content_is_an_error_as_any_other() {
    for text in ["{%}", "a {%}%} {% generation %}", "{%%}", "{%", "{% generation"] {
        assert!(ChatTemplate::from_str(text).is_err(), "{text}");
    }
}

#[test]
fn no_filter_takes_memory_at_will() {
    for text in [
        "{{ messages | tojson(indent=10000000000) }}",
        "{{ 'a' * 10000000000 }}",
        "{{ [1] * 10000000000 }}",
        "{{ range(10000000000) | list }}",
        "{{ 'a' | indent(10000000000000) }}",
    ] {
        assert!(render(text).is_err(), "{text}");
    }
}

#[test]
fn python_methods_work() {
    let text = render("{{ messages[0].content.strip().upper() + ' a b'.split(' ')[-1] }}{{ messages[0].get('x', 1) }}");
    assert_eq!(text.unwrap(), "HIb1");
}

#[test]
fn maps_keep_their_order_in_json() {
    let text = render("{{ messages[0] | tojson }}").unwrap();
    assert_eq!(text, r#"{"role": "user", "content": "Hi"}"#);
}

/// `datetime(2026, 1, 5, 12).strftime(...)` of CPython 3.11 in the C locale.
#[test]
fn dates_are_written_as_python_writes_them() {
    for (format, expected) in [
        ("%A, %B %-d, %Y %H:%M", "Monday, January 5, 2026 12:00"),
        ("%d %b %Y|%Z%z|%j|%p|%I", "05 Jan 2026||005|PM|12"),
        ("%f|%y|%e|%U|%%", "000000|26| 5|01|%"),
        ("%c|%x|%X", "Mon Jan  5 12:00:00 2026|01/05/26|12:00:00"),
    ] {
        let template = ChatTemplate::from_str(&format!("{{{{ strftime_now('{format}') }}}}")).unwrap();
        assert_eq!(template.with_date(2026, 1, 5).unwrap().render(&[], false).unwrap(), expected, "{format}");
    }
    for format in ["%Q", "%", "%E%%", "%-f", "%s", "%+", "%.3f", "%é"] {
        let error = render(&format!("{{{{ strftime_now('{format}') }}}}")).unwrap_err().to_string();
        assert!(error.contains("strftime_now: bad format"), "{format}: {error}");
    }
}

#[test]
fn a_refusal_of_the_template_is_an_error_with_its_words() {
    let error = render("{{ raise_exception('roles must alternate') }}").unwrap_err();
    assert!(error.to_string().contains("roles must alternate"), "{error}");
}

#[test]
fn an_endless_template_runs_out_of_fuel() {
    let error =
        render("{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}").unwrap_err();
    assert!(error.to_string().contains("fuel"), "{error}");
}

#[test]
fn a_huge_output_is_refused() {
    let limits = TemplateLimits { output_bytes: 100, ..TemplateLimits::default() };
    let template = ChatTemplate::from_str("{% for a in range(99) %}ab{% endfor %}").unwrap().with_limits(limits);
    let error = template.render(&[], false).unwrap_err();
    assert!(error.to_string().contains("exceeds 100 bytes"), "{error}");
}

#[test]
fn a_template_that_does_not_parse_names_the_line() {
    let error = render("a\n{% if %}").unwrap_err();
    assert!(matches!(error, Error::Template { .. }) && error.to_string().contains(":2"), "{error}");
}
