//! Supply voltage and heat, as a single-board computer tells them.
//!
//! Owns the paths below `/sys` and the reading of what stands there. Relies on the folder that it is given, so that a test can
//! give another one. Never changes anything; a computer that does not tell is no fault.

use std::fs;
use std::path::Path;

/// Where the kernel tells of the machine.
pub const SYS: &str = "/sys";

/// The Raspberry Pi's firmware: a set of bits in hexadecimal.
const FIRMWARE: [&str; 2] = [
    "devices/platform/soc/soc:firmware/get_throttled",
    "devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled",
];

/// Bits of the firmware's answer (Raspberry Pi documentation, `vcgencmd get_throttled`): now, and 16 higher since the start.
const UNDERVOLTAGE: u32 = 1;
const CAPPED: u32 = 1 << 1;
const THROTTLED: u32 = 1 << 2;
const TOO_WARM: u32 = 1 << 3;
const SINCE_START: u32 = 16;

/// The name under which the Raspberry Pi's voltage stands among the sensors, and its alarm.
const SENSOR: &str = "rpi_volt";
const ALARM: &str = "in0_lcrit_alarm";

/// The processor is slowed down from here on a Raspberry Pi 3 to 5: 80 degrees, in thousandths.
pub const TOO_HOT_MILLI_C: i32 = 80_000;

/// Entries of a folder that are looked at: a small computer has a dozen sensors.
const ENTRIES: usize = 64;

/// What is known. Nothing where the computer does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Power {
    /// The supply is too low now.
    pub undervoltage: Option<bool>,
    /// The processor is slowed down now: capped, throttled or too warm.
    pub throttled: Option<bool>,
    /// Either of them has been since the computer was started.
    pub was_low: Option<bool>,
    /// The hottest sensor, in thousandths of a degree Celsius.
    pub temperature_milli_c: Option<i32>,
}

impl Power {
    /// Reads everything below `sys`.
    #[must_use]
    pub fn read(sys: &Path) -> Self {
        let bits = FIRMWARE.iter().find_map(|path| {
            let text = word(&sys.join(path))?;
            u32::from_str_radix(text.trim_start_matches("0x"), 16).ok()
        });
        let slow = CAPPED | THROTTLED | TOO_WARM;
        let ever = (UNDERVOLTAGE | slow) << SINCE_START;
        Self {
            undervoltage: bits.map(|bits| bits & UNDERVOLTAGE != 0).or_else(|| alarm(sys)),
            throttled: bits.map(|bits| bits & slow != 0),
            was_low: bits.map(|bits| bits & ever != 0),
            temperature_milli_c: hottest(sys),
        }
    }

    /// In a person's words what is wrong now; none where nothing is, or nothing is known.
    #[must_use]
    pub fn trouble(&self) -> Option<&'static str> {
        if self.undervoltage == Some(true) {
            return Some("undervoltage: the supply of this computer is too weak");
        }
        if self.throttled == Some(true) {
            return Some("the processor is slowed down: too hot, or its supply is too weak");
        }
        (self.temperature_milli_c? >= TOO_HOT_MILLI_C).then_some("this computer is too hot")
    }
}

/// What stands in a file of one line.
fn word(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The first sensors of a folder.
fn entries(folder: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    fs::read_dir(folder).into_iter().flatten().take(ENTRIES).filter_map(|entry| Some(entry.ok()?.path()))
}

fn alarm(sys: &Path) -> Option<bool> {
    let sensor =
        entries(&sys.join("class/hwmon")).find(|path| word(&path.join("name")).as_deref() == Some(SENSOR))?;
    word(&sensor.join(ALARM)).map(|text| text != "0")
}

fn hottest(sys: &Path) -> Option<i32> {
    entries(&sys.join("class/thermal"))
        .filter(|path| {
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"thermal_zone"))
        })
        .filter_map(|path| word(&path.join("temp"))?.parse().ok())
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that looks like `/sys`, removed at the end.
    struct Fake(std::path::PathBuf);

    impl Fake {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let path = std::env::temp_dir().join(format!("ocpcan-power-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            for (file, text) in files {
                let file = path.join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
            Self(path)
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn row_78_the_firmwares_bits_are_told_in_words() {
        let cases = [
            ("0", (Some(false), Some(false), Some(false)), None),
            ("50005", (Some(true), Some(true), Some(true)), Some("undervoltage")),
            ("0x50000", (Some(false), Some(false), Some(true)), None),
            ("2", (Some(false), Some(true), Some(false)), Some("slowed down")),
            ("80008", (Some(false), Some(true), Some(true)), Some("slowed down")),
            ("what", (None, None, None), None),
        ];
        for (text, want, trouble) in cases {
            let fake = Fake::new("firmware", &[(FIRMWARE[0], &format!("{text}\n"))]);
            let power = Power::read(&fake.0);
            assert_eq!((power.undervoltage, power.throttled, power.was_low), want, "{text}");
            match trouble {
                Some(word) => assert!(power.trouble().unwrap().contains(word), "{text}"),
                None => assert_eq!(power.trouble(), None, "{text}"),
            }
        }
    }

    #[test]
    fn row_78_the_voltage_sensor_and_the_hottest_zone_are_found_among_others() {
        let fake = Fake::new(
            "sensors",
            &[
                ("class/hwmon/hwmon0/name", "cpu_thermal\n"),
                ("class/hwmon/hwmon0/in0_lcrit_alarm", "0\n"),
                ("class/hwmon/hwmon1/name", "rpi_volt\n"),
                ("class/hwmon/hwmon1/in0_lcrit_alarm", "1\n"),
                ("class/thermal/thermal_zone0/temp", "48312\n"),
                ("class/thermal/thermal_zone1/temp", "81000\n"),
                ("class/thermal/cooling_device0/temp", "99000\n"),
            ],
        );
        let power = Power::read(&fake.0);
        assert_eq!(power.undervoltage, Some(true));
        assert_eq!(power.temperature_milli_c, Some(81_000));
        assert!(power.trouble().unwrap().contains("undervoltage"));
        assert!(Power { undervoltage: None, ..power }.trouble().unwrap().contains("hot"));
    }

    #[test]
    fn a_computer_that_does_not_tell_has_no_trouble() {
        let power = Power::read(Path::new("/nonexistent/sys"));
        assert_eq!((power, power.trouble()), (Power::default(), None));
    }
}
