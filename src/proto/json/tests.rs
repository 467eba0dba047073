//! The JSON reader against hand-picked documents and against `serde_json` on random ones.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panicking")]

use super::*;
use crate::proto::ocp::fuzz::{self, Rng};

fn read(text: &str) -> Result<Scalar<'_>, JsonError> {
    read_bytes(text.as_bytes())
}

fn read_bytes(bytes: &[u8]) -> Result<Scalar<'_>, JsonError> {
    let mut reader = Reader::new(bytes)?;
    let scalar = reader.scalar()?;
    reader.finish()?;
    Ok(scalar)
}

#[test]
fn numbers_in_every_form_json_allows() {
    for (text, want) in [
        ("0", 0.0),
        ("-1", -1.0),
        ("0.5", 0.5),
        ("1e0", 1.0),
        ("1.7e12", 1.7e12),
        ("1E+2", 100.0),
        (" -2.5e-1\n", -0.25),
        ("1e39", 1e39),
        ("1e-400", 0.0),
        ("18446744073709551616", 18_446_744_073_709_551_616.0),
        ("1.7976931348623157e308", f64::MAX),
    ] {
        let Scalar::Number(number) = read(text).unwrap() else { panic!("{text}") };
        assert_eq!(number.value(), want, "{text}");
        assert_eq!(number.raw(), text.trim());
    }
}

#[test]
fn row_34_nan_and_infinity_tokens_are_no_numbers() {
    for text in [
        "NaN",
        "nan",
        "Infinity",
        "-Infinity",
        "inf",
        "-inf",
        "+1",
        "1.",
        ".5",
        "01",
        "-",
        "1e",
        "1e+",
        "--1",
        "0x10",
    ] {
        assert!(read(text).is_err(), "{text}");
        assert!(read(&format!("[{text}]")).is_err(), "{text}");
    }
}

#[test]
fn numbers_beyond_a_float_are_an_error_and_never_infinity() {
    let long = "9".repeat(400);
    for text in ["1e309", "-1e309", "1e999999999999999999999", long.as_str()] {
        assert_eq!(read(text), Err(JsonError::NumberRange));
        assert_eq!(read(&format!("[{{\"a\":{text}}}]")), Err(JsonError::NumberRange), "passed over");
    }
}

#[test]
fn strings_are_compared_and_decoded_without_their_escapes() {
    let Scalar::Str(text) = read(r#""a\u0062\n\"\\\/\ud83d\ude00ä\u00e4""#).unwrap() else { panic!() };
    let plain = "ab\n\"\\/😀ää";
    assert_eq!(text.chars().collect::<String>(), plain);
    assert!(text.is(plain) && !text.is("ab"));
    assert!(text.cmp_str(plain).is_eq() && text.cmp_str("ab").is_gt() && text.cmp_str("b").is_lt());
    assert!(text.raw().starts_with(r"a\u0062"));
}

#[test]
fn row_41_bad_text_is_refused() {
    for (bytes, want) in [
        (&b"\"\xff\""[..], JsonError::NotUtf8),
        (b"\"\xc0\x80\"", JsonError::NotUtf8),
        (b"\"\xed\xa0\x80\"", JsonError::NotUtf8),
        (b"{\"a\":1}\xfe", JsonError::NotUtf8),
        (br#""\ud800""#, JsonError::LoneSurrogate),
        (br#""\udc00""#, JsonError::LoneSurrogate),
        (br#""\ud800\u0041""#, JsonError::LoneSurrogate),
        (br#""\ud800x""#, JsonError::LoneSurrogate),
        (br#""\u12g4""#, JsonError::BadEscape),
        (br#""\x41""#, JsonError::BadEscape),
        (b"\"\n\"", JsonError::ControlCharacter),
        (b"\"abc", JsonError::UnexpectedEnd),
        (br#""\"#, JsonError::UnexpectedEnd),
    ] {
        assert_eq!(read_bytes(bytes), Err(want), "{}", bytes.escape_ascii());
        let inside = [b"[", bytes, b"]"].concat();
        read_bytes(&inside).unwrap_err();
    }
}

#[test]
fn structure_errors_are_found() {
    for text in [
        "",
        " ",
        "{",
        "}",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\":1 \"b\":2}",
        "{1:2}",
        "[}",
        "{]",
        "[1}",
        "{\"a\":1]",
        "tru",
        "nulll",
        "'a'",
        "\u{feff}1",
        "[1]]",
        "1 2",
    ] {
        assert!(read(text).is_err(), "{text}");
    }
}

#[test]
fn row_40_depth_ends_at_the_limit_and_costs_no_stack() {
    let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
    read(&nested(limits::JSON_DEPTH)).unwrap();
    assert_eq!(read(&nested(limits::JSON_DEPTH + 1)), Err(JsonError::TooDeep));
    assert_eq!(read(&nested(10_000)), Err(JsonError::TooDeep));
    assert_eq!(read(&"[".repeat(16_384)), Err(JsonError::TooDeep));
    assert_eq!(read(&"{\"a\":".repeat(3_000)), Err(JsonError::TooDeep));
    let mixed = "[{\"a\":".repeat(16) + "1" + &"}]".repeat(16);
    read(&mixed).unwrap();
}

#[test]
fn an_object_is_followed_member_by_member() {
    let mut reader = Reader::new(br#" { "a" : [ 1 , {"x":[]} ] , "b":{} , "c": "d" } "#).unwrap();
    assert!(reader.open_object().unwrap());
    assert!(reader.next_key().unwrap().unwrap().is("a"));
    assert!(reader.open_array().unwrap());
    assert!(reader.next_element().unwrap());
    assert!(matches!(reader.scalar(), Ok(Scalar::Number(_))));
    assert!(reader.next_element().unwrap());
    assert_eq!(reader.skip_value(), Ok(r#"{"x":[]}"#));
    assert!(!reader.next_element().unwrap());
    assert!(reader.next_key().unwrap().unwrap().is("b"));
    assert!(!reader.open_array().unwrap(), "an object is no array, and is passed over");
    assert!(reader.next_key().unwrap().unwrap().is("c"));
    assert!(!reader.open_object().unwrap());
    assert!(reader.next_key().unwrap().is_none());
    assert_eq!(reader.finish(), Ok(()));
}

#[test]
fn agrees_with_serde_json_on_random_and_mutated_documents() {
    let mut rng = Rng::from_environment("json differential");
    let (mut valid, total) = (0, 60_000);
    for round in 0..total {
        let mut data = rng.document(4).into_bytes();
        if round % 3 != 0 {
            rng.mutate(&mut data);
        }
        valid += usize::from(serde_json::from_slice::<serde_json::Value>(&data).is_ok());
        fuzz::json(&data);
    }
    println!("{valid} of {total} documents were valid");
    assert!(
        valid > total / 4 && valid < total * 9 / 10,
        "the generator is one-sided: {valid} of {total} valid"
    );
}
