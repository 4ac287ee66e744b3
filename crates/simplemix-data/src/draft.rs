//! A pair that still borrows from its file, and the checks that every pair must pass.

use std::borrow::Cow;

use crate::format::Turn;
use crate::message::{TemplateInputs, says_nothing};
use crate::pair::{ContentHash, Form, HashedTurn, Origin, Pair, Policy, Text};
use crate::problem::Problem;

/// Largest row that is accepted: Arrow's 32-bit offsets could not hold a batch with larger ones.
const MAX_ROW_BYTES: usize = 1 << 30;

/// A prompt or response, borrowed where possible.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum DraftText<'a> {
    Plain(Cow<'a, str>),
    Messages(Vec<Turn<'a>>),
}

/// A pair as a format reads it, before source and policy are settled.
#[derive(Debug, Clone)]
pub(crate) struct Draft<'a> {
    pub(crate) prompt: DraftText<'a>,
    pub(crate) chosen: DraftText<'a>,
    pub(crate) rejected: DraftText<'a>,
    pub(crate) source: Option<Cow<'a, str>>,
    pub(crate) policy: Option<Policy>,
    pub(crate) generator: Option<Cow<'a, str>>,
    /// Models that wrote chosen and rejected.
    pub(crate) models: [Option<&'a str>; 2],
    pub(crate) task: Option<Cow<'a, str>>,
    pub(crate) score_chosen: Option<f64>,
    pub(crate) score_rejected: Option<f64>,
    pub(crate) ref_rewards: Vec<f64>,
    pub(crate) inputs: TemplateInputs,
    pub(crate) origin: Origin,
}

impl<'a> DraftText<'a> {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            DraftText::Plain(text) => text.len(),
            DraftText::Messages(turns) => turns.iter().map(Turn::bytes).sum(),
        }
    }

    /// The turns; none of bare text.
    pub(crate) fn turns(&self) -> &[Turn<'a>] {
        match self {
            DraftText::Plain(_) => &[],
            DraftText::Messages(turns) => turns,
        }
    }

    fn is_blank(&self) -> bool {
        match self {
            DraftText::Plain(text) => text.trim_start().is_empty(),
            DraftText::Messages(turns) => turns.iter().all(|turn| says_nothing(&turn.content, &turn.fields)),
        }
    }

    /// Whether both texts are equal up to white space at the ends.
    fn says_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (DraftText::Plain(a), DraftText::Plain(b)) => a.trim() == b.trim(),
            (DraftText::Messages(a), DraftText::Messages(b)) => {
                let same = |(a, b): (&Turn<'_>, &Turn<'_>)| {
                    a.role == b.role && a.content.trim() == b.content.trim() && a.fields == b.fields
                };
                a.len() == b.len() && a.iter().zip(b).all(same)
            }
            _ => false,
        }
    }

    fn hash_into(&self, hash: &mut ContentHash) {
        match self {
            DraftText::Plain(text) => hash.plain(text),
            DraftText::Messages(turns) => hash.messages(turns.iter().map(|turn| HashedTurn {
                role: &turn.role,
                content: turn.has_content.then_some(&turn.content),
                fields: &turn.fields,
            })),
        }
    }

    /// Hash of the text alone.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut hash = ContentHash::default();
        self.hash_into(&mut hash);
        hash.digest()
    }

    /// Turns bare text into one turn of `role`; messages stay as they are.
    fn set_messages(&mut self, role: &'static str) {
        if let DraftText::Plain(text) = self {
            *self = DraftText::Messages(vec![Turn::new(role, std::mem::take(text))]);
        }
    }

    pub(crate) fn into_text(self) -> Text {
        match self {
            DraftText::Plain(text) => Text::Plain(text.into_owned()),
            DraftText::Messages(turns) => Text::Messages(turns.into_iter().map(Turn::into_message).collect()),
        }
    }

    fn of_text(text: &'a Text) -> Self {
        match text {
            Text::Plain(text) => DraftText::Plain(text.into()),
            Text::Messages(turns) => DraftText::Messages(turns.iter().map(Turn::of_message).collect()),
        }
    }
}

impl<'a> Draft<'a> {
    pub(crate) fn new(prompt: DraftText<'a>, chosen: DraftText<'a>, rejected: DraftText<'a>) -> Self {
        Self {
            prompt,
            chosen,
            rejected,
            source: None,
            policy: None,
            generator: None,
            models: [None; 2],
            task: None,
            score_chosen: None,
            score_rejected: None,
            ref_rewards: Vec::new(),
            inputs: TemplateInputs::default(),
            origin: Origin::default(),
        }
    }

    pub(crate) fn of_pair(pair: &'a Pair) -> Self {
        Self {
            prompt: DraftText::of_text(&pair.prompt),
            chosen: DraftText::of_text(&pair.chosen),
            rejected: DraftText::of_text(&pair.rejected),
            source: Some(pair.source.as_str().into()),
            policy: Some(pair.policy),
            generator: pair.generator.as_deref().map(Into::into),
            models: [pair.generator.as_deref(); 2],
            task: pair.task.as_deref().map(Into::into),
            score_chosen: pair.score_chosen,
            score_rejected: pair.score_rejected,
            ref_rewards: pair.ref_rewards.clone(),
            inputs: pair.inputs.clone(),
            origin: pair.origin.clone(),
        }
    }

    /// Converts the pair to a form: bare text becomes a turn of the user and a turn of the assistant.
    pub(crate) fn set_form(&mut self, form: Form) {
        if form == Form::Messages {
            self.prompt.set_messages("user");
            self.chosen.set_messages("assistant");
            self.rejected.set_messages("assistant");
        }
    }

    /// Checks that hold for pairs of every format.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        let (prompt, chosen, rejected) = (&self.prompt, &self.chosen, &self.rejected);
        if prompt.is_blank() {
            return Err(Problem::EmptyPrompt);
        }
        if chosen.is_blank() {
            return Err(Problem::EmptyChosen);
        }
        if rejected.is_blank() {
            return Err(Problem::EmptyRejected);
        }
        for side in [chosen, rejected] {
            if let DraftText::Messages(turns) = side
                && turns.last().is_some_and(|turn| turn.role != "assistant")
            {
                return Err(Problem::LastTurnNotAssistant);
            }
        }
        if chosen.says_the_same(rejected) {
            return Err(Problem::IdenticalSides);
        }
        if self.bytes() > MAX_ROW_BYTES {
            return Err(Problem::TooLarge);
        }
        Ok(())
    }

    /// Turns of all texts.
    pub(crate) fn turns(&self) -> impl Iterator<Item = &Turn<'a>> {
        [&self.prompt, &self.chosen, &self.rejected].into_iter().flat_map(DraftText::turns)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.prompt.bytes() + self.chosen.bytes() + self.rejected.bytes() + self.inputs.bytes()
    }

    pub(crate) fn id(&self) -> String {
        let mut hash = ContentHash::default();
        for text in [&self.prompt, &self.chosen, &self.rejected] {
            text.hash_into(&mut hash);
        }
        hash.inputs(&self.inputs);
        hash.finish()
    }

    /// The owned pair.
    ///
    /// # Panics
    /// If source or policy are not settled, which the reader does first.
    pub(crate) fn into_pair(self) -> Pair {
        let source = self.source.map(Cow::into_owned).expect("the reader settles the source first");
        let policy = self.policy.expect("the reader settles the policy first");
        let (prompt, chosen, rejected) = (self.prompt.into_text(), self.chosen.into_text(), self.rejected.into_text());
        let mut pair = Pair::new(prompt, chosen, rejected, source, policy);
        if !self.inputs.is_empty() {
            pair = pair.with_inputs(self.inputs);
        }
        pair.origin = self.origin;
        pair.generator = self.generator.map(Cow::into_owned);
        pair.task = self.task.map(Cow::into_owned);
        pair.score_chosen = self.score_chosen;
        pair.score_rejected = self.score_rejected;
        pair.ref_rewards = self.ref_rewards;
        pair
    }
}
