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
//!
//! Further columns may follow and are carried along. On disk, `source` is a plain string: Parquet has its own dictionary
//! encoding, and Hugging Face `datasets` cannot load Arrow's.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Builder, ListBuilder, RecordBatch, StringBuilder, StringDictionaryBuilder, StructArray,
    StructBuilder,
};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int32Type, Schema, SchemaRef};

use crate::cell::{Cell, List, Struct};
use crate::draft::{Draft, DraftText};
use crate::error::{Error, Result};
use crate::pair::{Form, Message, Pair, Text};

/// Names of the canonical columns, in order.
pub(crate) const COLUMNS: [&str; 10] =
    ["prompt", "chosen", "rejected", "source", "policy", "generator", "task", "score_chosen", "score_rejected", "id"];

/// Fields of one message.
fn message_fields() -> Fields {
    Fields::from(vec![Field::new("role", DataType::Utf8, true), Field::new("content", DataType::Utf8, true)])
}

fn message_item() -> FieldRef {
    Arc::new(Field::new("item", DataType::Struct(message_fields()), true))
}

/// Canonical fields, without further columns.
pub(crate) fn fields(form: Form) -> Vec<FieldRef> {
    let text = match form {
        Form::Plain => DataType::Utf8,
        Form::Messages => DataType::List(message_item()),
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
        .collect()
}

/// Canonical schema, without further columns.
pub fn schema(form: Form) -> SchemaRef {
    Arc::new(Schema::new(fields(form)))
}

/// Checks that a schema is canonical and returns the form of its texts.
///
/// # Errors
/// [`Error::Schema`] if a canonical column is missing or has another type.
pub(crate) fn form_of(schema: &Schema) -> Result<Form> {
    let form = form_of_written(schema);
    for expected in fields(form) {
        let found = schema.field_with_name(expected.name()).ok();
        if !found.is_some_and(|found| found.data_type().equals_datatype(expected.data_type())) {
            return Err(Error::Schema {
                column: expected.name().clone(),
                found: found.map_or("missing".to_owned(), |found| found.data_type().to_string()),
                expected: expected.data_type().to_string(),
            });
        }
    }
    Ok(form)
}

/// Form of a file that was started with this schema.
pub(crate) fn form_of_written(schema: &Schema) -> Form {
    match schema.field_with_name("chosen").map(Field::data_type) {
        Ok(DataType::Utf8) => Form::Plain,
        _ => Form::Messages,
    }
}

/// Converts pairs to one canonical batch of the given form.
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
    let mut builder = BatchBuilder::new(form);
    for (row, pair) in pairs.iter().enumerate() {
        if builder.text_bytes + pair_bytes(pair) > i32::MAX as usize {
            let found = "more than 2 GiB of text".to_owned();
            return Err(Error::Value { row, column: "chosen", found, expected: "less text in one batch" });
        }
        let mut draft = Draft::of_pair(pair);
        draft.set_form(form);
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
        Text::Messages(turns) => turns.iter().map(|turn| turn.role.len() + turn.content.len()).sum(),
    };
    bytes(&pair.prompt) + bytes(&pair.chosen) + bytes(&pair.rejected)
}

/// Converts a canonical batch to pairs, without further columns.
///
/// # Errors
/// [`Error::Schema`] if the batch is not canonical, [`Error::Value`] if a required value is null or `policy` is
/// neither `on` nor `off`.
pub fn pairs_from_batch(batch: &RecordBatch) -> Result<Vec<Pair>> {
    form_of(batch.schema_ref())?;
    let rows = StructArray::from(batch.clone());
    (0..batch.num_rows()).map(|row| pair_of_row(Struct::Arrow { array: &rows, row }, row)).collect()
}

fn pair_of_row(cells: Struct<'_>, row: usize) -> Result<Pair> {
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
        id: required("id")?,
    })
}

fn messages(turns: List<'_>, row: usize, column: &'static str) -> Result<Vec<Message>> {
    let turn = |turn: Cell<'_>| {
        let turn = turn.as_struct()?;
        Some(Message::new(turn.get("role").as_str()?, turn.get("content").as_str()?))
    };
    let missing = || Error::Value { row, column, found: "a turn with nulls".to_owned(), expected: "role and content" };
    turns.iter().map(|cell| turn(cell).ok_or_else(missing)).collect()
}

/// Column builders of one canonical batch.
pub(crate) struct BatchBuilder {
    form: Form,
    texts: [TextBuilder; 3],
    source: StringDictionaryBuilder<Int32Type>,
    policy: StringBuilder,
    generator: StringBuilder,
    task: StringBuilder,
    scores: [Float64Builder; 2],
    id: StringBuilder,
    pub(crate) rows: usize,
    pub(crate) text_bytes: usize,
}

enum TextBuilder {
    Plain(StringBuilder),
    Messages(ListBuilder<StructBuilder>),
}

impl TextBuilder {
    fn new(form: Form) -> Self {
        match form {
            Form::Plain => TextBuilder::Plain(StringBuilder::new()),
            Form::Messages => {
                let turns = StructBuilder::from_fields(message_fields(), 0);
                TextBuilder::Messages(ListBuilder::new(turns).with_field(message_item()))
            }
        }
    }

    fn accepts(&self, text: &DraftText<'_>) -> bool {
        matches!(
            (self, text),
            (TextBuilder::Plain(_), DraftText::Plain(_)) | (TextBuilder::Messages(_), DraftText::Messages(_))
        )
    }

    fn append(&mut self, text: &DraftText<'_>) {
        match (self, text) {
            (TextBuilder::Plain(builder), DraftText::Plain(text)) => builder.append_value(text),
            (TextBuilder::Messages(builder), DraftText::Messages(turns)) => {
                for turn in turns {
                    let fields = builder.values();
                    for (i, value) in [&turn.role, &turn.content].into_iter().enumerate() {
                        let field = fields.field_builder::<StringBuilder>(i);
                        field.expect("both fields of a message are built as strings").append_value(value);
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

impl BatchBuilder {
    pub(crate) fn new(form: Form) -> Self {
        Self {
            form,
            texts: std::array::from_fn(|_| TextBuilder::new(form)),
            source: StringDictionaryBuilder::new(),
            policy: StringBuilder::new(),
            generator: StringBuilder::new(),
            task: StringBuilder::new(),
            scores: std::array::from_fn(|_| Float64Builder::new()),
            id: StringBuilder::new(),
            rows: 0,
            text_bytes: 0,
        }
    }

    /// Adds one row. Returns false and adds nothing if the texts have the other form.
    pub(crate) fn append(&mut self, draft: &Draft<'_>, id: &str) -> bool {
        let texts = [&draft.prompt, &draft.chosen, &draft.rejected];
        if !self.texts.iter().zip(texts).all(|(builder, text)| builder.accepts(text)) {
            return false;
        }
        for (builder, text) in self.texts.iter_mut().zip(texts) {
            builder.append(text);
        }
        self.source.append_value(draft.source.as_deref().expect("a draft is settled first"));
        self.policy.append_value(draft.policy.expect("a draft is settled first").as_str());
        self.generator.append_option(draft.generator.as_deref());
        self.task.append_option(draft.task.as_deref());
        self.scores[0].append_option(draft.score_chosen);
        self.scores[1].append_option(draft.score_rejected);
        self.id.append_value(id);
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
        columns
    }

    fn finish(mut self) -> RecordBatch {
        let schema = schema(self.form);
        RecordBatch::try_new(schema, self.finish_columns()).expect("the builders are made from this schema")
    }
}
