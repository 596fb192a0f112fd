//! The configuration that is written: blocks with keys, each with the directives that it stands for. What the configuration does not allow is taken
//! out until all of it is right.

use std::fmt::Write;

use lb_config::Config;

use super::ledger::{DirectiveId, Ledger};

/// A key with its value.
#[derive(Clone, Debug)]
struct KeyLine {
    text: String,
    ids: Vec<DirectiveId>,
    /// The block means something else without it, so that it goes with it.
    is_vital: bool,
}

/// A block.
#[derive(Clone, Debug, Default)]
pub(super) struct Block {
    header: String,
    ids: Vec<DirectiveId>,
    lines: Vec<KeyLine>,
    pub(super) blocks: Vec<Block>,
}

/// A text as TOML has it.
pub(super) fn text(value: &str) -> String {
    let mut out = String::from("\"");
    for char in value.chars() {
        match char {
            '"' | '\\' => {
                out.push('\\');
                out.push(char);
            }
            // `${` would be a value of the environment or of a template; templates are written where they are meant.
            _ if char.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(char));
            }
            _ => out.push(char),
        }
    }
    out.push('"');
    out
}

/// Texts as TOML has them.
pub(super) fn texts<S: AsRef<str>>(values: &[S]) -> String {
    let values: Vec<_> = values.iter().map(|value| text(value.as_ref())).collect();
    format!("[{}]", values.join(", "))
}

impl Block {
    /// A block under this header, such as `[[listeners]]`, that stands for a directive.
    pub(super) fn new(header: impl Into<String>, ids: &[DirectiveId]) -> Self {
        Self { header: header.into(), ids: ids.to_vec(), ..Self::default() }
    }

    /// Sets a key without which the block is none.
    pub(super) fn vital(&mut self, key: &str, value: impl std::fmt::Display, ids: &[DirectiveId]) {
        self.put(key, &value.to_string(), ids, true);
    }

    /// Sets a key; the first one stays.
    pub(super) fn key(&mut self, key: &str, value: impl std::fmt::Display, ids: &[DirectiveId]) {
        self.put(key, &value.to_string(), ids, false);
    }

    fn put(&mut self, key: &str, value: &str, ids: &[DirectiveId], is_vital: bool) {
        let start = format!("{key} = ");
        match self.lines.iter_mut().find(|line| line.text.starts_with(&start)) {
            Some(line) => line.ids.extend_from_slice(ids),
            None => self.lines.push(KeyLine { text: format!("{start}{value}"), ids: ids.to_vec(), is_vital }),
        }
    }

    /// Gives it another header.
    pub(super) fn rename(&mut self, header: String) {
        self.header = header;
    }

    /// Its header.
    pub(super) fn header(&self) -> &str {
        &self.header
    }

    /// Whether a key is set.
    pub(super) fn has(&self, key: &str) -> bool {
        self.lines.iter().any(|line| line.text.strip_prefix(key).is_some_and(|rest| rest.starts_with(" = ")))
    }

    /// Adds a directive to those that it stands for.
    pub(super) fn stands_for(&mut self, id: DirectiveId) {
        self.ids.push(id);
    }

    fn write(&self, out: &mut Vec<String>) {
        if !self.header.is_empty() {
            out.push(String::new());
            out.push(self.header.clone());
        }
        out.extend(self.lines.iter().map(|line| line.text.clone()));
        self.blocks.iter().for_each(|block| block.write(out));
    }

    /// How many lines it takes.
    fn height(&self) -> usize {
        let own = if self.header.is_empty() { 0 } else { 2 };
        self.blocks.iter().map(Self::height).sum::<usize>() + own + self.lines.len()
    }

    fn all_ids(&self, into: &mut Vec<DirectiveId>) {
        into.extend_from_slice(&self.ids);
        into.extend(self.lines.iter().flat_map(|line| line.ids.iter().copied()));
        self.blocks.iter().for_each(|block| block.all_ids(into));
    }

    /// Takes out what stands at a line of the text, counted from 0 at the beginning of the block: a key, or all of a block. Gives the directives that
    /// went with it; whether this block is to go itself.
    fn take_out(&mut self, line: usize, gone: &mut Vec<DirectiveId>) -> bool {
        let own = if self.header.is_empty() { 0 } else { 2 };
        if line < own {
            self.all_ids(gone);
            return true;
        }
        let at = line - own;
        if at < self.lines.len() {
            if self.lines.get(at).is_some_and(|line| line.is_vital) {
                self.all_ids(gone);
                return true;
            }
            gone.extend(self.lines.remove(at).ids);
            return false;
        }
        let mut rest = at - self.lines.len();
        for position in 0..self.blocks.len() {
            let Some(block) = self.blocks.get_mut(position) else { break };
            let height = block.height();
            if rest < height {
                if block.take_out(rest, gone) {
                    self.blocks.remove(position);
                }
                return false;
            }
            rest -= height;
        }
        false
    }
}

/// Writes the blocks below `root`, without what the configuration does not allow: that is told to the ledger. `None` where nothing is left that could
/// be served.
pub(super) fn settle(mut root: Block, ledger: &mut Ledger) -> Option<String> {
    // Each round takes something out.
    for _ in 0..=root.height() {
        let mut lines = Vec::new();
        root.write(&mut lines);
        let text = format!("{}\n", lines.join("\n").trim_start());
        let skipped = lines.iter().take_while(|line| line.is_empty()).count();
        let wrong: Vec<(Option<usize>, String)> = match Config::parse(&text, "import") {
            Ok(config) => config
                .not_built_yet()
                .iter()
                .map(|error| (error.line(), error.problem().to_owned()))
                .collect(),
            Err(errors) => errors.iter().map(|error| (error.line(), error.problem().to_owned())).collect(),
        };
        if wrong.is_empty() {
            if Config::parse(&text, "import").is_ok_and(|config| config.serves()) {
                return Some(text);
            }
            break;
        }
        // From the end, so that lines before keep their places.
        let mut at: Vec<(usize, String)> = wrong
            .into_iter()
            .filter_map(|(line, problem)| Some((line?.checked_sub(1)? + skipped, problem)))
            .collect();
        at.sort();
        at.dedup_by_key(|(line, _)| *line);
        if at.is_empty() {
            break;
        }
        for (line, problem) in at.into_iter().rev() {
            let mut gone = Vec::new();
            root.take_out(line, &mut gone);
            gone.into_iter().for_each(|id| ledger.taken_out(id, &problem));
        }
    }
    let mut gone = Vec::new();
    root.all_ids(&mut gone);
    gone.into_iter().for_each(|id| ledger.taken_out(id, "nothing is left that could be served"));
    None
}
