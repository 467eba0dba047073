//! The decoder without a device: the layouts of real pads, lost events, and axes that have not spoken yet.

use super::*;

const SYN: (u16, u16, i32) = (EV_SYN, SYN_REPORT, 0);

/// A pad with these axes and every button.
fn pad(maker: u16, axes: &'static [(u16, Range)]) -> Decoder {
    let range = |code| axes.iter().find(|(known, _)| *known == code).map(|(_, range)| *range);
    Decoder::new(maker, |_| true, range).expect("a gamepad")
}

/// As the kernel's `xpad` reports one.
fn xbox() -> Decoder {
    const STICK: Range = (-32_768, 32_767);
    pad(
        0x045E,
        &[
            (ABS_X, STICK),
            (ABS_Y, STICK),
            (ABS_RX, STICK),
            (ABS_RY, STICK),
            (ABS_Z, (0, 255)),
            (ABS_RZ, (0, 1_023)),
            (ABS_HAT0X, (-1, 1)),
            (ABS_HAT0Y, (-1, 1)),
        ],
    )
}

/// Feeds one report and returns what it makes.
fn report(decoder: &mut Decoder, events: &[(u16, u16, i32)]) -> Controller {
    for (kind, code, value) in events {
        assert_eq!(decoder.event(*kind, *code, *value), Step::More);
    }
    match decoder.event(SYN.0, SYN.1, SYN.2) {
        Step::Report(controller) => controller,
        other => panic!("{other:?}"),
    }
}

fn axis(decoder: &mut Decoder, code: u16, value: i32) -> Controller {
    report(decoder, &[(EV_ABS, code, value)])
}

#[test]
fn an_untouched_pad_is_neutral() {
    assert_eq!(xbox().controller(), Controller::NEUTRAL);
    assert_eq!(report(&mut xbox(), &[]), Controller::NEUTRAL);
}

#[test]
fn sticks_reach_both_ends_exactly_and_rest_at_zero() {
    let mut decoder = xbox();
    let sticks = [(ABS_X, Axis::LeftX), (ABS_Y, Axis::LeftY), (ABS_RX, Axis::RightX), (ABS_RY, Axis::RightY)];
    for (code, stick) in sticks {
        assert_eq!(axis(&mut decoder, code, -32_768).axis(stick), -1.0, "up and left are negative");
        assert_eq!(axis(&mut decoder, code, 32_767).axis(stick), 1.0);
        assert_eq!(axis(&mut decoder, code, 16_384).axis(stick), 16_384.0 / 32_767.0);
        let centre = axis(&mut decoder, code, 0);
        assert_eq!(centre, Controller::NEUTRAL, "and no other axis moved");
        assert!(centre.axis(stick).is_sign_positive(), "no negative zero");
    }
    assert_eq!(axis(&mut decoder, ABS_X, i32::MIN).axis(Axis::LeftX), -1.0, "beyond the range");
    assert_eq!(axis(&mut decoder, ABS_X, i32::MAX).axis(Axis::LeftX), 1.0);
}

#[test]
fn triggers_go_from_minus_one_to_one() {
    let mut decoder = xbox();
    assert_eq!(axis(&mut decoder, ABS_Z, 255).axis(Axis::LeftTrigger), 1.0);
    assert_eq!(axis(&mut decoder, ABS_Z, 0).axis(Axis::LeftTrigger), -1.0);
    let right = axis(&mut decoder, ABS_RZ, 512).axis(Axis::RightTrigger);
    assert!((right - 0.001).abs() < 0.000_1, "{right}");
    // The buttons that some pads add change nothing.
    let both = report(&mut decoder, &[(EV_KEY, BTN_TL2, 1), (EV_KEY, BTN_TR2, 0)]);
    assert_eq!(both.axis(Axis::LeftTrigger), -1.0);
    assert_eq!(both.axis(Axis::RightTrigger), right);
}

#[test]
fn every_button_has_its_bit() {
    let mut decoder = xbox();
    let mut seen = 0;
    for (code, button) in BUTTONS.into_iter().chain([(0x133, Button::X), (0x134, Button::Y)]) {
        assert_eq!(report(&mut decoder, &[(EV_KEY, code, 1)]).buttons, button.mask(), "{code:#x}");
        assert_eq!(report(&mut decoder, &[(EV_KEY, code, 2)]).buttons, button.mask(), "repetition");
        assert_eq!(report(&mut decoder, &[(EV_KEY, code, 0)]).buttons, 0);
        seen |= button.mask();
    }
    assert_eq!(seen.count_ones() as usize, Button::COUNT);
    for code in [0, 0x2C0, u16::MAX] {
        assert_eq!(
            report(&mut decoder, &[(EV_KEY, code, 1), (EV_ABS, code | 0x20, 99)]),
            Controller::NEUTRAL
        );
    }
}

#[test]
fn x_is_left_and_y_is_up_whatever_the_driver_calls_them() {
    for (maker, x, y) in
        [(0x045E, 0x133, 0x134), (0, 0x133, 0x134), (0x054C, 0x134, 0x133), (0x057E, 0x134, 0x133)]
    {
        let mut decoder = pad(maker, &[(ABS_X, (0, 255)), (ABS_Y, (0, 255))]);
        assert!(report(&mut decoder, &[(EV_KEY, x, 1)]).pressed(Button::X), "{maker:#06x}");
        assert!(report(&mut decoder, &[(EV_KEY, x, 0), (EV_KEY, y, 1)]).pressed(Button::Y), "{maker:#06x}");
    }
}

#[test]
fn the_hat_and_the_pad_buttons_are_one_directional_pad() {
    let mut decoder = xbox();
    let at = |decoder: &mut Decoder, x, y| {
        report(decoder, &[(EV_ABS, ABS_HAT0X, x), (EV_ABS, ABS_HAT0Y, y)]).buttons
    };
    assert_eq!(at(&mut decoder, -1, 0), Button::DpadLeft.mask());
    assert_eq!(at(&mut decoder, 1, -1), Button::DpadRight.mask() | Button::DpadUp.mask());
    assert_eq!(at(&mut decoder, 0, 1), Button::DpadDown.mask());
    assert_eq!(
        report(&mut decoder, &[(EV_KEY, 0x220, 1)]).buttons,
        Button::DpadDown.mask() | Button::DpadUp.mask()
    );
    assert_eq!(at(&mut decoder, 0, 0), Button::DpadUp.mask(), "one lets go, the other holds");
}

#[test]
fn pads_of_other_layouts_are_read() {
    // Xbox over Bluetooth: the right stick where others have triggers, and triggers with names of pedals.
    let mut bluetooth = pad(
        0x045E,
        &[
            (ABS_X, (0, 65_535)),
            (ABS_Y, (0, 65_535)),
            (ABS_Z, (0, 65_535)),
            (ABS_RZ, (0, 65_535)),
            (ABS_BRAKE, (0, 1_023)),
            (ABS_GAS, (0, 1_023)),
        ],
    );
    let held = report(
        &mut bluetooth,
        &[(EV_ABS, ABS_Z, 65_535), (EV_ABS, ABS_RZ, 0), (EV_ABS, ABS_BRAKE, 1_023), (EV_ABS, ABS_X, 32_768)],
    );
    assert_eq!(held.axes, [0.0, 0.0, 1.0, -1.0, 1.0, -1.0]);
    // No analogue trigger: its buttons are 0 % and 100 %.
    let mut switch = pad(0x057E, &[(ABS_X, (-9, 9)), (ABS_Y, (-9, 9)), (ABS_RX, (-9, 9)), (ABS_RY, (-9, 9))]);
    assert_eq!(switch.controller(), Controller::NEUTRAL);
    assert_eq!(report(&mut switch, &[(EV_KEY, BTN_TR2, 1)]).axes[4..], [-1.0, 1.0]);
    assert_eq!(report(&mut switch, &[(EV_KEY, BTN_TR2, 0)]), Controller::NEUTRAL);
    // One stick and no trigger at all.
    let mut small = pad(0, &[(ABS_X, (0, 2)), (ABS_Y, (0, 2))]);
    assert_eq!(axis(&mut small, ABS_X, 0).axes, [-1.0, 0.0, 0.0, 0.0, -1.0, -1.0]);
}

#[test]
fn what_is_no_gamepad_is_not_taken_for_one() {
    let stick = |code| (code < 2).then_some((0, 255));
    assert!(Decoder::new(0, |code| code == BTN_SOUTH, stick).is_some());
    assert!(
        Decoder::new(0, |code| code != BTN_SOUTH, stick).is_none(),
        "a mouse, a keyboard, motion sensors"
    );
    assert!(Decoder::new(0, |_| true, |_| None).is_none(), "no stick");
    for range in [(0, 0), (5, 5), (7, -7), (0, 1), (i32::MAX, i32::MIN)] {
        assert!(Decoder::new(0, |_| true, |code| (code < 2).then_some(range)).is_none(), "{range:?}");
    }
    // Half a pair is none.
    let mut odd = pad(0, &[(ABS_X, (0, 4)), (ABS_Y, (0, 4)), (ABS_RX, (0, 4)), (ABS_Z, (0, 4))]);
    assert_eq!(report(&mut odd, &[(EV_ABS, ABS_RX, 4), (EV_ABS, ABS_Z, 4)]), Controller::NEUTRAL);
}

#[test]
fn after_lost_events_nothing_is_believed_until_all_is_read_again() {
    let mut decoder = xbox();
    report(&mut decoder, &[(EV_KEY, BTN_SOUTH, 1), (EV_ABS, ABS_X, 32_767)]);
    assert_eq!(decoder.event(EV_SYN, SYN_DROPPED, 0), Step::More);
    // The end of a report whose beginning is lost.
    assert_eq!(decoder.event(EV_ABS, ABS_Y, 32_767), Step::More);
    assert_eq!(decoder.event(EV_KEY, 0x131, 1), Step::More);
    assert_eq!(decoder.event(SYN.0, SYN.1, SYN.2), Step::Reread);
    for code in Decoder::keys() {
        decoder.key(code, code == 0x131);
    }
    let codes: Vec<u16> = decoder.axes().collect();
    assert_eq!(codes.len(), 8);
    for code in codes {
        decoder.stored_axis(code, if code == ABS_RY { -32_768 } else { 0 });
    }
    let held = decoder.controller();
    assert_eq!(held.buttons, Button::B.mask(), "the released button is released");
    assert_eq!(held.axes, [0.0, 0.0, 0.0, -1.0, -1.0, -1.0]);
    assert_eq!(report(&mut decoder, &[]), held, "and events count again");
}

#[test]
fn an_axis_that_has_not_spoken_is_untouched_and_not_at_its_end() {
    let axes = &[
        (ABS_X, (0, 255)),
        (ABS_Y, (0, 255)),
        (ABS_RX, (0, 255)),
        (ABS_RY, (0, 255)),
        (ABS_Z, (-128, 127)),
        (ABS_RZ, (-128, 127)),
    ];
    let mut decoder = pad(0x054C, axes);
    // As the kernel has it before the first report of the pad: 0 everywhere, which is left, up and half pressed.
    for code in [ABS_X, ABS_Y, ABS_RX, ABS_Z, ABS_RZ] {
        decoder.stored_axis(code, 0);
    }
    decoder.stored_axis(ABS_RY, 255);
    assert_eq!(decoder.controller().axes, [0.0, 0.0, 0.0, 1.0, -1.0, -1.0]);
    // Once it has spoken, 0 is 0.
    assert_eq!(axis(&mut decoder, ABS_X, 0).axis(Axis::LeftX), -1.0);
    let trigger = axis(&mut decoder, ABS_Z, 0).axis(Axis::LeftTrigger);
    assert!((trigger - 1.0 / 255.0).abs() < 1e-9, "{trigger}");
    decoder.stored_axis(ABS_X, 0);
    assert_eq!(decoder.controller().axis(Axis::LeftX), -1.0);
}

proptest::proptest! {
    #[test]
    fn any_events_give_a_controller_within_its_bounds(
        ranges in proptest::collection::vec(proptest::prelude::any::<Range>(), 0x20),
        maker in proptest::sample::select(vec![0_u16, 0x045E, 0x054C]),
        events in proptest::collection::vec((0_u16..5, 0_u16..0x230, proptest::prelude::any::<i32>()), 0..60),
    ) {
        let Some(mut decoder) =
            Decoder::new(maker, |_| true, |code| ranges.get(usize::from(code)).copied())
        else {
            return Ok(());
        };
        for (kind, code, value) in events {
            // Half of the codes are such that matter.
            let code = if code > 0x20 && code < 0x130 { code % 6 } else { code };
            decoder.event(kind, code, value);
            decoder.stored_axis(code, value);
            let held = decoder.controller();
            for at in held.axes {
                proptest::prop_assert!((-1.0..=1.0).contains(&at), "{at}");
                proptest::prop_assert!(at != 0.0 || at.is_sign_positive(), "negative zero");
                proptest::prop_assert!(!at.is_subnormal(), "{at:e}");
            }
            proptest::prop_assert!(held.buttons < 1 << Button::COUNT);
        }
    }
}
