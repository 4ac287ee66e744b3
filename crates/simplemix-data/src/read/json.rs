//! Splitting JSON lines or one JSON array into its elements, without holding more than one of them.

use std::io::{self, BufRead};

/// A longer line or element ends in an error rather than in exhausted memory.
const MAX_ELEMENT_BYTES: usize = 1 << 30;

/// Yields the bytes of one row after another.
pub(crate) struct Elements {
    input: Box<dyn BufRead + Send>,
    layout: Layout,
    /// Bytes consumed so far.
    offset: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Layout {
    Lines,
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
    pub(crate) fn lines(input: Box<dyn BufRead + Send>) -> Self {
        Self { input, layout: Layout::Lines, offset: 0 }
    }

    /// The elements of one array.
    pub(crate) fn array(input: Box<dyn BufRead + Send>) -> Self {
        Self { input, layout: Layout::ArrayStart, offset: 0 }
    }

    /// Puts the next element into `element` and returns the byte it starts at; `None` at the end.
    pub(crate) fn next_into(&mut self, element: &mut Vec<u8>) -> Result<Option<u64>, SplitError> {
        match self.layout {
            Layout::Lines => self.next_line(element),
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

    fn close(&mut self) -> Result<Option<u64>, SplitError> {
        self.consume(1);
        if self.peek()?.is_some() {
            return Err(self.unexpected("nothing after the array"));
        }
        self.layout = Layout::Done;
        Ok(None)
    }

    /// Copies one value: up to the comma or bracket that ends it, brackets and strings inside it respected.
    fn read_value(&mut self, element: &mut Vec<u8>) -> Result<(), SplitError> {
        let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return Err(self.unexpected("`]`, the end of the array"));
            }
            let end = buffer.iter().position(|&byte| {
                if in_string {
                    in_string = escaped || byte != b'"';
                    escaped = !escaped && byte == b'\\';
                    return false;
                }
                match byte {
                    b'"' => in_string = true,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' if depth > 0 => depth -= 1,
                    b',' | b']' if depth == 0 => return true,
                    _ => {}
                }
                false
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
        if element.len() <= MAX_ELEMENT_BYTES {
            return Ok(());
        }
        let found = "more than a GiB without an end".to_owned();
        Err(SplitError::Shape { byte: self.offset, found, expected: "rows of at most a GiB" })
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
