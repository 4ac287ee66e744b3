//! Splitting JSON lines or one JSON array into its elements, without holding more than one of them.

use std::io::{self, BufRead};

/// Text of a file, decompressed.
pub(crate) struct Text {
    pub(crate) input: Box<dyn BufRead + Send>,
    /// Bytes of a row beyond which there is an error rather than exhausted memory.
    pub(crate) longest: u64,
}

/// Yields the bytes of one row after another.
pub(crate) struct Elements {
    input: Box<dyn BufRead + Send>,
    longest: u64,
    layout: Layout,
    /// Bytes consumed so far.
    offset: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Layout {
    Lines,
    /// Objects one after the other, each over any number of lines.
    Objects,
    /// Before the opening bracket.
    ArrayStart,
    /// After the bracket or an element.
    Array {
        first: bool,
    },
    Done,
}

/// Why the next element could not be split off.
#[derive(Debug)]
pub(crate) enum SplitError {
    Io(io::Error),
    Shape { byte: u64, found: String, expected: &'static str },
}

impl From<io::Error> for SplitError {
    fn from(error: io::Error) -> Self {
        SplitError::Io(error)
    }
}

impl Elements {
    /// One element a line; blank lines are skipped.
    pub(crate) fn lines(text: Text) -> Self {
        Self::new(text, Layout::Lines)
    }

    /// Objects one after the other, each over any number of lines.
    pub(crate) fn objects(text: Text) -> Self {
        Self::new(text, Layout::Objects)
    }

    /// The elements of one array.
    pub(crate) fn array(text: Text) -> Self {
        Self::new(text, Layout::ArrayStart)
    }

    fn new(Text { input, longest }: Text, layout: Layout) -> Self {
        Self { input, longest, layout, offset: 0 }
    }

    /// Puts the next element into `element` and returns the byte it starts at; `None` at the end.
    pub(crate) fn next_into(&mut self, element: &mut Vec<u8>) -> Result<Option<u64>, SplitError> {
        match self.layout {
            Layout::Lines => self.next_line(element),
            Layout::Objects => self.next_object(element),
            Layout::ArrayStart => {
                self.skip_byte_order_mark()?;
                self.expect(b'[', "`[`, the start of an array")?;
                self.layout = Layout::Array { first: true };
                self.next_item(element)
            }
            Layout::Array { .. } => self.next_item(element),
            Layout::Done => Ok(None),
        }
    }

    fn next_line(&mut self, line: &mut Vec<u8>) -> Result<Option<u64>, SplitError> {
        loop {
            line.clear();
            let start = self.offset;
            if !self.read_line(line)? {
                return Ok(None);
            }
            if start == 0 && line.starts_with(b"\xef\xbb\xbf") {
                line.drain(..3);
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Some(start));
            }
        }
    }

    /// Appends up to and with the next newline; false at the end of the input.
    fn read_line(&mut self, line: &mut Vec<u8>) -> Result<bool, SplitError> {
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return Ok(!line.is_empty());
            }
            let newline = buffer.iter().position(|&byte| byte == b'\n');
            let taken = newline.map_or(buffer.len(), |at| at + 1);
            line.extend_from_slice(&buffer[..taken]);
            self.consume(taken);
            self.check_length(line)?;
            if newline.is_some() {
                return Ok(true);
            }
        }
    }

    fn next_item(&mut self, element: &mut Vec<u8>) -> Result<Option<u64>, SplitError> {
        element.clear();
        let first = self.layout == Layout::Array { first: true };
        match self.peek()? {
            Some(b']') => return self.close(),
            Some(b',') if !first => {
                self.consume(1);
                self.peek()?;
            }
            Some(_) if first => {}
            _ => return Err(self.unexpected("`,` or `]` after an element of the array")),
        }
        self.layout = Layout::Array { first: false };
        let start = self.offset;
        self.read_value(element)?;
        Ok(Some(start))
    }

    fn next_object(&mut self, element: &mut Vec<u8>) -> Result<Option<u64>, SplitError> {
        element.clear();
        if self.offset == 0 {
            self.skip_byte_order_mark()?;
        }
        if self.peek()?.is_none() {
            return Ok(None);
        }
        let start = self.offset;
        self.expect(b'{', "`{`, the start of an object")?;
        element.push(b'{');
        self.read_until_closed(element)?;
        Ok(Some(start))
    }

    fn close(&mut self) -> Result<Option<u64>, SplitError> {
        self.consume(1);
        if self.peek()?.is_some() {
            return Err(self.unexpected("nothing after the array"));
        }
        self.layout = Layout::Done;
        Ok(None)
    }

    /// Copies one value of an array: up to the comma or bracket that ends it, brackets and strings inside it respected.
    fn read_value(&mut self, element: &mut Vec<u8>) -> Result<(), SplitError> {
        let mut nesting = Nesting::default();
        self.copy_until(element, "`]`, the end of the array", &mut |byte| {
            let ends = nesting.is_outside() && matches!(byte, b',' | b']');
            nesting.see(byte);
            if ends { Ends::Before } else { Ends::No }
        })
    }

    /// Copies the rest of an object whose opening brace has been read.
    fn read_until_closed(&mut self, element: &mut Vec<u8>) -> Result<(), SplitError> {
        let mut nesting = Nesting::in_object();
        self.copy_until(element, "`}`, the end of the object", &mut |byte| {
            nesting.see(byte);
            if nesting.is_outside() { Ends::After } else { Ends::No }
        })
    }

    /// Copies bytes up to the one that `ends` them.
    fn copy_until(
        &mut self,
        element: &mut Vec<u8>,
        expected: &'static str,
        ends: &mut dyn FnMut(u8) -> Ends,
    ) -> Result<(), SplitError> {
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return Err(self.unexpected(expected));
            }
            let end = buffer.iter().enumerate().find_map(|(at, &byte)| match ends(byte) {
                Ends::No => None,
                Ends::Before => Some(at),
                Ends::After => Some(at + 1),
            });
            let taken = end.unwrap_or(buffer.len());
            element.extend_from_slice(&buffer[..taken]);
            self.consume(taken);
            self.check_length(element)?;
            if end.is_some() {
                return Ok(());
            }
        }
    }

    /// The next byte that is not white space, which is skipped.
    fn peek(&mut self) -> Result<Option<u8>, SplitError> {
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return Ok(None);
            }
            let blanks = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let next = buffer.get(blanks).copied();
            self.consume(blanks);
            if next.is_some() {
                return Ok(next);
            }
        }
    }

    fn skip_byte_order_mark(&mut self) -> Result<(), SplitError> {
        if self.input.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
            self.consume(3);
        }
        Ok(())
    }

    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), SplitError> {
        if self.peek()? != Some(byte) {
            return Err(self.unexpected(expected));
        }
        self.consume(1);
        Ok(())
    }

    fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.offset += count as u64;
    }

    fn check_length(&self, element: &[u8]) -> Result<(), SplitError> {
        if element.len() as u64 <= self.longest {
            return Ok(());
        }
        let found = format!("more than {} bytes without an end", self.longest);
        let expected = "rows of at most a GiB, or in a compressed file of 16 MiB and 256 times the file's bytes";
        Err(SplitError::Shape { byte: self.offset, found, expected })
    }

    fn unexpected(&mut self, expected: &'static str) -> SplitError {
        let found = match self.input.fill_buf() {
            Ok(buffer) => match buffer.first() {
                Some(&byte) => format!("`{}`", byte.escape_ascii()),
                None => "the end of the file".to_owned(),
            },
            Err(error) => return SplitError::Io(error),
        };
        SplitError::Shape { byte: self.offset, found, expected }
    }
}

/// Whether a byte ends a value.
enum Ends {
    No,
    /// The byte follows the value.
    Before,
    /// The byte is the last one of the value.
    After,
}

/// Depth of brackets, and whether the next byte is inside a string.
#[derive(Debug, Default)]
pub(crate) struct Nesting {
    depth: usize,
    pub(crate) in_string: bool,
    escaped: bool,
}

impl Nesting {
    /// State after the opening brace of an object.
    pub(crate) fn in_object() -> Self {
        Self { depth: 1, ..Self::default() }
    }

    pub(crate) fn see(&mut self, byte: u8) {
        if self.in_string {
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }

    /// Whether no bracket and no string is open.
    pub(crate) fn is_outside(&self) -> bool {
        self.depth == 0 && !self.in_string
    }
}
