//! The canonical Arrow schema, and conversion between its batches and [`Pair`] values.
//!
//! | column | type |
//! | --- | --- |
//! | `prompt`, `chosen`, `rejected` | `List<Struct<role: Utf8, content: Utf8>>`, or `Utf8` in the plain form |
//! | `source` | `Dictionary<Int32, Utf8>` |
//! | `policy` | `Utf8`: `on` or `off` |
//! | `generator`, `task` | `Utf8`, nullable |
//! | `score_chosen`, `score_rejected` | `Float64`, nullable |
//! | `id` | `Utf8` |
//! | `ref_rewards` | `List<Float64>`, nullable; only where rows have it |
//!
//! Turns with more than role and content have further fields, such as `tool_calls`, and rows with tools, documents or
//! arguments for the chat template have the columns `tools`, `documents` and `chat_template_kwargs` after `id`
//! (see [`Layout`]). Their values are JSON as `Utf8` with Arrow's extension type `arrow.json`, which `datasets` and `pyarrow`
//! decode; fields that hold text only are `Utf8`.
//!
//! Further columns may follow and are carried along. On disk, `source` is a plain string: Parquet has its own dictionary
//! encoding, and Hugging Face `datasets` cannot load Arrow's.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Builder, ListBuilder, RecordBatch, StringBuilder, StringDictionaryBuilder, StructArray,
    StructBuilder,
};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int32Type, Schema, SchemaRef};
use serde_json::Value;

use crate::cell::{Cell, List, Struct};
use crate::draft::{Draft, DraftText};
use crate::error::{Error, Result};
use crate::format::{TURN_FIELDS, Turn, ref_rewards, template_inputs, turn};
use crate::message::{Message, TemplateInputs};
use crate::pair::{Form, Origin, Pair, Text};

/// Names of the canonical columns, in order.
pub(crate) const COLUMNS: [&str; 10] =
    ["prompt", "chosen", "rejected", "source", "policy", "generator", "task", "score_chosen", "score_rejected", "id"];

/// Form of the texts of a file, and what its rows have beside `role` and `content` of turns.
///
/// # Examples
/// ```
/// use simplemix_data::schema::Layout;
/// use simplemix_data::{Form, Message, Pair, Policy, Text};
/// let turn = |message| Text::Messages(vec![message]);
/// let call = Message::assistant("").with_field("tool_calls", vec!["now"]);
/// let pair = Pair::new(turn(Message::user("Now?")), turn(call), turn(Message::assistant("?")), "s", Policy::Off);
/// let layout = Layout::of_pairs(&[pair]);
/// assert_eq!((layout.form, layout.turn_fields), (Form::Messages, vec!["tool_calls"]));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Layout {
    /// Form of the texts.
    pub form: Form,
    /// Fields of turns beside role and content, in the order of the schema.
    pub turn_fields: Vec<&'static str>,
    /// Columns of inputs of the chat template, in the order of [`TemplateInputs::COLUMNS`].
    pub inputs: Vec<&'static str>,
    /// Whether there is the column `ref_rewards`, see [`Pair::ref_rewards`].
    pub ref_rewards: bool,
}

impl From<Form> for Layout {
    fn from(form: Form) -> Self {
        Self { form, turn_fields: Vec::new(), inputs: Vec::new(), ref_rewards: false }
    }
}

impl Layout {
    /// Layout of these pairs: plain only if all of them are.
    pub fn of_pairs(pairs: &[Pair]) -> Self {
        let is_plain = !pairs.is_empty() && pairs.iter().all(|pair| pair.form() == Form::Plain);
        let mut layout = Self::from(if is_plain { Form::Plain } else { Form::Messages });
        layout.ref_rewards = pairs.iter().any(|pair| !pair.ref_rewards.is_empty());
        for pair in pairs.iter().filter(|_| !is_plain) {
            layout.add_inputs(&pair.inputs);
            for text in [&pair.prompt, &pair.chosen, &pair.rejected] {
                layout.add_text(text);
            }
        }
        layout
    }

    /// The layout of the same rows in another form: bare text has no fields of turns, and a template gets nothing beside it.
    #[must_use]
    pub fn in_form(self, form: Form) -> Self {
        match form {
            Form::Plain => Self { ref_rewards: self.ref_rewards, ..form.into() },
            Form::Messages => Self { form, ..self },
        }
    }

    /// Adds the fields of a text's turns.
    pub fn add_text(&mut self, text: &Text) {
        if let Text::Messages(turns) = text {
            turns.iter().flat_map(|turn| turn.fields.keys()).for_each(|name| self.add_field(name));
        }
    }

    /// Adds the columns of inputs.
    pub fn add_inputs(&mut self, inputs: &TemplateInputs) {
        if !inputs.is_empty() {
            TemplateInputs::COLUMNS
                .iter()
                .filter(|name| inputs.column(name).is_some())
                .for_each(|name| self.add_input(name));
        }
    }

    /// Adds what `other` has; the form stays.
    pub fn add_all(&mut self, other: &Self) {
        other.turn_fields.iter().for_each(|name| self.add_field(name));
        other.inputs.iter().for_each(|name| self.add_input(name));
        self.ref_rewards |= other.ref_rewards;
    }

    pub(crate) fn add_field(&mut self, name: &str) {
        insert(&mut self.turn_fields, &TURN_FIELDS.map(|field| field.name), name);
    }

    pub(crate) fn add_input(&mut self, name: &str) {
        insert(&mut self.inputs, &TemplateInputs::COLUMNS, name);
    }

    /// Whether the columns hold everything that the row has.
    pub(crate) fn fits(&self, draft: &Draft<'_>) -> bool {
        let fields = draft.turns().flat_map(|turn| turn.fields.keys());
        let has_column = |name: &&str| draft.inputs.column(name).is_none() || self.inputs.contains(name);
        (self.ref_rewards || draft.ref_rewards.is_empty())
            && fields.into_iter().all(|name| self.turn_fields.iter().any(|field| field == name))
            && (draft.inputs.is_empty() || TemplateInputs::COLUMNS.iter().all(has_column))
    }
}

/// Inserts `name` in the order of `all`, unless it is there or not one of them.
fn insert(names: &mut Vec<&'static str>, all: &[&'static str], name: &str) {
    let place = |name: &str| all.iter().position(|known| *known == name);
    if let Some(at) = place(name)
        && !names.contains(&all[at])
    {
        names.push(all[at]);
        names.sort_by_key(|name| place(name));
    }
}

/// A column or field of JSON as text.
pub(crate) fn json_field(name: &str) -> Field {
    let extension = [("ARROW:extension:name", "arrow.json"), ("ARROW:extension:metadata", "")];
    let extension: HashMap<String, String> =
        extension.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    Field::new(name, DataType::Utf8, true).with_metadata(extension)
}

/// Whether a field holds JSON as text.
pub(crate) fn is_json(field: &Field) -> bool {
    field.extension_type_name() == Some("arrow.json")
}

/// Fields of one message.
fn message_fields(layout: &Layout) -> Fields {
    let mut fields = vec![Field::new("role", DataType::Utf8, true), Field::new("content", DataType::Utf8, true)];
    let further = TURN_FIELDS.iter().filter(|field| layout.turn_fields.contains(&field.name));
    fields.extend(further.map(|field| match field.is_text {
        true => Field::new(field.name, DataType::Utf8, true),
        false => json_field(field.name),
    }));
    Fields::from(fields)
}

fn message_item(layout: &Layout) -> FieldRef {
    Arc::new(Field::new("item", DataType::Struct(message_fields(layout)), true))
}

/// Name of the column of [`Pair::ref_rewards`].
pub(crate) const REF_REWARDS: &str = "ref_rewards";

fn reward_item() -> FieldRef {
    Arc::new(Field::new("item", DataType::Float64, true))
}

/// Canonical fields, without further columns.
pub(crate) fn fields(layout: &Layout) -> Vec<FieldRef> {
    let text = match layout.form {
        Form::Plain => DataType::Utf8,
        Form::Messages => DataType::List(message_item(layout)),
    };
    let source = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    COLUMNS
        .iter()
        .map(|&name| {
            let (kind, nullable) = match name {
                "prompt" | "chosen" | "rejected" => (text.clone(), false),
                "source" => (source.clone(), false),
                "generator" | "task" => (DataType::Utf8, true),
                "score_chosen" | "score_rejected" => (DataType::Float64, true),
                _ => (DataType::Utf8, false),
            };
            Arc::new(Field::new(name, kind, nullable))
        })
        .chain(layout.ref_rewards.then(|| Arc::new(Field::new(REF_REWARDS, DataType::List(reward_item()), true))))
        .chain(layout.inputs.iter().map(|name| Arc::new(json_field(name))))
        .collect()
}

/// Canonical schema of a layout, or of a form alone, without further columns.
pub fn schema(layout: impl Into<Layout>) -> SchemaRef {
    Arc::new(Schema::new(fields(&layout.into())))
}

/// Checks that a schema is canonical and returns its layout.
///
/// # Errors
/// [`Error::Schema`] if a canonical column is missing or has another type.
pub(crate) fn layout_of(schema: &Schema) -> Result<Layout> {
    let layout = layout_of_written(schema);
    for expected in fields(&layout) {
        let found = schema.field_with_name(expected.name()).ok();
        if !found.is_some_and(|found| found.data_type().equals_datatype(expected.data_type())) {
            return Err(Error::Schema {
                column: expected.name().clone(),
                found: found.map_or("missing".to_owned(), |found| found.data_type().to_string()),
                expected: expected.data_type().to_string(),
            });
        }
    }
    Ok(layout)
}

/// Layout of a file that was started with this schema.
pub(crate) fn layout_of_written(schema: &Schema) -> Layout {
    let of_type = |name: &str| schema.field_with_name(name).map(Field::data_type).ok();
    let ref_rewards = of_type(REF_REWARDS).is_some();
    if of_type("chosen") == Some(&DataType::Utf8) {
        return Layout { ref_rewards, ..Form::Plain.into() };
    }
    let mut layout = Layout { ref_rewards, ..Form::Messages.into() };
    if let Some(DataType::List(item)) = of_type("chosen")
        && let DataType::Struct(fields) = item.data_type()
    {
        fields.iter().for_each(|field| layout.add_field(field.name()));
    }
    let is_input = |name: &&&str| schema.field_with_name(name).is_ok_and(is_json);
    TemplateInputs::COLUMNS.iter().filter(is_input).for_each(|name| layout.add_input(name));
    layout
}

/// Converts pairs to one canonical batch of the given form, with the columns that these pairs need.
///
/// With [`Form::Messages`], bare text becomes a turn of the user (prompt) or of the assistant (responses).
///
/// # Errors
/// [`Error::Value`] if `form` is [`Form::Plain`] and a pair holds messages, or if the texts exceed the 2 GiB
/// that a column of a batch can hold.
///
/// # Examples
/// ```
/// use simplemix_data::{schema, Form, Pair, Policy, Text};
/// let pair = Pair::new(Text::from("2 + 2?"), Text::from(" 4"), Text::from(" 5"), "sums", Policy::Off);
/// let batch = schema::batch_from_pairs(&[pair.clone()], Form::Plain)?;
/// assert_eq!(schema::pairs_from_batch(&batch)?, [pair]);
/// # Ok::<(), simplemix_data::Error>(())
/// ```
pub fn batch_from_pairs(pairs: &[Pair], form: Form) -> Result<RecordBatch> {
    batch_in_layout(pairs, &Layout::of_pairs(pairs).in_form(form))
}

/// Like [`batch_from_pairs`], for batches that are to have the same columns.
///
/// # Errors
/// See [`batch_from_pairs`]; also [`Error::Value`] if a pair has a field that has no column in the layout.
pub fn batch_in_layout(pairs: &[Pair], layout: &Layout) -> Result<RecordBatch> {
    let mut builder = BatchBuilder::new(layout);
    for (row, pair) in pairs.iter().enumerate() {
        if builder.text_bytes + pair_bytes(pair) > i32::MAX as usize {
            let found = "more than 2 GiB of text".to_owned();
            return Err(Error::Value { row, column: "chosen", found, expected: "less text in one batch" });
        }
        let mut draft = Draft::of_pair(pair);
        draft.set_form(layout.form);
        if !draft.ref_rewards.is_empty() && !layout.ref_rewards {
            let found = "rewards, which the first pairs do not have".to_owned();
            return Err(Error::Value { row, column: REF_REWARDS, found, expected: "none, or rewards in the layout" });
        }
        if layout.form == Form::Messages && !layout.fits(&draft) {
            let found = "turns or inputs with a field that the first pairs do not have".to_owned();
            return Err(Error::Value { row, column: "prompt", found, expected: "fields of the layout" });
        }
        if !builder.append(&draft, &pair.id) {
            let found = "a list of messages".to_owned();
            return Err(Error::Value { row, column: "chosen", found, expected: "text, since the form is plain" });
        }
    }
    Ok(builder.finish())
}

fn pair_bytes(pair: &Pair) -> usize {
    let bytes = |text: &Text| match text {
        Text::Plain(text) => text.len(),
        Text::Messages(turns) => turns.iter().map(|turn| Turn::of_message(turn).bytes()).sum(),
    };
    bytes(&pair.prompt) + bytes(&pair.chosen) + bytes(&pair.rejected) + pair.inputs.bytes()
}

/// The JSON from which `arrow` builds a cell of a canonical text column: fields of turns that hold JSON are texts.
pub fn cells_of(text: &Text) -> Value {
    let Text::Messages(turns) = text else { return serde_json::json!(text) };
    let cells = |message: &Message| {
        let turn = Turn::of_message(message);
        let fields =
            message.fields.keys().map(|name| (name.clone(), field_text(&turn, name).map_or(Value::Null, Value::from)));
        let content = message.has_content().then(|| ("content".to_owned(), message.content.as_str().into()));
        let role = ("role".to_owned(), message.role.as_str().into());
        Value::Object([role].into_iter().chain(content).chain(fields).collect())
    };
    turns.iter().map(cells).collect()
}

/// Converts a canonical batch to pairs, without further columns.
///
/// # Errors
/// [`Error::Schema`] if the batch is not canonical, [`Error::Value`] if a required value is null or `policy` is
/// neither `on` nor `off`.
pub fn pairs_from_batch(batch: &RecordBatch) -> Result<Vec<Pair>> {
    let layout = layout_of(batch.schema_ref())?;
    let rows = StructArray::from(batch.clone());
    (0..batch.num_rows()).map(|row| pair_of_row(Struct::Arrow { array: &rows, row }, row, &layout)).collect()
}

fn pair_of_row(cells: Struct<'_>, row: usize, layout: &Layout) -> Result<Pair> {
    let inputs = match layout.inputs.is_empty() {
        true => Ok(TemplateInputs::default()),
        false => template_inputs(cells),
    };
    let inputs = inputs.map_err(|column| {
        let (found, expected) = ("a value of another kind".to_owned(), "JSON: a list of objects, or one of arguments");
        Error::Value { row, column, found, expected }
    })?;
    let text = |column: &'static str| match cells.get(column) {
        Cell::Str(text) => Ok(Text::Plain(text.to_owned())),
        Cell::List(turns) => messages(turns, row, column).map(Text::Messages),
        _ => Err(Error::Value { row, column, found: "null".to_owned(), expected: "text or messages" }),
    };
    let string = |column: &'static str| cells.get(column).as_str().map(str::to_owned);
    let required = |column: &'static str| {
        string(column).ok_or_else(|| Error::Value { row, column, found: "null".to_owned(), expected: "text" })
    };
    let word = required("policy")?;
    let policy = word.parse().map_err(|_| Error::Value {
        row,
        column: "policy",
        found: format!("`{word}`"),
        expected: "`on` or `off`",
    })?;
    Ok(Pair {
        prompt: text("prompt")?,
        chosen: text("chosen")?,
        rejected: text("rejected")?,
        source: required("source")?,
        policy,
        generator: string("generator"),
        task: string("task"),
        score_chosen: cells.get("score_chosen").as_f64(),
        score_rejected: cells.get("score_rejected").as_f64(),
        ref_rewards: ref_rewards(cells.get(REF_REWARDS)).unwrap_or_default().0,
        inputs,
        origin: Origin::default(),
        id: required("id")?,
    })
}

fn messages(turns: List<'_>, row: usize, column: &'static str) -> Result<Vec<Message>> {
    let message = |cell: Cell<'_>| Some(turn(cell.as_struct()?).ok()?.into_message());
    let missing = || Error::Value { row, column, found: "a turn with nulls".to_owned(), expected: "role and content" };
    turns.iter().map(|cell| message(cell).ok_or_else(missing)).collect()
}

/// Column builders of one canonical batch.
pub(crate) struct BatchBuilder {
    layout: Layout,
    texts: [TextBuilder; 3],
    source: StringDictionaryBuilder<Int32Type>,
    policy: StringBuilder,
    generator: StringBuilder,
    task: StringBuilder,
    scores: [Float64Builder; 2],
    id: StringBuilder,
    ref_rewards: ListBuilder<Float64Builder>,
    inputs: Vec<StringBuilder>,
    pub(crate) rows: usize,
    pub(crate) text_bytes: usize,
}

enum TextBuilder {
    Plain(StringBuilder),
    Messages(ListBuilder<StructBuilder>),
}

impl TextBuilder {
    fn new(layout: &Layout) -> Self {
        match layout.form {
            Form::Plain => TextBuilder::Plain(StringBuilder::new()),
            Form::Messages => {
                let turns = StructBuilder::from_fields(message_fields(layout), 0);
                TextBuilder::Messages(ListBuilder::new(turns).with_field(message_item(layout)))
            }
        }
    }

    fn accepts(&self, text: &DraftText<'_>) -> bool {
        matches!(
            (self, text),
            (TextBuilder::Plain(_), DraftText::Plain(_)) | (TextBuilder::Messages(_), DraftText::Messages(_))
        )
    }

    fn append(&mut self, text: &DraftText<'_>, layout: &Layout) {
        match (self, text) {
            (TextBuilder::Plain(builder), DraftText::Plain(text)) => builder.append_value(text),
            (TextBuilder::Messages(builder), DraftText::Messages(turns)) => {
                for turn in turns {
                    let fields = builder.values();
                    let content = turn.has_content.then(|| turn.content.clone());
                    let further = layout.turn_fields.iter().map(|name| field_text(turn, name));
                    for (i, value) in [Some(turn.role.clone()), content].into_iter().chain(further).enumerate() {
                        let field = fields.field_builder::<StringBuilder>(i);
                        field.expect("all fields of a message are built as strings").append_option(value);
                    }
                    fields.append(true);
                }
                builder.append(true);
            }
            _ => unreachable!("`accepts` was asked first"),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            TextBuilder::Plain(builder) => Arc::new(builder.finish()),
            TextBuilder::Messages(builder) => Arc::new(builder.finish()),
        }
    }
}

/// A further field of a turn as its column holds it: text, or JSON.
fn field_text<'a>(turn: &'a Turn<'_>, name: &str) -> Option<Cow<'a, str>> {
    let is_text = TURN_FIELDS.iter().any(|field| field.name == name && field.is_text);
    match turn.fields.get(name)? {
        Value::String(text) if is_text => Some(text.into()),
        value => Some(value.to_string().into()),
    }
}

impl BatchBuilder {
    pub(crate) fn new(layout: &Layout) -> Self {
        Self {
            layout: layout.clone(),
            texts: std::array::from_fn(|_| TextBuilder::new(layout)),
            source: StringDictionaryBuilder::new(),
            policy: StringBuilder::new(),
            generator: StringBuilder::new(),
            task: StringBuilder::new(),
            scores: std::array::from_fn(|_| Float64Builder::new()),
            id: StringBuilder::new(),
            ref_rewards: ListBuilder::new(Float64Builder::new()).with_field(reward_item()),
            inputs: layout.inputs.iter().map(|_| StringBuilder::new()).collect(),
            rows: 0,
            text_bytes: 0,
        }
    }

    /// Whether the texts have the form of the batch.
    pub(crate) fn accepts(&self, draft: &Draft<'_>) -> bool {
        let texts = [&draft.prompt, &draft.chosen, &draft.rejected];
        self.texts.iter().zip(texts).all(|(builder, text)| builder.accepts(text))
    }

    /// Adds one row. Returns false and adds nothing if the texts have the other form.
    pub(crate) fn append(&mut self, draft: &Draft<'_>, id: &str) -> bool {
        if !self.accepts(draft) {
            return false;
        }
        let texts = [&draft.prompt, &draft.chosen, &draft.rejected];
        for (builder, text) in self.texts.iter_mut().zip(texts) {
            builder.append(text, &self.layout);
        }
        self.source.append_value(draft.source.as_deref().expect("a draft is settled first"));
        self.policy.append_value(draft.policy.expect("a draft is settled first").as_str());
        self.generator.append_option(draft.generator.as_deref());
        self.task.append_option(draft.task.as_deref());
        self.scores[0].append_option(draft.score_chosen);
        self.scores[1].append_option(draft.score_rejected);
        self.id.append_value(id);
        if self.layout.ref_rewards {
            self.ref_rewards.values().append_slice(&draft.ref_rewards);
            self.ref_rewards.append(!draft.ref_rewards.is_empty());
        }
        for (builder, name) in self.inputs.iter_mut().zip(&self.layout.inputs) {
            builder.append_option(draft.inputs.column(name));
        }
        self.rows += 1;
        self.text_bytes += draft.bytes();
        true
    }

    /// Returns the canonical columns and empties the builder.
    pub(crate) fn finish_columns(&mut self) -> Vec<ArrayRef> {
        self.rows = 0;
        self.text_bytes = 0;
        let mut columns: Vec<ArrayRef> = self.texts.iter_mut().map(TextBuilder::finish).collect();
        columns.push(Arc::new(self.source.finish()));
        columns.push(Arc::new(self.policy.finish()));
        columns.push(Arc::new(self.generator.finish()));
        columns.push(Arc::new(self.task.finish()));
        columns.extend(self.scores.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef));
        columns.push(Arc::new(self.id.finish()));
        if self.layout.ref_rewards {
            columns.push(Arc::new(self.ref_rewards.finish()));
        }
        columns.extend(self.inputs.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef));
        columns
    }

    fn finish(mut self) -> RecordBatch {
        let schema = schema(self.layout.clone());
        RecordBatch::try_new(schema, self.finish_columns()).expect("the builders are made from this schema")
    }
}
