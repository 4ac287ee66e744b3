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

/// Templates that would take any time, memory or stack. They stop within their budget, with an error.
#[test]
fn a_template_stays_in_its_bounds() {
    let doubled = "{% set ns = namespace(x=['ab']) %}{% for i in range(80) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}";
    let long = "{% set ns = namespace(x='ab') %}{% for i in range(20) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}";
    // As deep as a macro that calls itself can make it, with values that share their parts.
    let shared = |last: &str| {
        format!(
            "{{% macro m(n, x) %}}{{% if n %}}{{{{ m(n - 1, [x, x]) }}}}{{% else %}}{last}{{% endif %}}{{% endmacro %}}{{{{ m(40, ['a']) }}}}"
        )
    };
    let nested = |open: &str, close: &str| format!("{{{{ {}1{} }}}}", open.repeat(20_000), close.repeat(20_000));
    let mut attacks = vec![
        nested("not ", ""),
        nested("[", "]"),
        nested("(", ")"),
        nested("-", ""),
        nested("{1: ", "}"),
        nested("a[", "]"),
        nested("f(", ")"),
        format!("{{{{ {}1 }}}}", "1 if ".repeat(20_000)),
        format!("{{{{ {}1 }}}}", "1 + ".repeat(20_000)),
        format!("{{{{ {}1 }}}}", "1 ** ".repeat(20_000)),
        format!("{{{{ x{} }}}}", " | string".repeat(20_000)),
        format!("{}{}", "{% if 1 %}".repeat(20_000), "{% endif %}".repeat(20_000)),
        format!("{}{}", "{% for a in [1] %}".repeat(20_000), "{% endfor %}".repeat(20_000)),
        doubled.to_owned(),
        "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}".to_owned(),
        "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = {'a': ns.x} %}{% endfor %}".to_owned(),
        "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = namespace(x=ns.x) %}{% endfor %}"
            .to_owned(),
        "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [[1, ns.x] | batch(1)] %}{% endfor %}"
            .to_owned(),
        "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = {'a': ns.x}.values() %}{% endfor %}"
            .to_owned(),
        "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = dict(a=ns.x) %}{% endfor %}".to_owned(),
        "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x, '\\N{DASH}'] %}{% endfor %}"
            .to_owned(),
        format!("{long}{{{{ ns.x.replace('', ns.x) }}}}"),
        format!("{long}{{{{ ns.x | replace('a', ns.x) }}}}"),
        format!("{long}{{{{ ([ns.x] * 99) | join(ns.x) | length }}}}"),
        format!("{long}{{{{ ns.x.join([ns.x] * 99) | length }}}}"),
        format!("{long}{{% for i in range(99999) %}}{{{{ 'c' in ns.x }}}}{{% endfor %}}"),
        format!("{long}{{% for i in range(99999) %}}{{{{ (ns.x ~ i) | length }}}}{{% endfor %}}"),
        format!("{long}{{% for i in range(99999) %}}{{{{ ns.x.find('c') }}}}{{% endfor %}}"),
        format!("{long}{{% for i in range(99999) %}}{{{{ ns.x == ns.x ~ i }}}}{{% endfor %}}"),
        format!("{long}{{% for i in range(99999) %}}{{{{ ns.x | upper | length }}}}{{% endfor %}}"),
        "{{ '%2000000000d' % 1 }}".to_owned(),
        "{{ '%*d' % (2000000000, 1) }}".to_owned(),
        "{{ '{:2000000000}'.format(1) }}".to_owned(),
        "{{ 'a'.ljust(2000000000) }}".to_owned(),
        "{{ 'a' * 2000000000 }}".to_owned(),
        "{{ [1] * 2000000000 }}".to_owned(),
        "{{ 2 ** 999999999 }}".to_owned(),
        "{{ range(2000000000) | list | length }}".to_owned(),
        "{{ 'a' | indent(2000000000, true) }}".to_owned(),
        "{{ 'a' | center(2000000000) }}".to_owned(),
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".to_owned(),
        "{% for x in [[1]] recursive %}{{ loop([x]) }}{% endfor %}".to_owned(),
    ];
    for last in [
        "x | tojson",
        "x == [x, x]",
        "x in [[x, x], x]",
        "x ~ ''",
        "x",
        "[x, x] | unique | list",
        "[x, [x]] | sort",
        "x < [x]",
    ] {
        attacks.push(shared(&format!("{{{{ {last} }}}}")));
    }
    for attack in &attacks {
        let shown = &attack[..attack.floor_char_boundary(120)];
        // A thread of a pool has 2 MiB of stack.
        let text = attack.clone();
        let work =
            move || ChatTemplate::from_str(&text).and_then(|template| template.render(&[Message::user("Hi")], false));
        let found = std::thread::Builder::new().stack_size(2 << 20).spawn(work).unwrap().join().unwrap();
        let error = found.map(|text| text.len()).expect_err(shown);
        assert!(matches!(error, Error::Template { .. }), "{shown}: {error}");
        assert!(error.to_string().len() < 1000, "{shown}: {error}");
        assert!(
            !error.to_string().contains("recursion limit exceeded")
                || shown.contains("m() }}")
                || shown.contains("loop"),
            "{shown}: {error}"
        );
    }
}
