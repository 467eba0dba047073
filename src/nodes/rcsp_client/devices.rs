//! The devices of a server as it lists them.
//!
//! Owns the reading of a `ListDevices` answer. Relies on `serde_json`'s raw values. Never interprets an id: public texts do
//! not say whether it is a number or a string, so it goes back exactly as it came, digit by digit.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// Why an answer is no list of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListError {
    /// `Devices` is something else than a list of objects.
    NoList,
    /// An entry without a `DeviceId`.
    NoId,
}

impl core::fmt::Display for ListError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NoList => "Devices is not a list of objects",
            Self::NoId => "a device without a DeviceId",
        })
    }
}

impl core::error::Error for ListError {}

/// The id of a device: any JSON value, spelled as it was received.
#[derive(Debug, Clone)]
pub struct DeviceId(Box<RawValue>);

impl DeviceId {
    /// The JSON text.
    #[must_use]
    pub fn json(&self) -> &str {
        self.0.get()
    }

    /// The characters of a string id; `None` for every other kind.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        serde_json::from_str(self.json()).ok()
    }

    /// Whether a person who writes `name` may mean this device: `7` is the number and the string of that digit, `"7"` with
    /// its quotes the string alone.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        self.json() == name || self.text().is_some_and(|text| text == name)
    }

    /// The arguments of a command to this device, followed by others: each a key and a string.
    #[must_use]
    pub fn arguments(&self, more: &[(&str, &str)]) -> Box<RawValue> {
        members(Some(self), more)
    }
}

/// An object of a device's id, if there is one, and of strings.
#[must_use]
pub fn members(device: Option<&DeviceId>, more: &[(&str, &str)]) -> Box<RawValue> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut parts: Vec<String> = device.map(|id| format!("\"DeviceId\":{}", id.json())).into_iter().collect();
    parts.extend(more.iter().map(|(key, value)| format!("{}:{}", quoted(key), quoted(value))));
    // Built of valid parts alone; were it not, no arguments are what a server refuses with a reason.
    RawValue::from_string(format!("{{{}}}", parts.join(","))).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

impl From<Box<RawValue>> for DeviceId {
    fn from(raw: Box<RawValue>) -> Self {
        Self(raw)
    }
}

impl PartialEq for DeviceId {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json()
    }
}

impl Eq for DeviceId {}

/// A device as a server lists it.
#[derive(Debug, Clone)]
pub struct Device {
    /// What commands to it carry.
    pub id: DeviceId,
    /// The whole entry; what else is in it is not publicly documented.
    pub entry: Box<RawValue>,
}

/// The members of a JSON object, each as it was written; `None` for every other kind. The last of a doubled key counts.
#[must_use]
pub fn object(json: &[u8]) -> Option<BTreeMap<String, Box<RawValue>>> {
    serde_json::from_slice(json).ok()
}

/// The devices in the `Response` of `ListDevices`. No response, no `Devices` and `null` are no devices.
///
/// # Errors
/// [`ListError`]: the server has answered something else.
pub fn devices(response: Option<&RawValue>) -> Result<Vec<Device>, ListError> {
    let Some(response) = response else { return Ok(Vec::new()) };
    let members = object(response.get().as_bytes()).ok_or(ListError::NoList)?;
    let Some(list) = members.get("Devices").filter(|list| list.get() != "null") else {
        return Ok(Vec::new());
    };
    let entries: Vec<Box<RawValue>> = serde_json::from_str(list.get()).map_err(|_| ListError::NoList)?;
    entries
        .into_iter()
        .map(|entry| {
            let mut members = object(entry.get().as_bytes()).ok_or(ListError::NoList)?;
            let id = members.remove("DeviceId").filter(|id| id.get() != "null").ok_or(ListError::NoId)?;
            Ok(Device { id: DeviceId(id), entry })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    fn ids(json: &str) -> Result<Vec<String>, ListError> {
        let list = devices(Some(&raw(json)))?;
        Ok(list.iter().map(|device| device.id.json().to_owned()).collect())
    }

    #[test]
    fn ids_stay_as_they_came() {
        let list = ids(
            r#"{"Devices":[{"DeviceId":7},{"DeviceId":"7"},{"Kind":"x","DeviceId": 123456789012345678901234567890 },
                {"DeviceId":1.50e2},{"DeviceId":{"a": [1]}},{"DeviceId":"caf\u00e9"}]}"#,
        );
        let expected =
            ["7", "\"7\"", "123456789012345678901234567890", "1.50e2", "{\"a\": [1]}", "\"caf\\u00e9\""];
        assert_eq!(list.unwrap(), expected);
    }

    #[test]
    fn no_list_is_no_devices_and_nonsense_is_told() {
        assert!(devices(None).unwrap().is_empty());
        for empty in ["{}", r#"{"Devices":null}"#, r#"{"Devices":[]}"#, r#"{"devices":[{"DeviceId":1}]}"#] {
            assert_eq!(ids(empty).unwrap(), Vec::<String>::new(), "{empty}");
        }
        for wrong in ["7", "[]", r#"{"Devices":7}"#, r#"{"Devices":[7]}"#, r#"{"Devices":{}}"#] {
            assert_eq!(ids(wrong), Err(ListError::NoList), "{wrong}");
        }
        for wrong in [r#"{"Devices":[{}]}"#, r#"{"Devices":[{"DeviceId":null}]}"#] {
            assert_eq!(ids(wrong), Err(ListError::NoId), "{wrong}");
        }
    }

    #[test]
    fn a_person_names_a_device_by_its_number_or_its_text() {
        let id = |json: &str| DeviceId(raw(json));
        assert!(id("7").is_named("7") && id("\"7\"").is_named("7"));
        assert!(id("\"7\"").is_named("\"7\"") && !id("7").is_named("\"7\""));
        assert!(id("\"caf\\u00e9\"").is_named("café"));
        assert!(!id("7").is_named("7.0") && !id("\"can0\"").is_named("CAN0") && !id("7").is_named(""));
    }

    #[test]
    fn arguments_carry_the_id_as_it_came() {
        assert_eq!(DeviceId(raw("1.50e2")).arguments(&[]).get(), r#"{"DeviceId":1.50e2}"#);
        let arguments = DeviceId(raw("\"a\"")).arguments(&[("Topic", "x\"y")]);
        assert_eq!(arguments.get(), r#"{"DeviceId":"a","Topic":"x\"y"}"#);
        assert_eq!(members(None, &[("Topic", "*")]).get(), r#"{"Topic":"*"}"#);
    }
}
