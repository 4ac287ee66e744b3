//! Hugging Face chat templates: Jinja text that turns messages into the string that a model was trained on.
//!
//! Templates are rendered by `minijinja` with the settings and functions that `transformers` gives Jinja2: `trim_blocks`,
//! `lstrip_blocks`, Python's string and dict methods, `raise_exception`, `strftime_now`, a `tojson` that writes the same as
//! Python's `json.dumps`, and `{% generation %}` blocks. Templates are untrusted: they run with bounded fuel and bounded
//! output, and can access nothing but their arguments.

mod budget;
mod conversation;
mod engine;
mod filters;
mod markup;
mod methods;
mod namespaces;
mod number_filters;
mod operators;
mod python_format;
mod python_json;
mod python_text;
mod rewrite;
pub(crate) mod source;
mod tests;
mod text_filters;
mod text_methods;
mod values;

pub(crate) use engine::today;
pub use source::SpecialTokens;

use std::path::Path;
use std::sync::Arc;

use minijinja::Environment;
use minijinja::value::Serde;
use serde::Serialize;
use serde_json::{Map, Value};

use self::namespaces::Release;

use crate::error::{Error, Result};
use crate::message::{Message, TemplateInputs};

/// Budget of a template for one conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TemplateLimits {
    /// Units of work: about one per instruction and one per 64 bytes of data produced. 5 million by default, which is less
    /// than a second and at most 320 MB.
    pub fuel: u64,
    /// Maximum size of the result in bytes; 64 MiB by default.
    pub output_bytes: usize,
}

impl Default for TemplateLimits {
    fn default() -> Self {
        Self { fuel: 5_000_000, output_bytes: 64 << 20 }
    }
}

/// A parsed chat template. Cheap to clone.
///
/// # Examples
/// ```
/// use simplemix_data::{ChatTemplate, Message};
/// let chatml = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}\
///               {% if add_generation_prompt %}<|assistant|>{% endif %}";
/// let template = ChatTemplate::from_str(chatml)?;
/// let text = template.render(&[Message::user("Hi"), Message::assistant("Hello")], false)?;
/// assert_eq!(text, "<|user|>Hi\n<|assistant|>Hello\n");
/// # Ok::<(), simplemix_data::Error>(())
/// ```
#[derive(Clone)]
pub struct ChatTemplate {
    name: String,
    environment: Arc<Environment<'static>>,
    release: Arc<Release>,
    special_tokens: Arc<SpecialTokens>,
    limits: TemplateLimits,
    source: Arc<str>,
    /// Template for conversations with tools, where the folder has a second one.
    tool_use: Option<Arc<str>>,
    /// Year, month and day of `strftime_now`; the time of rendering without one.
    date: Option<(i32, u32, u32)>,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Year, month and day of a text such as `2026-01-31`.
pub(crate) fn day_of(text: &str) -> Result<(i32, u32, u32)> {
    let parts: Vec<&str> = text.split('-').collect();
    let day = match &parts[..] {
        [year, month, day] => year.parse().ok().zip(month.parse().ok()).zip(day.parse().ok()),
        _ => None,
    };
    let day = day.map(|((year, month), day)| (year, month, day));
    day.filter(|(year, month, day)| engine::noon(*year, *month, *day).is_some()).ok_or_else(|| Error::Value {
        row: 0,
        column: "template_date",
        found: text.to_owned(),
        expected: "a date such as 2026-01-31",
    })
}

/// Name of the template of an environment.
const MAIN: &str = "chat_template";
/// Name of the template for conversations with tools.
const TOOL_USE: &str = "tool_use";

impl ChatTemplate {
    /// Loads the template of a model folder: `chat_template.jinja`, else `chat_template` in `tokenizer_config.json` (in a
    /// list of named templates, the one called `default`, and the one called `tool_use` for conversations with tools). Special
    /// tokens such as `bos_token` come from `tokenizer_config.json` and `special_tokens_map.json`, with transformers' precedence.
    ///
    /// # Errors
    /// [`Error::NoTemplate`] if there is none, [`Error::Template`] if it does not parse, [`Error::ModelConfig`] or
    /// [`Error::Io`] if a file is malformed or cannot be read.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self> {
        Self::from_folder(dir.as_ref())
    }

    fn from_folder(dir: &Path) -> Result<Self> {
        let config = source::tokenizer_config(dir)?;
        let Some((name, text)) = source::template_text(dir, config.as_ref())? else {
            return Err(Error::NoTemplate { dir: dir.to_path_buf() });
        };
        let tool_use = source::tool_use_text(dir, config.as_ref())?;
        let map = source::read_json(dir, "special_tokens_map.json")?.unwrap_or_default();
        let tokens = source::special_tokens(&config.unwrap_or_default(), &map);
        let template = Self::parse(name, &text)?.with_special_tokens(tokens);
        match tool_use {
            Some(text) => template.with_tool_use(&text),
            None => Ok(template),
        }
    }

    /// Parses a template, without special tokens.
    ///
    /// # Errors
    /// [`Error::Template`] if it does not parse.
    #[expect(clippy::should_implement_trait, reason = "the trait could not say why it fails in the crate's terms")]
    pub fn from_str(text: &str) -> Result<Self> {
        Self::parse("(given)".to_owned(), text)
    }

    fn parse(name: String, text: &str) -> Result<Self> {
        let limits = TemplateLimits::default();
        let mut environment = engine::environment(limits.fuel);
        environment
            .add_template_owned(MAIN, rewrite::rewritten(text))
            .map_err(|error| template_error(&name, &error))?;
        let special_tokens = Arc::new(SpecialTokens::default());
        let (environment, release) = (Arc::new(environment), Arc::new(Release::of([text])));
        Ok(Self { date: None, name, environment, release, special_tokens, limits, source: text.into(), tool_use: None })
    }

    /// Sets the template of conversations with tools.
    fn with_tool_use(mut self, text: &str) -> Result<Self> {
        let mut environment = Environment::clone(&self.environment);
        environment
            .add_template_owned(TOOL_USE, rewrite::rewritten(text))
            .map_err(|error| template_error(&self.name, &error))?;
        self.environment = Arc::new(environment);
        self.release = Arc::new(Release::of([&*self.source, text]));
        self.tool_use = Some(text.into());
        Ok(self)
    }

    /// Sets the special tokens, which the template sees as `bos_token`, `eos_token` and so on.
    #[must_use]
    pub fn with_special_tokens(mut self, tokens: SpecialTokens) -> Self {
        self.special_tokens = Arc::new(tokens);
        self
    }

    /// Sets the budget.
    #[must_use]
    pub fn with_limits(mut self, limits: TemplateLimits) -> Self {
        let mut environment = Environment::clone(&self.environment);
        environment.set_fuel(Some(limits.fuel));
        self.environment = Arc::new(environment);
        self.limits = limits;
        self
    }

    /// Text of the template.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Text of the template for conversations with tools, where the folder has a second one.
    pub fn tool_use_source(&self) -> Option<&str> {
        self.tool_use.as_deref()
    }

    /// Whether what is rendered depends on the date, by `strftime_now`.
    pub fn uses_date(&self) -> bool {
        [Some(self.source()), self.tool_use_source()].into_iter().flatten().any(|text| text.contains("strftime_now"))
    }

    /// Year, month and day that [`ChatTemplate::with_date`] has fixed.
    pub fn date(&self) -> Option<(i32, u32, u32)> {
        self.date
    }

    /// Fixes `strftime_now` to noon of this day, so that the result does not depend on the time of rendering.
    ///
    /// # Errors
    /// [`Error::Template`] if there is no such day.
    pub fn with_date(mut self, year: i32, month: u32, day: u32) -> Result<Self> {
        let Some(now) = engine::noon(year, month, day) else {
            let message = format!("{year}-{month:02}-{day:02} is not a date");
            return Err(Error::Template { name: self.name, message });
        };
        self.date = Some((year, month, day));
        let mut environment = Environment::clone(&self.environment);
        engine::set_clock(&mut environment, move || now);
        self.environment = Arc::new(environment);
        Ok(self)
    }

    /// Checks that `date` is a date such as `2026-01-31`.
    ///
    /// # Errors
    /// [`Error::Value`] if it is not.
    pub fn check_date(date: &str) -> Result<()> {
        day_of(date).map(drop)
    }

    /// Today's date in local time, such as `2026-01-31`, for [`crate::PairTokenizer::with_date`].
    pub fn today() -> String {
        let (year, month, day) = today();
        format!("{year:04}-{month:02}-{day:02}")
    }

    /// Renders a conversation as the model sees it, followed by the generation prompt if `add_generation_prompt` is set.
    ///
    /// # Errors
    /// [`Error::Template`] if the template refuses the conversation, fails, or exceeds its budget.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        self.render_with(messages, &TemplateInputs::default(), add_generation_prompt)
    }

    /// Like [`ChatTemplate::render`], with tools, documents and arguments of this template. As in `transformers`, reasoning
    /// under one of its names is given under the other ones too.
    ///
    /// # Errors
    /// See [`ChatTemplate::render`].
    pub fn render_with(
        &self,
        messages: &[Message],
        inputs: &TemplateInputs,
        add_generation_prompt: bool,
    ) -> Result<String> {
        self.render_arguments(&Arguments {
            messages: &conversation::Shown(messages),
            tools: inputs.tools.as_ref(),
            documents: inputs.documents.as_ref(),
            add_generation_prompt,
            special_tokens: &self.special_tokens,
            more: (!inputs.arguments.is_empty()).then_some(&inputs.arguments),
        })
    }

    /// Like [`ChatTemplate::render`], for messages with any fields (`tool_calls`, `reasoning_content`, `name`), with tools
    /// and with arguments of this template, such as `enable_thinking`.
    ///
    /// # Errors
    /// See [`ChatTemplate::render`].
    ///
    /// # Examples
    /// ```
    /// use serde_json::json;
    /// use simplemix_data::{ChatTemplate, RenderOptions};
    /// let template = ChatTemplate::from_str("{{ messages[0].content }}{% if think %} (thinking){% endif %}")?;
    /// let mut options = RenderOptions::default();
    /// options.arguments.insert("think".to_owned(), json!(true));
    /// assert_eq!(template.render_json(&json!([{"role": "user", "content": "Hi"}]), &options)?, "Hi (thinking)");
    /// # Ok::<(), simplemix_data::Error>(())
    /// ```
    pub fn render_json(&self, messages: &Value, options: &RenderOptions) -> Result<String> {
        self.render_arguments(&Arguments {
            messages: &conversation::normalized(messages),
            tools: options.tools.as_ref(),
            documents: options.documents.as_ref(),
            add_generation_prompt: options.add_generation_prompt,
            special_tokens: &self.special_tokens,
            more: Some(&options.arguments),
        })
    }

    fn render_arguments<M: Serialize + ?Sized>(&self, arguments: &Arguments<'_, M>) -> Result<String> {
        let name = if arguments.tools.is_some() && self.tool_use.is_some() { TOOL_USE } else { MAIN };
        let template = self.environment.get_template(name).expect("the templates were added when this was built");
        let mut output = engine::Bounded::new(self.limits.output_bytes);
        let rendered = template.render_captured_to(Serde(arguments), &mut output).map(drop);
        self.release.run();
        if output.exceeded() {
            let message = format!("the output exceeds {} bytes", self.limits.output_bytes);
            return Err(Error::Template { name: self.name.clone(), message });
        }
        rendered.map_err(|error| template_error(&self.name, &error))?;
        Ok(output.into_text())
    }
}

/// Arguments of a template beside the messages.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RenderOptions {
    /// Whether to append the generation prompt.
    pub add_generation_prompt: bool,
    /// A list of tools as JSON schemas.
    pub tools: Option<Value>,
    /// A list of documents.
    pub documents: Option<Value>,
    /// Arguments of this template; they take precedence over special tokens of the same name.
    pub arguments: Map<String, Value>,
}

/// All arguments of a template.
#[derive(Serialize)]
struct Arguments<'a, M: ?Sized> {
    messages: &'a M,
    tools: Option<&'a Value>,
    documents: Option<&'a Value>,
    add_generation_prompt: bool,
    #[serde(flatten)]
    special_tokens: &'a SpecialTokens,
    #[serde(flatten)]
    more: Option<&'a Map<String, Value>>,
}

fn template_error(name: &str, error: &minijinja::Error) -> Error {
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        message.push_str(": ");
        message.push_str(&error.to_string());
        cause = error.source();
    }
    Error::Template { name: name.to_owned(), message }
}
