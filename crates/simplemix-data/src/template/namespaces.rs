//! Namespaces of a template let go of what they hold once a conversation is rendered. One that holds itself would never be
//! freed: `minijinja` counts references.

use std::cell::RefCell;
use std::collections::BTreeSet;

use minijinja::value::ValueOrKwargs;
use minijinja::{Environment, Error, State, Value, context};

thread_local! {
    /// Namespaces made since the last release, on the thread that renders.
    static MADE: RefCell<Vec<Value>> = const { RefCell::new(Vec::new()) };
}

/// Fuel of a namespace, which is kept until the conversation is rendered: about its size in units of 64 bytes.
const FUEL: u64 = 10;

/// Jinja's `namespace`.
pub(super) fn namespace(state: &State<'_, '_>, defaults: Option<ValueOrKwargs>) -> Result<Value, Error> {
    state.consume_fuel(FUEL)?;
    let made = minijinja::functions::namespace(defaults)?;
    MADE.with_borrow_mut(|all| all.push(made.clone()));
    Ok(made)
}

/// Clears the attributes that a template assigns.
#[derive(Debug, Clone, Default)]
pub(super) struct Release {
    /// Templates that clear one attribute of each namespace.
    environment: Option<Environment<'static>>,
}

impl Release {
    /// Attributes that these templates assign.
    pub(super) fn of<'a>(templates: impl IntoIterator<Item = &'a str>) -> Self {
        let mut environment = Environment::new();
        for name in templates.into_iter().flat_map(assigned).collect::<BTreeSet<_>>() {
            let clearing = format!("{{% for ns in made %}}{{% set ns.{name} = none %}}{{% endfor %}}");
            // A name that is none is assigned nowhere either.
            let _ = environment.add_template_owned(name, clearing);
        }
        let is_any = environment.templates().next().is_some();
        Self { environment: is_any.then_some(environment) }
    }

    /// Clears the namespaces that were made on this thread.
    pub(super) fn run(&self) {
        let made = Value::from(MADE.take());
        let Some(environment) = self.environment.as_ref().filter(|_| made.len() > Some(0)) else { return };
        for (_, template) in environment.templates() {
            // Assigning `none` cannot fail.
            let _ = template.render(context! { made => made.clone() });
        }
    }
}

/// Names behind a dot on the left side of `set`; comments and literals may add some that are none.
fn assigned(template: &str) -> impl Iterator<Item = String> {
    template.split("{%").skip(1).flat_map(|tag| {
        let tag = tag.trim_start_matches(['-', '+']).trim_start();
        let target = tag.strip_prefix("set").filter(|rest| rest.starts_with([' ', '\t', '\n', '\r', '(']));
        let target = target.and_then(|rest| rest.split(['=', '%', '|']).next()).unwrap_or_default();
        target.split('.').skip(1).filter_map(|behind| {
            let behind = behind.trim_start();
            let end = behind.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(behind.len());
            (end > 0).then(|| behind[..end].to_owned())
        })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use minijinja::value::Object;

    use super::*;
    use crate::Message;
    use crate::template::ChatTemplate;

    #[derive(Debug)]
    struct Canary(Arc<AtomicUsize>);

    impl Object for Canary {}

    impl Drop for Canary {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Values that are alive after rendering; the function `canary` makes one.
    fn alive(text: &str) -> usize {
        let mut template = ChatTemplate::from_str(text).unwrap();
        let mut environment = Environment::clone(&template.environment);
        let count = Arc::new(AtomicUsize::new(0));
        let own = Arc::clone(&count);
        environment.add_function("canary", move || {
            own.fetch_add(1, Ordering::SeqCst);
            Value::from_object(Canary(Arc::clone(&own)))
        });
        template.environment = Arc::new(environment);
        let _ = template.render(&[Message::user("Hi")], false);
        drop(template);
        count.load(Ordering::SeqCst)
    }

    #[test]
    fn namespaces_that_hold_themselves_are_freed() {
        for text in [
            "{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.kept = canary() %}",
            "{%- set ns = namespace(kept=canary()) %}{%+ set  ns . me = [ns] %}",
            "{% set ns = namespace() %}{% set (ns.x, ns.y) = (ns, canary()) %}",
            "{% set a = namespace() %}{% set a.b = namespace() %}{% set a.b.c = {'a': a, 'kept': canary()} %}",
            "{% set ns = namespace() %}{% set ns.kept = canary() %}{% macro f() %}{{ ns }}{% endmacro %}{% set ns.f = f %}",
            "{%set\nns = namespace()%}{%-set\tns.me=ns-%}{% set ns.kept = canary() %}{{ raise_exception('no') }}",
        ] {
            assert_eq!(alive(text), 0, "{text}");
        }
    }

    #[test]
    fn namespaces_work_as_before() {
        let text =
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}";
        let template = ChatTemplate::from_str(text).unwrap();
        let messages = [Message::user("Hi"), Message::assistant("Hello")];
        for _ in 0..2 {
            assert_eq!(template.render(&messages, false).unwrap(), "2");
        }
    }

    #[test]
    fn names_that_are_assigned() {
        let names = |text: &str| assigned(text).collect::<Vec<_>>();
        assert_eq!(
            names("{% set ns.a = b.c %}{%- set (x.y, z) = 1 %}{% set q.r | upper %}t{% endset %}"),
            ["a", "y", "r"]
        );
        assert!(names("{% setting.a = 1 %}{% set a = b.c %}{{ d.e }}{% set x %}{% endset %}").is_empty());
    }
}
