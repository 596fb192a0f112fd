//! Directives of an nginx configuration as they are written, with included files in their places.

use std::sync::Arc;

use super::super::Files;
use super::super::ledger::{DirectiveId, Ledger};

/// A directive.
#[derive(Debug)]
pub(super) struct Directive {
    pub(super) name: String,
    pub(super) args: Vec<String>,
    pub(super) block: Option<Vec<Directive>>,
    pub(super) id: DirectiveId,
}

/// How deep blocks and included files may stand in each other.
const MOST_DEPTH: usize = 16;

/// How many directives are read.
const MOST_DIRECTIVES: usize = 200_000;

/// Reads a file and those that it includes.
pub(super) fn read(
    name: &str,
    text: &str,
    files: &dyn Files,
    ledger: &mut Ledger,
) -> Result<Vec<Directive>, String> {
    let mut reader = Reader { file: Arc::from(name), tokens: Tokens::new(text), files, ledger, depth: 0 };
    reader.block(false)
}

struct Reader<'a> {
    file: Arc<str>,
    tokens: Tokens<'a>,
    files: &'a dyn Files,
    ledger: &'a mut Ledger,
    depth: usize,
}

impl Reader<'_> {
    /// Reads directives until the end of the block, or of the file.
    fn block(&mut self, is_inner: bool) -> Result<Vec<Directive>, String> {
        let mut found = Vec::new();
        let mut words: Vec<String> = Vec::new();
        let mut first_line = 1;
        loop {
            let line = self.tokens.line;
            let token = self.tokens.next().map_err(|problem| format!("{}:{line}: {problem}", self.file))?;
            match token {
                Some(Token::Word(word)) => {
                    if words.is_empty() {
                        first_line = self.tokens.token_line;
                    }
                    words.push(word);
                }
                Some(Token::End) if words.is_empty() => {}
                Some(Token::End) => self.simple(std::mem::take(&mut words), first_line, &mut found)?,
                Some(Token::Open) => {
                    if words.is_empty() {
                        return Err(format!("{}:{line}: a block without a name", self.file));
                    }
                    let directive = self.with_block(std::mem::take(&mut words), first_line)?;
                    found.push(directive);
                }
                Some(Token::Close) if is_inner && words.is_empty() => return Ok(found),
                Some(Token::Close) => return Err(format!("{}:{line}: an unexpected `}}`", self.file)),
                None if is_inner => return Err(format!("{}:{line}: a block has no end", self.file)),
                None if words.is_empty() => return Ok(found),
                None => return Err(format!("{}:{first_line}: a directive has no `;`", self.file)),
            }
            if self.ledger.len() > MOST_DIRECTIVES {
                return Err(format!("{}: more than {MOST_DIRECTIVES} directives", self.file));
            }
        }
    }

    fn simple(&mut self, words: Vec<String>, line: usize, found: &mut Vec<Directive>) -> Result<(), String> {
        let id = self.ledger.add(&self.file, line, &words.join(" "));
        let mut words = words.into_iter();
        let name = words.next().unwrap_or_default();
        let args: Vec<String> = words.collect();
        let ("include", Some(pattern)) = (name.as_str(), args.first()) else {
            found.push(Directive { name, args, block: None, id });
            return Ok(());
        };
        if self.depth >= MOST_DEPTH {
            return Err(format!("{}:{line}: files include each other too deep", self.file));
        }
        match self.files.read(pattern, &self.file) {
            Ok(texts) => {
                self.ledger.carried(id);
                for (name, text) in texts {
                    let depth = self.depth.saturating_add(1);
                    let tokens = Tokens::new(&text);
                    let mut inner = Reader {
                        file: Arc::from(name),
                        tokens,
                        files: self.files,
                        ledger: self.ledger,
                        depth,
                    };
                    found.extend(inner.block(false)?);
                }
            }
            Err(problem) => {
                self.ledger.lost(id, format!("{problem}; what stands there is missing in the output"));
            }
        }
        Ok(())
    }

    fn with_block(&mut self, words: Vec<String>, line: usize) -> Result<Directive, String> {
        let id = self.ledger.add(&self.file, line, &words.join(" "));
        let mut words = words.into_iter();
        let name = words.next().unwrap_or_default();
        let args = words.collect();
        if name.ends_with("_by_lua_block") {
            self.tokens.skip_braces().map_err(|problem| format!("{}:{line}: {problem}", self.file))?;
            return Ok(Directive { name, args, block: None, id });
        }
        self.depth = self.depth.saturating_add(1);
        if self.depth > MOST_DEPTH {
            return Err(format!("{}:{line}: blocks stand too deep in each other", self.file));
        }
        let block = Some(self.block(true)?);
        self.depth = self.depth.saturating_sub(1);
        Ok(Directive { name, args, block, id })
    }
}

enum Token {
    Word(String),
    End,
    Open,
    Close,
}

struct Tokens<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
    token_line: usize,
}

impl<'a> Tokens<'a> {
    fn new(text: &'a str) -> Self {
        Self { chars: text.chars().peekable(), line: 1, token_line: 1 }
    }

    fn bump(&mut self) -> Option<char> {
        let char = self.chars.next()?;
        if char == '\n' {
            self.line = self.line.saturating_add(1);
        }
        Some(char)
    }

    fn next(&mut self) -> Result<Option<Token>, &'static str> {
        loop {
            let Some(char) = self.chars.peek().copied() else { return Ok(None) };
            match char {
                '#' => {
                    while self.chars.peek().is_some_and(|char| *char != '\n') {
                        self.bump();
                    }
                }
                _ if char.is_whitespace() || char == '\u{feff}' => _ = self.bump(),
                _ => break,
            }
        }
        self.token_line = self.line;
        let token = match self.bump() {
            Some(';') => Token::End,
            Some('{') => Token::Open,
            Some('}') => Token::Close,
            Some(quote @ ('"' | '\'')) => Token::Word(self.quoted(quote)?),
            Some(first) => Token::Word(self.plain(first)),
            None => return Ok(None),
        };
        Ok(Some(token))
    }

    fn quoted(&mut self, quote: char) -> Result<String, &'static str> {
        let mut word = String::new();
        while let Some(char) = self.bump() {
            match char {
                '\\' => match self.bump() {
                    Some(next) if next == quote || next == '\\' => word.push(next),
                    Some(next) => {
                        word.push('\\');
                        word.push(next);
                    }
                    None => break,
                },
                _ if char == quote => return Ok(word),
                _ => word.push(char),
            }
        }
        Err("a quoted text has no end")
    }

    fn plain(&mut self, first: char) -> String {
        let mut word = String::from(first);
        let mut before = first;
        while let Some(char) = self.chars.peek().copied() {
            // `${name}` is a variable, and no block.
            let is_variable = char == '{' && before == '$';
            if char.is_whitespace() || char == ';' || (char == '{' && !is_variable) {
                break;
            }
            if is_variable {
                while let Some(char) = self.bump() {
                    word.push(char);
                    if char == '}' {
                        break;
                    }
                }
                before = '}';
                continue;
            }
            if char == '}' && !word.contains('{') {
                break;
            }
            word.push(char);
            self.bump();
            if char == '\\'
                && let Some(next) = self.bump()
            {
                word.push(next);
            }
            before = char;
        }
        word
    }

    /// Passes over code of another language up to the brace that ends it.
    fn skip_braces(&mut self) -> Result<(), &'static str> {
        let mut open = 1_usize;
        while let Some(char) = self.bump() {
            match char {
                '{' => open = open.saturating_add(1),
                '}' => open = open.saturating_sub(1),
                _ => {}
            }
            if open == 0 {
                return Ok(());
            }
        }
        Err("a block of code has no end")
    }
}
