//! What the operator side added: the values a configuration names, picked out of `client_user_data`.
//!
//! Owns the set of paths, made once at start. Relies on [`crate::proto::json`]. Never allocates while extracting,
//! never walks the document twice (the cost is the document's length, not length times fields), never interprets
//! what is not named.
//!
//! The vendor does not say whether the data arrives bare (`{"counter":1}`) or in the operator's wrapper
//! (`{"user_data":{"counter":1}}`), so the form is a setting, and by default both are read.

use core::fmt;

use crate::limits;
use crate::proto::json::{JsonError, Kind, Reader, Scalar, Str};

/// Nodes of the path tree. 64 fields of 8 segments each without a common beginning.
const NODES: usize = limits::USER_FIELDS * 8;

/// Key of the operator's wrapper.
const WRAPPER: &str = "user_data";

/// One value to pick out.
#[derive(Debug, Clone, PartialEq)]
pub struct UserField {
    /// Keys from the outermost in; a segment of digits also indexes an array. Not empty.
    pub path: Vec<String>,
    /// Texts that stand for a number (the value names of a DBC signal). Any other text is invalid.
    pub names: Vec<(String, f64)>,
}

/// In what form the operator's data arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UserForm {
    /// Wrapped if the outermost object has a `user_data` key, bare otherwise.
    #[default]
    Auto,
    /// The paths start at the outermost object.
    Bare,
    /// The paths start inside `user_data`; what is beside it is ignored.
    Wrapped,
}

/// One extracted value.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum UserValue {
    /// Not in the document, or null.
    #[default]
    Missing,
    /// There, but no boolean, no number and no known name.
    Invalid,
    /// A boolean.
    Bool(bool),
    /// A finite number, or the number a text stands for.
    Number(f64),
}

/// Why a set of fields cannot be used. Refused at start, with the field's place in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UserPathsError {
    /// More than [`limits::USER_FIELDS`] fields.
    TooManyFields,
    /// More distinct path segments in all than the tree holds.
    TooManySegments,
    /// The field names nothing.
    EmptyPath(usize),
    /// The path is deeper than any message that is accepted.
    TooDeep(usize),
    /// A text of the field stands for infinity or not-a-number.
    NotFinite(usize),
}

impl fmt::Display for UserPathsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyFields => write!(f, "more than {} user data fields", limits::USER_FIELDS),
            Self::TooManySegments => write!(f, "more than {NODES} path segments in all user data fields"),
            Self::EmptyPath(field) => write!(f, "user data field {field} has an empty path"),
            Self::TooDeep(field) => write!(f, "user data field {field} is nested too deep"),
            Self::NotFinite(field) => write!(f, "user data field {field} names a value that is not finite"),
        }
    }
}

impl core::error::Error for UserPathsError {}

/// Why user data cannot be used: the message that carries it is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UserDataError {
    /// Not a JSON document; cannot happen with what [`super::control::decode`] returned.
    Json(JsonError),
    /// A key on the way to a named value is there twice, so nobody can say which value was meant.
    Duplicate,
}

impl fmt::Display for UserDataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => write!(f, "user data is not JSON: {error}"),
            Self::Duplicate => f.write_str("a mapped key of the user data is there twice"),
        }
    }
}

impl core::error::Error for UserDataError {}

impl From<JsonError> for UserDataError {
    fn from(error: JsonError) -> Self {
        Self::Json(error)
    }
}

/// The paths of all fields as a tree, so that each key of a document is looked up once.
#[derive(Debug, Clone)]
pub struct UserPaths {
    form: UserForm,
    nodes: Vec<Node>,
    /// Names of each field, sorted by text.
    names: Vec<Vec<(String, f64)>>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    /// Children by key, sorted: (key, node).
    children: Vec<(String, usize)>,
    /// Children whose key is an array index, sorted: (index, node).
    elements: Vec<(usize, usize)>,
    /// Fields whose value this node is.
    fields: Vec<usize>,
}

/// Which nodes a document has shown, to find a key that is there twice.
#[derive(Clone, Copy)]
struct Visited([u64; NODES / 64]);

impl Visited {
    const NONE: Self = Self([0; NODES / 64]);

    fn mark(&mut self, node: usize) -> Result<(), UserDataError> {
        let bit = 1_u64 << (node % 64);
        match self.0.get_mut(node / 64) {
            Some(word) if *word & bit == 0 => {
                *word |= bit;
                Ok(())
            }
            _ => Err(UserDataError::Duplicate),
        }
    }
}

/// A container on the way down: its node, and for an array the next index and the next child to look for.
#[derive(Clone, Copy, Default)]
struct Level {
    node: usize,
    array: bool,
    index: usize,
    cursor: usize,
}

const ROOT: usize = 0;

impl UserPaths {
    /// Prepares the tree. `extract` gives the values in the order of `fields`.
    ///
    /// # Errors
    /// [`UserPathsError`] if a field cannot be picked out of any accepted message, or there are too many.
    pub fn new(fields: &[UserField], form: UserForm) -> Result<Self, UserPathsError> {
        if fields.len() > limits::USER_FIELDS {
            return Err(UserPathsError::TooManyFields);
        }
        let mut paths = Self { form, nodes: vec![Node::default()], names: Vec::new() };
        for (index, field) in fields.iter().enumerate() {
            if field.path.is_empty() {
                return Err(UserPathsError::EmptyPath(index));
            }
            if field.path.len() >= limits::JSON_DEPTH {
                return Err(UserPathsError::TooDeep(index));
            }
            if field.names.iter().any(|(_, value)| !value.is_finite()) {
                return Err(UserPathsError::NotFinite(index));
            }
            let leaf = field.path.iter().try_fold(ROOT, |node, segment| paths.child_or_new(node, segment))?;
            if let Some(node) = paths.nodes.get_mut(leaf) {
                node.fields.push(index);
            }
            let mut names = field.names.clone();
            names.sort_by(|a, b| a.0.cmp(&b.0));
            paths.names.push(names);
        }
        Ok(paths)
    }

    /// How many values `extract` gives.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether no field is named.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    fn child_or_new(&mut self, node: usize, segment: &str) -> Result<usize, UserPathsError> {
        let new = self.nodes.len();
        let Some(parent) = self.nodes.get_mut(node) else { return Err(UserPathsError::TooManySegments) };
        let at = match parent.children.binary_search_by(|(key, _)| key.as_str().cmp(segment)) {
            Ok(at) => return Ok(parent.children.get(at).map_or(ROOT, |(_, child)| *child)),
            Err(at) => at,
        };
        if new == NODES {
            return Err(UserPathsError::TooManySegments);
        }
        parent.children.insert(at, (segment.to_owned(), new));
        if let Some(index) = array_index(segment) {
            let at = parent.elements.partition_point(|(other, _)| *other < index);
            parent.elements.insert(at, (index, new));
        }
        self.nodes.push(Node::default());
        Ok(new)
    }

    /// Picks the values of all fields out of `raw` into `out`, in one pass. Fields beyond the length of `out` are
    /// not stored.
    ///
    /// # Errors
    /// [`UserDataError`]; `out` then holds nothing to be used.
    pub fn extract(&self, raw: &[u8], out: &mut [UserValue]) -> Result<(), UserDataError> {
        out.fill(UserValue::Missing);
        let mut reader = Reader::new(raw)?;
        let mut visited = Visited::NONE;
        if self.form == UserForm::Bare || (self.form == UserForm::Auto && reader.kind()? != Kind::Object) {
            self.walk(&mut reader, ROOT, &mut visited, out)?;
            return Ok(reader.finish()?);
        }
        if !reader.open_object()? {
            return Ok(reader.finish()?);
        }
        let mut wrapped = false;
        while let Some(key) = reader.next_key()? {
            if key.is(WRAPPER) {
                if wrapped {
                    return Err(UserDataError::Duplicate);
                }
                // What was taken for bare data so far stood beside the wrapper.
                wrapped = true;
                visited = Visited::NONE;
                out.fill(UserValue::Missing);
                self.walk(&mut reader, ROOT, &mut visited, out)?;
            } else if let (UserForm::Auto, false, Some(node)) = (self.form, wrapped, self.child(ROOT, key)) {
                visited.mark(node)?;
                self.walk(&mut reader, node, &mut visited, out)?;
            } else {
                reader.skip_value()?;
            }
        }
        Ok(reader.finish()?)
    }

    fn child(&self, node: usize, key: Str<'_>) -> Option<usize> {
        let children = &self.nodes.get(node)?.children;
        let at = children.binary_search_by(|(name, _)| key.cmp_str(name).reverse()).ok()?;
        children.get(at).map(|(_, child)| *child)
    }

    /// Reads the value that comes next as the value of `node`, with everything below it.
    fn walk(
        &self,
        reader: &mut Reader<'_>,
        node: usize,
        visited: &mut Visited,
        out: &mut [UserValue],
    ) -> Result<(), UserDataError> {
        let mut levels = [Level::default(); limits::JSON_DEPTH];
        let mut depth = 0;
        let mut value_of = Some(node);
        loop {
            if let Some(node) = value_of.take()
                && let Some(level) = self.enter(reader, node, out)?
            {
                // The reader refuses what is deeper than the array is long.
                let slot = levels.get_mut(depth).ok_or(JsonError::TooDeep)?;
                *slot = level;
                depth += 1;
            }
            let Some(level) = depth.checked_sub(1).and_then(|top| levels.get_mut(top)) else { return Ok(()) };
            let child = if level.array {
                if !reader.next_element()? {
                    depth -= 1;
                    continue;
                }
                self.element(level)
            } else {
                let Some(key) = reader.next_key()? else {
                    depth -= 1;
                    continue;
                };
                self.child(level.node, key)
            };
            match child {
                Some(child) => {
                    visited.mark(child)?;
                    value_of = Some(child);
                }
                None => {
                    reader.skip_value()?;
                }
            }
        }
    }

    /// The node of the next array element, if one is named.
    fn element(&self, level: &mut Level) -> Option<usize> {
        let index = level.index;
        level.index += 1;
        let (wanted, node) = *self.nodes.get(level.node)?.elements.get(level.cursor)?;
        if wanted != index {
            return None;
        }
        level.cursor += 1;
        Some(node)
    }

    /// Reads a value for its own fields, or enters it where fields lie below it.
    fn enter(
        &self,
        reader: &mut Reader<'_>,
        node: usize,
        out: &mut [UserValue],
    ) -> Result<Option<Level>, UserDataError> {
        let Some(here) = self.nodes.get(node) else {
            reader.skip_value()?;
            return Ok(None);
        };
        let kind = reader.kind()?;
        if matches!(kind, Kind::Object | Kind::Array) && !here.children.is_empty() {
            self.store(here, Scalar::Container, out);
            if kind == Kind::Object {
                reader.open_object()?
            } else {
                reader.open_array()?
            };
            return Ok(Some(Level { node, array: kind == Kind::Array, index: 0, cursor: 0 }));
        }
        let scalar = reader.scalar()?;
        self.store(here, scalar, out);
        Ok(None)
    }

    fn store(&self, node: &Node, scalar: Scalar<'_>, out: &mut [UserValue]) {
        for &field in &node.fields {
            let Some(slot) = out.get_mut(field) else { continue };
            *slot = match scalar {
                Scalar::Null => UserValue::Missing,
                Scalar::Bool(value) => UserValue::Bool(value),
                Scalar::Number(number) => UserValue::Number(number.value() + 0.0),
                Scalar::Str(text) => self.named(field, text).map_or(UserValue::Invalid, UserValue::Number),
                Scalar::Container => UserValue::Invalid,
            };
        }
    }

    fn named(&self, field: usize, text: Str<'_>) -> Option<f64> {
        let names = self.names.get(field)?;
        let at = names.binary_search_by(|(name, _)| text.cmp_str(name).reverse()).ok()?;
        names.get(at).map(|(_, value)| *value)
    }
}

/// The array index a segment stands for: digits without a leading zero.
fn array_index(segment: &str) -> Option<usize> {
    let plain = segment == "0" || (!segment.starts_with('0') && segment.bytes().all(|b| b.is_ascii_digit()));
    if plain { segment.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "tests fail by panicking"
    )]
    use super::*;

    fn field(path: &str) -> UserField {
        UserField { path: path.split('.').map(str::to_owned).collect(), names: Vec::new() }
    }

    fn paths(list: &[&str], form: UserForm) -> UserPaths {
        let fields: Vec<_> = list.iter().map(|p| field(p)).collect();
        UserPaths::new(&fields, form).unwrap()
    }

    fn values(paths: &UserPaths, raw: &str) -> Result<Vec<UserValue>, UserDataError> {
        let mut out = vec![Bool(true); paths.len()];
        paths.extract(raw.as_bytes(), &mut out).map(|()| out)
    }

    use UserValue::{Bool, Invalid, Missing, Number};

    #[test]
    fn bare_and_wrapped_data_are_both_read() {
        let auto = paths(&["counter", "body.horn"], UserForm::Auto);
        let want = Ok(vec![Number(7.0), Bool(true)]);
        assert_eq!(values(&auto, r#"{"counter":7,"body":{"horn":true}}"#), want);
        assert_eq!(values(&auto, r#"{"user_data":{"body":{"horn":true},"counter":7}}"#), want);
        // Members beside the wrapper do not count, wherever they stand.
        assert_eq!(
            values(&auto, r#"{"counter":1,"user_data":{"counter":2},"body":{"horn":true}}"#),
            Ok(vec![Number(2.0), Missing])
        );
    }

    #[test]
    fn a_fixed_form_reads_that_form_alone() {
        let (bare, wrapped) = (r#"{"counter":7}"#, r#"{"user_data":{"counter":8}}"#);
        let one = |form, raw| values(&paths(&["counter"], form), raw).unwrap()[0];
        assert_eq!(one(UserForm::Bare, bare), Number(7.0));
        assert_eq!(one(UserForm::Bare, wrapped), Missing);
        assert_eq!(one(UserForm::Wrapped, bare), Missing);
        assert_eq!(one(UserForm::Wrapped, wrapped), Number(8.0));
        // A bare path may well be named like the wrapper.
        assert_eq!(values(&paths(&["user_data.counter"], UserForm::Bare), wrapped), Ok(vec![Number(8.0)]));
    }

    #[test]
    fn texts_are_looked_up_and_everything_else_is_told_apart() {
        let mut mode = field("mode");
        mode.names =
            vec![("manual".into(), 0.0), ("crab".into(), 1.0), ("circle".into(), 2.0), ("ä".into(), 3.0)];
        let paths = UserPaths::new(&[mode], UserForm::Auto).unwrap();
        for (text, want) in [
            (r#""manual""#, Number(0.0)),
            (r#""cr\u0061b""#, Number(1.0)),
            (r#""circle""#, Number(2.0)),
            (r#""\u00e4""#, Number(3.0)),
            (r#""Crab""#, Invalid),
            (r#""""#, Invalid),
            ("2", Number(2.0)),
            ("-0.0", Number(0.0)),
            ("true", Bool(true)),
            ("null", Missing),
            ("{}", Invalid),
            ("[1]", Invalid),
        ] {
            assert_eq!(values(&paths, &format!(r#"{{"mode":{text}}}"#)), Ok(vec![want]), "{text}");
        }
    }

    #[test]
    fn nested_paths_arrays_and_a_field_above_another() {
        let paths = paths(&["a", "a.b", "list.0", "list.10", "list.2.x", "a.b"], UserForm::Bare);
        let raw = r#"{"list":[1,2,{"x":3},4,5,6,7,8,9,10,11],"a":{"b":false,"c":{"b":9}}}"#;
        let want = vec![Invalid, Bool(false), Number(1.0), Number(11.0), Number(3.0), Bool(false)];
        assert_eq!(values(&paths, raw), Ok(want));
        assert_eq!(
            values(&paths, r#"{"a":5,"list":{"10":4}}"#),
            Ok(vec![Number(5.0), Missing, Missing, Number(4.0), Missing, Missing])
        );
    }

    #[test]
    fn row_38_a_mapped_key_twice_is_refused_and_an_unmapped_one_is_not() {
        let paths = paths(&["a.b", "c"], UserForm::Auto);
        for raw in [
            r#"{"c":1,"c":1}"#,
            r#"{"a":{"b":1,"b":2}}"#,
            r#"{"a":{},"a":{"b":1}}"#,
            r#"{"c":null,"c":1}"#,
            r#"{"\u0063":1,"c":2}"#,
            r#"{"user_data":{},"user_data":{}}"#,
            r#"{"user_data":{"c":1,"c":1}}"#,
        ] {
            assert_eq!(values(&paths, raw), Err(UserDataError::Duplicate), "{raw}");
        }
        assert_eq!(values(&paths, r#"{"x":1,"x":2,"c":3}"#), Ok(vec![Missing, Number(3.0)]));
    }

    #[test]
    fn documents_that_are_no_object_have_no_values() {
        let paths = paths(&["a"], UserForm::Auto);
        for raw in
            ["5", "null", "\"a\"", "[1,2]", "{}", r#"{"user_data":null}"#, r#"{"user_data":[{"a":1}]}"#]
        {
            assert_eq!(values(&paths, raw), Ok(vec![Missing]), "{raw}");
        }
    }

    #[test]
    fn fields_that_cannot_be_served_are_refused() {
        let many: Vec<_> = (0..=limits::USER_FIELDS).map(|i| field(&format!("f{i}"))).collect();
        assert_eq!(UserPaths::new(&many, UserForm::Auto).unwrap_err(), UserPathsError::TooManyFields);
        UserPaths::new(&many[1..], UserForm::Auto).unwrap();
        let deep = field(&vec!["x"; limits::JSON_DEPTH].join("."));
        assert_eq!(UserPaths::new(&[deep], UserForm::Auto).unwrap_err(), UserPathsError::TooDeep(0));
        let empty = UserField { path: vec![], names: vec![] };
        assert_eq!(UserPaths::new(&[empty], UserForm::Auto).unwrap_err(), UserPathsError::EmptyPath(0));
        let inf = UserField { path: vec!["a".into()], names: vec![("x".into(), f64::INFINITY)] };
        assert_eq!(UserPaths::new(&[inf], UserForm::Auto).unwrap_err(), UserPathsError::NotFinite(0));
        let long: Vec<_> = (0..64)
            .map(|i| field(&(0..9).map(|j| format!("{i}_{j}")).collect::<Vec<_>>().join(".")))
            .collect();
        assert_eq!(UserPaths::new(&long, UserForm::Auto).unwrap_err(), UserPathsError::TooManySegments);
    }

    #[test]
    fn a_full_set_is_found_in_any_order() {
        let list: Vec<String> =
            (0..limits::USER_FIELDS).map(|i| format!("group{}.value{i}", i % 7)).collect();
        let refs: Vec<&str> = list.iter().map(String::as_str).collect();
        let paths = paths(&refs, UserForm::Auto);
        let mut groups = vec![Vec::new(); 7];
        for i in (0..limits::USER_FIELDS).rev() {
            groups[i % 7].push(format!(r#""value{i}":{i}"#));
        }
        let groups: Vec<String> = groups
            .iter()
            .enumerate()
            .rev()
            .map(|(g, v)| format!(r#""group{g}":{{{}}}"#, v.join(",")))
            .collect();
        let got = values(&paths, &format!("{{{}}}", groups.join(","))).unwrap();
        for (i, value) in got.iter().enumerate() {
            assert_eq!(*value, Number(f64::from(u32::try_from(i).unwrap())));
        }
    }
}
