//! Reads one TOML table, key by key, and reports every fault instead of stopping at the first. The keys that
//! were asked for are the keys that are allowed: `finish` reports all others.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::diagnostic::{Fault, Report};
use crate::model::At;

/// Turns a string of the file into a value, or says what is wrong with it.
pub(crate) type FromText<T> = fn(&str) -> Result<T, Fault>;

pub(crate) struct Reader<'t, 'r> {
    /// The table's name in messages, such as `[node.links.dmz]`.
    name: String,
    /// Where a missing key is reported: the table's header.
    span: Range<usize>,
    table: &'t DeTable<'t>,
    asked: Vec<&'static str>,
    pub(crate) report: &'r mut Report,
}

impl<'t, 'r> Reader<'t, 'r> {
    pub(crate) fn new(
        name: impl Into<String>,
        span: Range<usize>,
        table: &'t DeTable<'t>,
        report: &'r mut Report,
    ) -> Self {
        Self {
            name: name.into(),
            span,
            table,
            asked: Vec::new(),
            report,
        }
    }

    fn get(&mut self, key: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.asked.push(key);
        self.table.get(key)
    }

    /// A key that may stand here although nobody reads it now.
    pub(crate) fn allow(&mut self, key: &'static str) {
        self.asked.push(key);
    }

    /// Where `key` stands, for a fault about the key itself.
    pub(crate) fn key_span(&self, key: &str) -> Option<Range<usize>> {
        self.table
            .keys()
            .find(|k| k.get_ref().as_ref() == key)
            .map(Spanned::span)
    }

    pub(crate) fn missing(&mut self, key: &str, remedy: &str) {
        let what = format!("{} has no `{key}`", self.name);
        self.report.add(self.span.clone(), what, remedy);
    }

    fn wrong_kind(&mut self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str) {
        let what = format!("`{key}` is {}, not {wanted}", kind(value.get_ref()));
        self.report.add(value.span(), what, format!("write {wanted}"));
    }

    pub(crate) fn text<T>(&mut self, key: &'static str, convert: FromText<T>) -> Option<At<T>> {
        let value = self.get(key)?;
        self.one(key, value, convert)
    }

    fn one<T>(&mut self, key: &str, value: &Spanned<DeValue<'_>>, convert: FromText<T>) -> Option<At<T>> {
        let DeValue::String(text) = value.get_ref() else {
            self.wrong_kind(key, value, "a string in double quotes");
            return None;
        };
        match convert(text) {
            Ok(converted) => Some(At::new(converted, value.span())),
            Err(fault) => {
                self.report.push(value.span(), fault);
                None
            }
        }
    }

    pub(crate) fn required_text<T>(
        &mut self,
        key: &'static str,
        remedy: &str,
        convert: FromText<T>,
    ) -> Option<At<T>> {
        if !self.table.contains_key(key) {
            self.missing(key, remedy);
        }
        self.text(key, convert)
    }

    /// A list of strings. An element that is wrong is reported and makes the whole list `None`.
    pub(crate) fn list<T>(&mut self, key: &'static str, convert: FromText<T>) -> Option<At<Vec<At<T>>>> {
        let value = self.get(key)?;
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong_kind(key, value, "a list of strings in square brackets");
            return None;
        };
        self.elements(key, array, convert)
            .map(|list| At::new(list, value.span()))
    }

    /// A string, or a list of strings.
    pub(crate) fn one_or_list<T>(
        &mut self,
        key: &'static str,
        convert: FromText<T>,
    ) -> Option<At<Vec<At<T>>>> {
        match self.table.get(key)?.get_ref() {
            DeValue::Array(_) => self.list(key, convert),
            _ => self.text(key, convert).map(|one| {
                let span = one.span();
                At::new(vec![one], span)
            }),
        }
    }

    fn elements<T>(&mut self, key: &str, array: &DeArray<'_>, convert: FromText<T>) -> Option<Vec<At<T>>> {
        let read: Vec<_> = array.iter().map(|value| self.one(key, value, convert)).collect();
        read.into_iter().collect()
    }

    pub(crate) fn integer(&mut self, key: &'static str, range: Range<u64>) -> Option<At<u64>> {
        let value = self.get(key)?;
        let DeValue::Integer(number) = value.get_ref() else {
            self.wrong_kind(key, value, "a whole number without quotes");
            return None;
        };
        let parsed = u64::from_str_radix(number.as_str(), number.radix()).ok();
        if let Some(number) = parsed.filter(|number| range.contains(number)) {
            return Some(At::new(number, value.span()));
        }
        let (low, high) = (range.start, range.end - 1);
        let what = format!("`{key}` is out of range");
        self.report
            .add(value.span(), what, format!("use a number from {low} to {high}"));
        None
    }

    pub(crate) fn flag(&mut self, key: &'static str) -> Option<At<bool>> {
        let value = self.get(key)?;
        let DeValue::Boolean(flag) = value.get_ref() else {
            self.wrong_kind(key, value, "true or false, without quotes");
            return None;
        };
        Some(At::new(*flag, value.span()))
    }

    pub(crate) fn decimal(&mut self, key: &'static str) -> Option<At<f64>> {
        let value = self.get(key)?;
        let text = match value.get_ref() {
            DeValue::Float(number) => number.as_str().to_owned(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
            _ => {
                self.wrong_kind(key, value, "a number such as 5.0");
                return None;
            }
        };
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Some(At::new(number, value.span())),
            _ => {
                self.report.add(
                    value.span(),
                    format!("`{key}` is not a finite number"),
                    "write a number such as 5.0",
                );
                None
            }
        }
    }

    /// The table under `key`, to be read by a `Reader` of its own.
    pub(crate) fn table(&mut self, key: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        let value = self.get(key)?;
        if matches!(value.get_ref(), DeValue::Table(_)) {
            return Some(value);
        }
        self.wrong_kind(key, value, "a table");
        None
    }

    /// The tables of `[[key]]`.
    pub(crate) fn tables(&mut self, key: &'static str) -> Option<&'t DeArray<'t>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Array(array) if array.iter().all(|v| matches!(v.get_ref(), DeValue::Table(_))) => {
                Some(array)
            }
            _ => {
                self.wrong_kind(
                    key,
                    value,
                    "a list of tables, each with a header in double brackets",
                );
                None
            }
        }
    }

    /// Reports every key that nobody asked for.
    pub(crate) fn finish(self) {
        for key in self.table.keys() {
            let written = key.get_ref().as_ref();
            if self.asked.contains(&written) {
                continue;
            }
            let what = format!("{} has no key `{written}`", self.name);
            let remedy = match self.asked.iter().find(|known| is_near(known, written)) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("remove it; the keys here are: {}", self.asked.join(", ")),
            };
            self.report.add(key.span(), what, remedy);
        }
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Whether `written` looks like a slip of the pen for `known`: at most two letters differ.
fn is_near(known: &str, written: &str) -> bool {
    let written: Vec<char> = written.replace('_', "-").to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=written.len()).collect();
    for (i, a) in known.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in written.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[written.len()] <= 2.min(known.len() / 3)
}
